"""The latents' shape against what each pipeline makes itself, and sizes that must be refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from components.generator.families import FAMILIES, ModelFamily
from components.runtime.errors import InputError
from components.video.clip import ClipFormat
from tests.generator.theirs import asked_frames, call

Loader = Callable[[str], ModelFamily]

REFUSED = [
    ("miniature", (5, 48, 48), r"num_frames = 5: .* 4k \+ 1 frames in multiples of 3 latent frames"),
    ("miniature", (12, 48, 48), "num_frames = 12"),
    ("miniature", (0, 48, 48), "num_frames = 0"),
    ("miniature", (9, 44, 48), "height = 44: .* multiple of 8 pixels"),
    ("miniature", (9, 48, 0), "width = 0"),
    ("wan-2.1", (8, 32, 48), r"num_frames = 8: .* 4k \+ 1"),
    ("wan-2.1", (9, 40, 48), "height = 40: .* multiple of 16 pixels"),
    ("wan-2.1", (9, 32, 49), "width = 49"),
    ("wan-2.2-5b", (5, 32, 48), "width = 48: .* multiple of 32 pixels"),
    ("cogvideox-2b", (13, 32, 48), r"num_frames = 13: .* 8k or 8k \+ 1 frames"),
    ("cogvideox-2b", (0, 32, 48), "num_frames = 0"),
    ("cogvideox-2b", (9, 24, 48), "height = 24: .* multiple of 16 pixels"),
    ("cogvideox-5b", (9, 32, -16), "width = -16"),
    ("cogvideox-1.5", (8, 16, 32), r"num_frames = 8: .* makes 8k \+ 1 frames"),
    ("cogvideox-1.5", (9, 48, 32), "height = 48: .* at most 32 pixels"),
    ("ltx", (8, 64, 64), r"num_frames = 8: this model makes 8k \+ 1 frames"),
    ("ltx", (9, 48, 64), "height = 48: .* multiple of 32 pixels"),
    ("hunyuan-video", (8, 32, 32), r"num_frames = 8: this model makes 4k \+ 1 frames"),
    ("hunyuan-video", (9, 32, 40), "width = 40: .* multiple of 16 pixels"),
    ("modelscope", (0, 32, 32), "num_frames = 0: at least 1"),
    ("modelscope", (4, 36, 32), "height = 36: .* multiple of 8 pixels"),
]


def test_each_pipeline_class_has_its_family(tiny: str, family: ModelFamily) -> None:
    assert FAMILIES[type(family.pipeline).__name__] is type(family)


def test_shape_is_the_pipelines_own(family: ModelFamily, geometry: ClipFormat) -> None:
    made = call(family, ["a red circle"], geometry, num_frames=asked_frames(family, geometry))
    assert tuple(made.shape[1:]) == family.latent_shape(geometry)


def test_the_decoded_clip_has_the_asked_size(family: ModelFamily, geometry: ClipFormat) -> None:
    frames = family.decode(torch.zeros(1, *family.latent_shape(geometry)))
    assert tuple(frames.shape) == (1, geometry.frames, 3, geometry.height, geometry.width)


@pytest.mark.parametrize(("name", "size", "message"), REFUSED)
def test_sizes_the_model_cannot_make_are_refused(
    load_family: Loader, name: str, size: tuple[int, int, int], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        load_family(name).latent_shape(ClipFormat(*size, fps=8.0))


def accepts(family: ModelFamily, num_frames: int, height: int, width: int) -> bool:
    try:
        family.latent_shape(ClipFormat(num_frames, height, width, 8.0))
    except InputError:
        return False
    return True


def test_cogvideox_accepts_just_the_clips_its_vae_gives_back(load_family: Loader) -> None:
    family = load_family("cogvideox-2b")
    vae = family.pipeline.vae
    for num_frames in range(1, 26):
        latent_frames = (num_frames - 1) // 4 + 1  # as the pipeline counts them
        with torch.no_grad():
            decoded = vae.decode(torch.zeros(1, 4, latent_frames, 2, 2)).sample.shape[2]

        assert accepts(family, num_frames, 16, 16) == (decoded == num_frames), num_frames


def test_the_miniature_accepts_just_the_clips_its_vae_encodes_whole(load_family: Loader) -> None:
    family = load_family("miniature")
    for num_frames in range(3, 31, 3):  # the transformer's patches are three frames deep
        frames = torch.zeros(1, num_frames, 3, 8, 8, dtype=torch.uint8)
        whole = family.encode(frames).shape[2] == num_frames
        assert accepts(family, num_frames, 8, 8) == whole, num_frames


def test_compression_is_the_vaes(family: ModelFamily, geometry: ClipFormat) -> None:
    time, space = family.compression
    latents = family.encode(
        torch.zeros(1, geometry.frames, 3, geometry.height, geometry.width, dtype=torch.uint8)
    )
    assert latents.shape[3:] == (geometry.height // space, geometry.width // space)
    longer = geometry.frames + 24  # three latent frames more, or six, or 24
    frames = torch.zeros(1, longer, 3, geometry.height, geometry.width, dtype=torch.uint8)
    assert family.encode(frames).shape[2] - latents.shape[2] == 24 // time
