"""Pretrained vision models behind a reward.

Public face: `fetch` finds one by hub id, folder or s3:// prefix; `Backbone.load` makes a network of it.
"""

from components.reward.model.backbone import KINDS, Backbone, precision
from components.runtime.artifacts.pretrained import fetch

__all__ = ["KINDS", "Backbone", "fetch", "precision"]
