"""A run: its folder, its weights, its record, and what it was made from."""
