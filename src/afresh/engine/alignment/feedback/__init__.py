"""Votes of people on pairs of items: collecting, reading, ranking and summarising them."""
