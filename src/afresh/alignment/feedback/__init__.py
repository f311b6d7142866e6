"""Votes: collecting, reading, ranking and summing up what people prefer."""
