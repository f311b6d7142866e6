"""Kernels for decoders on a processor, compiled when they are first used."""
