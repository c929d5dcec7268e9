"""Versions in the MLflow registry: package, card, provenance, store."""
