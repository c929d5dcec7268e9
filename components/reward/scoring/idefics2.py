"""Idefics2 with a regression head: VideoScore's architecture, which `transformers` itself does not have.

The layout of such checkpoints: the model under `model`, a linear layer without bias under `score`, which is
read at the last token that is no padding. `transformers` has that head for text models; here it sits on
Idefics2.
"""

from __future__ import annotations

from transformers.modeling_layers import GenericForSequenceClassification
from transformers.models.idefics2.modeling_idefics2 import Idefics2PreTrainedModel


class Idefics2ForSequenceClassification(GenericForSequenceClassification, Idefics2PreTrainedModel):  # type: ignore[misc]
    """Frames and text to (B, num_labels) figures."""
