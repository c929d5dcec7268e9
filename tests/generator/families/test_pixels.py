"""Encoding and decoding: shape, type, range, and agreement with the pipeline's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import patchify, unpatchify
from torch import Tensor

from components.generator.families import ModelFamily
from components.generator.generator import load_family as load_from_folder
from components.video.clip import ClipFormat
from tests.generator.theirs import asked_frames, call, to_theirs

Loader = Callable[[str], ModelFamily]


def noise_frames(geometry: ClipFormat, count: int = 2) -> Tensor:
    shape = (count, geometry.frames, 3, geometry.height, geometry.width)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(3))


def levels_apart(one: Tensor, other: Tensor) -> int:
    return int((one.int() - other.int()).abs().max())


def test_shapes_and_types(family: ModelFamily, geometry: ClipFormat) -> None:
    frames = noise_frames(geometry)
    latents = family.encode(frames)
    assert latents.dtype == torch.float32
    assert tuple(latents.shape) == (2, *family.latent_shape(geometry))
    decoded = family.decode(latents)
    assert decoded.dtype == torch.uint8
    assert decoded.shape == frames.shape
    assert decoded.float().std() > 1  # the tiny decoder does something


def seed_noisy_decoder(vae: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A decoder that adds noise starts from the global random state: make that the same for all."""
    decode = vae.decode

    def seeded(*arguments: Any, **named: Any) -> Any:
        torch.manual_seed(0)
        return decode(*arguments, **named)

    monkeypatch.setattr(vae, "decode", seeded)


def test_decoded_frames_are_the_pipelines_own(
    family: ModelFamily, geometry: ClipFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    latents = torch.randn(2, *family.latent_shape(geometry), generator=torch.Generator().manual_seed(4))
    frame_by_frame = family.pipeline_class == "TextToVideoSDPipeline"

    class Done(type(family.pipeline.scheduler)):  # type: ignore[misc]
        """A scheduler whose every step ends on the given latents."""

        def step(self, *_: object, **__: object) -> Any:
            if frame_by_frame:
                return SimpleNamespace(prev_sample=latents.transpose(1, 2).flatten(0, 1))
            return to_theirs(family, latents), None

    monkeypatch.setattr(family.pipeline, "scheduler", Done.from_config(family.pipeline.scheduler.config))
    seed_noisy_decoder(family.pipeline.vae, monkeypatch)
    prompts = ["a red circle", "a blue square"]
    frames = asked_frames(family, geometry)
    theirs = call(family, prompts, geometry, num_frames=frames, output_type="pt")
    assert levels_apart(family.decode(latents), (theirs * 255).round()) <= 1


@torch.no_grad()
def test_decoding_undoes_the_scaling_of_encoding(
    family: ModelFamily, geometry: ClipFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = noise_frames(geometry)
    vae = family.pipeline.vae
    seed_noisy_decoder(vae, monkeypatch)
    video = frames.transpose(1, 2).float() / 127.5 - 1
    if family.pipeline_class == "TextToVideoSDPipeline":  # its VAE knows images
        images = video.transpose(1, 2).flatten(0, 1)
        rebuilt = vae.decode(vae.encode(images).latent_dist.mode()).sample
        rebuilt = rebuilt.unflatten(0, (2, -1)).transpose(1, 2)
    else:
        time = [torch.zeros(2)] if vae.config.get("timestep_conditioning") else []
        rebuilt = vae.decode(vae.encode(video).latent_dist.mode(), *time).sample
    expected = ((rebuilt.clamp(-1, 1) + 1) * 127.5).round().transpose(1, 2)
    assert levels_apart(family.decode(family.encode(frames)), expected) <= 1


def test_chunks_are_only_about_memory(
    family: ModelFamily, geometry: ClipFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = noise_frames(geometry, 3)
    monkeypatch.setattr(family, "hints", replace(family.hints, decode_pixels=2**30))
    latents, decoded = family.encode(frames), family.decode(family.encode(frames))
    monkeypatch.setattr(family, "hints", replace(family.hints, decode_pixels=1))
    sizes: list[int] = []
    plain = family.pipeline.vae.decode
    monkeypatch.setattr(
        family.pipeline.vae, "decode", lambda raw, *a, **k: sizes.append(len(raw)) or plain(raw, *a, **k)
    )
    torch.testing.assert_close(family.encode(frames), latents, atol=1e-5, rtol=0)
    assert levels_apart(family.decode(latents), decoded) <= 1
    assert set(sizes) == {1}


def test_a_clip_does_not_depend_on_its_batch(family: ModelFamily, geometry: ClipFormat) -> None:
    frames = noise_frames(geometry, 3)
    latents = family.encode(frames)
    torch.testing.assert_close(family.encode(frames[1:2]), latents[1:2], atol=1e-5, rtol=0)
    assert levels_apart(family.decode(latents[2:]), family.decode(latents)[2:]) <= 1


def test_cogvideox_latents_have_the_scale_the_model_was_trained_at(load_family: Loader) -> None:
    family = load_family("cogvideox-5b")
    frames = noise_frames(ClipFormat(9, 16, 16, 8.0), 1)
    with torch.no_grad():
        raw = family.pipeline.vae.encode(frames.transpose(1, 2).float() / 127.5 - 1).latent_dist.mode()
    torch.testing.assert_close(family.encode(frames), 0.7 * raw)


def test_cogvideox_1_5_carries_a_copy_of_the_first_latent_frame_in_front(load_family: Loader) -> None:
    family = load_family("cogvideox-1.5")
    latents = family.encode(noise_frames(ClipFormat(9, 16, 16, 8.0)))
    assert torch.equal(latents[:, :, 0], latents[:, :, 1])
    changed = latents.clone()
    changed[:, :, 0] = 9.0
    assert torch.equal(family.decode(changed), family.decode(latents))


@torch.no_grad()
def test_the_miniatures_unchunked_pass_equals_the_chunked_one(load_family: Loader) -> None:
    vae = load_family("miniature").pipeline.vae
    video = torch.rand(2, 3, 9, 48, 48, generator=torch.Generator().manual_seed(5)) * 2 - 1
    chunked = vae.encode(video).latent_dist.parameters
    unchunked = vae.quant_conv(vae.encoder(patchify(video, vae.config.patch_size)))
    assert (chunked - unchunked).abs().max() < 1e-5
    latents = unchunked.chunk(2, dim=1)[0]
    decoded = unpatchify(vae.decoder(vae.post_quant_conv(latents)), vae.config.patch_size)
    assert (vae.decode(latents).sample - decoded.clamp(-1, 1)).abs().max() < 1e-5


def test_a_half_precision_model_still_speaks_float32_and_uint8(
    tiny: str, model_folder: Callable[[str], Path], geometry: ClipFormat
) -> None:
    family = load_from_folder(model_folder(tiny), torch.device("cpu"), "half")
    assert family.denoiser.dtype == family.hints.weights == torch.bfloat16
    assert family.pipeline.text_encoder.dtype == torch.bfloat16
    assert family.pipeline.vae.dtype == family.hints.vae
    embeddings = family.encode_prompts(["a red circle"])
    assert embeddings.dtype == torch.bfloat16
    latents = family.encode(noise_frames(geometry, 1))
    assert latents.dtype == torch.float32
    prediction = family.predict(latents, torch.tensor([500]), embeddings)
    assert prediction.dtype == torch.float32
    assert prediction.isfinite().all()
    assert family.decode(latents).dtype == torch.uint8
