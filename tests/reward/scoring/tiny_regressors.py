"""Tiny models of the real classes, with random weights, saved as their makers save them."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import BPE
from transformers import (
    Idefics2Config,
    PreTrainedTokenizerFast,
    VideoMAEConfig,
    VideoMAEForVideoClassification,
)
from transformers.models.idefics2.image_processing_pil_idefics2 import Idefics2ImageProcessorPil
from transformers.models.idefics2.processing_idefics2 import Idefics2Processor
from transformers.models.videomae.image_processing_pil_videomae import VideoMAEImageProcessorPil

from components.reward.scoring.idefics2 import Idefics2ForSequenceClassification

ASPECTS = ("visual", "temporal", "dynamic", "alignment", "factual")


def write_videoscore(folder: Path, aspects: int = 5, image_tokens: int = 4) -> Path:
    """Idefics2 with a regression head, a processor and a tokenizer that knows ASCII letter by letter."""
    torch.manual_seed(0)
    letters = ["<unk>", "<s>", "</s>", "<pad>", "\n", *(chr(code) for code in range(32, 127))]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(
            BPE(vocab={letter: i for i, letter in enumerate(letters)}, merges=[], unk_token="<unk>")
        ),
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
    )
    images = Idefics2ImageProcessorPil(
        size={"shortest_edge": 28, "longest_edge": 56}, do_image_splitting=False
    )
    processor = Idefics2Processor(images, tokenizer, image_seq_len=image_tokens)
    config = Idefics2Config(
        text_config={
            "model_type": "mistral",
            "vocab_size": len(tokenizer),
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "max_position_embeddings": 1024,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 56,
            "patch_size": 14,
        },
        perceiver_config={
            "hidden_size": 16,
            "resampler_n_latents": image_tokens,
            "resampler_depth": 1,
            "resampler_n_heads": 2,
            "resampler_head_dim": 8,
            "num_key_value_heads": 1,
        },
        image_token_id=processor.image_token_id,
        num_labels=aspects,
        problem_type="regression",
    )
    model = Idefics2ForSequenceClassification(config)
    # As initialised the outputs hardly depend on the input.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4.0)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def write_videomae(
    folder: Path, labels: tuple[str, ...] = ("sharp", "smooth"), problem: str | None = "regression"
) -> Path:
    """VideoMAE with an output a label, for 4 frames of 32 x 32."""
    torch.manual_seed(1)
    config = VideoMAEConfig(
        image_size=32,
        patch_size=8,
        num_frames=4,
        tubelet_size=2,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        initializer_range=0.3,
        id2label=dict(enumerate(labels)),
        label2id={label: place for place, label in enumerate(labels)},
        problem_type=problem,
    )
    VideoMAEForVideoClassification(config).save_pretrained(folder)
    images = VideoMAEImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    images.save_pretrained(folder)
    return folder
