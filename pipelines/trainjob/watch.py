"""Waiting for a TrainJob: what its nodes do, what they wait for, how it ended."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from components.runtime.errors import OnlineVPOError
from components.runtime.progress import duration
from pipelines.trainjob.kubernetes_api import Cluster
from pipelines.trainjob.logs import LAST_WORDS, FirstNodeLog
from pipelines.trainjob.nodes import Node, cause_of, condition, failure, nodes_of, waiting_reasons
from pipelines.trainjob.settings import TrainJobSettings

_STILL_WAITING_S = 300.0
# A queue may take days; nothing is lost by looking less often.
_QUEUED_POLLS = 6
_TAIL_LINES = 20


class TookTooLong(OnlineVPOError):
    """A job was waited for longer than its settings allow; it is still there."""


class Watch:
    """Looks at a TrainJob until it is Complete or Failed.

    Everything is read whole each time rather than watched: nothing is missed while the API server is away.

    Args:
        cluster: where it runs.
        name: its name.
        settings: for the number of nodes and how long they may take.
        poll_s: seconds between two looks.
    """

    def __init__(self, cluster: Cluster, name: str, settings: TrainJobSettings, poll_s: float) -> None:
        self.cluster, self.name, self.settings, self.poll_s = cluster, name, settings, poll_s
        self._log = FirstNodeLog(cluster, pause_s=min(2.0, poll_s))
        self._told: set[str] = set()
        self._phase = ""
        self._began = self._spoke = time.monotonic()
        self._ran = False

    def until_complete(self) -> None:
        """Return when the job is Complete.

        Raises:
            GateRefused, InputError, Interrupted: if a node ended with that exit code.
            TookTooLong: if it ran or waited longer than its settings allow.
            OnlineVPOError: if it failed otherwise, or was deleted by somebody else.
        """
        while True:
            job = self.cluster.job(self.name)
            if job is None or "deletionTimestamp" in job["metadata"]:
                raise OnlineVPOError(
                    f"TrainJob {self.name} was deleted by somebody else while it was waited for"
                )
            nodes = nodes_of(self.cluster.pods(self.name))
            if nodes and nodes[0].index == 0 and nodes[0].since is not None:
                self._log.follow(nodes[0].pod, ended=nodes[0].code is not None)
            if condition(job, "Complete"):
                self._log.finish()
                say(f"TrainJob {self.name} is complete")
                return
            failed = condition(job, "Failed")
            if failed:
                raise self._failure(failed, nodes)
            self._look(job, nodes)
            time.sleep(self.poll_s * (_QUEUED_POLLS if job["spec"].get("suspend") else 1))

    def _look(self, job: Mapping[str, Any], nodes: Sequence[Node]) -> None:
        """Say what has changed, and stop what takes too long."""
        started = [node.since for node in nodes if node.since is not None]
        ended = sum(node.code is not None for node in nodes)
        count = self.settings.nodes
        if job["spec"].get("suspend"):
            self._tell_phase(f"queued in {self.settings.queue}" if self.settings.queue else "suspended")
        elif len(started) == count:
            self._ran = True
            self._tell_phase(f"running on {count} nodes" + (f", {ended} have ended" if ended else ""))
            self._count_running(max(started))
            return
        else:
            self._tell_phase(f"starting: {len(started)} of {count} nodes run")
        created = str(job["metadata"].get("creationTimestamp", ""))
        for reason in waiting_reasons(self.name, created, nodes, self.cluster.events()):
            if reason not in self._told:
                self._told.add(reason)
                say(reason)
        self._count_waiting()

    def _tell_phase(self, phase: str) -> None:
        if phase != self._phase:
            self._phase, self._spoke = phase, time.monotonic()
            say(f"TrainJob {self.name} is {phase}")

    def _count_running(self, since: datetime) -> None:
        ran_s = (datetime.now(UTC) - since).total_seconds()
        if ran_s > 60 * self.settings.timeout_minutes:
            raise TookTooLong(
                f"TrainJob {self.name} ran for {duration(ran_s)}, longer than timeout_minutes = "
                f"{self.settings.timeout_minutes} allows; another attempt goes on from its last checkpoint"
            )

    def _count_waiting(self) -> None:
        waited = time.monotonic() - self._began
        patience = self.settings.queue_timeout_minutes
        if patience is not None and not self._ran and waited > 60 * patience:
            raise TookTooLong(
                f"TrainJob {self.name} is {self._phase} after queue_timeout_minutes = {patience}"
            )
        if time.monotonic() - self._spoke > _STILL_WAITING_S:
            self._spoke = time.monotonic()
            say(f"TrainJob {self.name} is still {self._phase}, after {duration(waited)}")

    def _failure(self, failed: Mapping[str, Any], nodes: Sequence[Node]) -> OnlineVPOError:
        """The error that a Failed job stands for, after the logs are out."""
        words = self._log.finish()
        cause = cause_of(nodes)
        if cause is not None and cause.index != 0:
            for line in self.cluster.log_end(cause.pod, _TAIL_LINES):
                print(f"node {cause.index}: {line}", flush=True)
                words = line if line.startswith(LAST_WORDS) else words
        return failure(self.name, failed, nodes, cause, words)


def say(text: str) -> None:
    """Tell people what the launcher sees; the nodes' own lines go to stdout."""
    print(f"trainjob: {text}", file=sys.stderr, flush=True)
