"""Where generated works come from."""
