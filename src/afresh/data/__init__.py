"""Reading, splitting, encoding and loading; what several modalities share."""
