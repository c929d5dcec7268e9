"""Distortion ladders: sources, severity levels, shards, batches."""
