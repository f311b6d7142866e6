"""Aligners: objectives and streams of batches for the training loop, and their losses."""
