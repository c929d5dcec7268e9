"""The two JSON files between Kubeflow and a container: what it is given, and what it says it made.

Kubeflow hands a container the whole ExecutorInput message (placeholder `{{$}}`) and reads an ExecutorOutput
message back. Both are read and written here without kfp, the same way on one machine and on a cluster.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.runtime.errors import InputError
from components.runtime.io.files import write_atomically
from components.runtime.io.untrusted import parse_json

#: Where Kubeflow's launcher puts what a URI names: it downloads inputs there and uploads outputs from there.
_MOUNTS = {"gs://": "/gcs/", "minio://": "/minio/", "s3://": "/s3/"}
_WORKSPACE = Path("/kfp-workspace/.artifacts")
_PLACEHOLDER = "{{$"


@dataclass(frozen=True)
class ExecutorArtifact:
    """An input or output artifact as Kubeflow describes it.

    Attributes:
        name: Kubeflow's own name of it, which may be an id.
        uri: where Kubeflow keeps it.
        path: the same place inside the container.
        type: the message that says its type, e.g. {"schemaTitle": "system.Model", "schemaVersion": "0.0.1"}.
        metadata: what its producer said of it; numbers arrive as floats.
    """

    name: str
    uri: str
    path: Path
    type: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ExecutorInput:
    """What Kubeflow gives a container: parameters, input artifacts, and places for its outputs."""

    parameters: dict[str, Any]
    inputs: dict[str, ExecutorArtifact]
    outputs: dict[str, ExecutorArtifact]
    output_file: Path
    """Where the ExecutorOutput is looked for; its folder may not exist."""

    @classmethod
    def parse(cls, text: str) -> ExecutorInput:
        """The message in `text`, as JSON.

        Raises:
            InputError: if it is no ExecutorInput.
        """
        try:
            message = json.loads(text)
            inputs, outputs = message.get("inputs") or {}, message["outputs"]
            return cls(
                parameters=dict(inputs.get("parameterValues") or {}),
                inputs=_artifacts(inputs),
                outputs=_artifacts(outputs),
                output_file=Path(outputs["outputFile"]),
            )
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(
                f"--executor-input {text[:60]!r}: not an ExecutorInput ({type(error).__name__}: {error}); "
                "the pipeline's command must pass the placeholder {{$}}"
            ) from None

    def text(self, name: str) -> str:
        """Parameter `name`, which must be text.

        Raises:
            InputError: if it is not there or something else.
        """
        value = self.parameters.get(name)
        if not isinstance(value, str):
            have = ", ".join(sorted(self.parameters)) or "none"
            raise InputError(f"--executor-input: no text parameter {name} (parameters: {have})")
        return value

    def json(self, name: str) -> dict[str, Any]:
        """Parameter `name` as the JSON object that its text holds; integers of any size come back exactly.

        Raises:
            InputError: if it is not there or holds something else.
        """
        text = self.text(name)
        value = parse_json(text, f"parameter {name}")
        if not isinstance(value, dict):
            raise InputError(f"parameter {name} = {text[:60]}: must be a JSON object")
        return value

    def input(self, name: str) -> ExecutorArtifact:
        """Input artifact `name`.

        Raises:
            InputError: if there is none.
        """
        return _named(self.inputs, name, "input")

    def output(self, name: str) -> ExecutorArtifact:
        """Output artifact `name`.

        Raises:
            InputError: if there is none.
        """
        return _named(self.outputs, name, "output")


def write_output(
    given: ExecutorInput, made: Mapping[str, Mapping[str, Any]], file: Path | None = None
) -> Path:
    """Write the ExecutorOutput message in one rename, parents created; returns its path.

    Args:
        given: the message this answers.
        made: metadata (JSON values) of each output artifact that was made. An output that is not named
            here is not said to be made. None values are left out: Kubeflow's metadata store refuses them.
        file: where, `given.output_file` if not said.

    Raises:
        InputError: if `made` names an output that was not asked for.
        ValueError: if a number in the metadata is not finite.
    """
    artifacts = {}
    for name, metadata in made.items():
        asked = given.output(name)
        kept = {key: value for key, value in metadata.items() if value is not None}
        for key, value in kept.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"output {name}: metadata {key} = {value} is not a finite number")
        entry = {"name": asked.name, "type": asked.type, "uri": asked.uri, "metadata": kept}
        artifacts[name] = {"artifacts": [{k: v for k, v in entry.items() if v}]}
    target = file or given.output_file
    write_atomically(target, json.dumps({"artifacts": artifacts}, sort_keys=True, allow_nan=False))
    return target


def read_output(file: Path) -> dict[str, dict[str, Any]]:
    """The metadata of each output artifact that an ExecutorOutput message speaks of.

    Raises:
        InputError: if the file is missing or no such message.
    """
    try:
        message = json.loads(file.read_text())
        return {name: dict(a.metadata) for name, a in _artifacts(message).items()}
    except OSError as error:
        raise InputError(f"{file}: {error.strerror or error}") from None
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{file}: not an ExecutorOutput ({type(error).__name__}: {error})") from None


def resolved(text: str | None) -> str | None:
    """`text`, or None where it is a placeholder nobody filled in.

    Kubeflow's local runner fills in `{{$.outputs.output_file}}` and `{{$.pipeline_job_name}}` in a command;
    its launcher on a cluster knows neither there and leaves them as they stand.
    """
    return None if not text or _PLACEHOLDER in text else text


def local_path(uri: str) -> Path:
    """Where a container finds what Kubeflow keeps at `uri`; a URI without scheme is a path already."""
    for scheme, mount in _MOUNTS.items():
        if uri.startswith(scheme):
            return Path(mount + uri.removeprefix(scheme))
    if uri.startswith("oci://"):
        return Path("/oci", uri.removeprefix("oci://").replace("/", "_"), "models")
    return Path(uri)


def _artifacts(message: Mapping[str, Any]) -> dict[str, ExecutorArtifact]:
    """The first artifact of each list; an optional input that was not given has an empty one."""
    lists = (message.get("artifacts") or {}).items()
    return {name: _artifact(entry["artifacts"][0]) for name, entry in lists if entry.get("artifacts")}


def _artifact(message: Mapping[str, Any]) -> ExecutorArtifact:
    uri, metadata = message.get("uri") or "", dict(message.get("metadata") or {})
    custom = message.get("customPath") or message.get("custom_path")
    path = Path(custom) if custom else local_path(uri)
    if metadata.get("_kfp_workspace") is True:
        path = _WORKSPACE / str(path).lstrip("/")
    return ExecutorArtifact(message.get("name") or "", uri, path, dict(message.get("type") or {}), metadata)


def _named(artifacts: Mapping[str, ExecutorArtifact], name: str, kind: str) -> ExecutorArtifact:
    if name not in artifacts:
        have = ", ".join(sorted(artifacts)) or "none"
        raise InputError(f"--executor-input: no {kind} artifact {name} ({kind}s: {have})")
    return artifacts[name]
