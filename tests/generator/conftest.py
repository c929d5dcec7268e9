"""Tiny text-to-video models with random weights, made of diffusers' real classes, loaded from a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderKLCogVideoX,
    AutoencoderKLWan,
    CogVideoXDDIMScheduler,
    CogVideoXDPMScheduler,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
    DiffusionPipeline,
    UniPCMultistepScheduler,
    WanPipeline,
    WanTransformer3DModel,
)
from torch import nn
from transformers import T5Config, T5EncoderModel

from components.generator.families import FAMILIES, Geometry, ModelFamily
from components.generator.miniature.architecture import (
    MAX_TOKENS,
    TEXT_WIDTH,
    build_pipeline,
    build_text_encoder,
    build_tokenizer,
)


@dataclass(frozen=True)
class Tiny:
    """One tiny model: how it is built, and a clip it can make."""

    build: Callable[[], Any]
    geometry: Geometry


def _wan(expand_timesteps: bool = False) -> Any:
    """Wan 2.1's shape: x4 in time and x8 in space, cross attention, UniPC on flow sigmas as released."""
    tokenizer = build_tokenizer()
    return WanPipeline(
        tokenizer=tokenizer,
        text_encoder=build_text_encoder(len(tokenizer)),
        vae=AutoencoderKLWan(
            base_dim=4,
            z_dim=16,
            dim_mult=[1, 1, 1, 1],
            num_res_blocks=1,
            temperal_downsample=[False, True, True],
        ),
        transformer=WanTransformer3DModel(
            patch_size=(1, 2, 2),
            num_attention_heads=2,
            attention_head_dim=12,
            in_channels=16,
            out_channels=16,
            text_dim=TEXT_WIDTH,
            freq_dim=32,
            ffn_dim=32,
            num_layers=2,
            cross_attn_norm=True,
            rope_max_seq_len=32,
        ),
        scheduler=UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
        expand_timesteps=expand_timesteps,
    )


def _cogvideox(scheduler: type, *, rotary: bool, patch_t: int | None, snr_shift: float) -> Any:
    """CogVideoX's shape: x4 in time and x8 in space; the scheduler's config is the released one."""
    tokenizer = build_tokenizer()
    return CogVideoXPipeline(
        tokenizer=tokenizer,
        text_encoder=T5EncoderModel(
            T5Config(
                vocab_size=len(tokenizer),
                d_model=32,
                d_kv=8,
                d_ff=32,
                num_layers=1,
                num_heads=4,
                dropout_rate=0.0,
            )
        ),
        vae=AutoencoderKLCogVideoX(
            block_out_channels=(8, 8, 8, 8),
            latent_channels=4,
            layers_per_block=1,
            norm_num_groups=2,
            temporal_compression_ratio=4,
            scaling_factor=0.7,
            invert_scale_latents=patch_t is not None,
        ),
        transformer=CogVideoXTransformer3DModel(
            num_attention_heads=2,
            attention_head_dim=16,
            in_channels=4,
            out_channels=4,
            time_embed_dim=8,
            text_embed_dim=32,
            num_layers=2,
            sample_width=4,
            sample_height=4,
            sample_frames=9,
            patch_size=2,
            patch_size_t=patch_t,
            max_text_seq_length=MAX_TOKENS,
            use_rotary_positional_embeddings=rotary,
        ),
        scheduler=scheduler(
            prediction_type="v_prediction",
            rescale_betas_zero_snr=True,
            snr_shift_scale=snr_shift,
            timestep_spacing="trailing",
            clip_sample=False,
        ),
    )


TINY = {
    "miniature": Tiny(lambda: build_pipeline(shift=3.0), Geometry(9, 48, 48, 8.0)),
    "wan-2.1": Tiny(_wan, Geometry(9, 32, 48, 16.0)),
    "wan-2.2-5b": Tiny(lambda: _wan(expand_timesteps=True), Geometry(5, 32, 32, 24.0)),
    "cogvideox-2b": Tiny(
        lambda: _cogvideox(CogVideoXDDIMScheduler, rotary=False, patch_t=None, snr_shift=3.0),
        Geometry(8, 32, 48, 8.0),
    ),
    "cogvideox-5b": Tiny(
        lambda: _cogvideox(CogVideoXDPMScheduler, rotary=True, patch_t=None, snr_shift=1.0),
        Geometry(9, 32, 48, 8.0),
    ),
    "cogvideox-1.5": Tiny(
        lambda: _cogvideox(CogVideoXDPMScheduler, rotary=True, patch_t=2, snr_shift=1.0),
        Geometry(9, 16, 32, 16.0),
    ),
}


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the folder of a tiny model by its name, made and saved on first use."""
    folders: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in folders:
            torch.manual_seed(0)
            pipeline: Any = TINY[name].build()
            # Norms and biases start at their neutral values, which would hide what they do.
            for module in (pipeline.transformer, pipeline.vae):
                for parameter in module.parameters():
                    if parameter.ndim == 1:
                        nn.init.normal_(parameter, mean=parameter.detach().mean().item(), std=0.1)
            folders[name] = tmp_path_factory.mktemp(name)
            pipeline.save_pretrained(folders[name])
        return folders[name]

    return folder


@pytest.fixture(scope="session")
def load_family(model_folder: Callable[[str], Path]) -> Callable[[str], ModelFamily]:
    """Return a freshly loaded family of a tiny model by its name."""

    def load(name: str) -> ModelFamily:
        pipeline = DiffusionPipeline.from_pretrained(model_folder(name), local_files_only=True)
        pipeline.set_progress_bar_config(disable=True)
        return FAMILIES[type(pipeline).__name__](pipeline)

    return load


@pytest.fixture(scope="module", params=list(TINY))
def tiny(request: pytest.FixtureRequest) -> str:
    """The name of each tiny model in turn."""
    return str(request.param)


@pytest.fixture(scope="module")
def family(tiny: str, load_family: Callable[[str], ModelFamily]) -> Iterator[ModelFamily]:
    """Each tiny model's family, loaded once per module; tests leave it as they found it."""
    yield load_family(tiny)


@pytest.fixture(scope="module")
def asked_frames(tiny: str) -> int:
    """The ``num_frames`` that makes diffusers' pipeline return the geometry's count.

    ``WanPipeline`` rounds a count that is not one more than a multiple of the temporal compression, and tests
    it by ``num_frames % compression != 1``: with the miniature's compression of 1 that always
    holds, and 8 makes 9.
    """
    return TINY[tiny].geometry.num_frames - (tiny == "miniature")


@pytest.fixture(scope="module")
def geometry(tiny: str) -> Geometry:
    """A clip that the tiny model can make."""
    return TINY[tiny].geometry
