"""Pages that are served to a browser."""
