"""Objects of COCO's eighty classes in single frames."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from components.evaluation.models.loading import PreparedModel
from components.evaluation.models.preprocessing import BATCH
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


class Detector(PreparedModel):
    """A detector with an independent score for each class (RT-DETR and its kin)."""

    auto = "AutoModelForObjectDetection"

    @property
    def labels(self) -> list[str]:
        """COCO's names of the classes, by index."""
        return [COCO_NAMES.get(name, name) for name in super().labels]

    @torch.no_grad()
    def detect(self, frames: Tensor) -> list[list[Detection]]:
        """uint8 (T, 3, H, W) to each frame's detections, the surest first.

        Raises:
            InputError: the model's classes share one softmax, so that its scores mean something else.
        """
        labels, detections = self.labels, []
        for part in frames.split(BATCH):
            output = self.model(pixel_values=self.prepare(part.to(self.model.device)))
            if output.logits.shape[-1] != len(labels):
                raise InputError(
                    f"detector: {output.logits.shape[-1]} scores for {len(labels)} classes; "
                    "a model with one score in 0..1 for each class is needed (RT-DETR, RT-DETRv2, D-FINE)"
                )
            scores, boxes = output.logits.sigmoid().cpu(), output.pred_boxes.cpu()
            for of_frame in zip(scores, boxes, strict=True):
                detections.append(_detections(*of_frame, labels, frames.shape[-2:]))
        return detections


def _detections(scores: Tensor, boxes: Tensor, labels: list[str], size: torch.Size) -> list[Detection]:
    height, width = size
    detections = []
    for query, label in (scores > SCORE).nonzero().tolist():
        x, y, w, h = boxes[query].tolist()
        box = ((x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height)
        detections.append(Detection(labels[label], float(scores[query, label]), box))
    return sorted(detections, key=lambda one: (-one.score, one.label, one.box))
