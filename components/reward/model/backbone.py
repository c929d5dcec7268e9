"""A pretrained vision model behind a reward: frames in, one vector per time step out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from components.reward.features.fragments import Canvas
from components.runtime.artifacts.pretrained import open_model, quiet
from components.runtime.errors import InputError, one_line

CONFIG = "config.json"
PREPROCESSING = "preprocessor_config.json"
#: Frames of a clip that an image model reads, at most: as many as VideoMAE does.
IMAGE_FRAMES = 16


@dataclass(frozen=True)
class BackboneKind:
    """How a family of models is loaded and fed.

    Attributes:
        model: name of the class in `transformers`.
        video: whether it reads clips; otherwise single frames.
        tower: the part of a larger model's config that describes this one, "" for all of it.
        settings: entries of the config to change, to leave out parts with unused weights.
        resizable: whether it also reads square frames of another size than its config names.
        mean, std: of each colour, for pixels in 0..1, where there is no preprocessor_config.json.
    """

    model: str
    video: bool = False
    tower: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    resizable: bool = False
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)


_SIGLIP = BackboneKind(
    "SiglipVisionModel", settings={"vision_use_head": False}, mean=(0.5,) * 3, std=(0.5,) * 3
)

#: The models that can stand behind a reward, by `model_type` in their config.json.
KINDS = {
    "videomae": BackboneKind("VideoMAEModel", video=True),
    "dinov2": BackboneKind("Dinov2Model", settings={"use_mask_token": False}, resizable=True),
    "siglip": replace(_SIGLIP, tower="vision_config"),
    "siglip_vision_model": _SIGLIP,
}


class Backbone(nn.Module):
    """A model of `transformers` without its heads.

    Its tokens are averaged over the frame, which leaves one vector for each time step. An image model reads
    the frames one by one.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: Any, kind: BackboneKind, canvas: Canvas) -> None:
        super().__init__()
        self.model = model
        # A step keeps the activations of the whole batch for its gradients: half a gigabyte a clip in a base
        # model. Computing them a second time costs a third more time. No effect outside training.
        model.activation_checkpointing_enable()
        self.kind, self.canvas = kind, canvas
        self.width = int(model.config.hidden_size)
        self.register_buffer("mean", torch.tensor(kind.mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(kind.std)[:, None, None], persistent=False)

    @classmethod
    def load(cls, folder: Path) -> Backbone:
        """The model that a folder in the layout of `transformers` holds, in float32 on the CPU.

        Weights are read from safetensors only, and no code of the folder is run.

        Raises:
            InputError: a file is missing or broken, the model is of no known kind, its weights are pickled
                or not all there, or its frame size fits neither its patches nor its preprocessing.
        """
        model_type = _json(folder / CONFIG).get("model_type")
        kind = KINDS.get(str(model_type))
        if kind is None:
            raise InputError(
                f"{folder / CONFIG}: model type {model_type!r} cannot be a backbone; "
                f"allowed: {', '.join(sorted(KINDS))}"
            )
        if not list(folder.glob("*.safetensors")):
            raise InputError(f"{folder}: no weights in *.safetensors; pickled weights are never read")
        model = _model(folder, kind)
        size, kind = _preprocessing(folder, kind)
        canvas = _canvas(folder, kind, model.config, size)
        if (canvas.height, canvas.width) != _pair(model.config.image_size):
            _resize(model, canvas.height)
        return cls(model, kind, canvas)

    def save(self, folder: Path) -> None:
        """Writes what `load` reads into a folder, made where missing."""
        with quiet():
            self.model.save_pretrained(folder)
        described = {
            "image_mean": list(self.kind.mean),
            "image_std": list(self.kind.std),
            "size": {"height": self.canvas.height, "width": self.canvas.width},
        }
        (folder / PREPROCESSING).write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")

    def forward(self, frames: Tensor) -> Tensor:
        """(B, F, 3, height, width) in 0..1, as `canvas` says -> (B, time steps, width) float32."""
        x = (frames - self.mean) / self.std
        with precision(frames.device):
            if self.kind.video:
                tokens = self.model(pixel_values=x).last_hidden_state
                steps = frames.shape[1] // int(self.model.config.tubelet_size)
                pooled = tokens.unflatten(1, (steps, -1)).mean(2)
            else:
                tokens = self.model(pixel_values=x.flatten(0, 1)).last_hidden_state
                pooled = tokens.mean(1).unflatten(0, frames.shape[:2])
        return pooled.float()


@contextmanager
def precision(device: torch.device) -> Iterator[None]:
    """bfloat16 where a GPU multiplies it faster; float32 elsewhere, where it is several times slower."""
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        yield


def _model(folder: Path, kind: BackboneKind) -> Any:
    import transformers

    try:
        with quiet():
            local: dict[str, Any] = {"local_files_only": True}
            config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False, **local)
            config = getattr(config, kind.tower) if kind.tower else config
            config.update(dict(kind.settings))
            return open_model(getattr(transformers, kind.model), folder, config=config)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise InputError(f"{folder}: the backbone cannot be loaded: {one_line(error)}") from error


@torch.no_grad()
def _resize(model: Any, side: int) -> None:
    """Gives a DINOv2 model position embeddings for frames of side x side px.

    It would interpolate them at every frame, with a gradient that a GPU does not sum in a fixed order.
    """
    embeddings = model.embeddings
    patches = (side // embeddings.patch_embeddings.patch_size[0]) ** 2
    table = embeddings.interpolate_pos_encoding(
        torch.empty(1, 1 + patches, model.config.hidden_size), side, side
    )
    embeddings.position_embeddings = nn.Parameter(table.contiguous())
    embeddings.patch_embeddings.image_size = (side, side)
    embeddings.patch_embeddings.num_patches = patches
    model.config.image_size = side


def _canvas(folder: Path, kind: BackboneKind, config: Any, size: tuple[int, int] | None) -> Canvas:
    native, patch = _pair(config.image_size), _pair(config.patch_size)
    size = size or native
    if size != native and not (kind.resizable and size[0] == size[1]):
        raise InputError(
            f"{folder}: {PREPROCESSING} makes frames of {size[0]}x{size[1]} px, "
            f"but the model reads {native[0]}x{native[1]}"
        )
    if size[0] < patch[0] or size[1] < patch[1] or config.num_channels != 3:
        raise InputError(
            f"{folder}: frames of {config.num_channels} colours and {size[0]}x{size[1]} px in patches of "
            f"{patch[0]}x{patch[1]}; needed are 3 colours and a patch or more"
        )
    if not kind.video:
        return Canvas(*size, patch, IMAGE_FRAMES, exact=False)
    if config.num_frames % config.tubelet_size:
        raise InputError(
            f"{folder / CONFIG}: num_frames = {config.num_frames} is no multiple of "
            f"tubelet_size = {config.tubelet_size}"
        )
    return Canvas(*size, patch, int(config.num_frames), exact=True)


def _preprocessing(folder: Path, kind: BackboneKind) -> tuple[tuple[int, int] | None, BackboneKind]:
    """The frame size in preprocessor_config.json, if any, and the kind with the mean and std of that file."""
    file = folder / PREPROCESSING
    if not file.is_file():
        return None, kind
    described = _json(file)
    try:
        # With a centre crop `size` is what the frame is resized to before it.
        entry = described.get("crop_size") if described.get("do_center_crop") else described.get("size")
        size = None
        if isinstance(entry, int):
            size = (entry, entry)
        elif isinstance(entry, dict) and "height" in entry:
            size = (int(entry["height"]), int(entry["width"]))
        if described.get("do_normalize") is False:
            return size, replace(kind, mean=(0.0,) * 3, std=(1.0,) * 3)
        mean = tuple(map(float, described.get("image_mean", kind.mean)))
        std = tuple(map(float, described.get("image_std", kind.std)))
    except (TypeError, ValueError, KeyError) as error:
        raise InputError(f"{file}: not the description of an image processor ({error!r})") from error
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        raise InputError(f"{file}: image_mean and image_std must be 3 numbers each, the latter above 0")
    return size, replace(kind, mean=mean, std=std)


def _json(file: Path) -> dict[str, Any]:
    try:
        described = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(described, dict):
            raise ValueError("not a JSON object")
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: not a model's description ({one_line(error)})") from error
    return described


def _pair(value: Any) -> tuple[int, int]:
    """Height and width, of one number or two."""
    return (int(value), int(value)) if isinstance(value, int) else (int(value[0]), int(value[1]))
