"""A build from a folder of wheels, by another engine and without any cache, gives the very same layers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from images.catalogue import ROOT

pytestmark = pytest.mark.containers

#: The base image under the build under test.
BASE = "ONLINEVPO_TEST_BASE"


@pytest.mark.timeout(1800)
def test_a_build_without_network_gives_the_same_image(
    client: Any, images: Mapping[str, str], tmp_path: Path
) -> None:
    def verb(*arguments: str) -> None:
        subprocess.run([sys.executable, "-m", "images", *arguments], cwd=ROOT, check=True)

    wheels, output = tmp_path / "wheels", tmp_path / "images.yaml"
    verb("wheelhouse", "--to", str(wheels), "--family", "control")
    where = ("--family", "control", "--base-image", os.environ[BASE], "--wheelhouse", str(wheels))
    # No certificates and no folder of the machine's are mounted: the wheels are all there is.
    made = ("--engine", "buildah", "--tag", "wheelhouse", "--output", str(output))
    verb("build", *where, *made, "--", "--isolation=chroot", "--no-cache")
    with_network = client.images.get(images["control"]).attrs
    without = client.images.get(yaml.safe_load(output.read_text())["control"]).attrs
    assert without["RootFS"]["Layers"] == with_network["RootFS"]["Layers"]
    assert without["Config"] == with_network["Config"]
