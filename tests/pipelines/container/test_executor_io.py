"""The two JSON files, checked against kfp's own makers and readers of them."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from kfp import dsl
from kfp.local import executor_input_utils, executor_output_utils
from kfp.pipeline_spec import pipeline_spec_pb2

from components.runtime.errors import InputError
from pipelines.container.executor_io import ExecutorInput, local_path, read_output, resolved, write_output

BIG = 2**63 - 1


@pytest.fixture
def message(tmp_path: Path) -> dict[str, Any]:
    """The message that kfp itself makes for a step with one input, two outputs and two parameters."""

    @dsl.container_component
    def reward(
        run_params: str,
        step_params: str,
        corpus: dsl.Input[dsl.Dataset],
        artifact: dsl.Output[dsl.Model],
        metrics: dsl.Output[dsl.Metrics],
    ) -> dsl.ContainerSpec:
        return dsl.ContainerSpec(image="none", command=["true"])

    component = reward.component_spec.to_pipeline_spec().components["comp-reward"]
    arguments = {
        "run_params": json.dumps({"seed": BIG}),
        "step_params": '{"a":1}',
        "corpus": dsl.Dataset("corpus", "s3://bucket/a/corpus", {"digest": "d"}),
    }
    made = executor_input_utils.construct_executor_input(
        component, arguments, str(tmp_path / "task"), block_input_artifact=False
    )
    return executor_input_utils.executor_input_to_dict(made, component)


def test_reads_what_kfp_makes(message: dict[str, Any], tmp_path: Path) -> None:
    given = ExecutorInput.parse(json.dumps(message))
    assert given.text("step_params") == '{"a":1}'
    assert given.json("run_params") == {"seed": BIG}
    corpus = given.input("corpus")
    assert (corpus.uri, corpus.path) == ("s3://bucket/a/corpus", Path("/s3/bucket/a/corpus"))
    assert corpus.metadata == {"digest": "d"}
    assert given.output("artifact").path == tmp_path / "task" / "artifact"
    assert given.output("metrics").type["schemaTitle"] == "system.Metrics"
    assert given.output_file == tmp_path / "task" / "executor_output.json"


@pytest.mark.parametrize(
    "uri",
    ["gs://b/x/y", "minio://mlpipeline/v2/x", "s3://b/x", "oci://registry.example/a/b", "/plain/path"],
)
def test_local_paths_are_kfps(uri: str) -> None:
    assert str(local_path(uri)) == dsl.Model(uri=uri).path


def test_paths_that_are_not_the_uris(message: dict[str, Any]) -> None:
    entry = message["inputs"]["artifacts"]["corpus"]["artifacts"][0]
    theirs = dsl.Artifact(uri=entry["uri"], metadata={"_kfp_workspace": True})
    entry["metadata"]["_kfp_workspace"] = True
    assert str(ExecutorInput.parse(json.dumps(message)).input("corpus").path) == theirs.path
    entry["metadata"] = {}
    entry["customPath"] = "/elsewhere"
    assert ExecutorInput.parse(json.dumps(message)).input("corpus").path == Path("/elsewhere")


def test_optional_input_that_was_not_given(message: dict[str, Any]) -> None:
    message["inputs"]["artifacts"]["corpus"] = {}
    given = ExecutorInput.parse(json.dumps(message))
    with pytest.raises(InputError, match=r"no input artifact corpus \(inputs: none\)"):
        given.input("corpus")


@pytest.mark.parametrize("text", ["", "{{$}}", "[]", "{}", '{"outputs": {}}', '{"outputs": 3}', "nul"])
def test_what_is_no_message(text: str) -> None:
    with pytest.raises(InputError, match="not an ExecutorInput") as caught:
        ExecutorInput.parse(text)
    assert "\n" not in str(caught.value)


def test_parameters_that_are_not_text_or_json(message: dict[str, Any]) -> None:
    message["inputs"]["parameterValues"] = {"a": 3.0, "b": "no", "c": "[1]"}
    given = ExecutorInput.parse(json.dumps(message))
    with pytest.raises(InputError, match=r"no text parameter a \(parameters: a, b, c\)"):
        given.json("a")
    with pytest.raises(InputError, match="parameter b: not readable as JSON"):
        given.json("b")
    with pytest.raises(InputError, match=r"parameter c = \[1\]: must be a JSON object"):
        given.json("c")


def test_kfp_reads_what_is_written(message: dict[str, Any]) -> None:
    given = ExecutorInput.parse(json.dumps(message))
    made: dict[str, dict[str, Any]] = {
        "artifact": {"digest": "abc", "refused": None},
        "metrics": {"srcc/world": 0.5, "pairs": 3},
    }
    file = write_output(given, made)
    assert file == given.output_file
    read = executor_output_utils.load_executor_output(str(file))
    asked = json_format.ParseDict(message, pipeline_spec_pb2.ExecutorInput())
    read = executor_output_utils.add_type_to_executor_output(asked, read)
    artifact = executor_output_utils.artifact_list_to_dsl_artifact(read.artifacts["artifact"], False)
    metrics = executor_output_utils.artifact_list_to_dsl_artifact(read.artifacts["metrics"], False)
    assert isinstance(artifact, dsl.Model) and isinstance(metrics, dsl.Metrics)
    assert artifact.metadata == {"digest": "abc"}  # Kubeflow's metadata store refuses a null
    assert artifact.path == str(given.output("artifact").path)
    assert metrics.metadata == {"srcc/world": 0.5, "pairs": 3.0}
    assert read_output(file) == {"artifact": {"digest": "abc"}, "metrics": {"srcc/world": 0.5, "pairs": 3}}
    assert [p.name for p in file.parent.iterdir()] == [file.name]


def test_what_may_not_be_written(message: dict[str, Any]) -> None:
    given = ExecutorInput.parse(json.dumps(message))
    with pytest.raises(InputError, match="no output artifact card"):
        write_output(given, {"card": {}})
    with pytest.raises(ValueError, match="srcc = nan is not a finite number"):
        write_output(given, {"metrics": {"srcc": math.nan}})
    assert not given.output_file.exists()


def test_output_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.json: No such file"):
        read_output(tmp_path / "none.json")
    (tmp_path / "half.json").write_text('{"artifacts": {"a":')
    with pytest.raises(InputError, match=r"half\.json: not an ExecutorOutput"):
        read_output(tmp_path / "half.json")


@pytest.mark.parametrize("text", [None, "", dsl.PIPELINE_JOB_NAME_PLACEHOLDER, "{{$.outputs.output_file}}"])
def test_placeholders_nobody_filled_in(text: str | None) -> None:
    assert resolved(text) is None
    assert resolved("run-1") == "run-1"
