"""Solvers, guidance, decoding, editing and constraints; requests and samples."""
