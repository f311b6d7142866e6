"""Models of a column of numbers: what an unmeasured item would measure, and how far to trust that."""
