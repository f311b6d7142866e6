"""Tables: one reader of their rows, the roles of their columns, and their numbers and times."""
