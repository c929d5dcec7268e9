"""Encoding and decoding: shape, type, range, and agreement with the pipeline's own."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import patchify, unpatchify
from torch import Tensor

from components.generator.families import Geometry, ModelFamily

Loader = Callable[[str], ModelFamily]


def noise_frames(geometry: Geometry, count: int = 2) -> Tensor:
    shape = (count, geometry.num_frames, 3, geometry.height, geometry.width)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(3))


def levels_apart(one: Tensor, other: Tensor) -> int:
    return int((one.int() - other.int()).abs().max())


def test_shapes_and_types(family: ModelFamily, geometry: Geometry) -> None:
    frames = noise_frames(geometry)
    latents = family.encode(frames)
    assert latents.dtype == torch.float32
    assert tuple(latents.shape) == (2, *family.latent_shape(geometry))
    decoded = family.decode(latents)
    assert decoded.dtype == torch.uint8
    assert decoded.shape == frames.shape
    assert decoded.float().std() > 1  # the tiny decoder does something


def test_decoded_frames_are_the_pipelines_own(
    family: ModelFamily, geometry: Geometry, asked_frames: int
) -> None:
    time_first = family.pipeline_class == "CogVideoXPipeline"
    latents = torch.randn(2, *family.latent_shape(geometry), generator=torch.Generator().manual_seed(4))

    def put_ours(pipe: object, step: int, time: Tensor, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"latents": latents.transpose(1, 2) if time_first else latents}

    theirs = family.pipeline(
        ["a red circle", "a blue square"],
        height=geometry.height,
        width=geometry.width,
        num_frames=asked_frames,
        num_inference_steps=1,
        guidance_scale=1.0,
        max_sequence_length=16,
        callback_on_step_end=put_ours,
        output_type="pt",
    ).frames
    assert levels_apart(family.decode(latents), (theirs * 255).round()) <= 1


def test_decoding_undoes_the_scaling_of_encoding(family: ModelFamily, geometry: Geometry) -> None:
    frames = noise_frames(geometry)
    vae = family.pipeline.vae
    with torch.no_grad():
        video = frames.transpose(1, 2).float() / 127.5 - 1
        unscaled = vae.decode(vae.encode(video).latent_dist.mode()).sample
    expected = ((unscaled.clamp(-1, 1) + 1) * 127.5).round().transpose(1, 2)
    assert levels_apart(family.decode(family.encode(frames)), expected) <= 1


def test_a_clip_does_not_depend_on_its_batch(family: ModelFamily, geometry: Geometry) -> None:
    frames = noise_frames(geometry, 3)
    latents = family.encode(frames)
    torch.testing.assert_close(family.encode(frames[1:2]), latents[1:2], atol=1e-5, rtol=0)
    assert levels_apart(family.decode(latents[2:]), family.decode(latents)[2:]) <= 1


def test_cogvideox_latents_have_the_scale_the_model_was_trained_at(load_family: Loader) -> None:
    family = load_family("cogvideox-5b")
    frames = noise_frames(Geometry(9, 16, 16, 8.0), 1)
    with torch.no_grad():
        raw = family.pipeline.vae.encode(frames.transpose(1, 2).float() / 127.5 - 1).latent_dist.mode()
    torch.testing.assert_close(family.encode(frames), 0.7 * raw)


def test_cogvideox_1_5_carries_a_copy_of_the_first_latent_frame_in_front(load_family: Loader) -> None:
    family = load_family("cogvideox-1.5")
    latents = family.encode(noise_frames(Geometry(9, 16, 16, 8.0)))
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


@pytest.mark.parametrize("name", ["miniature", "wan-2.1", "cogvideox-2b", "cogvideox-5b"])
def test_a_half_precision_model_still_speaks_float32_and_uint8(load_family: Loader, name: str) -> None:
    family = load_family(name)
    family.pipeline.to(dtype=torch.bfloat16)
    geometry = Geometry(9, 48, 48, 8.0)
    embeddings = family.encode_prompts(["a red circle"])
    assert embeddings.dtype == torch.bfloat16
    latents = family.encode(noise_frames(geometry, 1))
    assert latents.dtype == torch.float32
    prediction = family.predict(latents, torch.tensor([500]), embeddings)
    assert prediction.dtype == torch.float32
    assert prediction.isfinite().all()
    assert family.decode(latents).dtype == torch.uint8
