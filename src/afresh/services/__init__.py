"""What stands beside training: gathering data, provenance, sharing, the demonstration."""
