"""Features of single frames and of texts: DINO, CLIP, and the aesthetic head on top of CLIP."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from components.evaluation.models.loading import TensorModel
from components.evaluation.models.preprocessing import BATCH, for_clip, for_clip_as_pictures, for_dino
from components.runtime.artifacts.pretrained import open_model
from components.video.decode.frames import Frames


class DinoEncoder:
    """DINO ViT-B/16 (Caron et al. 2021): the class token after the last norm."""

    def __init__(self, model: Any) -> None:
        self.model = model
        model.embeddings.interpolate_pos_encoding = partial(_dino_positions, model.embeddings)

    @classmethod
    def load(cls, folder: Path, device: torch.device) -> DinoEncoder:
        """Open a folder in the form of transformers' ViTModel."""
        from transformers import ViTModel

        model = open_model(ViTModel, folder, device, add_pooling_layer=False)
        return cls(model)

    @torch.no_grad()
    def features(self, frames: Frames) -> Tensor:
        """uint8 (T, 3, H, W) to unit vectors (T, D)."""
        prepared = (for_dino(part).to(self.model.device) for part in frames.split(BATCH))
        states = [self.model(part, interpolate_pos_encoding=True).last_hidden_state for part in prepared]
        return F.normalize(torch.cat([state[:, 0] for state in states]), dim=-1)


def _dino_positions(embeddings: Any, tokens: Tensor, height: int, width: int) -> Tensor:
    """Position embeddings of a picture of another size than the training's, stretched as DINO's authors do.

    They add 0.1 to the grid's sides before dividing, which moves the sampling points a little: transformers
    stretches to the exact size instead.
    """
    table = embeddings.position_embeddings
    side = int((table.shape[1] - 1) ** 0.5)
    rows, columns = height // embeddings.patch_size, width // embeddings.patch_size
    if (rows, columns) == (side, side):
        return table
    grid = table[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    scales = ((rows + 0.1) / side, (columns + 0.1) / side)
    stretched = F.interpolate(grid, scale_factor=scales, mode="bicubic", align_corners=False)
    return torch.cat([table[:, :1], stretched.flatten(2).transpose(1, 2)], dim=1)


class ClipEncoder:
    """CLIP (Radford et al. 2021)."""

    def __init__(self, model: Any, folder: Path) -> None:
        self.model, self.folder = model, folder
        self._texts: dict[str, Tensor] = {}

    @classmethod
    def load(cls, folder: Path, device: torch.device) -> ClipEncoder:
        """Open a folder in the form of transformers' CLIPModel."""
        from transformers import CLIPModel

        model = open_model(CLIPModel, folder, device)
        return cls(model, folder)

    @property
    def scale(self) -> float:
        """What a cosine is multiplied by to become CLIP's logit, about 100."""
        return float(self.model.logit_scale.detach().exp())

    @torch.no_grad()
    def features(self, frames: Frames, pillow: bool = False) -> Tensor:
        """uint8 (T, 3, H, W) to unit vectors (T, D); ``pillow``: resized as `for_clip_as_pictures` does."""
        side, prepare = (
            self.model.config.vision_config.image_size,
            for_clip_as_pictures if pillow else for_clip,
        )
        prepared = (prepare(part, side).to(self.model.device) for part in frames.split(BATCH))
        found = [self.model.get_image_features(pixel_values=part).pooler_output for part in prepared]
        return F.normalize(torch.cat(found), dim=-1)

    @torch.no_grad()
    def text(self, text: str) -> Tensor:
        """The unit vector (D,) of a text; what does not fit into the model's context is cut off."""
        if text not in self._texts:
            from transformers import CLIPTokenizer

            tokenizer = CLIPTokenizer.from_pretrained(self.folder, local_files_only=True)
            limit = self.model.config.text_config.max_position_embeddings
            tokens = tokenizer([text], truncation=True, max_length=limit, return_tensors="pt")
            found = self.model.get_text_features(**tokens.to(self.model.device)).pooler_output
            self._texts[text] = F.normalize(found, dim=-1)[0]
        return self._texts[text]


class AestheticHead(TensorModel):
    """LAION's aesthetic predictor: one linear layer on unit CLIP ViT-L/14 features, about 1..10."""

    title, landmark = "the aesthetic head", "bias"

    def scores(self, features: Tensor) -> Tensor:
        """Unit vectors (T, D) to scores (T,)."""
        return F.linear(features, self.tensors["weight"].float(), self.tensors["bias"].float())[:, 0]
