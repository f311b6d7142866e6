"""Gathering data sets: sources are read, their items cleaned, duplicates found, and what was taken is recorded."""
