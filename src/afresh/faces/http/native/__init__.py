"""What runs can do beyond OpenAI's API, under /afresh/v1: every verb with all that can be asked of it."""
