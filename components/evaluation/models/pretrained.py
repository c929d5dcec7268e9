"""Forwards to the one opener of pretrained models."""

from components.runtime.artifacts.pretrained import open_model

__all__ = ["open_model"]
