"""Semantic dimensions that need weights, with the real classes at a tiny size, against their definitions.

The definition is computed slowly and in float64 (`literal`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from components.evaluation.dimensions.catalogue import catalogue
from components.evaluation.models import ModelStore
from tests.evaluation import literal, literal_models
from tests.evaluation.dimensions import test_weighted_quality
from tests.evaluation.dimensions.weighted import (
    CLIP_MEAN,
    CLIP_STD,
    NAMES,
    frames,
    left_out,
    levels,
    outcome,
    value,
)
from tests.evaluation.literal_models import captions, double
from tests.evaluation.tiny_weights import ACTIONS


def found_in(folder: Path) -> list[list[tuple[float, str, list[float]]]]:
    """The objects of each of the five frames."""
    return literal_models.detections(folder, levels(), NAMES)


def in_sixteen(by_frame: list[Any]) -> list[Any]:
    """What was found in five frames, for the sixteen that are looked at."""
    return [by_frame[place] for place in literal.sixteen(5)]


def test_object_class_and_multiple_objects(store: ModelStore, tiny_weights: Path) -> None:
    seen = [{name for _, name, _ in found} for found in in_sixteen(found_in(tiny_weights))]
    shares = set()
    for name in NAMES:
        share = sum(name in names for names in seen) / 16
        assert value("object_class", store, object=name) == pytest.approx(share, abs=1e-12)
        shares.add(share)
        for other in NAMES:
            both = sum(name in names and other in names for names in seen) / 16
            if name < other:
                found = value("multiple_objects", store, object=f"{name} and {other}")
                assert found == pytest.approx(both, abs=1e-12)
    assert len(shares) > 1


def test_an_object_the_detector_has_no_name_for_is_left_out(store: ModelStore) -> None:
    assert left_out("object_class", store, object="unicorn") == "the detector has no class for unicorn"
    assert "unicorn" in left_out("multiple_objects", store, object="car and unicorn")


@pytest.mark.parametrize(
    "relation", ["on the left of", "on the right of", "on the top of", "on the bottom of"]
)
def test_spatial_relationship(store: ModelStore, tiny_weights: Path, relation: str) -> None:
    names = NAMES[0], NAMES[2]
    best = []
    for found in in_sixteen(found_in(tiny_weights)):
        boxes = [box for _, name, box in found if name in names]
        scores = [0.0]
        for place, a in enumerate(boxes):
            for b in boxes[place + 1 :]:
                dx, dy = abs(a[0] + a[2] - b[0] - b[2]) / 2, abs(a[1] + a[3] - b[1] - b[3]) / 2
                inside = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
                areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
                iou = inside / (areas - inside)
                right = dx > dy if relation in ("on the left of", "on the right of") else dy > dx
                scores.append((1.0 if iou < 0.1 else 0.1 / iou) if right else 0.0)
        best.append(max(scores))
    nested = {"object_a": names[0], "object_b": names[1], "relationship": relation}
    found = outcome("spatial_relationship", store, spatial_relationship=nested)
    assert found.value == pytest.approx(sum(best) / 16, abs=1e-5)
    assert found.details["frame_results"] == pytest.approx(best, abs=1e-4)


def test_scene(store: ModelStore, tiny_weights: Path) -> None:
    said = in_sixteen(captions(tiny_weights, levels()))
    shares = set()
    for words in ("beach", "the park", "alley", "red car", "sky", "covered with", "bicycle", "green"):
        share = sum(all(word in sentence for word in words.split()) for sentence in said) / 16
        assert value("scene", store, scene={"scene": words}) == pytest.approx(share, abs=1e-12), words
        shares.add(share)
    assert len(shares) > 1


@pytest.mark.parametrize("compat", [False, True])
def test_color(store: ModelStore, tiny_weights: Path, compat: bool) -> None:
    colours = ["red", "blue", "green"]
    values = set()
    for name in ("car",):
        by_frame = []
        for frame, found in zip(levels(), found_in(tiny_weights), strict=True):
            if compat:
                boxes = [box for _, _, box in found] if found and found[0][1] == name else []
            else:
                boxes = [box for _, other, box in found if other == name]
            crops = [
                frame[:, int(max(b[1], 0)) : int(min(b[3], 40)), int(max(b[0], 0)) : int(min(b[2], 56))]
                for b in boxes
            ]
            by_frame.append(captions(tiny_weights, crops))
        said = in_sixteen(by_frame)
        for colour in colours:

            def has(sentence: str, word: str) -> bool:
                return word in (sentence if compat else sentence.split())

            named = [any(has(one, word) for one in frame for word in colours) for frame in said]
            right = [any(has(one, colour) for one in frame) for frame in said]
            prompt = f"a {colour} {name}"
            if compat and not any(named):
                assert "no colour is said" in left_out("color", store, compat, prompt, color=colour)
                continue
            share = sum(right) / sum(named) if any(named) else 0.0
            assert value("color", store, compat, prompt, color=colour) == pytest.approx(share, abs=1e-12)
            values.add(share)
    assert len(values) > 1


def test_human_action(store: ModelStore, tiny_weights: Path) -> None:
    from transformers import VivitForVideoClassification

    model = double(VivitForVideoClassification, tiny_weights / "action")
    settings = json.loads((tiny_weights / "action" / "preprocessor_config.json").read_text())
    shown = [literal.prepared(levels()[place], settings) for place in literal.sixteen(5, 8)]
    logits = model(pixel_values=torch.from_numpy(np.stack(shown))[None]).logits[0].tolist()
    chances = {name: 1 / (1 + np.exp(-logit)) for name, logit in zip(ACTIONS, logits, strict=True)}
    likeliest = sorted(chances, key=lambda name: -chances[name])[:5]
    shown_ones = {name for name in likeliest if round(chances[name], 4) >= 0.85}
    assert 0 < len(shown_ones) < len(ACTIONS)
    for name in ACTIONS:
        for compat in (False, True):
            found = value("human_action", store, compat, prompt=f"A person is {name}")
            assert found == float(name in shown_ones), name
    assert "flying to the moon" in left_out("human_action", store, prompt="A person is flying to the moon")


def test_appearance_style(store: ModelStore, tiny_weights: Path) -> None:
    from transformers import CLIPModel, CLIPTokenizer

    model = double(CLIPModel, tiny_weights / "clip-b32")
    tokens = CLIPTokenizer.from_pretrained(tiny_weights / "clip-b32")(["oil painting"], return_tensors="pt")
    text = literal.unit(model.get_text_features(**tokens).pooler_output)
    scores = []
    for frame in frames().permute(0, 2, 3, 1).numpy():
        small = np.asarray(Image.fromarray(frame).resize((44, 32), Image.Resampling.BICUBIC))
        pixels = literal.middle_square(small.transpose(2, 0, 1).astype(np.float64), 32)
        image = model.get_image_features(pixel_values=literal.scaled(pixels / 255, CLIP_MEAN, CLIP_STD))
        logit = float(model.logit_scale.exp()) * float(literal.unit(image.pooler_output) @ text)
        scores.append(logit / 100)
    found = outcome("appearance_style", store, appearance_style={"appearance_style": "oil painting"})
    assert found.value == pytest.approx(np.mean(scores), abs=1e-5)
    assert found.details["frame_results"] == pytest.approx(scores, abs=1e-5)
    assert found.weight == 5


@pytest.mark.parametrize("name", ["temporal_style", "overall_consistency"])
def test_agreement_of_video_and_text(store: ModelStore, tiny_weights: Path, name: str) -> None:
    from transformers import AutoTokenizer, VideoPrismClipModel

    folder = tiny_weights / "video-text"
    model = double(VideoPrismClipModel, folder)
    settings = json.loads((folder / "video_preprocessor_config.json").read_text())
    shown = [literal.prepared(levels()[place], settings) for place in literal.sixteen(5, 8)]
    video = literal.unit(
        model.get_video_features(pixel_values_videos=torch.from_numpy(np.stack(shown))[None]).pooler_output
    )
    found = []
    for prompt in ("a cat, in slow motion", "zoom in"):
        tokens = AutoTokenizer.from_pretrained(folder)(
            [prompt], padding="max_length", max_length=16, truncation=True
        )
        text = model.get_text_features(
            input_ids=torch.tensor(tokens["input_ids"]), attention_mask=torch.tensor(tokens["attention_mask"])
        )
        found.append(float(video @ literal.unit(text.pooler_output)))
        assert value(name, store, prompt=prompt) == pytest.approx(found[-1], abs=1e-5)
    assert abs(found[0] - found[1]) > 1e-3


def test_every_dimension_with_weights_is_tested_here() -> None:
    names = {one.name for providers in catalogue().values() for one in providers if one.needs == "weights"}
    modules = vars(test_weighted_quality) | globals()
    tested = "\n".join(name for name in modules if name.startswith("test_"))
    others = {
        "temporal_style": "agreement_of_video_and_text",
        "overall_consistency": "agreement_of_video_and_text",
    }
    assert all(others.get(name, name) in tested for name in names)
