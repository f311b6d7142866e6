"""Molecules: reading, writing as tokens, depicting, and what RDKit computes of them."""
