"""What the API of Kubeflow Pipelines takes and gives: checks of its types, the tasks of a run."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import kfp_server_api
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

EPOCH, NEVER, START = "1970-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "2026-11-05T14:00:00Z"
FINAL = ("SUCCEEDED", "FAILED", "SKIPPED", "CANCELED")


@dataclass(frozen=True)
class Task:
    """A task as a look shows it.

    Attributes:
        state: its state.
        message: its error's, if any.
        code: its error's, a gRPC status.
        seconds: from its start to its end, if it has ended.
        failed_attempts: of its container, before the present one.
        started: False: it ended before it began, and has no start.
    """

    state: str
    message: str = ""
    code: int = 2
    seconds: int = 30
    failed_attempts: int = 0
    started: bool = True


@dataclass(frozen=True)
class Look:
    """What one GET of the run shows. `tasks` maps names to tasks or plain states; `history` is the run's."""

    state: str | None
    tasks: Mapping[str, Task | str] = field(default_factory=dict)
    history: Sequence[str] = ()
    error: str = ""


class Refusal(Exception):
    """An answer other than 200, with the message that the client gets."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def conform(body: Any, kind: str, where: str = "") -> None:
    """Insist that `body` is JSON of a type of the API: known fields, states that exist, RFC 3339 times.

    Args:
        body: the JSON value.
        kind: the type as the generated client writes it: a model's name, "list[...]", "dict(str, ...)".
        where: the path to it, for the refusal.
    """
    outer = re.fullmatch(r"(list)\[(.+)\]|(dict)\(str, (.+)\)", kind)
    model = getattr(kfp_server_api, kind, None)
    if outer:
        values = body if outer[1] else body.values()
        for place, value in enumerate(values):
            conform(value, outer[2] or outer[4], f"{where}[{place}]")
    elif kind == "datetime":
        if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", body):
            raise Refusal(400, f"{where}: {body!r} is no time")
    elif model is None:
        allowed = {"str": str, "int": int, "bool": bool, "object": object}[kind]
        if not isinstance(body, allowed):
            raise Refusal(400, f"{where}: {body!r} is no {kind}")
    elif not model.openapi_types:
        if body not in model.allowable_values:
            raise Refusal(400, f"{where}: {body!r} is none of {model.allowable_values}")
    else:
        types = {model.attribute_map[name]: kind for name, kind in model.openapi_types.items()}
        for key, value in body.items():
            if key not in types:
                raise Refusal(400, f"{where}.{key}: unknown field of {kind}")
            conform(value, types[key], f"{where}.{key}")


def check_pipeline(document: Mapping[str, Any]) -> None:
    """Refuse what the real server cannot compile."""
    spec, platform = pipeline_spec_pb2.PipelineSpec(), pipeline_spec_pb2.PlatformSpec()
    try:
        json_format.ParseDict(document.get("pipeline_spec", document), spec)
        json_format.ParseDict(document.get("platform_spec", {}), platform)
    except json_format.ParseError as error:
        raise Refusal(400, f"invalid v2 pipeline spec: {error}") from None
    if spec.schema_version != "2.1.0" or not spec.pipeline_info.name or not spec.root.dag.tasks:
        raise Refusal(400, "invalid v2 pipeline spec: schema version, name or root is missing")


def matches(thing: Mapping[str, Any], text: str | None) -> bool:
    if not text:
        return True
    found = []
    for predicate in json.loads(text)["predicates"]:
        if predicate["operation"] not in ("EQUALS", 1) or predicate["key"] not in thing:
            raise Refusal(400, f"cannot filter by {predicate}")
        found.append(thing[predicate["key"]] == predicate["stringValue"])
    return all(found)


def task_details(run_id: str, look: Look) -> list[dict[str, Any]]:
    """The tasks among the nodes of the workflow that runs them, in the server's order: by the nodes' ids."""
    over = "RUNNING" if look.state not in FINAL else look.state
    nodes = [("onlinevpo-x7k2p", Task(over)), ("root-driver", Task("SUCCEEDED")), ("root", Task(over))]
    nodes += [("exit-handler-1-driver", Task("SUCCEEDED")), ("exit-handler-1", Task(over))]
    for name, given in look.tasks.items():
        task = given if isinstance(given, Task) else Task(given)
        if not name.endswith("-driver"):
            nodes.append((f"{name}-driver", Task("SUCCEEDED")))
            nodes += [(f"executor({n})", Task("FAILED")) for n in range(task.failed_attempts)]
            nodes.append(("executor", Task(task.state)))
        nodes.append((name, task))
    details = []
    for number, (name, task) in enumerate(nodes):
        ended = task.state in FINAL
        waiting = task.state in ("PENDING", "RUNTIME_STATE_UNSPECIFIED") or not task.started
        detail: dict[str, Any] = {
            "run_id": run_id,
            "task_id": str(uuid.uuid5(uuid.UUID(run_id), f"{number}{name}")),
            "display_name": name,
            "create_time": START,
            "start_time": NEVER if waiting else f"2026-11-05T14:{number:02d}:00Z",
            "end_time": f"2026-11-05T14:{number:02d}:{task.seconds:02d}Z" if ended else NEVER,
            "state": task.state,
            "state_history": [{"update_time": START, "state": task.state}],
            "child_tasks": [{"pod_name": f"onlinevpo-x7k2p-{number}"}],
        }
        if task.message:
            detail["error"] = {"code": task.code, "message": task.message, "details": []}
        details.append(detail)
    return sorted(details, key=lambda detail: str(detail["task_id"]))
