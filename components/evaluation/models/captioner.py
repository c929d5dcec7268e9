"""A sentence about a picture."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from components.evaluation.models.loading import PreparedModel
from components.evaluation.models.preprocessing import BATCH

LONGEST = 30  # tokens


class Captioner(PreparedModel):
    """An image captioning model, decoded greedily: the same picture has the same sentence."""

    auto, tokenized = "AutoModelForImageTextToText", True

    @torch.no_grad()
    def captions(self, pictures: Sequence[Tensor]) -> list[str]:
        """uint8 pictures (3, H, W), each of its own size, to one lower-case sentence each."""
        sentences: list[str] = []
        for start in range(0, len(pictures), BATCH):
            batch = [picture[None].to(self.model.device) for picture in pictures[start : start + BATCH]]
            tokens = self.model.generate(
                pixel_values=torch.cat([self.prepare(picture) for picture in batch]),
                max_new_tokens=LONGEST,
                num_beams=1,
                do_sample=False,
            )
            sentences += self.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return [sentence.strip().lower() for sentence in sentences]
