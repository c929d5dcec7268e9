"""What can be wrong with a compiled pipeline although compiler and server accept it: one function per kind.

A new kind is a new function with the decorator; the linter and its documentation find it there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf import json_format
from kfp.kubernetes import kubernetes_executor_config_pb2 as kubernetes_pb2
from kfp.pipeline_spec import pipeline_spec_pb2

from components.runtime.errors import one_line
from pipelines.lint.pipeline_spec import PipelineSpec, TaskSpec, component_of, inputs_of, is_pinned, tasks_of
from pipelines.lint.secret_scan import in_arguments, is_credential, suspicions


@dataclass(frozen=True)
class Finding:
    """One fault: where in the YAML, what it is, what is allowed there."""

    where: str
    what: str
    allowed: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}; allowed: {self.allowed}"


Rule = Callable[[PipelineSpec], Iterator[Finding]]
RULES: list[Rule] = []

_PLACEMENTS = "platforms.kubernetes.deploymentSpec.executors"


def rule(function: Rule) -> Rule:
    RULES.append(function)
    return function


@rule
def unknown_keys(compiled: PipelineSpec) -> Iterator[Finding]:
    """A key that Kubeflow does not know is not an error to it; what it was meant to set is not set."""
    for label, executor in sorted(compiled.executors.items()):
        spec = pipeline_spec_pb2.PipelineDeploymentConfig.ExecutorSpec()
        yield from _unknown(f"deploymentSpec.executors.{label}", executor, spec)
    for label, placement in sorted(compiled.placements.items()):
        yield from _unknown(f"{_PLACEMENTS}.{label}", placement, kubernetes_pb2.KubernetesExecutorConfig())


def _unknown(where: str, values: Mapping[str, Any], message: Any) -> Iterator[Finding]:
    try:
        json_format.ParseDict(values, message)
    except json_format.ParseError as error:
        yield Finding(where, one_line(error), "what Kubeflow's own compiler writes")


@rule
def dangling_references(compiled: PipelineSpec) -> Iterator[Finding]:
    """A task without its component, a component without its executor, settings for no executor."""
    for task in compiled.tasks():
        if not task.component:
            yield Finding(
                f"{task.where}.componentRef.name",
                f"there is no component {component_of(task.spec)}",
                _names(compiled.components),
            )
    for where, component in compiled.located():
        label = component.get("executorLabel")
        if label is not None and label not in compiled.executors:
            yield Finding(
                f"{where}.executorLabel", f"there is no executor {label}", _names(compiled.executors)
            )
    for label in sorted(compiled.placements.keys() - compiled.executors.keys()):
        yield Finding(
            f"{_PLACEMENTS}.{label}", "settings for an executor there is not", _names(compiled.executors)
        )


@rule
def missing_producers(compiled: PipelineSpec) -> Iterator[Finding]:
    """An input that comes from a task, an output or a parent's input that does not exist, or not yet."""
    for task in compiled.tasks():
        waits_for = task.spec.get("dependentTasks") or []
        for name in waits_for:
            if name not in tasks_of(task.parent):
                yield Finding(
                    f"{task.where}.dependentTasks", f"there is no task {name}", _names(tasks_of(task.parent))
                )
        for kind in ("parameters", "artifacts"):
            for name, source in sorted(inputs_of(task.spec, kind, "inputs").items()):
                where = f"{task.where}.inputs.{kind}.{name}"
                if name not in inputs_of(task.component, kind) and task.component:
                    known = _names(inputs_of(task.component, kind))
                    yield Finding(where, "its component has no such input", known)
                else:
                    yield from _source(compiled, task, where, kind, source)
            needed = {n for n, i in inputs_of(task.component, kind).items() if not i.get("isOptional")}
            given = {*inputs_of(task.spec, kind, "inputs"), *_iterated(task.spec)}
            for name in sorted(needed - given):
                yield Finding(f"{task.where}.inputs.{kind}", f"required input {name} is not given", name)
    for where, component in compiled.located():
        yield from _dag_outputs(compiled, where, component)


def _source(
    compiled: PipelineSpec, task: TaskSpec, where: str, kind: str, source: Mapping[str, Any]
) -> Iterator[Finding]:
    """One input's source: an output of a task beside, an input of the component around, a task's end."""
    singular = kind.removesuffix("s").capitalize()
    from_parent = source.get(f"componentInput{singular}")
    if from_parent is not None and from_parent not in inputs_of(task.parent, kind):
        yield Finding(
            where, f"the component around it has no input {from_parent}", _names(inputs_of(task.parent, kind))
        )
    output = source.get(f"taskOutput{singular}") or source.get("taskFinalStatus")
    if output is None:
        return
    producer = str(output.get("producerTask"))
    beside = tasks_of(task.parent)
    if producer not in beside:
        yield Finding(where, f"there is no task {producer}", _names(beside))
        return
    key = output.get(f"output{singular}Key")
    made = inputs_of(compiled.components.get(component_of(beside[producer]), {}), kind, "outputDefinitions")
    if key is not None and made and key not in made:
        yield Finding(where, f"task {producer} has no output {key}", _names(made))
    elif producer not in (task.spec.get("dependentTasks") or []):
        yield Finding(
            f"{task.where}.dependentTasks", f"does not wait for {producer}, whose output it takes", producer
        )


def _dag_outputs(compiled: PipelineSpec, where: str, component: Mapping[str, Any]) -> Iterator[Finding]:
    outputs = (component.get("dag") or {}).get("outputs") or {}
    for kind in ("parameters", "artifacts"):
        for name, output in sorted((outputs.get(kind) or {}).items()):
            for selector in _selectors(output):
                producer = str(selector.get("producerSubtask"))
                if producer not in tasks_of(component):
                    yield Finding(
                        f"{where}.dag.outputs.{kind}.{name}",
                        f"there is no task {producer}",
                        _names(tasks_of(component)),
                    )


def _selectors(output: Mapping[str, Any]) -> list[dict[str, Any]]:
    one_of = (output.get("valueFromOneof") or {}).get("parameterSelectors") or []
    alone = [output["valueFromParameter"]] if "valueFromParameter" in output else []
    return [*(output.get("artifactSelectors") or []), *one_of, *alone]


def _iterated(task: Mapping[str, Any]) -> set[str]:
    iterators = [task.get("parameterIterator") or {}, task.get("artifactIterator") or {}]
    return {str(iterator["itemInput"]) for iterator in iterators if "itemInput" in iterator}


@rule
def loose_images(compiled: PipelineSpec) -> Iterator[Finding]:
    """A tag may move: the cache would bring back the old image's results, a retry run another image."""
    for _, where, container in compiled.containers():
        if not is_pinned(str(container.get("image"))):
            yield Finding(
                f"{where}.image",
                f"{container.get('image')!r} may mean another image tomorrow",
                "name@sha256:<64 hex digits>, not the tag `latest`",
            )


@rule
def missing_limits(compiled: PipelineSpec) -> Iterator[Finding]:
    """A container without requests and limits starves its node's others, or is refused by a quota."""
    for _, where, container in compiled.containers():
        has = container.get("resources") or {}
        missing = [
            name
            for name in ("cpuRequest", "cpuLimit", "memoryRequest", "memoryLimit")
            if not has.get(name) and not has.get(f"resource{name[0].upper()}{name[1:]}")
        ]
        if missing:
            yield Finding(f"{where}.resources", f"{', '.join(missing)} missing", "all four, above zero")


@rule
def inline_secrets(compiled: PipelineSpec) -> Iterator[Finding]:
    """A credential in the file is readable by everyone who may read pipelines, for ever."""
    allowed = "a reference to a Secret (secretAsEnv), named in the profile"
    for _, where, container in compiled.containers():
        for variable in container.get("env") or []:
            name, value = str(variable.get("name")), str(variable.get("value") or "")
            if is_credential(name, value):
                yield Finding(f"{where}.env.{name}", "holds a credential", allowed)
        for part in ("command", "args"):
            for index, name in in_arguments([str(a) for a in container.get(part) or []]):
                yield Finding(f"{where}.{part}[{index}]", f"hands over a value for `{name}`", allowed)
    for where, text in [*_texts(compiled.pipeline), *_texts(compiled.platform)]:
        for what in suspicions(text):
            yield Finding(where, f"looks like {what}", allowed)


def _texts(value: Any, where: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _texts(inner, f"{where}.{key}" if where else str(key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _texts(inner, f"{where}[{index}]")


@rule
def lone_conditions(compiled: PipelineSpec) -> Iterator[Finding]:
    """An `if` without `else`: where it cannot be decided the branch is skipped, and the run is a success."""
    for where, component in compiled.located():
        tasks = tasks_of(component)
        conditions = {
            name: str(task["triggerPolicy"]["condition"]).split(" && ")
            for name, task in sorted(tasks.items())
            if (task.get("triggerPolicy") or {}).get("condition")
        }
        otherwise = {t for terms in conditions.values() if all(map(_negated, terms)) for t in terms}
        for name, terms in conditions.items():
            if not any(map(_negated, terms)) and f"!({' && '.join(terms)})" not in otherwise:
                yield Finding(
                    f"{where}.dag.tasks.{name}.triggerPolicy.condition",
                    "a condition without a branch for the other case",
                    "no condition (a gate is a step that exits non-zero), or If with Else",
                )


def _negated(term: str) -> bool:
    return term.startswith("!(") and term.endswith(")")


@rule
def non_string_parameters(compiled: PipelineSpec) -> Iterator[Finding]:
    """Kubeflow turns whole numbers into floats, also inside of structs, and loses digits of large ones."""
    for where, component in compiled.located():
        for definitions in ("inputDefinitions", "outputDefinitions"):
            for name, parameter in sorted(inputs_of(component, "parameters", definitions).items()):
                kind = parameter.get("parameterType")
                if kind not in ("STRING", "TASK_FINAL_STATUS"):
                    yield Finding(
                        f"{where}.{definitions}.parameters.{name}.parameterType",
                        f"{kind} does not keep numbers as they are",
                        "STRING, e.g. with JSON in it",
                    )


@rule
def missing_retries(compiled: PipelineSpec) -> Iterator[Finding]:
    """A task without a retry policy, or one whose window closes before its attempts can have run."""
    for task in compiled.tasks():
        if compiled.container_of(task.component) is None:
            continue
        policy = task.spec.get("retryPolicy")
        where = f"{task.where}.retryPolicy"
        if policy is None:
            yield Finding(where, "missing: a lost node ends the run", "maxRetryCount and a backoff")
            continue
        attempts = int(policy.get("maxRetryCount") or 0) + 1
        placement = compiled.placements.get(str(task.component.get("executorLabel")), {})
        needed = attempts * int(placement.get("activeDeadlineSeconds") or 0)
        window = float(str(policy.get("backoffMaxDuration") or "3600s").removesuffix("s"))
        if attempts > 1 and window < needed:
            yield Finding(
                f"{where}.backoffMaxDuration",
                f"{window:.0f} s from the first attempt's start, but {attempts} attempts may take {needed} s",
                f"{needed}s or more",
            )


@rule
def missing_placement(compiled: PipelineSpec) -> Iterator[Finding]:
    """A container that may run for ever, or as root."""
    if not compiled.placements and compiled.executors:
        yield Finding(
            "platforms.kubernetes", "missing: no timeouts, no user", "the compiler's second document"
        )
        return
    for label, _, _ in compiled.containers():
        where = f"{_PLACEMENTS}.{label}"
        placement = compiled.placements.get(label)
        if placement is None:
            yield Finding(where, "missing: no timeout, no user", "settings for every executor")
            continue
        if int(placement.get("activeDeadlineSeconds") or 0) <= 0:
            yield Finding(
                f"{where}.activeDeadlineSeconds", "missing: it may hang for ever", "seconds, above zero"
            )
        user = placement.get("securityContext") or {}
        if not user.get("runAsNonRoot") or int(user.get("runAsUser") or 0) == 0:
            yield Finding(
                f"{where}.securityContext", "it may run as root", "runAsNonRoot: true and runAsUser above 0"
            )


@rule
def missing_outputs(compiled: PipelineSpec) -> Iterator[Finding]:
    """A component that leaves nothing is a success to Kubeflow whatever it did."""
    for where, component in compiled.located():
        container = compiled.container_of(component)
        if container is None:
            continue
        outputs = [*inputs_of(component, "artifacts", "outputDefinitions")]
        outputs += inputs_of(component, "parameters", "outputDefinitions")
        if not outputs:
            yield Finding(f"{where}.outputDefinitions", "it writes no output", "one artifact or more")
            continue
        command = " ".join(map(str, [*(container.get("command") or []), *(container.get("args") or [])]))
        told = set(re.findall(r"\{\{\$\.outputs\.(?:artifacts|parameters)\['([^']+)'\]", command))
        if "{{$}}" not in command and not told.intersection(outputs):
            yield Finding(
                f"deploymentSpec.executors.{component['executorLabel']}.container",
                "its command is not told where to write an output",
                "the placeholder {{$}}, or the path of an output",
            )


@rule
def missing_exit_task(compiled: PipelineSpec) -> Iterator[Finding]:
    """Without an exit task a failed run leaves no report, and the tracked run stays open."""
    exits = {
        name: task
        for name, task in sorted(tasks_of(compiled.pipeline["root"]).items())
        if (task.get("triggerPolicy") or {}).get("strategy") == "ALL_UPSTREAM_TASKS_COMPLETED"
        and any("taskFinalStatus" in given for given in inputs_of(task, "parameters", "inputs").values())
    }
    if not exits:
        yield Finding("root.dag.tasks", "there is no exit task", "dsl.ExitHandler around all steps")
    for name, task in exits.items():
        if (task.get("cachingOptions") or {}).get("enableCache"):
            yield Finding(
                f"root.dag.tasks.{name}.cachingOptions",
                "the report of another run would be reused",
                "no cache",
            )


@rule
def constant_cache_keys(compiled: PipelineSpec) -> Iterator[Finding]:
    """A cache key of one's own replaces image, command and inputs: nothing would ever run again."""
    for task in compiled.tasks():
        if (task.spec.get("cachingOptions") or {}).get("cacheKey"):
            yield Finding(
                f"{task.where}.cachingOptions.cacheKey",
                "replaces image, command and inputs as the key",
                "none",
            )


def _names(known: Mapping[str, Any]) -> str:
    return ", ".join(sorted(known)) or "none"
