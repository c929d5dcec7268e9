"""A TrainJob's nodes, read from its pods: their states, what they wait for, why they ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from components.runtime.errors import GateRefused, InputError, Interrupted, OnlineVPOError, one_line
from pipelines.trainjob.manifest import NODE

_INDEX = "batch.kubernetes.io/job-completion-index"
# The container's state says the same in better words.
_SAID_BY_POD = {"FailedScheduling", "Failed", "BackOff", "ErrImagePull"}


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
    said = _said(failed)
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
