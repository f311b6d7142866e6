"""Kinds of data, one folder each, with all that only they need. The engine finds them by their record `PLUGIN`."""
