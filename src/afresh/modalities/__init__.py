"""Kinds of data, one file each: from files to examples of a space, and back."""
