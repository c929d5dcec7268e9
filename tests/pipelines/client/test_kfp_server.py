"""The stand-in server takes what the real one takes, and refuses what that refuses."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import kfp
import kfp_server_api
import pytest

from tests.pipelines.client.conftest import TOKEN
from tests.pipelines.client.kfp_messages import Look, Refusal, Task, conform
from tests.pipelines.client.kfp_server import KfpServer
from tests.pipelines.client.submitting import Caller


def only_run(server: KfpServer) -> dict[str, Any]:
    (run,) = server.runs.values()
    return run


# The server of these tests, against what kfp knows of the API


def test_kfp_s_own_client_finds_the_server_in_order(
    caller: Caller, token_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kfp.Client, "_LOCAL_KFP_CONTEXT", str(tmp_path / "context.json"))
    caller.server.multi_user = True
    caller.server.script = [
        Look("RUNNING", {"corpus": "RUNNING"}),
        Look("SUCCEEDED", {"corpus": "SUCCEEDED"}),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        client = kfp.Client(host=caller.server.host, namespace="team-a", existing_token=TOKEN)
    assert client.get_kfp_healthz().multi_user is True
    experiment = client.create_experiment("by kfp")
    created = client.run_pipeline(experiment.experiment_id, "by kfp", str(caller.pipeline))
    assert client.list_runs(experiment_id=experiment.experiment_id).runs[0].run_id == created.run_id
    done = client.wait_for_run_completion(created.run_id, timeout=10, sleep_duration=0)
    assert done.state == "SUCCEEDED"
    assert {d.display_name for d in done.run_details.task_details} > {"corpus", "corpus-driver", "executor"}
    client.terminate_run(client.run_pipeline(experiment.experiment_id, "2", str(caller.pipeline)).run_id)


def test_what_the_server_sends_reads_back_through_the_api_s_models(caller: Caller) -> None:
    tasks: dict[str, Task | str] = {
        "corpus": Task("FAILED", "exit status 1", failed_attempts=1),
        "reward": "PENDING",
    }
    caller.server.script = [Look("FAILED", tasks, error="corpus failed")]
    caller.submit(wait=True)
    sent = caller.server._look(only_run(caller.server))
    api = kfp_server_api.ApiClient()
    model = api.deserialize(type("Answer", (), {"data": json.dumps(sent)}), "V2beta1Run")
    back = json.loads(json.dumps(api.sanitize_for_serialization(model)).replace("+00:00", "Z"))
    assert back == sent


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"display_name": ""}, 500),
        ({"experiment_id": "nowhere"}, 404),
        ({"experiment_id": None}, 404),
        ({"pipeline_spec": None}, 400),
        ({"pipeline_spec": {"pipelineInfo": {"name": "x"}}}, 400),
        ({"pipeline_spec": {"no": "such field"}}, 400),
        ({"pipeline_version_reference": {"pipeline_id": "x"}}, 400),
        ({"runtime_config": None}, 400),
        ({"state": "SUCCEEDED"}, 400),
        ({"no_such_field": 1}, 400),
    ],
)
def test_the_server_refuses_what_the_real_one_refuses(
    caller: Caller, change: dict[str, Any], status: int
) -> None:
    caller.submit()
    (good,) = [r.body for r in caller.server.requests if r.line == "POST /apis/v2beta1/runs"]
    body = {key: value for key, value in {**good, **change}.items() if value is not None}
    with pytest.raises(Refusal) as caught:
        caller.server._create_run(body)
    assert caught.value.status == status


def test_the_server_cannot_send_what_the_api_does_not_have() -> None:
    for bad in (
        {"exit_code": 3},
        {"state": "EXPLODED"},
        {"created_at": "yesterday"},
        {"state_history": [{"x": 1}]},
    ):
        with pytest.raises(Refusal):
            conform(bad, "V2beta1Run")
