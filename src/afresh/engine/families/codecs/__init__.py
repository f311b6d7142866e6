"""Codecs between spaces: a palette of colours, and trained autoencoders."""
