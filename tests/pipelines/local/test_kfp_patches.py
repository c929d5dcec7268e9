"""The private names of kfp that local runs replace are there as kfp_patches.py knows them.

If a test here fails after an upgrade of kfp: read pipelines/local/kfp_patches.py and adapt it first.
"""

from __future__ import annotations

import inspect
from types import SimpleNamespace

import docker
import pytest
from kfp.local import docker_task_handler as handler
from kfp.local.config import LocalExecutionConfig

from pipelines.local.kfp_patches import PatchError, check, containers_started_by


def test_the_installed_kfp_is_the_known_one() -> None:
    check(handler, LocalExecutionConfig)
    run = inspect.getsource(handler.DockerTaskHandler.run)
    for used in ("docker.from_env()", "run_docker_container(", "client.close()", "return_code == 0"):
        assert used in run, f"kfp's DockerTaskHandler.run no longer says {used}"
    assert handler.docker is docker


def test_what_is_replaced_is_put_back() -> None:
    before = handler.run_docker_container, docker.from_env, LocalExecutionConfig.instance
    with pytest.raises(RuntimeError), containers_started_by(lambda **arguments: 0, lambda: None):
        assert handler.run_docker_container() == 0 and docker.from_env() is None
        LocalExecutionConfig.instance = "other"
        raise RuntimeError
    assert (handler.run_docker_container, docker.from_env, LocalExecutionConfig.instance) == before


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"run_docker_container": None}, "run_docker_container"),
        ({"run_docker_container": lambda client, image: 0}, "run_docker_container"),
        ({"docker": None}, r"docker\.from_env"),
    ],
)
def test_a_changed_name_is_said(changed: dict[str, object], name: str) -> None:
    same = {"run_docker_container": handler.run_docker_container, "docker": docker}
    with pytest.raises(PatchError, match=rf"kfp\.local\.docker_task_handler\.{name} changed; use kfp 2\.17"):
        check(SimpleNamespace(**{**same, **changed}), LocalExecutionConfig)
    with pytest.raises(PatchError, match=r"LocalExecutionConfig\.instance"):
        check(handler, object())
