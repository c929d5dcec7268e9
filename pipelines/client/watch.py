"""Following a run of the pipeline: a line per change, and its outcome as this program's own.

What the API gives is thin: its task details are nodes of the engine's graph ("corpus-driver", "executor" and
"root" beside "corpus"), a time not yet known is the epoch or the year 1, and the error messages that it
documents are left empty by servers up to 2.17.
"""

from __future__ import annotations

import datetime
import re
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import typer
from kfp_server_api import V2beta1Run

from components.runtime.errors import GateRefused, InputError, Interrupted, OnlineVPOError
from components.runtime.progress import duration
from pipelines.client.connection import NotFound, PollingPolicy
from pipelines.client.kfp_api import FINAL, Server
from pipelines.client.token import find_token
from pipelines.steps import FINISH, STEPS

_UNKNOWN = "RUNTIME_STATE_UNSPECIFIED"
_ATTEMPT = re.compile(r"executor\((\d+)\)")
# How a step's refusal reads wherever its message comes through: its own last line, or its exit code.
_REFUSED = re.compile(r"(?<!connection )\brefused: |\bexit (?:status|code)[ :=]+3\b", re.IGNORECASE)
# Looks after the run's end, because the server records the run before its tasks.
_SETTLING = 2


class RunFailed(OnlineVPOError):
    """The run ended, without what it was for."""

    label = "failed"


class RunCancelled(OnlineVPOError):
    """The run was cancelled. The code is a shell's for a command stopped by Ctrl-C: not one to retry on."""

    exit_code = 130
    label = "cancelled"


class OnInterrupt(StrEnum):
    """What Ctrl-C or SIGTERM does to a run that is being followed."""

    leave = "leave"
    cancel = "cancel"
    ask = "ask"


def on_interrupt_named(name: str) -> OnInterrupt:
    """The choice called `name`.

    Raises:
        InputError: if there is none.
    """
    try:
        return OnInterrupt(name)
    except ValueError:
        raise InputError(f"--on-interrupt {name}: must be one of {', '.join(OnInterrupt)}") from None


def watch_run(
    run_id: str,
    *,
    host: str,
    token_file: Path | None = None,
    on_interrupt: str = "ask",
    polling: PollingPolicy | None = None,
) -> None:
    """Follow a run that was submitted before, as `follow` does.

    Raises:
        InputError: if there is no such run, or the server cannot be used.
    """
    choice, polling = on_interrupt_named(on_interrupt), polling or PollingPolicy()
    server = Server(host, find_token(token_file), polling)
    server.connect()
    try:
        run = server.run(run_id)
    except NotFound:
        raise InputError(f"run {run_id}: {server.host} has none of that id") from None
    print(server.url(run_id), flush=True)
    follow(server, run_id, leaf_tasks(run.pipeline_spec or {}), choice, polling)


def follow(
    server: Server, run_id: str, tasks: Sequence[str], on_interrupt: OnInterrupt, polling: PollingPolicy
) -> None:
    """Print what happens to a run until it ends; return if it succeeded.

    Args:
        server: connected.
        run_id: the run.
        tasks: names of the tasks to tell of, as `leaf_tasks` gives them.
        on_interrupt: what the first Ctrl-C or SIGTERM does; a second one always leaves at once.
        polling: how often to look.

    Raises:
        GateRefused: if a gate refused and the server says so.
        RunFailed: if it failed for any other reason, or was deleted.
        RunCancelled: if it was cancelled, by whomever.
        Interrupted: if the run goes on without us: we were asked to leave, or the server fell silent.
    """
    _Follower(server, run_id, tasks, on_interrupt, polling).follow()


def leaf_tasks(spec: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the tasks of a compiled pipeline that run a container, in the order of the steps.

    Args:
        spec: the pipeline spec, or the mapping of pipeline_spec and platform_spec that the API stores.
    """
    spec = spec.get("pipeline_spec", spec)
    components = spec.get("components", {})
    names = {
        name
        for component in (spec.get("root", {}), *components.values())
        for name, task in component.get("dag", {}).get("tasks", {}).items()
        if "dag" not in components.get(task.get("componentRef", {}).get("name"), {})
    }
    order = {name: place for place, name in enumerate([*(s.name for s in STEPS), FINISH])}
    return tuple(sorted(names, key=lambda name: (order.get(name, len(order)), name)))


@dataclass(frozen=True)
class _Task:
    name: str
    state: str
    seconds: float | None  # between its start and its end, where the server knows both
    reason: str


class _Follower:
    def __init__(
        self,
        server: Server,
        run_id: str,
        tasks: Sequence[str],
        on_interrupt: OnInterrupt,
        polling: PollingPolicy,
    ) -> None:
        self.server, self.run_id, self.names, self.polling = server, run_id, tuple(tasks), polling
        self.url = server.url(run_id)
        self.on_interrupt = on_interrupt
        self.began = self.spoke = polling.clock()
        self.tasks: dict[str, _Task] = {}
        self.since: dict[str, float] = {}
        self.run_state = self.unreadable = ""
        self.attempts: set[str] = set()
        self.cancelling = False
        self.width = max(map(len, ("run", *self.names)))

    def follow(self) -> None:
        with _stoppable():
            while True:
                try:
                    return self._until_end()
                except KeyboardInterrupt as stop:
                    by_person = not isinstance(stop, _Terminated)
                self._interrupted(by_person)

    def _until_end(self) -> None:
        settling = 0
        while True:
            run = self._look()
            if run.state in FINAL:
                unsettled = any(task.state in ("PENDING", "RUNNING") for task in self.tasks.values())
                if not unsettled or settling == _SETTLING:
                    return self._outcome(run)
                settling += 1
            if self.polling.clock() - self.spoke >= self.polling.heartbeat:
                self._still()
            self.polling.sleep(self.polling.interval)

    def _look(self) -> V2beta1Run:
        try:
            run = self.server.run(self.run_id)
        except NotFound:
            raise RunFailed(f"the run was deleted: {self.url}") from None
        except InputError as error:
            raise InputError(f"{error}; the run goes on: {self.url}") from None
        except OnlineVPOError as error:
            raise Interrupted(f"{error}; the run goes on: {self.url}") from None
        if any(entry.state == "CANCELING" for entry in (run, *(run.state_history or ()))):
            self.cancelling = True
        details = (run.run_details.task_details if run.run_details else None) or []
        self._tell_tasks(details)
        if run.state and run.state not in (_UNKNOWN, self.run_state):
            self.run_state = str(run.state)
            self._say("run", self.server.clean(run.state).lower())
        unreadable = "" if run.state else self.server.failure(run.error)
        if unreadable not in ("", self.unreadable):
            self.unreadable = unreadable
            self.server.note(f"the server cannot tell how the run is: {unreadable}")
        return run

    def _tell_tasks(self, details: Sequence[Any]) -> None:
        now = self._read_tasks(details)
        for name in self.names:
            task, before = now.get(name), self.tasks.get(name)
            if task is None or (before is not None and before.state == task.state):
                continue
            self.since[name] = self.polling.clock()
            words = task.state.lower()
            if task.seconds is not None and task.state in FINAL:
                words += f" after {duration(task.seconds)}"
            self._say(name, f"{words}: {task.reason}" if task.reason else words)
        self.tasks = now
        running = [name for name, task in now.items() if task.state == "RUNNING"]
        for detail in details:
            attempt = _ATTEMPT.fullmatch(detail.display_name or "")
            key = f"{detail.task_id}{detail.display_name}"
            if attempt and detail.state == "FAILED" and key not in self.attempts:
                self.attempts.add(key)
                if running:  # else its task has failed for good, and says so itself
                    self._say(", ".join(running), f"attempt {int(attempt[1]) + 1} failed, trying again")

    def _read_tasks(self, details: Sequence[Any]) -> dict[str, _Task]:
        found: dict[str, _Task] = {}
        for detail in sorted(details, key=lambda d: _seconds(d.start_time) or 0.0):
            state = self.server.clean(detail.state or _UNKNOWN)
            name = detail.display_name or ""
            driver = name.removesuffix("-driver")
            if name in self.names and state != _UNKNOWN:
                start, end = _seconds(detail.start_time), _seconds(detail.end_time)
                took = end - start if start is not None and end is not None and end >= start else None
                found[name] = _Task(name, state, took, self._reason(detail))
            elif name != driver and driver in self.names and state == "FAILED":
                why = self._reason(detail)
                reason = "Kubeflow's driver failed before the step could start" + (f": {why}" if why else "")
                found.setdefault(driver, _Task(driver, state, None, reason))
        return found

    def _reason(self, detail: Any) -> str:
        errors = [detail.error, *(entry.error for entry in reversed(detail.state_history or ()))]
        return next((text for text in map(self.server.failure, errors) if text), "")

    def _outcome(self, run: V2beta1Run) -> None:
        idle = [name for name in self.names if name not in self.tasks]
        if idle and self.tasks:
            self._say("run", f"did not start: {', '.join(idle)}")
        if run.state == "SUCCEEDED":
            return
        # An engine that stops a run on request records it as failed.
        if run.state == "CANCELED" or self.cancelling:
            raise RunCancelled(f"after {duration(self.polling.clock() - self.began)}: {self.url}")
        failed = [task for task in self.tasks.values() if task.state == "FAILED"]
        refusing = [task for task in failed if _REFUSED.search(task.reason)]
        if refusing:
            said = re.split(r"\brefused: ", refusing[0].reason, maxsplit=1)[-1]
            raise GateRefused(f"{refusing[0].name}: {said}; {self.url}")
        causes = [f"{task.name}: {task.reason}" if task.reason else task.name for task in failed]
        why = "; ".join(causes) or self.server.failure(run.error) or f"ended {str(run.state).lower()}"
        hint = "" if any(task.reason for task in failed) else "the server gives no reason, its log does: "
        raise RunFailed(f"{why}; {hint}{self.url}")

    def _still(self) -> None:
        """A sign of life, and of what is being waited for."""
        active = [task for task in self.tasks.values() if task.state not in FINAL]
        doing = [f"{t.name} {t.state.lower()} for {duration(self._age(t.name))}" for t in active]
        done = sum(task.state in FINAL for task in self.tasks.values())
        self._say("run", f"{', '.join(doing) or 'waiting'}; {done} of {len(self.names)} tasks done")

    def _age(self, name: str) -> float:
        return self.polling.clock() - self.since[name]

    def _say(self, name: str, words: str) -> None:
        self.spoke = self.polling.clock()
        print(f"{duration(self.spoke - self.began):>6}  {name:<{self.width}}  {words}", flush=True)

    def _interrupted(self, by_person: bool) -> None:
        """Cancel and return, or leave by raising."""
        choice, self.on_interrupt = self.on_interrupt, OnInterrupt.leave
        try:
            if choice is OnInterrupt.ask:
                choice = self._asked() if by_person else OnInterrupt.leave
            if choice is OnInterrupt.cancel:
                self.server.note("cancelling the run; Ctrl-C again leaves at once")
                self.server.terminate(self.run_id)
                self.cancelling = True
                return
        except KeyboardInterrupt:
            pass
        except OnlineVPOError as error:
            raise Interrupted(f"the run could not be cancelled ({error}) and goes on: {self.url}") from None
        raise Interrupted(f"no longer following; the run goes on: {self.url}")

    def _asked(self) -> OnInterrupt:
        if sys.stdin is None or not (sys.stdin.isatty() and sys.stderr.isatty()):
            return OnInterrupt.leave
        try:
            cancel = typer.confirm("\nCancel the run? (no: leave it running)", default=False, err=True)
        except typer.Abort:
            cancel = False
        return OnInterrupt.cancel if cancel else OnInterrupt.leave


class _Terminated(KeyboardInterrupt):
    """SIGTERM: nobody is there to be asked."""


@contextmanager
def _stoppable() -> Iterator[None]:
    """Make SIGINT and SIGTERM exceptions, at once even in the middle of a request.

    Only in the main thread, where handlers can be; and not SIGINT where a shell's background job ignores it.
    """
    before = {}
    if threading.current_thread() is threading.main_thread():
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.default_int_handler)
        before[signal.SIGTERM] = signal.signal(signal.SIGTERM, _raise_terminated)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _raise_terminated(number: int, frame: FrameType | None) -> NoReturn:
    raise _Terminated


def _seconds(moment: datetime.datetime | None) -> float | None:
    """A time of the API in epoch seconds; None for the epoch and the year 1, which stand for "not yet"."""
    return moment.timestamp() if moment is not None and moment.year > 1970 else None
