"""The built images, and a way to run something in one. `tests/containers/run.sh` makes what is needed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest
import yaml

IMAGES = "ONLINEVPO_TEST_IMAGES"


@dataclass(frozen=True)
class Ended:
    """A container that ran to its end."""

    code: int
    output: str


Run = Callable[..., Ended]


@pytest.fixture(scope="session")
def images_file() -> Path:
    """The images file of the build under test."""
    named = os.environ.get(IMAGES)
    if not named:
        pytest.skip(f"{IMAGES} is not set: run tests/containers/run.sh, which builds the images first")
    return Path(named)


@pytest.fixture(scope="session")
def images(images_file: Path) -> Mapping[str, str]:
    """Image reference by family."""
    return dict(yaml.safe_load(images_file.read_text()))


@pytest.fixture(scope="session")
def client() -> Iterator[Any]:
    """The engine that DOCKER_HOST names."""
    found = docker.from_env(timeout=120)
    yield found
    found.close()


@pytest.fixture(scope="session")
def run(client: Any, images: Mapping[str, str]) -> Run:
    """Run a command in an image as a cluster does: only /cache and /tmp are writable; no network."""

    def in_image(family: str, command: Sequence[str], **arguments: Any) -> Ended:
        container = client.containers.run(
            client.images.get(images[family]).id,
            list(command),
            detach=True,
            read_only=True,
            network_mode="none",
            tmpfs={"/cache": "mode=1777", "/tmp": "mode=1777"},
            **arguments,
        )
        try:
            code = int(container.wait(timeout=600)["StatusCode"])
            return Ended(code, container.logs().decode())
        finally:
            container.remove(force=True)

    return in_image
