"""Diversity on clips whose distances are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from components.evaluation.comparison.diversity import diversity


def grey(*levels: int) -> torch.Tensor:
    return torch.stack([torch.full((3, 3, 32, 32), level, dtype=torch.uint8) for level in levels])


def test_between_the_videos_of_a_prompt() -> None:
    found, compared = diversity(grey(0, 51, 200, 255), ["a", "a", "b", "b"])
    assert compared == "seeds of one prompt"
    assert found == pytest.approx([0.2, 0.2, 55 / 255, 55 / 255])


def test_between_prompts_with_one_video_each() -> None:
    found, compared = diversity(grey(0, 51, 255), ["a", "b", "c"])
    assert compared == "prompts"
    assert found == pytest.approx([(0.2 + 1) / 2, (0.2 + 0.8) / 2, (1 + 0.8) / 2])


def test_grain_does_not_pass_for_variety() -> None:
    rng = np.random.default_rng(0)
    grain = torch.from_numpy(rng.integers(100, 156, (2, 3, 3, 64, 64), dtype=np.uint8))
    assert diversity(grain, ["a", "a"])[0].max() < 0.03


def test_one_clip_has_nothing_to_compare_with() -> None:
    assert np.isnan(diversity(grey(3), ["a"])[0]).all()
