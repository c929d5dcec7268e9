"""A sentence about a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from components.evaluation.models.preprocessing import BATCH, Preparation
from components.evaluation.models.pretrained import open_model

LONGEST = 30  # tokens


class Captioner:
    """An image captioning model, read greedily: the same picture has the same sentence."""

    def __init__(self, model: Any, tokenizer: Any, prepare: Preparation) -> None:
        self.model, self.tokenizer, self.prepare = model, tokenizer, prepare

    @classmethod
    def load(cls, folder: Path, device: torch.device) -> Captioner:
        """Open a folder in the form of transformers' image-to-text models."""
        from transformers import AutoModelForImageTextToText, AutoTokenizer

        model = open_model(AutoModelForImageTextToText, folder, device)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        return cls(model, tokenizer, Preparation.read(folder))

    @torch.no_grad()
    def captions(self, pictures: Sequence[Tensor]) -> list[str]:
        """uint8 pictures (3, H, W), each of its own size, to one lower-case sentence each."""
        found: list[str] = []
        for start in range(0, len(pictures), BATCH):
            prepared = [
                self.prepare(picture[None].to(self.model.device))
                for picture in pictures[start : start + BATCH]
            ]
            tokens = self.model.generate(
                pixel_values=torch.cat(prepared), max_new_tokens=LONGEST, num_beams=1, do_sample=False
            )
            found += self.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return [caption.strip().lower() for caption in found]
