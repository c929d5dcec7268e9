"""Quality dimensions that need weights, with the real classes at a tiny size, against their definitions.

The definition is computed slowly and in float64 (`literal`).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from components.evaluation.dimensions.base import Video, VideoScore
from components.evaluation.dimensions.catalogue import catalogue
from components.evaluation.dimensions.motion import DYNAMIC_SHARE, STATIC_SHARE, _lengths
from components.evaluation.models import ModelStore
from components.evaluation.models.musiq import Musiq
from tests.evaluation import literal, literal_models
from tests.evaluation.dimensions.weighted import (
    DINO_MEAN,
    DINO_STD,
    clip_pixels,
    frames,
    levels,
    outcome,
    value,
    with_weights,
)
from tests.evaluation.literal_models import double
from tests.evaluation.tiny_weights import musiq_tensors


def test_subject_consistency(store: ModelStore, tiny_weights: Path) -> None:
    from transformers import ViTModel

    model = double(ViTModel, tiny_weights / "dino", add_pooling_layer=False)
    model.embeddings.interpolate_pos_encoding = lambda tokens, height, width: literal.dino_positions(
        model, height // 32, width // 32
    )
    features = []
    for frame in levels():
        small = literal.to_shorter(frame, 224, lambda old, new: literal.plain_weights(old, new, "bilinear"))
        pixels = literal.scaled(small / 255, DINO_MEAN, DINO_STD)
        assert pixels.shape == (1, 3, 224, 313)
        features.append(literal.unit(model(pixels, interpolate_pos_encoding=True).last_hidden_state[0, 0]))
    found = outcome("subject_consistency", store)
    assert found.value == pytest.approx(literal.consistency(features), abs=1e-5)
    assert found.weight == 4
    assert found.value < 0.995  # otherwise it would hardly depend on the features


def test_background_consistency(store: ModelStore, tiny_weights: Path) -> None:
    from transformers import CLIPModel

    model = double(CLIPModel, tiny_weights / "clip-b32")
    features = [
        literal.unit(model.get_image_features(pixel_values=clip_pixels(frame, 32)).pooler_output)
        for frame in levels()
    ]
    assert value("background_consistency", store) == pytest.approx(literal.consistency(features), abs=1e-5)


def test_aesthetic_quality(store: ModelStore, tiny_weights: Path) -> None:
    from transformers import CLIPModel

    model = double(CLIPModel, tiny_weights / "clip-l14")
    head = load_file(tiny_weights / "aesthetic" / "model.safetensors")
    weight, bias = head["weight"].double().numpy()[0], float(head["bias"])
    scores = [
        float(
            literal.unit(model.get_image_features(pixel_values=clip_pixels(frame, 32)).pooler_output) @ weight
        )
        + bias
        for frame in levels()
    ]
    assert value("aesthetic_quality", store) == pytest.approx(sum(scores) / 5 / 10, abs=1e-5)
    assert max(scores) - min(scores) > 0.01


@pytest.mark.parametrize("compat", [False, True])
@pytest.mark.parametrize("size", [(40, 56), (26, 600)])
def test_imaging_quality(store: ModelStore, tiny_weights: Path, size: tuple[int, int], compat: bool) -> None:
    """600 px are more than the 512 that are looked at."""
    shown = frames(3, *size)[1:]
    scores = []
    for frame in shown.numpy().astype(np.float64):
        if max(size) > 512:
            new = [int(512 / max(size) * side) for side in size]
            weights = [literal.plain_weights(old, to, "bilinear") for old, to in zip(size, new, strict=True)]
            frame = literal.resized(frame, *weights)
        scores.append(literal_models.musiq(frame / 255, tiny_weights / "musiq", ported=compat))
    found = with_weights("imaging_quality").of(Video(shown, 8.0), store, compat)
    assert isinstance(found, VideoScore)
    assert found.value == pytest.approx(sum(scores) / 2 / 100, abs=1e-5)
    assert abs(scores[0] - scores[1]) > 1e-3


@pytest.mark.parametrize(
    ("size", "theirs"),
    [
        ((40, 56), -0.17560473084449768),
        ((120, 300), 0.1204950362443924),
        ((200, 150), 1.4606271982192993),
        ((512, 288), 0.9168094992637634),
    ],
)
def test_the_published_imaging_quality_is_pyiqas(size: tuple[int, int], theirs: float) -> None:
    """Scores that pyiqa 0.1.16's own MUSIQ (0.1.10's as well) gave with these weights, on these pictures."""
    tensors = {}
    for place, (name, like) in enumerate(sorted(musiq_tensors(24, 3, 2, 32, 64).items())):
        wave = 0.3 * torch.sin(1.7 * torch.arange(like.numel(), dtype=torch.float64) + place)
        tensors[name] = (wave.reshape(like.shape) + float(name.endswith("scale"))).float()
    y, x = np.mgrid[: size[0], : size[1]]
    picture = [
        0.5 + 0.4 * np.sin(0.31 * x + 0.17 * y * c) * np.cos(0.011 * x * y / (c + 1)) for c in (1, 2, 3)
    ]
    shown = torch.from_numpy(np.stack(picture))[None].float()
    assert float(Musiq(tensors).scores(shown, ported=True)) == pytest.approx(theirs, abs=5e-5)
    assert abs(float(Musiq(tensors).scores(shown)) - theirs) > 0.04


def flows(folder: Path, first: torch.Tensor, second: torch.Tensor) -> list[literal.Array]:
    """Of each pair alone, in float64."""
    pairs = zip(first.numpy().astype(np.float64), second.numpy().astype(np.float64), strict=True)
    return [literal_models.raft(one, other, folder / "raft") for one, other in pairs]


def test_the_flow_itself(store: ModelStore, tiny_weights: Path) -> None:
    shown = frames(2)
    found = store.open("raft").flow(shown[:1], shown[1:])[0].numpy()
    assert found == pytest.approx(flows(tiny_weights, shown[:1], shown[1:])[0], abs=1e-5)
    assert np.abs(found).max() > 0.1


def test_dynamic_degree(store: ModelStore, tiny_weights: Path) -> None:
    shown = frames(5)
    expected = [literal.fastest(flow, 0.05) for flow in flows(tiny_weights, shown[:-1], shown[1:])]
    lengths = _lengths(store.open("raft"), shown[:-1], shown[1:], DYNAMIC_SHARE)
    assert lengths == pytest.approx(expected, abs=1e-5)
    threshold = 6.0 * 40 / 256
    moving = sum(length > threshold for length in expected)
    assert value("dynamic_degree", store) == float(moving >= round(4 * 5 / 16))


def test_the_published_dynamic_degree_counts_raft_s_padding(store: ModelStore, tiny_weights: Path) -> None:
    """132 rows become 136; VBench takes the fastest 5 % of all of them."""
    one, other = frames(2, 132, 128)
    pair = [frame.numpy().astype(np.float64) for frame in (one, other)]
    whole = literal_models.raft(*pair, tiny_weights / "raft", padded=True)
    assert whole.shape == (2, 136, 128)
    expected = literal.fastest(whole, 0.05)
    raft = store.open("raft")
    assert _lengths(raft, one[None], other[None], DYNAMIC_SHARE, border=True) == pytest.approx(
        [expected], abs=1e-4
    )
    ours = literal.fastest(whole[:, 2:-2], 0.05)
    assert _lengths(raft, one[None], other[None], DYNAMIC_SHARE) == pytest.approx([ours], abs=1e-4)
    assert abs(ours - expected) > 1e-3


@pytest.mark.parametrize(
    ("number", "fps", "ours", "published"),
    [
        (2, 8.0, 0.0, 1.0),  # round(4 x 2 / 16) = 0 steps are enough
        (3, 8.0, 0.0, 0.0),  # 1 of 2
        (2, 16.0, 0.0, 0.0),  # one frame in 1/8 s: no step to decide after
    ],
)
def test_two_still_frames_are_dynamic_as_published(
    store: ModelStore, number: int, fps: float, ours: float, published: float
) -> None:
    still = Video(torch.full((number, 3, 40, 56), 90, dtype=torch.uint8), fps)
    for compat, wanted in ((False, ours), (True, published)):
        found = with_weights("dynamic_degree").of(still, store, compat)
        assert isinstance(found, VideoScore)
        assert found.value == wanted


def test_a_variant_of_ours_has_the_published_one_beside_it() -> None:
    for providers in catalogue().values():
        for one in providers:
            assert bool(one.variant) == bool(one.compat or one.keep), one.name


def test_the_static_filter(store: ModelStore, tiny_weights: Path) -> None:
    shown = frames(4)
    pairs = [(0, 1), (1, 2), (2, 3), (0, 3), (3, 0)]
    first, second = (shown[list(side)] for side in zip(*pairs, strict=True))
    expected = [literal.fastest(flow, 0.02) for flow in flows(tiny_weights, first, second)]
    allowed, threshold = round(2 * 4 / 16), 3.0 * 40 / 256
    static = sum(one > threshold for one in expected[:3]) <= allowed
    static = static and all(one <= threshold * allowed * 2 for one in expected[3:])
    lengths = _lengths(store.open("raft"), first, second, STATIC_SHARE)
    assert lengths == pytest.approx(expected, abs=1e-5)
    found = catalogue()["temporal_flickering"][0].of(Video(shown, 8.0), store, compat=True)
    assert isinstance(found, VideoScore)
    assert found.details["static"] is static


def test_motion_smoothness(store: ModelStore, tiny_weights: Path) -> None:
    shown = frames(5)
    real = shown.numpy() / 255.0
    guesses = [
        literal.half_way(real[t], real[t + 2], flow)
        for t, flow in zip((0, 2), flows(tiny_weights, shown[0:3:2], shown[2:5:2]), strict=True)
    ]
    errors = [np.abs(guess - real[t]).mean() for t, guess in zip((1, 3), guesses, strict=True)]
    assert value("motion_smoothness", store) == pytest.approx(1 - np.mean(errors), abs=1e-5)
