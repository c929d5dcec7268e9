"""The video-quality reward: distort clips, learn the order of the damage, score any clip.

Public face: `Scorer` scores clips with a trained reward. Resolved on first use, so that importing the package
(for its params, or for `--help`) does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from components.reward.scoring.trained import Scorer

__all__ = ["Scorer"]


def __getattr__(name: str) -> Any:
    if name == "Scorer":
        from components.reward.scoring.trained import Scorer

        return Scorer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
