"""Physical fields."""
