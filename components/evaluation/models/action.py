"""What people do in a video, among Kinetics' four hundred actions."""

from __future__ import annotations

import torch
from torch import Tensor

from components.evaluation.models.loading import PreparedModel
from components.evaluation.models.preprocessing import middle
from components.video.decode.frames import Frames


class ActionModel(PreparedModel):
    """A video classifier."""

    auto = "AutoModelForVideoClassification"

    @torch.no_grad()
    def logits(self, frames: Frames) -> Tensor:
        """uint8 (T, 3, H, W) to (classes,): the model sees as many frames as it was trained on."""
        chosen = frames[middle(len(frames), int(self.model.config.num_frames))]
        return self.model(pixel_values=self.prepare(chosen.to(self.model.device))[None]).logits[0].cpu()
