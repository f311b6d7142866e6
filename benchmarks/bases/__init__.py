"""Public weights."""
