"""Pages are fetched as their publishers wish, and never from a private network."""
