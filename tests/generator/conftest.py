"""Tiny text-to-video models, saved to a folder and loaded from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from torch import nn

from components.generator.families import FAMILIES, ModelFamily
from components.video.clip import ClipFormat
from tests.generator.tiny import TINY


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the folder of a tiny model by its name, made and saved on first use."""
    folders: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in folders:
            torch.manual_seed(0)
            pipeline: Any = TINY[name].build()
            # Norms and biases start at their neutral values, which would hide what they do.
            for part in ("transformer", "transformer_2", "unet", "vae"):
                module = getattr(pipeline, part, None)
                for parameter in module.parameters() if module is not None else ():
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
def geometry(tiny: str) -> ClipFormat:
    """A clip that the tiny model can make."""
    return TINY[tiny].geometry
