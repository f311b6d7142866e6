"""Metrics with intervals, protocol cards, reports and judges."""
