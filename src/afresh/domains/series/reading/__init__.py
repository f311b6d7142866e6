"""From tables to series of equal steps."""
