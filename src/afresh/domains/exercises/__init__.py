"""Logs of answers to exercises: who answered what, when, and whether it was right."""
