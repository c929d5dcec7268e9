"""The names of kfp that a local run replaces, none of them public; only this file knows them.

kfp 2.17 has no public way to say how its local runner starts a container: `kfp.local.init` takes a
`DockerRunner` (arguments of the container) or a `SubprocessRunner` (which refuses container components). The
class that handles each is looked up by exact type in a private table. The settings can be set, but not unset.
If a name is missing, `PatchError` says which; tests/pipelines/local/test_kfp_patches.py finds it before that.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from components.runtime.errors import OnlineVPOError

#: How `kfp.local.docker_task_handler.run_docker_container` is called; it returns the exit code.
PARAMETERS = ("client", "image", "command", "volumes", "container_run_args")


class PatchError(OnlineVPOError):
    """The installed kfp lacks a name that a local run replaces."""


@contextmanager
def containers_started_by(start: Callable[..., int], client: Callable[[], Any]) -> Iterator[None]:
    """Within the block, kfp's DockerRunner starts its containers by `start`, and its settings may be changed.

    Args:
        start: instead of `run_docker_container`; takes `PARAMETERS`, returns the exit code.
        client: instead of `docker.from_env`.

    Raises:
        PatchError: if the installed kfp is another one than this is written for.
    """
    from kfp.local import docker_task_handler as handler
    from kfp.local.config import LocalExecutionConfig

    check(handler, LocalExecutionConfig)
    before = handler.run_docker_container, handler.docker.from_env, LocalExecutionConfig.instance
    handler.run_docker_container, handler.docker.from_env = start, client
    try:
        yield
    finally:
        handler.run_docker_container, handler.docker.from_env, LocalExecutionConfig.instance = before


def check(handler: Any, settings: Any) -> None:
    """Raise PatchError unless kfp's `docker_task_handler` and `LocalExecutionConfig` are as known."""
    function = getattr(handler, "run_docker_container", None)
    known = {
        "docker_task_handler.run_docker_container": callable(function)
        and tuple(inspect.signature(function).parameters) == PARAMETERS,
        "docker_task_handler.docker.from_env": hasattr(getattr(handler, "docker", None), "from_env"),
        "config.LocalExecutionConfig.instance": hasattr(settings, "instance"),
    }
    changed = [f"kfp.local.{name}" for name, same in known.items() if not same]
    if changed:
        import kfp

        raise PatchError(
            f"kfp {kfp.__version__} cannot run here: {', '.join(changed)} changed; use kfp 2.17, or adapt "
            "pipelines/local/kfp_patches.py"
        )
