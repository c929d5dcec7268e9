"""The miniature text-to-video model: the real Wan classes of diffusers at a small size.

A laptop samples it in milliseconds. Nothing here is a look-alike: the parts are `AutoencoderKLWan`,
`UMT5EncoderModel`, `WanTransformer3DModel` and `FlowMatchEulerDiscreteScheduler`, assembled as a
`WanPipeline` that `WanPipeline.from_pretrained` loads.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler, WanPipeline, WanTransformer3DModel
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import nn
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from components.corpus.world.scene import all_scenes

#: Longest caption in tokens, the end-of-text token included, rounded up.
MAX_TOKENS = 16
PATCH = 4
LATENT_CHANNELS = 8
TEXT_WIDTH = 64
WIDTH, HEADS, LAYERS = 192, 6, 5


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Return a word-level tokenizer over the miniature world's vocabulary, with T5's special tokens."""
    words = sorted({word for scene in all_scenes() for word in scene.caption.split()})
    vocabulary = {word: index for index, word in enumerate(["<pad>", "</s>", "<unk>", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", vocabulary["</s>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=MAX_TOKENS,
        padding_side="right",
    )


def build_text_encoder(vocabulary_size: int) -> UMT5EncoderModel:
    """Return a two-layer UMT5 encoder, 64 wide; it is trained together with the transformer."""
    config = UMT5Config(
        vocab_size=vocabulary_size,
        d_model=TEXT_WIDTH,
        d_kv=16,
        d_ff=128,
        num_layers=2,
        num_heads=4,
        dropout_rate=0.0,
        feed_forward_proj="gated-gelu",
        pad_token_id=0,
        eos_token_id=1,
    )
    return UMT5EncoderModel(config)


def build_vae() -> AutoencoderKLWan:
    """Return a Wan VAE that works on 4 x 4 pixel patches without temporal compression.

    48 x 48 px x T -> 12 x 12 x T. All convolutions run on the 12 x 12 grid, and because no layer mixes time
    in strides, the un-chunked pass equals the chunked one.
    """
    # Any: diffusers hides the module's attributes from type checkers.
    vae: Any = AutoencoderKLWan(
        base_dim=48,
        z_dim=LATENT_CHANNELS,
        dim_mult=[1],
        num_res_blocks=2,
        temperal_downsample=[],
        in_channels=3 * PATCH**2,
        out_channels=3 * PATCH**2,
        patch_size=PATCH,
        scale_factor_temporal=1,
        scale_factor_spatial=PATCH,
        latents_mean=[0.0] * LATENT_CHANNELS,
        latents_std=[1.0] * LATENT_CHANNELS,
    )
    # Wan's RMS norm divides every position by its own length, so absolute brightness is the last thing that
    # is learnt. A constant in some channels of each half's first layer dominates that length and makes the
    # norm almost linear at the start.
    with torch.no_grad():
        for convolution in (vae.encoder.conv_in, vae.decoder.conv_in):
            nn.init.constant_(convolution.bias[:8], 2.0)
    return vae


def build_transformer() -> WanTransformer3DModel:
    """Return the policy: 108 tokens for 9 x 12 x 12 latents, about three million parameters."""
    return WanTransformer3DModel(
        patch_size=(3, 2, 2),
        num_attention_heads=HEADS,
        attention_head_dim=WIDTH // HEADS,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        text_dim=TEXT_WIDTH,
        freq_dim=64,
        ffn_dim=4 * WIDTH,
        num_layers=LAYERS,
    )


def build_pipeline(shift: float) -> WanPipeline:
    """Return the untrained miniature; `shift` is the flow-matching schedule's time shift."""
    tokenizer = build_tokenizer()
    return WanPipeline(
        tokenizer=tokenizer,
        text_encoder=build_text_encoder(len(tokenizer)),
        vae=build_vae(),
        transformer=build_transformer(),
        scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=shift),
    )
