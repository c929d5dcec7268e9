"""Every dimension that needs weights, with the real model classes at a tiny size, against its definition.

The definition is worked out slowly and in float64 (`literal`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from components.evaluation.dimensions.base import Dimension, LeftOut, Outcome, Video
from components.evaluation.dimensions.catalogue import catalogue
from components.evaluation.dimensions.motion import DYNAMIC_SHARE, STATIC_SHARE, _lengths
from components.evaluation.models import Shelf
from components.evaluation.models.musiq import Musiq
from tests.evaluation import literal, literal_models
from tests.evaluation.literal_models import captions, double
from tests.evaluation.tiny_weights import ACTIONS, OBJECTS, musiq_tensors

CLIP_MEAN, CLIP_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
DINO_MEAN, DINO_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
#: As COCO, and so the suite, calls them; the detector's own names are Pascal's.
NAMES = [{"motorbike": "motorcycle", "sofa": "couch"}.get(name, name) for name in OBJECTS]


def frames(number: int = 5, height: int = 40, width: int = 56, seed: int = 0) -> torch.Tensor:
    """Blobs that wander, and a flash: neighbouring frames are alike, but not too much."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    shown = []
    for t in range(number):
        picture = np.zeros((3, height, width))
        for blob in range(4):
            at = np.array([height, width]) * (0.2 + 0.2 * blob) + np.array([1.5, -2.0]) * t * (blob + 1)
            picture[blob % 3] += 200 * np.exp(-((y - at[0]) ** 2 + (x - at[1]) ** 2) / 60)
        picture += rng.normal(0, 12, picture.shape) + (60 if t == 3 else 20)
        shown.append(np.clip(picture, 0, 255))
    return torch.from_numpy(np.stack(shown).astype(np.uint8))


@pytest.fixture
def shelf(tiny_weights: Path) -> Shelf:
    return Shelf(str(tiny_weights))


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def with_weights(name: str) -> Dimension:
    return next(one for one in catalogue()[name] if one.needs == "weights")


def value(name: str, shelf: Shelf, compat: bool = False, prompt: str = "", **facts: Any) -> float:
    return outcome(name, shelf, compat, prompt, **facts).value


def outcome(name: str, shelf: Shelf, compat: bool = False, prompt: str = "", **facts: Any) -> Outcome:
    found = either(name, shelf, compat, prompt, **facts)
    assert isinstance(found, Outcome)
    return found


def left_out(name: str, shelf: Shelf, compat: bool = False, prompt: str = "", **facts: Any) -> str:
    found = either(name, shelf, compat, prompt, **facts)
    assert isinstance(found, LeftOut)
    return found.reason


def either(
    name: str, shelf: Shelf, compat: bool = False, prompt: str = "", **facts: Any
) -> Outcome | LeftOut:
    video = Video(frames(), 8.0, prompt, {name: facts}, name=f"{prompt}-0.mp4")
    return with_weights(name).of(video, shelf, compat)


def levels() -> list[literal.Array]:
    return list(frames().numpy().astype(np.float64))


def clip_pixels(frame: literal.Array, side: int) -> torch.Tensor:
    small = literal.to_shorter(frame, side, lambda old, new: literal.plain_weights(old, new, "bicubic"))
    return literal.scaled(literal.middle_square(small, side) / 255, CLIP_MEAN, CLIP_STD)


def test_subject_consistency(shelf: Shelf, tiny_weights: Path) -> None:
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
    found = outcome("subject_consistency", shelf)
    assert found.value == pytest.approx(literal.consistency(features), abs=1e-5)
    assert found.weight == 4
    assert found.value < 0.995  # otherwise it would hardly depend on the features


def test_background_consistency(shelf: Shelf, tiny_weights: Path) -> None:
    from transformers import CLIPModel

    model = double(CLIPModel, tiny_weights / "clip-b32")
    features = [
        literal.unit(model.get_image_features(pixel_values=clip_pixels(frame, 32)).pooler_output)
        for frame in levels()
    ]
    assert value("background_consistency", shelf) == pytest.approx(literal.consistency(features), abs=1e-5)


def test_aesthetic_quality(shelf: Shelf, tiny_weights: Path) -> None:
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
    assert value("aesthetic_quality", shelf) == pytest.approx(sum(scores) / 5 / 10, abs=1e-5)
    assert max(scores) - min(scores) > 0.01


@pytest.mark.parametrize("compat", [False, True])
@pytest.mark.parametrize("size", [(40, 56), (26, 600)])
def test_imaging_quality(shelf: Shelf, tiny_weights: Path, size: tuple[int, int], compat: bool) -> None:
    """600 px are more than the 512 that are looked at."""
    shown = frames(3, *size)[1:]
    scores = []
    for frame in shown.numpy().astype(np.float64):
        if max(size) > 512:
            new = [int(512 / max(size) * side) for side in size]
            weights = [literal.plain_weights(old, to, "bilinear") for old, to in zip(size, new, strict=True)]
            frame = literal.resized(frame, *weights)
        scores.append(literal_models.musiq(frame / 255, tiny_weights / "musiq", ported=compat))
    found = with_weights("imaging_quality").of(Video(shown, 8.0), shelf, compat)
    assert isinstance(found, Outcome)
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


def test_the_flow_itself(shelf: Shelf, tiny_weights: Path) -> None:
    shown = frames(2)
    found = shelf.open("raft").flow(shown[:1], shown[1:])[0].numpy()
    assert found == pytest.approx(flows(tiny_weights, shown[:1], shown[1:])[0], abs=1e-5)
    assert np.abs(found).max() > 0.1


def test_dynamic_degree(shelf: Shelf, tiny_weights: Path) -> None:
    shown = frames(5)
    expected = [literal.fastest(flow, 0.05) for flow in flows(tiny_weights, shown[:-1], shown[1:])]
    lengths = _lengths(shelf.open("raft"), shown[:-1], shown[1:], DYNAMIC_SHARE)
    assert lengths == pytest.approx(expected, abs=1e-5)
    threshold = 6.0 * 40 / 256
    moving = sum(length > threshold for length in expected)
    assert value("dynamic_degree", shelf) == float(moving >= round(4 * 5 / 16))


def test_the_published_dynamic_degree_counts_raft_s_padding(shelf: Shelf, tiny_weights: Path) -> None:
    """132 rows become 136; VBench takes the fastest 5 % of all of them."""
    one, other = frames(2, 132, 128)
    pair = [frame.numpy().astype(np.float64) for frame in (one, other)]
    whole = literal_models.raft(*pair, tiny_weights / "raft", padded=True)
    assert whole.shape == (2, 136, 128)
    expected = literal.fastest(whole, 0.05)
    raft = shelf.open("raft")
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
    shelf: Shelf, number: int, fps: float, ours: float, published: float
) -> None:
    still = Video(torch.full((number, 3, 40, 56), 90, dtype=torch.uint8), fps)
    for compat, wanted in ((False, ours), (True, published)):
        found = with_weights("dynamic_degree").of(still, shelf, compat)
        assert isinstance(found, Outcome)
        assert found.value == wanted


def test_a_variant_of_ours_has_the_published_one_beside_it() -> None:
    for providers in catalogue().values():
        for one in providers:
            assert bool(one.variant) == bool(one.compat or one.keep), one.name


def test_the_static_filter(shelf: Shelf, tiny_weights: Path) -> None:
    shown = frames(4)
    pairs = [(0, 1), (1, 2), (2, 3), (0, 3), (3, 0)]
    first, second = (shown[list(side)] for side in zip(*pairs, strict=True))
    expected = [literal.fastest(flow, 0.02) for flow in flows(tiny_weights, first, second)]
    allowed, threshold = round(2 * 4 / 16), 3.0 * 40 / 256
    static = sum(one > threshold for one in expected[:3]) <= allowed
    static = static and all(one <= threshold * allowed * 2 for one in expected[3:])
    lengths = _lengths(shelf.open("raft"), first, second, STATIC_SHARE)
    assert lengths == pytest.approx(expected, abs=1e-5)
    found = catalogue()["temporal_flickering"][0].of(Video(shown, 8.0), shelf, compat=True)
    assert isinstance(found, Outcome)
    assert found.details["static"] is static


def test_motion_smoothness(shelf: Shelf, tiny_weights: Path) -> None:
    shown = frames(5)
    real = shown.numpy() / 255.0
    guesses = [
        literal.half_way(real[t], real[t + 2], flow)
        for t, flow in zip((0, 2), flows(tiny_weights, shown[0:3:2], shown[2:5:2]), strict=True)
    ]
    errors = [np.abs(guess - real[t]).mean() for t, guess in zip((1, 3), guesses, strict=True)]
    assert value("motion_smoothness", shelf) == pytest.approx(1 - np.mean(errors), abs=1e-5)


def found_in(folder: Path) -> list[list[tuple[float, str, list[float]]]]:
    """The objects of each of the five frames."""
    return literal_models.detections(folder, levels(), NAMES)


def in_sixteen(by_frame: list[Any]) -> list[Any]:
    """What was found in five frames, for the sixteen that are looked at."""
    return [by_frame[place] for place in literal.sixteen(5)]


def test_object_class_and_multiple_objects(shelf: Shelf, tiny_weights: Path) -> None:
    seen = [{name for _, name, _ in found} for found in in_sixteen(found_in(tiny_weights))]
    shares = set()
    for name in NAMES:
        share = sum(name in names for names in seen) / 16
        assert value("object_class", shelf, object=name) == pytest.approx(share, abs=1e-12)
        shares.add(share)
        for other in NAMES:
            both = sum(name in names and other in names for names in seen) / 16
            if name < other:
                found = value("multiple_objects", shelf, object=f"{name} and {other}")
                assert found == pytest.approx(both, abs=1e-12)
    assert len(shares) > 1


def test_an_object_the_detector_has_no_name_for_is_left_out(shelf: Shelf) -> None:
    assert left_out("object_class", shelf, object="unicorn") == "the detector has no class for unicorn"
    assert "unicorn" in left_out("multiple_objects", shelf, object="car and unicorn")


@pytest.mark.parametrize(
    "relation", ["on the left of", "on the right of", "on the top of", "on the bottom of"]
)
def test_spatial_relationship(shelf: Shelf, tiny_weights: Path, relation: str) -> None:
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
    found = outcome("spatial_relationship", shelf, spatial_relationship=nested)
    assert found.value == pytest.approx(sum(best) / 16, abs=1e-5)
    assert found.details["frame_results"] == pytest.approx(best, abs=1e-4)


def test_scene(shelf: Shelf, tiny_weights: Path) -> None:
    said = in_sixteen(captions(tiny_weights, levels()))
    shares = set()
    for words in ("beach", "the park", "alley", "red car", "sky", "covered with", "bicycle", "green"):
        share = sum(all(word in sentence for word in words.split()) for sentence in said) / 16
        assert value("scene", shelf, scene={"scene": words}) == pytest.approx(share, abs=1e-12), words
        shares.add(share)
    assert len(shares) > 1


@pytest.mark.parametrize("compat", [False, True])
def test_color(shelf: Shelf, tiny_weights: Path, compat: bool) -> None:
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
                assert "no colour is said" in left_out("color", shelf, compat, prompt, color=colour)
                continue
            share = sum(right) / sum(named) if any(named) else 0.0
            assert value("color", shelf, compat, prompt, color=colour) == pytest.approx(share, abs=1e-12)
            values.add(share)
    assert len(values) > 1


def test_human_action(shelf: Shelf, tiny_weights: Path) -> None:
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
            found = value("human_action", shelf, compat, prompt=f"A person is {name}")
            assert found == float(name in shown_ones), name
    assert "flying to the moon" in left_out("human_action", shelf, prompt="A person is flying to the moon")


def test_appearance_style(shelf: Shelf, tiny_weights: Path) -> None:
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
    found = outcome("appearance_style", shelf, appearance_style={"appearance_style": "oil painting"})
    assert found.value == pytest.approx(np.mean(scores), abs=1e-5)
    assert found.details["frame_results"] == pytest.approx(scores, abs=1e-5)
    assert found.weight == 5


@pytest.mark.parametrize("name", ["temporal_style", "overall_consistency"])
def test_agreement_of_video_and_text(shelf: Shelf, tiny_weights: Path, name: str) -> None:
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
        assert value(name, shelf, prompt=prompt) == pytest.approx(found[-1], abs=1e-5)
    assert abs(found[0] - found[1]) > 1e-3


def test_every_dimension_with_weights_is_tested_here() -> None:
    names = {one.name for providers in catalogue().values() for one in providers if one.needs == "weights"}
    tested = "\n".join(name for name in globals() if name.startswith("test_"))
    others = {
        "temporal_style": "agreement_of_video_and_text",
        "overall_consistency": "agreement_of_video_and_text",
    }
    assert all(others.get(name, name) in tested for name in names)
