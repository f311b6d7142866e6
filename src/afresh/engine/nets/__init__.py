"""Networks, without losses: they know spaces and conditions, not families."""
