"""A version's record and digest: what decides a score counts, nothing else."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from components.reward.base import digest_of, digest_of_folder
from components.reward.refresh.versions import RewardVersion, judging, write_versions


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in (("config.json", "{}"), ("model.safetensors", "weights"), ("card.json", "{}")):
        (tmp_path / name).write_text(text)
    return tmp_path


def test_the_digest_follows_weights_and_config_alone(folder: Path) -> None:
    sha = {
        n: hashlib.sha256((folder / n).read_bytes()).hexdigest() for n in ("config.json", "model.safetensors")
    }
    text = json.dumps(sha, sort_keys=True, separators=(",", ":"))
    first = digest_of_folder(folder)
    assert first == hashlib.sha256(text.encode()).hexdigest()
    assert first == digest_of(
        {**sha, "card.json": "other", "plots/a.png": "x", "refresh/replay.safetensors": "y"}
    )
    (folder / "card.json").write_text("changed")
    assert digest_of_folder(folder) == first
    (folder / "model.safetensors").write_text("Weights")
    assert digest_of_folder(folder) != first


def test_the_last_adopted_version_judges() -> None:
    versions = [
        RewardVersion(0, "a"),
        RewardVersion(1, "b", 0, 3, 100),
        RewardVersion(2, "c", 1, 5, 100, False, ("worse",)),
    ]
    assert judging(versions).number == 1 and judging(versions[:1]).number == 0
    assert versions[2].folder == "v2"


def test_versions_come_back_from_json(tmp_path: Path) -> None:
    versions = [
        RewardVersion(0, "a"),
        RewardVersion(
            1, "b", 0, 3, 100, False, ("x is 0.1, was 0.3",), {"x": {"before": 0.3, "after": 0.1}}, {"y": 2.0}
        ),
    ]
    write_versions(tmp_path, versions)
    read = json.loads((tmp_path / "versions.json").read_text())["versions"]
    assert [RewardVersion.of(values) for values in read] == versions
