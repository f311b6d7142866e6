"""afresh: a person's own data into a generative model, on that person's own machine."""

__version__ = "0.1.0"
