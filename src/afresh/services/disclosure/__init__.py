"""Labels that people see or hear: that a work was made by AI."""
