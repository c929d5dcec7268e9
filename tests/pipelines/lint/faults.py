"""Compiled pipelines with one fault each, and what the linter must say of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Documents = list[dict[str, Any]]

DAG = ("components", "comp-exit-handler-1", "dag", "tasks")
EXECUTORS = ("deploymentSpec", "executors")
PLACED = ("platforms", "kubernetes", "deploymentSpec", "executors")
# Put together here, so that no scanner takes this file for a leak.
AWS_KEY = "AKIA" + "ABCDEFGHIJKLMNOP"
HUB_TOKEN = "hf_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6"


def put(*path: Any) -> Callable[[Documents], None]:
    """An edit: set the value at a path (its last element) in the document that has the path's first key."""
    *keys, value = path

    def edit(documents: Documents) -> None:
        target: Any = next(d for d in documents if keys[0] in d)
        for key in keys[:-1]:
            target = target[key]
        target[keys[-1]] = value

    return edit


def cut(*path: Any) -> Callable[[Documents], None]:
    """An edit: remove the entry at a path."""

    def edit(documents: Documents) -> None:
        target: Any = next(d for d in documents if path[0] in d)
        for key in path[:-1]:
            target = target[key]
        del target[path[-1]]

    return edit


def append(*path: Any) -> Callable[[Documents], None]:
    """An edit: lengthen the list at a path by the path's last elements (a list)."""
    *keys, values = path

    def edit(documents: Documents) -> None:
        target: Any = next(d for d in documents if keys[0] in d)
        for key in keys[:-1]:
            target = target[key]
        target[keys[-1]] = [*target.get(keys[-1], []), *values]

    return edit


def without_exit_task(documents: Documents) -> None:
    cut("root", "dag", "tasks", "finish")(documents)


def without_platform(documents: Documents) -> None:
    del documents[1]


FAULTS: dict[str, tuple[Callable[[Documents], None], str, str]] = {
    # dangling references
    "component": (
        put(*DAG, "reward", "componentRef", "name", "comp-rewards"),
        "components.comp-exit-handler-1.dag.tasks.reward.componentRef.name",
        "no component comp-rewards",
    ),
    "executor": (
        put("components", "comp-reward", "executorLabel", "exec-rewards"),
        "components.comp-reward.executorLabel",
        "no executor exec-rewards",
    ),
    "settings of no executor": (
        put(*PLACED, "exec-rewards", {"activeDeadlineSeconds": "60"}),
        "platforms.kubernetes.deploymentSpec.executors.exec-rewards",
        "settings for an executor there is not",
    ),
    # producers
    "producer task": (
        put(*DAG, "reward", "inputs", "artifacts", "corpus", "taskOutputArtifact", "producerTask", "clips"),
        "components.comp-exit-handler-1.dag.tasks.reward.inputs.artifacts.corpus",
        "no task clips",
    ),
    "producer output": (
        put(
            *DAG,
            "reward",
            "inputs",
            "artifacts",
            "corpus",
            "taskOutputArtifact",
            "outputArtifactKey",
            "clips",
        ),
        "components.comp-exit-handler-1.dag.tasks.reward.inputs.artifacts.corpus",
        "task corpus has no output clips",
    ),
    "parent input": (
        put(*DAG, "reward", "inputs", "parameters", "step_params", "componentInputParameter", "rewards"),
        "components.comp-exit-handler-1.dag.tasks.reward.inputs.parameters.step_params",
        "no input rewards",
    ),
    "input that its component lacks": (
        cut("components", "comp-registry", "inputDefinitions", "artifacts", "reward"),
        "components.comp-exit-handler-1.dag.tasks.registry.inputs.artifacts.reward",
        "no such input",
    ),
    "required input": (
        cut(*DAG, "reward", "inputs", "parameters", "run_params"),
        "components.comp-exit-handler-1.dag.tasks.reward.inputs.parameters",
        "required input run_params is not given",
    ),
    "unknown dependency": (
        append(*DAG, "reward", "dependentTasks", ["clips"]),
        "components.comp-exit-handler-1.dag.tasks.reward.dependentTasks",
        "no task clips",
    ),
    "too early": (
        put(*DAG, "reward", "dependentTasks", ["generator"]),
        "components.comp-exit-handler-1.dag.tasks.reward.dependentTasks",
        "does not wait for corpus",
    ),
    "status of no task": (
        put(
            "root",
            "dag",
            "tasks",
            "finish",
            "inputs",
            "parameters",
            "status",
            "taskFinalStatus",
            {"producerTask": "x"},
        ),
        "root.dag.tasks.finish.inputs.parameters.status",
        "no task x",
    ),
    "pipeline output of no task": (
        put(
            "root", "dag", "outputs", {"artifacts": {"r": {"artifactSelectors": [{"producerSubtask": "x"}]}}}
        ),
        "root.dag.outputs.artifacts.r",
        "no task x",
    ),
    # images
    "tag": (
        put(*EXECUTORS, "exec-reward", "container", "image", "registry.example/onlinevpo-model:1.0"),
        "deploymentSpec.executors.exec-reward.container.image",
        "may mean another image tomorrow",
    ),
    "latest": (
        put(*EXECUTORS, "exec-reward", "container", "image", f"registry.example/m:latest@sha256:{'a' * 64}"),
        "deploymentSpec.executors.exec-reward.container.image",
        "may mean another image tomorrow",
    ),
    # limits
    "no resources": (
        cut(*EXECUTORS, "exec-reward", "container", "resources"),
        "deploymentSpec.executors.exec-reward.container.resources",
        "cpuRequest, cpuLimit, memoryRequest, memoryLimit missing",
    ),
    "no memory limit": (
        put(
            *EXECUTORS,
            "exec-reward",
            "container",
            "resources",
            {"cpuLimit": 1, "cpuRequest": 1, "memoryRequest": 1},
        ),
        "deploymentSpec.executors.exec-reward.container.resources",
        "memoryLimit missing",
    ),
    # secrets
    "password in env": (
        put(
            *EXECUTORS,
            "exec-reward",
            "container",
            "env",
            [{"name": "MLFLOW_TRACKING_PASSWORD", "value": "x"}],
        ),
        "deploymentSpec.executors.exec-reward.container.env.MLFLOW_TRACKING_PASSWORD",
        "holds a credential",
    ),
    "AWS key in env": (
        put(*EXECUTORS, "exec-reward", "container", "env", [{"name": "WHO", "value": AWS_KEY}]),
        "deploymentSpec.executors.exec-reward.container.env[0].value",
        "looks like an AWS access key",
    ),
    "token option": (
        append(*EXECUTORS, "exec-reward", "container", "args", ["--hub-token", "abc"]),
        "deploymentSpec.executors.exec-reward.container.args[8]",
        "hands over a value for `hub-token`",
    ),
    "token option with =": (
        append(*EXECUTORS, "exec-reward", "container", "args", ["--api-key=abc"]),
        "deploymentSpec.executors.exec-reward.container.args[8]",
        "hands over a value for `api-key`",
    ),
    "token in args": (
        append(*EXECUTORS, "exec-reward", "container", "args", [f"--set=x:{HUB_TOKEN}"]),
        "deploymentSpec.executors.exec-reward.container.args[8]",
        "looks like a Hugging Face token",
    ),
    "password in a URL": (
        put(
            "root", "inputDefinitions", "parameters", "corpus_params", "defaultValue", "https://me:pw@host/x"
        ),
        "root.inputDefinitions.parameters.corpus_params.defaultValue",
        "looks like a password in a URL",
    ),
    "secret among the params": (
        put(
            "root",
            "inputDefinitions",
            "parameters",
            "corpus_params",
            "defaultValue",
            '{"s3": {"secret_key": "x"}}',
        ),
        "root.inputDefinitions.parameters.corpus_params.defaultValue",
        "looks like a value for `secret_key`",
    ),
    "key in the other document": (
        put(*PLACED, "exec-reward", "nodeSelector", {"labels": {"key": AWS_KEY}}),
        "platforms.kubernetes.deploymentSpec.executors.exec-reward.nodeSelector.labels.key",
        "looks like an AWS access key",
    ),
    # conditions
    "lone condition": (
        put(*DAG, "registry", "triggerPolicy", {"condition": "inputs.parameter_values['run_params'] == 'x'"}),
        "components.comp-exit-handler-1.dag.tasks.registry.triggerPolicy.condition",
        "without a branch for the other case",
    ),
    # parameters
    "number": (
        put(
            "components",
            "comp-reward",
            "inputDefinitions",
            "parameters",
            "step_params",
            "parameterType",
            "NUMBER_INTEGER",
        ),
        "components.comp-reward.inputDefinitions.parameters.step_params.parameterType",
        "NUMBER_INTEGER",
    ),
    "struct at the root": (
        put("root", "inputDefinitions", "parameters", "run_params", "parameterType", "STRUCT"),
        "root.inputDefinitions.parameters.run_params.parameterType",
        "STRUCT",
    ),
    "number as output": (
        put(
            "components",
            "comp-reward",
            "outputDefinitions",
            "parameters",
            {"srcc": {"parameterType": "NUMBER_DOUBLE"}},
        ),
        "components.comp-reward.outputDefinitions.parameters.srcc.parameterType",
        "NUMBER_DOUBLE",
    ),
    # retries and timeouts
    "no retry": (
        cut(*DAG, "reward", "retryPolicy"),
        "components.comp-exit-handler-1.dag.tasks.reward.retryPolicy",
        "missing",
    ),
    "Kubeflow's own retry window": (
        cut(*DAG, "reward", "retryPolicy", "backoffMaxDuration"),
        "components.comp-exit-handler-1.dag.tasks.reward.retryPolicy.backoffMaxDuration",
        "3600 s from the first attempt's start, but 3 attempts may take 10800 s",
    ),
    "no timeout": (
        cut(*PLACED, "exec-reward", "activeDeadlineSeconds"),
        "platforms.kubernetes.deploymentSpec.executors.exec-reward.activeDeadlineSeconds",
        "missing",
    ),
    "root": (
        put(*PLACED, "exec-reward", "securityContext", {"runAsUser": "0"}),
        "platforms.kubernetes.deploymentSpec.executors.exec-reward.securityContext",
        "it may run as root",
    ),
    "no settings for one executor": (
        cut(*PLACED, "exec-reward"),
        "platforms.kubernetes.deploymentSpec.executors.exec-reward",
        "missing",
    ),
    "no platform document": (without_platform, "platforms.kubernetes", "missing"),
    # outputs
    "no output": (
        cut("components", "comp-registry", "outputDefinitions"),
        "components.comp-registry.outputDefinitions",
        "it writes no output",
    ),
    "a command that cannot know where to write": (
        put(*EXECUTORS, "exec-reward", "container", "args", ["components.reward"]),
        "deploymentSpec.executors.exec-reward.container",
        "not told where to write",
    ),
    # the exit task
    "no exit task": (without_exit_task, "root.dag.tasks", "no exit task"),
    "an exit task that does not wait for failures": (
        cut("root", "dag", "tasks", "finish", "triggerPolicy"),
        "root.dag.tasks",
        "no exit task",
    ),
    "a cached exit task": (
        put("root", "dag", "tasks", "finish", "cachingOptions", {"enableCache": True}),
        "root.dag.tasks.finish.cachingOptions",
        "would be reused",
    ),
    # keys and cache
    "constant cache key": (
        put(*DAG, "reward", "cachingOptions", {"enableCache": True, "cacheKey": "v1"}),
        "components.comp-exit-handler-1.dag.tasks.reward.cachingOptions.cacheKey",
        "replaces image, command and inputs",
    ),
    "a misspelt setting": (
        put(*PLACED, "exec-reward", "nodeSelectors", {"labels": {"a": "b"}}),
        "platforms.kubernetes.deploymentSpec.executors.exec-reward",
        "nodeSelectors",
    ),
    "a misspelt key of a container": (
        put(*EXECUTORS, "exec-reward", "container", "imagePull", "Always"),
        "deploymentSpec.executors.exec-reward",
        "imagePull",
    ),
}
