"""What the tests of submitting and watching share: moved time, the real pipeline, an end as a value."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from components.runtime.errors import OnlineVPOError
from pipelines.client.connection import PollingPolicy
from pipelines.compiler.compile import compile_to
from tests.pipelines.client.kfp_server import KfpServer

STEPS = ("corpus", "generator", "reward", "alignment", "evaluation", "registry", "finish")
REPOSITORY = Path(__file__).resolve().parents[3]


@functools.cache
def compiled_text() -> str:
    """The default pipeline as the compiler of this repository writes it."""
    with tempfile.TemporaryDirectory() as folder:
        images, output = Path(folder) / "images.yaml", Path(folder) / "pipeline.yaml"
        families = ("data", "model", "evaluation", "control")
        images.write_text(
            "".join(f"{f}: registry.example/onlinevpo-{f}@sha256:{'5' * 64}\n" for f in families)
        )
        compile_to(output, REPOSITORY / "params.yaml", (), "miniature-cpu", images)
        return output.read_text()


class Time:
    """A clock that only sleeping moves.

    Attributes:
        sleeps: what was slept, in order.
        then: what to do at the n-th sleep, counted from 1.
    """

    def __init__(self, most: int = 2000) -> None:
        self.now = 0.0
        self.sleeps: list[float] = []
        self.then: dict[int, Callable[[], object]] = {}
        self._most = most

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.sleeps.append(seconds)
        assert len(self.sleeps) <= self._most, "does this ever end?"
        self.then.get(len(self.sleeps), lambda: None)()

    def polling(self, **changes: Any) -> PollingPolicy:
        given = {"give_up_after": 300.0, "request_timeout": 5.0, **changes}
        return PollingPolicy(sleep=self.sleep, clock=lambda: self.now, **given)


@dataclass
class End:
    """How a command ended: exit code, the line of its error, what it printed."""

    code: int
    error: str
    out: list[str]
    err: str

    @property
    def told(self) -> list[tuple[str, str]]:
        """Who and what of each line after the URL, without the time before it."""
        return [tuple(line.split(maxsplit=2)[1:]) for line in self.out[1:]]  # type: ignore[misc]


@dataclass
class Caller:
    """Calls of this repository's functions against one server, in moved time."""

    server: KfpServer
    capsys: pytest.CaptureFixture[str]
    pipeline: Path
    time: Time = field(default_factory=Time)

    def submit(self, **options: Any) -> End:
        from pipelines.client.submit import submit_pipeline

        polling = options.pop("polling", None) or self.time.polling()
        given = {"host": self.server.host, "polling": polling, "on_interrupt": "leave", **options}
        return self.end(lambda: submit_pipeline(self.pipeline, **given))

    def end(self, function: Callable[[], None]) -> End:
        self.capsys.readouterr()
        code, message = 0, ""
        try:
            function()
        except OnlineVPOError as error:
            code, message = error.exit_code, f"{error.label}: {error}"
            assert "\n" not in message
        printed = self.capsys.readouterr()
        return End(code, message, printed.out.splitlines(), printed.err)
