"""Artifacts: published atomically, checked when opened."""
