"""From a profile to a compiled pipeline."""
