"""Teaching a subject to an open model."""
