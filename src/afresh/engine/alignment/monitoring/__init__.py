"""What tells whether an aligned model is healthy: statistics, alarms, the report."""
