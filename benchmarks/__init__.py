"""Measurements of afresh beside other programs, by subject: `python -m benchmarks`."""
