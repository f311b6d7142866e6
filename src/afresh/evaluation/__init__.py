"""Metrics with intervals, protocol cards, reports, judges and the sandbox for programs."""
