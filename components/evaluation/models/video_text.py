"""How well a text describes a video as a whole."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from components.evaluation.models.loading import PreparedModel
from components.evaluation.models.preprocessing import middle
from components.video.decode.frames import Frames


class VideoText(PreparedModel):
    """A video and text model with one vector for each (VideoPrism LvT, Zhao et al. 2024)."""

    auto, tokenized = "VideoPrismClipModel", True

    @torch.no_grad()
    def cosine(self, frames: Frames, text: str) -> float:
        """Cosine of uint8 (T, 3, H, W) and a text, -1..1; as many frames as the model takes, evenly taken."""
        chosen = frames[middle(len(frames), int(self.model.config.vision_config.num_frames))]
        pixels = self.prepare(chosen.to(self.model.device))[None]
        limit = self.model.config.text_config.max_position_embeddings
        tokens = self.tokenizer(
            [text], padding="max_length", truncation=True, max_length=limit, return_tensors="pt"
        )
        video = self.model.get_video_features(pixel_values_videos=pixels).pooler_output
        words = self.model.get_text_features(
            input_ids=tokens["input_ids"].to(self.model.device),
            attention_mask=tokens["attention_mask"].to(self.model.device),
        ).pooler_output
        both = [F.normalize(part.reshape(-1).double(), dim=0) for part in (video, words)]
        return float(both[0] @ both[1])
