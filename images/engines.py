"""The three engines that can build: the same build as docker, podman or buildah say it."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from components.runtime.errors import InputError, OnlineVPOError
from images.catalogue import CONTAINERFILE, ROOT

EngineName = Literal["docker", "podman", "buildah"]
#: The time of every file and layer, 1980-01-01: equal packages are then an equal layer, whatever commit they
#: came with. The time of the sources is in the label `created`.
TIME = 315532800
ENGINES: tuple[EngineName, ...] = ("docker", "podman", "buildah")


class BuildError(OnlineVPOError):
    """An engine's command failed; what it printed stands above."""


@dataclass(frozen=True)
class BuildEngine:
    """A container engine on this machine, as far as it builds and pushes images."""

    name: EngineName

    @classmethod
    def found(cls, name: str) -> BuildEngine:
        """The engine called `name`.

        Raises:
            InputError: if it is none of ours, or not installed.
        """
        if name not in ENGINES:
            raise InputError(f"--engine {name}: must be one of {', '.join(ENGINES)}")
        if shutil.which(name) is None:
            raise InputError(f"--engine {name}: not installed, or not in PATH")
        return cls(cast(EngineName, name))

    @property
    def prefix(self) -> str:
        """What local names begin with; podman and buildah put unqualified names under localhost."""
        return "" if self.name == "docker" else "localhost/"

    def build_command(
        self,
        target: str,
        reference: str,
        arguments: Mapping[str, str],
        labels: Mapping[str, str],
        wheelhouse: Path | None,
        extra: Sequence[str],
    ) -> list[str]:
        """The command that builds `target` as `reference`, with the same times in it every time."""
        if self.name == "docker":
            command = ["docker", "build"]
            arguments = {**arguments, "SOURCE_DATE_EPOCH": str(TIME)}
        else:
            command = [self.name, "build", "--layers", "--format", "oci", "--timestamp", str(TIME)]
            command += ["--identity-label=false"]
        command += ["--target", target, "--tag", reference]
        if wheelhouse is not None:
            command += ["--build-context", f"wheelhouse={wheelhouse.resolve()}"]
        for name, value in arguments.items():
            command += ["--build-arg", f"{name}={value}"]
        for name, value in labels.items():
            command += ["--label", f"org.opencontainers.image.{name}={value}"]
        return [*command, "--file", str(ROOT / CONTAINERFILE), *extra, str(ROOT)]

    def build(self, command: Sequence[str]) -> None:
        """Run a build command, its output shown.

        Raises:
            BuildError: if it fails.
        """
        code = subprocess.run(command).returncode
        if code != 0:
            raise BuildError(f"{' '.join(command[:3])} ended with code {code}; its output is above")

    def push(self, reference: str) -> str:
        """Push an image and return `name@sha256:...` as the registry knows it.

        Raises:
            BuildError: if it cannot be pushed.
        """
        if self.name == "docker":
            self.build(["docker", "push", reference])
            return self.pinned(reference)
        with tempfile.TemporaryDirectory() as scratch:
            file = Path(scratch) / "digest"
            self.build([self.name, "push", "--digestfile", str(file), reference])
            return f"{repository(reference)}@{file.read_text().strip()}"

    def pinned(self, reference: str) -> str:
        """`name@sha256:...` of an image in the local store.

        Raises:
            BuildError: if the store gives it no digest, as docker's older one does before a push.
        """
        if self.name == "buildah":
            shown: tuple[str, ...] = ("--type", "image", "--format", "{{.FromImageDigest}}")
            found = [f"{repository(reference)}@{self._said('inspect', *shown, reference)}"]
        else:
            shown = ("--format", "{{json .RepoDigests}}")
            found = json.loads(self._said("image", "inspect", *shown, reference)) or []
        for candidate in found:
            if candidate.startswith(f"{repository(reference)}@sha256:"):
                return str(candidate)
        raise BuildError(
            f"{reference}: this {self.name} gives an image no digest before it is pushed; use --push PREFIX, "
            "or docker's containerd image store"
        )

    def size(self, reference: str) -> str:
        """How large an image is, unpacked, its parents' layers included: "1413 MB"."""
        if self.name == "buildah":  # has a text only
            return str(json.loads(self._said("images", "--json", reference))[0]["size"])
        megabytes = int(self._said("image", "inspect", "--format", "{{.Size}}", reference)) / 1e6
        return f"{megabytes:.0f} MB"

    def _said(self, *arguments: str) -> str:
        done = subprocess.run([self.name, *arguments], capture_output=True, text=True)
        if done.returncode != 0:
            raise BuildError(f"{self.name} {' '.join(arguments[:2])}: {' '.join(done.stderr.split())}")
        return done.stdout.strip()


def repository(reference: str) -> str:
    """An image reference without its tag."""
    head, _, last = reference.rpartition("/")
    name = last.split("@")[0].split(":")[0]
    return f"{head}/{name}" if head else name
