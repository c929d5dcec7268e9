"""Waiting for a TrainJob: what its nodes do, what they wait for, how it ended."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from components.runtime.errors import GateRefused, InputError, Interrupted, OnlineVPOError, one_line
from components.runtime.progress import duration
from pipelines.trainjob.kubernetes_api import Cluster
from pipelines.trainjob.logs import LAST_WORDS, FirstNodeLog
from pipelines.trainjob.manifest import NODE
from pipelines.trainjob.settings import TrainJobSettings

_INDEX = "batch.kubernetes.io/job-completion-index"
# The container's state says the same in better words.
_SAID_BY_POD = {"FailedScheduling", "Failed", "BackOff", "ErrImagePull"}
_STILL_WAITING_S = 300.0
# A queue may take days; nothing is lost by looking less often.
_QUEUED_POLLS = 6
_TAIL_LINES = 20


class TookTooLong(OnlineVPOError):
    """A job was waited for longer than its settings allow; it is still there."""


@dataclass(frozen=True)
class Node:
    """The newest pod of one node.

    Attributes:
        index: 0 .. nodes - 1; the first one's log is followed.
        pod: the pod's name.
        phase: Pending, Running, Succeeded or Failed.
        since: when its container started, None if it has not.
        code: the exit code of its container, None unless it has ended.
        finished: when it ended, as Kubernetes writes it, "" unless it has.
        why: why it ended, in Kubernetes' word ("OOMKilled"), "" if it has not.
        waits_for: what keeps it from running, "" if nothing is known to.
        disrupted: whether the cluster took the pod away (drained, preempted, evicted).
    """

    index: int
    pod: str
    phase: str
    since: datetime | None
    code: int | None
    finished: str
    why: str
    waits_for: str
    disrupted: bool


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


def cause_of(nodes: Sequence[Node]) -> Node | None:
    """The node whose end explains the job's: a refusal or bad input, else the one that failed first.

    The nodes after it fail because it is gone, or end as interrupted because the job is taken down.
    """
    ended = [node for node in nodes if node.code not in (None, 0)]
    final = [node for kind in (GateRefused, InputError) for node in ended if node.code == kind.exit_code]
    return final[0] if final else min(ended, key=lambda node: node.finished, default=None)


def failure(
    name: str, failed: Mapping[str, Any], nodes: Sequence[Node], cause: Node | None, words: str
) -> OnlineVPOError:
    """The error that a failed job stands for.

    Args:
        name: the TrainJob.
        failed: its Failed condition.
        nodes: its nodes.
        cause: the node that says most, None if none has ended badly.
        words: the line in which the step said why it ended, "" if unknown.
    """
    kinds: tuple[type[OnlineVPOError], ...] = (GateRefused, InputError, Interrupted)
    for kind in kinds:
        if cause is not None and cause.code == kind.exit_code:
            known = words.removeprefix(f"{kind.label}: ") if words.startswith(f"{kind.label}: ") else ""
            return kind(
                known or f"node {cause.index} of TrainJob {name} ended with {cause.code}; see its log"
            )
    taken = [node for node in nodes if node.disrupted]
    if taken:
        return Interrupted(
            f"node {taken[0].index} of TrainJob {name} was taken away by the cluster "
            f"({taken[0].why or taken[0].phase}); the next attempt goes on from the last checkpoint"
        )
    said = one_line(f"{failed.get('reason', '')}: {failed.get('message', '')}").strip(": ")
    if cause is None:
        return OnlineVPOError(f"TrainJob {name} failed: {said}")
    why = f", {cause.why}" if cause.why not in ("", "Error") else ""
    hint = ": it needs more memory than its limit" if cause.why == "OOMKilled" else ""
    ended = f"node {cause.index} ended with {cause.code}{why}{hint}"
    return OnlineVPOError(f"TrainJob {name} failed: {ended} ({said}); see its log above")


def condition(job: Mapping[str, Any], kind: str) -> Mapping[str, Any] | None:
    """The condition `kind` of a TrainJob if it is true."""
    for entry in (job.get("status") or {}).get("conditions") or []:
        if entry.get("type") == kind and entry.get("status") == "True":
            return dict(entry)
    return None


def nodes_of(pods: Iterable[Mapping[str, Any]]) -> list[Node]:
    """The newest pod of each node, in order of index; pods that belong to no index are left out."""
    newest: dict[int, Mapping[str, Any]] = {}
    for pod in sorted(pods, key=lambda p: str(p["metadata"].get("creationTimestamp", ""))):
        about = pod["metadata"]
        index = (about.get("labels") or {}).get(_INDEX) or (about.get("annotations") or {}).get(_INDEX)
        if index is not None:
            newest[int(index)] = pod
    return [_node(index, pod) for index, pod in sorted(newest.items())]


def _node(index: int, pod: Mapping[str, Any]) -> Node:
    status = pod.get("status") or {}
    conditions = {entry.get("type"): entry for entry in status.get("conditions") or []}
    containers = {
        entry.get("name"): entry.get("state") or {} for entry in status.get("containerStatuses") or []
    }
    state = containers.get(NODE) or {}
    ended, runs = state.get("terminated") or {}, state.get("running") or {}
    since = runs.get("startedAt") or ended.get("startedAt")
    starters = [entry.get("state") or {} for entry in status.get("initContainerStatuses") or []]
    scheduled = conditions.get("PodScheduled") or {}
    waits_for = ""
    if scheduled.get("status") == "False":
        waits_for = _said(scheduled)
    for waiting in (s.get("waiting") or {} for s in (*starters, state)):
        if waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
            waits_for = _said(waiting)
    return Node(
        index=index,
        pod=str(pod["metadata"]["name"]),
        phase=str(status.get("phase", "Pending")),
        since=datetime.fromisoformat(since) if since else None,
        code=ended.get("exitCode"),
        finished=str(ended.get("finishedAt") or ""),
        why=str(ended.get("reason") or status.get("reason") or ""),
        waits_for=waits_for,
        disrupted=(conditions.get("DisruptionTarget") or {}).get("status") == "True",
    )


def waiting_reasons(
    name: str, created: str, nodes: Sequence[Node], events: Iterable[Mapping[str, Any]]
) -> list[str]:
    """One line for each thing that keeps the job's nodes from running.

    Args:
        name: the TrainJob.
        created: when it was created; what happened to an earlier one of its name is left out.
        nodes: its nodes.
        events: the namespace's events.
    """
    waiting = Counter(node.waits_for for node in nodes if node.waits_for)
    lines = [f"{count} of its nodes wait: {reason}" for reason, count in waiting.items()]
    for event in events:
        about = event.get("involvedObject") or {}
        kind, whose = str(about.get("kind", "")), str(about.get("name", ""))
        ours = whose == name or whose.startswith(f"{name}-") or (kind == "Workload" and name in whose)
        at = str(event.get("lastTimestamp") or event.get("eventTime") or created)
        matters = event.get("type") == "Warning" or (kind == "Workload" and event.get("reason") == "Pending")
        if ours and matters and at[:19] >= created[:19] and event.get("reason") not in _SAID_BY_POD:
            lines.append(f"{kind} {_said(event)}")
    return list(dict.fromkeys(lines))


def _said(entry: Mapping[str, Any]) -> str:
    """Reason and message of a condition, state or event as one line."""
    return one_line(f"{entry.get('reason', '')}: {entry.get('message', '')}").strip(": ")


def say(text: str) -> None:
    """Tell people what the launcher sees; the nodes' own lines go to stdout."""
    print(f"trainjob: {text}", file=sys.stderr, flush=True)
