"""What people do in a video, among Kinetics' four hundred actions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from components.evaluation.models.preprocessing import Preparation, middle
from components.evaluation.models.pretrained import open_model
from components.video.decode.frames import Frames


class ActionModel:
    """A video classifier."""

    def __init__(self, model: Any, prepare: Preparation) -> None:
        self.model, self.prepare = model, prepare
        names = model.config.id2label
        self.labels = [str(names[key]).lower() for key in sorted(names, key=int)]

    @classmethod
    def load(cls, folder: Path, device: torch.device) -> ActionModel:
        """Open a folder in the form of transformers' video classification models."""
        from transformers import AutoModelForVideoClassification

        model = open_model(AutoModelForVideoClassification, folder, device)
        return cls(model, Preparation.read(folder))

    @torch.no_grad()
    def logits(self, frames: Frames) -> Tensor:
        """uint8 (T, 3, H, W) to (classes,): the model sees as many frames as it was trained on."""
        chosen = frames[middle(len(frames), int(self.model.config.num_frames))]
        return self.model(pixel_values=self.prepare(chosen.to(self.model.device))[None]).logits[0].cpu()
