"""Backbones: what they compute by the models' own classes, what they save, what they refuse."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from components.reward.model.backbone import Backbone
from components.runtime.errors import InputError
from tests.reward.model.tiny_backbones import KINDS, MEAN, STD, make, write


def pictures(frames: int) -> Tensor:
    return torch.rand(2, frames, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def normalised(frames: Tensor) -> Tensor:
    return (frames - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_a_step_is_the_mean_of_the_models_own_tokens(kind: str, tmp_path: Path) -> None:
    backbone = Backbone.load(write(tmp_path, kind)).eval()
    clips = pictures(4)
    found = backbone(clips)
    model = make(kind).eval()
    inner = {"videomae": "videomae", "siglip": "vision_model"}.get(kind)
    model = getattr(model, inner) if inner else model
    x = normalised(clips)
    if kind == "videomae":
        tokens = model(pixel_values=x).last_hidden_state.reshape(2, 2, 16, 32)  # pairs of frames, 4 x 4
        expected = tokens.mean(2)
    else:
        each = [model(pixel_values=x[:, t]).last_hidden_state.mean(1) for t in range(4)]
        expected = torch.stack(each, dim=1)
    assert found.dtype == torch.float32
    assert torch.allclose(found, expected, atol=1e-5)
    assert backbone.width == 32 and backbone.canvas.patch == (8, 8)
    assert backbone.canvas.exact == (kind == "videomae")


@torch.no_grad()
def test_a_video_models_steps_are_in_order_of_time(tmp_path: Path) -> None:
    # Without layers a token knows its own pixels only.
    backbone = Backbone.load(write(tmp_path, "videomae", num_hidden_layers=0)).eval()
    clips = pictures(4)
    changed = clips.clone()
    changed[:, 2:] = 0.0
    moved = (backbone(clips) - backbone(changed)).abs().amax((0, 2))
    assert float(moved[0]) == 0.0 and float(moved[1]) > 0.01


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_saved_and_loaded_it_computes_the_same_bits(kind: str, tmp_path: Path) -> None:
    backbone = Backbone.load(write(tmp_path / "from", kind)).eval()
    backbone.save(tmp_path / "to")
    again = Backbone.load(tmp_path / "to").eval()
    assert torch.equal(again(pictures(4)), backbone(pictures(4))) and again.canvas == backbone.canvas
    assert all(path.suffix in (".json", ".safetensors") for path in (tmp_path / "to").iterdir())


@torch.no_grad()
def test_frames_are_normalised_as_the_models_own_processor_does(tmp_path: Path) -> None:
    frames = (pictures(1) * 255).round().to(torch.uint8)
    images = [Image.fromarray(np.asarray(clip[0].permute(1, 2, 0))) for clip in frames]
    for kind, processor in (
        ("dinov2", transformers.BitImageProcessorPil(size={"shortest_edge": 32}, crop_size=32)),
        ("siglip_vision_model", transformers.SiglipImageProcessorPil(size={"height": 32, "width": 32})),
    ):
        folder = tmp_path / kind
        write(folder, kind)
        (folder / "preprocessor_config.json").unlink()
        processor.save_pretrained(folder)
        expected = processor(images=images, return_tensors="pt")["pixel_values"]
        seen: list[Tensor] = []
        backbone = Backbone.load(folder)
        backbone.model.register_forward_pre_hook(
            lambda _, __, kwargs, seen=seen: seen.append(kwargs["pixel_values"]), with_kwargs=True
        )
        backbone(frames.float() / 255.0)
        assert torch.allclose(seen[0], expected, atol=1e-5)


def test_without_a_processors_config_the_kinds_own_values_hold(tmp_path: Path) -> None:
    for kind, mean in (("siglip", 0.5), ("videomae", 0.485)):
        folder = write(tmp_path / kind, kind)
        (folder / "preprocessor_config.json").unlink()
        assert float(Backbone.load(folder).mean[0, 0, 0]) == pytest.approx(mean)


@torch.no_grad()
def test_dinov2_takes_the_frame_size_of_its_processor(tmp_path: Path) -> None:
    folder = write(tmp_path / "from", "dinov2")
    described = {"do_center_crop": True, "crop_size": {"height": 24, "width": 24}, "size": 40}
    described |= {"image_mean": MEAN, "image_std": STD}
    (folder / "preprocessor_config.json").write_text(json.dumps(described))
    backbone = Backbone.load(folder).eval()
    assert (backbone.canvas.height, backbone.canvas.width) == (24, 24)
    frames = torch.rand(2, 2, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    model = make("dinov2").eval()  # it brings its positions to the size of what it is shown
    expected = model(pixel_values=normalised(frames).flatten(0, 1)).last_hidden_state.mean(1)
    assert torch.allclose(backbone(frames).flatten(0, 1), expected, atol=1e-5)
    backbone.save(tmp_path / "to")
    assert torch.equal(Backbone.load(tmp_path / "to").eval()(frames), backbone(frames))


@pytest.mark.parametrize("kind", KINDS)
def test_every_weight_takes_part(kind: str, tmp_path: Path) -> None:
    backbone = Backbone.load(write(tmp_path, kind)).train()
    found = torch.autograd.grad(
        backbone(pictures(4)).square().sum(), list(backbone.parameters()), allow_unused=True
    )
    assert all(gradient is not None for gradient in found)


@pytest.mark.parametrize("kind", ["videomae", "dinov2"])
def test_layers_are_computed_twice_in_training_and_the_gradient_is_the_same(
    kind: str, tmp_path: Path
) -> None:
    gradients, products = [], []
    for again in (True, False):
        backbone = Backbone.load(write(tmp_path, kind)).train()
        if not again:
            backbone.model.activation_checkpointing_disable()
        with FlopCounterMode(display=False) as counter:
            loss = backbone(pictures(4)).square().sum()
            gradients.append(torch.autograd.grad(loss, list(backbone.parameters())))
        products.append(counter.get_total_flops())
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
    assert products[0] > 1.1 * products[1]


def _describe(**values: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        file = folder / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **values}))

    return change


def _process(text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "preprocessor_config.json").write_text(text) and None


def _pickled(folder: Path) -> None:
    """Weights that would leave a trace if they were ever unpickled."""

    class Trace:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (folder / "unpickled",))

    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Trace()))


def _lost(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    gone = next(name for name in sorted(state) if "encoder" in name and name.endswith("weight"))
    del state[gone]
    save_file(state, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize(
    ("kind", "break_it", "said"),
    [
        ("dinov2", lambda folder: (folder / "config.json").unlink(), r"config\.json: not a model's"),
        ("dinov2", lambda folder: (folder / "config.json").write_text("[]"), "not a JSON object"),
        ("dinov2", _describe(model_type="bert"), r"'bert' cannot be a backbone; allowed: dinov2, siglip, "),
        ("dinov2", _pickled, r"no weights in \*\.safetensors; pickled weights are never read"),
        ("dinov2", lambda folder: (folder / "model.safetensors").write_bytes(b"x" * 99), "cannot be loaded"),
        ("dinov2", _lost, "1 tensors are missing .* encoder"),
        ("dinov2", _describe(hidden_size=64), "of another shape|cannot be loaded"),
        ("dinov2", _process('{"size": 4}'), "4x4 px in patches of 8x8"),
        ("dinov2", _process('{"size": {"height": 24, "width": 32}}'), "24x32 px, but the model reads 32x32"),
        ("dinov2", _process("{"), "preprocessor_config.json: not a model's description"),
        ("dinov2", _process('{"image_std": [0, 1, 1]}'), "3 numbers each"),
        ("dinov2", _process('{"image_mean": 3}'), "not the description of an image processor"),
        ("videomae", _process('{"size": 40}'), "makes frames of 40x40 px, but the model reads 32x32"),
        ("siglip", _process('{"size": {"height": 40, "width": 32}}'), "40x32 px, but the model reads 32x32"),
        ("videomae", _describe(num_frames=5), "num_frames = 5 is no multiple of tubelet_size = 2"),
    ],
)
def test_what_cannot_be_a_backbone_is_one_clear_line(
    kind: str, break_it: Callable[[Path], None], said: str, tmp_path: Path
) -> None:
    folder = write(tmp_path / "model", kind)
    break_it(folder)
    with pytest.raises(InputError, match=said) as caught:
        Backbone.load(folder)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)
    assert not (folder / "unpickled").exists()
