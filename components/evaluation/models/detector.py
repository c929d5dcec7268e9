"""Objects of COCO's eighty classes in single frames."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from components.evaluation.models.preprocessing import BATCH, Preparation
from components.evaluation.models.pretrained import open_model
from components.runtime.errors import InputError

#: A detection counts from this score on (VBench sets its detector to the same).
SCORE = 0.5
#: Detectors trained with Pascal's names for six of the classes, and what COCO (and VBench) call them.
COCO_NAMES = {
    "aeroplane": "airplane",
    "diningtable": "dining table",
    "motorbike": "motorcycle",
    "pottedplant": "potted plant",
    "sofa": "couch",
    "tvmonitor": "tv",
}


@dataclass(frozen=True)
class Detection:
    """One object: its class, score in 0..1 and box (left, top, right, bottom) in pixels."""

    label: str
    score: float
    box: tuple[float, float, float, float]


class Detector:
    """A detector with an independent score for each class (RT-DETR and its kin)."""

    def __init__(self, model: Any, prepare: Preparation) -> None:
        self.model, self.prepare = model, prepare
        names = {int(key): str(name).lower() for key, name in model.config.id2label.items()}
        self.labels = [COCO_NAMES.get(names[key], names[key]) for key in sorted(names)]

    @classmethod
    def load(cls, folder: Path, device: torch.device) -> Detector:
        """Open a folder in the form of transformers' object detection models."""
        from transformers import AutoModelForObjectDetection

        model = open_model(AutoModelForObjectDetection, folder, device)
        return cls(model, Preparation.read(folder))

    @torch.no_grad()
    def detect(self, frames: Tensor) -> list[list[Detection]]:
        """uint8 (T, 3, H, W) to each frame's detections, the surest first.

        Raises:
            InputError: the model's classes share one softmax, so that its scores mean something else.
        """
        found: list[list[Detection]] = []
        for part in frames.split(BATCH):
            output = self.model(pixel_values=self.prepare(part.to(self.model.device)))
            if output.logits.shape[-1] != len(self.labels):
                raise InputError(
                    f"detector: {output.logits.shape[-1]} scores for {len(self.labels)} classes; "
                    "a model with one score in 0..1 for each class is needed (RT-DETR, RT-DETRv2, D-FINE)"
                )
            scores, boxes = output.logits.sigmoid().cpu(), output.pred_boxes.cpu()
            found += [self._of(*pair, frames.shape[-2:]) for pair in zip(scores, boxes, strict=True)]
        return found

    def _of(self, scores: Tensor, boxes: Tensor, size: torch.Size) -> list[Detection]:
        height, width = size
        found = []
        for query, label in (scores > SCORE).nonzero().tolist():
            x, y, w, h = boxes[query].tolist()
            box = ((x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height)
            found.append(Detection(self.labels[label], float(scores[query, label]), box))
        return sorted(found, key=lambda one: (-one.score, one.label, one.box))
