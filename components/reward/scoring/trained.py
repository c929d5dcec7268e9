"""Scoring clips with a trained reward."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import torch
from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from components.reward.base import CONFIG, InputSpec, Rating, check_clips, description_of
from components.reward.distortions import FAMILIES
from components.reward.features.fragments import fragments
from components.reward.features.handcrafted import clip_statistics
from components.reward.model.backbone import Backbone
from components.reward.model.network import RewardNet
from components.reward.params import NetworkParams
from components.runtime.compute.devices import resolve
from components.runtime.errors import InputError, one_line
from components.video.clip import ClipFormat
from components.video.filters import resize, to_float

WEIGHTS = "model.safetensors"
MAX_WINDOWS = 8
#: Columns of statistics that a description may claim; ours have some hundred.
MAX_STATISTICS = 100_000
#: Of a clip, that a description may claim: shorter side, and pixels of all frames together.
MIN_SIDE, MAX_PIXELS = 8, 10**9
BACKBONE = "backbone"
#: Clips computed at once, short batches filled up: a clip's score then has the same bits in any batch.
BLOCK = 16
#: The same with a backbone, to which filling up is dear and four clips are a thousand patches and more.
BACKBONE_BLOCK = 4
DECIMALS = 5
#: px up to which a clip keeps its own size for a reward with a backbone.
NATIVE_SIDE = 1080


def _believable(geometry: ClipFormat) -> ClipFormat:
    """The geometry itself; a ValueError if no clip can have it."""
    frames, sides = geometry.frames, (geometry.height, geometry.width)
    sound = frames >= 2 and min(sides) >= MIN_SIDE and frames * math.prod(sides) <= MAX_PIXELS
    if not (sound and 0 < geometry.fps < math.inf):
        raise ValueError(f"geometry: {geometry} is not that of a clip")
    return geometry


@dataclass(frozen=True)
class TrainedConfig:
    """The config.json of a trained reward.

    Attributes:
        network: its sizes.
        statistics: columns that it reads.
        geometry: the clips it was trained on.
    """

    network: NetworkParams
    statistics: Annotated[int, Field(gt=0, le=MAX_STATISTICS)]
    geometry: Annotated[ClipFormat, AfterValidator(_believable)]


class TrainedReward:
    """A trained reward.

    Any clip is brought to the geometry of training first: frame rate by nearest time stamps, size by
    antialiased resizing; a longer clip is scored in up to 8 windows spread evenly over it, and their scores
    averaged. A backbone is shown fragments of the clip at its own size, never of the resized one.
    """

    def __init__(self, network: RewardNet, geometry: ClipFormat, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.network = network.to(self.device).float().eval()
        self.geometry = geometry

    @property
    def params(self) -> NetworkParams:
        """The sizes of the network."""
        return self.network.params

    @property
    def input_spec(self) -> InputSpec:
        """Four times the size of training: its own antialiased resizing decides, not the decoder's.

        With a backbone the clip's own size: it looks at fragments.
        """
        if self.params.backbone:
            return InputSpec(NATIVE_SIDE, BACKBONE_BLOCK)
        return InputSpec(4 * min(self.geometry.height, self.geometry.width), BLOCK)

    @classmethod
    def load(cls, folder: str | Path, device: str = "cpu") -> TrainedReward:
        """Loads what `save` (or the reward step) wrote.

        Raises:
            InputError: a file is missing or not what it should be; the message names it.
        """
        folder = Path(folder)
        config, weights_file = description_of(TrainedConfig, folder, "a trained reward"), folder / WEIGHTS
        backbone = Backbone.load(folder / BACKBONE) if config.network.backbone else None
        network = RewardNet(config.network, config.statistics, backbone)
        try:
            network.load_own_state(load_file(weights_file))
        except (OSError, SafetensorError, RuntimeError) as error:
            raise InputError(
                f"{weights_file}: not the weights that {CONFIG} describes ({one_line(error)})"
            ) from error
        return cls(network, config.geometry, resolve(device))

    def save(self, folder: Path, network: NetworkParams) -> None:
        """Writes weights (safetensors) and description (JSON) into an existing folder.

        A backbone is written too, trained or not, into the folder `backbone`: the reward can be loaded where
        there is no hub.
        """
        state = {
            name: tensor.detach().cpu().contiguous() for name, tensor in self.network.own_state().items()
        }
        save_file(state, folder / WEIGHTS)
        if self.network.backbone is not None:
            self.network.backbone.save(folder / BACKBONE)
        description = {
            "network": network.model_dump(mode="json"),
            "statistics": self.network.statistics,
            "geometry": asdict(self.geometry),
            "parameters": sum(parameter.numel() for parameter in self.network.parameters()),
        }
        (folder / CONFIG).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")

    def score(self, frames: Tensor, fps: float, prompts: Sequence[str] | None = None) -> Tensor:
        """See `Reward`; prompts are not read."""
        return self.rate(frames, fps).score

    def rate(self, frames: Tensor, fps: float, prompts: Sequence[str] | None = None) -> Rating:
        """See `Reward`; prompts are not read."""
        check_clips(frames, fps, None)
        if frames.shape[0] == 0:
            return Rating(torch.zeros(0), torch.zeros(0), {name: torch.zeros(0) for name in FAMILIES})
        windows = self._windows(frames.shape[1], fps)
        total = sum(self._outputs(frames[:, index]) for index in windows)
        return _rating(torch.as_tensor(total) / len(windows))

    def _windows(self, frames: int, fps: float) -> list[Tensor]:
        """Frame indices of each window to score."""
        goal = self.geometry
        picked = goal.frame_numbers(frames, fps)
        if len(picked) <= goal.frames:
            return [picked]
        number = min(MAX_WINDOWS, -(-len(picked) // goal.frames))
        starts = torch.linspace(0, len(picked) - goal.frames, number).round().long().tolist()
        return [picked[start : start + goal.frames] for start in starts]

    def score_prepared(self, clips: Tensor, statistics: Tensor | None = None) -> Tensor:
        """Scores clips that already have the training geometry.

        Args:
            clips: (B, T, 3, height, width), uint8 or float 0..1.
            statistics: (B, F) `clip_statistics` of them, where already known. A backbone needs the clips all
                the same.

        Returns:
            (B,) float32 on the CPU.
        """
        return self.rate_prepared(clips, statistics).score

    def rate_prepared(self, clips: Tensor, statistics: Tensor | None = None) -> Rating:
        """As `score_prepared`, with uncertainty and aspects."""
        return _rating(self._outputs(clips, statistics))

    @torch.no_grad()
    def _outputs(self, clips: Tensor, statistics: Tensor | None = None) -> Tensor:
        """(members, B, outputs) float64 on the CPU of one window of each clip."""
        backbone = self.network.backbone
        size = BLOCK if backbone is None else BACKBONE_BLOCK
        outputs = []
        for start in range(0, clips.shape[0], size):
            block = clips[start : start + size]
            views = None
            if backbone is not None:
                views = _filled(fragments(block.to(self.device), backbone.canvas).clamp(0.0, 1.0), size)
            if statistics is not None:
                columns = _filled(statistics[start : start + size].to(self.device), size)
            else:
                columns = clip_statistics(_filled(self._fitted(block), size))
            outputs.append(self.network(columns, views).double().cpu())
        return torch.cat(outputs, dim=1)[:, : clips.shape[0]]

    def _fitted(self, block: Tensor) -> Tensor:
        """Clips as floats 0..1 of the size of training, on the device."""
        goal = (self.geometry.height, self.geometry.width)
        if block.shape[-2:] == goal:
            return to_float(block.to(self.device)).clamp(0.0, 1.0)
        # One by one: a clip in floats at its own size can be half a gigabyte.
        floats = (to_float(clip.to(self.device)).clamp(0.0, 1.0) for clip in block.split(1))
        return torch.cat([resize(clip, *goal, "bilinear").clamp(0.0, 1.0) for clip in floats])


def _rating(outputs: Tensor) -> Rating:
    """What (members, B, outputs) come to."""
    mean = outputs.mean(0).round(decimals=DECIMALS).float()
    uncertainty = outputs[..., 0].std(0, unbiased=False).round(decimals=DECIMALS).float()
    return Rating(mean[:, 0], uncertainty, {name: mean[:, 1 + place] for place, name in enumerate(FAMILIES)})


def _filled(block: Tensor, size: int) -> Tensor:
    """A block of at most `size` rows, filled up with copies of its last."""
    missing = size - block.shape[0]
    return torch.cat((block, block[-1:].expand(missing, *block.shape[1:]))) if missing else block
