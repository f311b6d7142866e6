"""Tables of mixed columns."""
