"""What every page has in common: one renderer of templates, and one set of colours, fonts and sizes."""
