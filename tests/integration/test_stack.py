"""The job against the real servers of `make stack`: serve, refuse, promote, roll back, verify, restart."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.runtime.artifacts.artifact import open_artifact
from pipelines.stack import servers
from tests.faults.chain import INPUTS, Chain
from tests.s3 import RCLONE

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
#: Of three alignments that differ in this only, the reward likes one best and one least.
LEARNING_RATES = (1e-3, 1e-2, 1e-1)
#: The smallest thing to be asked: not one bit below the champion by the reward's mean.
GATE = {"minimum": {"prompts": 1, "pairs": 1}, "champion": [{"metric": "reward", "margin": 0.0}]}
CLIENT = """
import hashlib, sys, mlflow
model = mlflow.pyfunc.load_model("models:/onlinevpo-generator@champion")
(clip,) = model.predict(["a red circle moving left slowly on a grey background"])["video"]
open(sys.argv[1], "wb").write(clip)
mlflow.pyfunc.load_model("models:/onlinevpo-reward@champion").predict([sys.argv[1]])
print(hashlib.sha256(clip).hexdigest())
"""


@dataclass(frozen=True)
class Job:
    """A folder with a chain of artifacts, and the environment that names the servers."""

    folder: Path
    repository: Path
    stack: dict[str, str]

    def python(self, *arguments: str, code: int = 0) -> str:
        """What a Python process in the folder prints, both streams; it must end with `code`."""
        tracking = {"ONLINEVPO_TRACKING": "on", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
        done = subprocess.run(
            [sys.executable, *arguments], cwd=self.folder, text=True, timeout=300,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env={**os.environ, **self.stack, **tracking, "PYTHONPATH": str(self.repository)},
        )  # fmt: skip
        assert done.returncode == code, done.stdout
        return done.stdout

    def step(self, step: str, code: int = 0, **where: str) -> str:
        """Run a step; `where` names what does not lie in the folder of its name."""
        paths = {name: where.get(name, name) for name in (*map(os.path.basename, INPUTS[step]), "out")}
        flags = [part for name, path in paths.items() for part in (f"--{name}", path)]
        return self.python("-m", f"components.{step}", "run", *flags, code=code)

    def registry(self, *arguments: str, code: int = 0) -> str:
        return self.python("-m", "components.registry", *arguments, code=code)

    def candidate(self, arm: int) -> str:
        return self.step(
            "registry", alignment=f"alignment{arm}", evaluation=f"evaluation{arm}", out=f"registry{arm}"
        )

    def clip(self) -> str:
        """SHA-256 of the clip that the champion draws, by plain MLflow code in a new process."""
        return self.python("-c", CLIENT, "clip.mp4").strip().splitlines()[-1]

    def aliases(self) -> dict[str, str]:
        shown: dict[str, Any] = json.loads(self.registry("show", "--json"))
        return {alias: str(one["version"]) for one in shown["versions"] for alias in one["aliases"]}


@pytest.fixture
def job(tmp_path: Path, repository: Path) -> Iterator[Job]:
    """The chain up to three evaluated alignments, arm 0 the one that the reward likes least, 2 the best."""
    if RCLONE is None:
        pytest.skip("no rclone")
    chain = Chain.make(tmp_path / "job")
    params = yaml.safe_load((chain.folder / "params.yaml").read_text())
    (chain.folder / "gate.yaml").write_text(yaml.safe_dump(GATE))
    try:
        made = Job(chain.folder, repository, servers.up(tmp_path / "stack"))
        made.step("corpus", out="corpus")
        made.step("generator", out="generator")
        liked = {}
        for number, rate in enumerate(LEARNING_RATES):
            params["alignment"]["learning_rate"] = rate
            (chain.folder / "params.yaml").write_text(yaml.safe_dump(params))
            made.step("alignment", out=f"arm{number}")
            made.step("evaluation", alignment=f"arm{number}", out=f"judged{number}")
            figures = open_artifact(chain.folder / f"judged{number}", step="evaluation").metrics()
            liked[number] = figures["aligned/reward"]
        assert len(set(liked.values())) == len(liked)
        for place, number in enumerate(sorted(liked, key=lambda arm: liked[arm])):
            (chain.folder / f"arm{number}").rename(chain.folder / f"alignment{place}")
            (chain.folder / f"judged{number}").rename(chain.folder / f"evaluation{place}")
        yield made
    finally:
        servers.down(tmp_path / "stack")


def test_serve_refuse_promote_roll_back_verify(job: Job, tmp_path: Path) -> None:
    job.candidate(1)
    first = job.clip()
    assert job.aliases() == {"candidate": "1", "champion": "1"}

    said = job.candidate(0)
    assert "REFUSED" in said and "reward" in said
    assert job.aliases() == {"candidate": "2", "champion": "1"}
    assert "reward" in job.registry("promote", "--version", "2", code=3)
    assert job.clip() == first

    job.candidate(2)
    assert job.aliases() == {"candidate": "3", "champion": "3", "previous": "1"}
    assert job.clip() != first

    job.registry("rollback", "--reason", "a test")
    assert job.aliases()["champion"] == "1" and job.clip() == first

    job.registry("verify")
    (made,) = (job.folder / "alignment1").rglob("pytorch_lora_weights.safetensors")
    whole = made.read_bytes()
    stored = [file for file in (tmp_path / "stack" / "data").rglob(made.name) if file.read_bytes() == whole]
    changed = bytearray(whole)
    changed[len(whole) // 2] ^= 1
    for file in stored:
        file.write_bytes(changed)
    assert made.name in job.registry("verify", code=3)
    for file in stored:
        file.write_bytes(whole)

    servers.down(tmp_path / "stack")
    servers.up(tmp_path / "stack")
    job.registry("verify")
    assert job.clip() == first
