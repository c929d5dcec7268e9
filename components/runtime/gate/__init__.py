"""Gate rules, and the one file of thresholds."""
