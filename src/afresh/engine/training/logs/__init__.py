"""Curves and samples of a training in other programs: one file a library, each a `RunLog`."""
