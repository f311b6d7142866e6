"""Networks, families, samplers, training, evaluation and alignment. Nothing here knows a kind of data."""
