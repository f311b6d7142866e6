"""Kinds of generative models, one file each: networks, objective and sampling."""
