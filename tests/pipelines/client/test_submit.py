from __future__ import annotations

import datetime
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.client import kfp_api as server_module
from tests.pipelines.client.kfp_server import KfpServer, Trouble
from tests.pipelines.client.submitting import STEPS, Caller, compiled_text


def only_run(server: KfpServer) -> dict[str, Any]:
    (run,) = server.runs.values()
    return run


def caching(run: dict[str, Any]) -> dict[str, bool]:
    """Whether each task of a submitted pipeline may take an earlier result."""
    spec = run["pipeline_spec"]["pipeline_spec"]
    return {
        name: bool(task.get("cachingOptions", {}).get("enableCache"))
        for component in (spec["root"], *spec["components"].values())
        for name, task in component.get("dag", {}).get("tasks", {}).items()
    }


# What is submitted


def test_the_url_is_all_that_is_printed_and_the_run_is_what_was_asked_for(caller: Caller) -> None:
    end = caller.submit(experiment="trials", service_account="robot")
    run = only_run(caller.server)
    assert (end.code, end.err) == (0, "")
    assert end.out == [f"{caller.server.host}/#/runs/details/{run['run_id']}"]
    pipeline, platform = yaml.safe_load_all(compiled_text())
    assert run["pipeline_spec"] == {"pipeline_spec": pipeline, "platform_spec": platform}
    assert run["service_account"] == "robot"
    assert run["runtime_config"] == {"parameters": {}}
    assert caller.server.experiments[run["experiment_id"]]["display_name"] == "trials"
    date = re.fullmatch(r"onlinevpo-(\d{8}-\d{6})", run["display_name"])
    assert date is not None
    then = datetime.datetime.strptime(date[1] + "+0000", "%Y%m%d-%H%M%S%z")
    assert abs(datetime.datetime.now(datetime.UTC) - then) < datetime.timedelta(minutes=5)


def test_a_name_of_ones_own_and_an_experiment_that_is_there(caller: Caller) -> None:
    there = caller.server.add_experiment("trials")
    caller.server.add_experiment("trials-2")
    assert caller.submit(experiment="trials", name="the third try").code == 0
    run = only_run(caller.server)
    assert (run["display_name"], run["experiment_id"]) == ("the third try", there)
    assert caller.server.lines("POST.*experiments") == []


def test_an_archived_experiment_is_not_filled_in_secret(caller: Caller) -> None:
    caller.server.add_experiment("old", storage_state="ARCHIVED")
    end = caller.submit(experiment="old")
    assert end.code == 2
    assert "experiment old is archived" in end.error
    assert caller.server.runs == {}


def test_caching_is_as_compiled_or_off_in_every_task(caller: Caller) -> None:
    caller.submit()
    compiled = caching(only_run(caller.server))
    assert compiled["corpus"] and not compiled["registry"]
    caller.server.runs.clear()
    caller.submit(cache=False)
    off = caching(only_run(caller.server))
    assert off.keys() == compiled.keys() >= set(STEPS)
    assert not any(off.values())


def test_the_ui_may_live_elsewhere(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KF_PIPELINES_UI_ENDPOINT", "https://kubeflow.example/pipeline/")
    end = caller.submit(host=caller.server.host + "/")
    run = only_run(caller.server)["run_id"]
    assert end.out == [f"https://kubeflow.example/pipeline/#/runs/details/{run}"]


# Namespaces


def test_on_a_server_with_many_namespaces_one_is_needed(caller: Caller, token_file: Path) -> None:
    caller.server.multi_user = True
    end = caller.submit(token_file=token_file)
    assert end.code == 2
    assert "--namespace must name yours" in end.error
    assert caller.submit(token_file=token_file, namespace="team-a").code == 0
    experiment = caller.server.experiments[only_run(caller.server)["experiment_id"]]
    assert experiment["namespace"] == "team-a"


def test_in_a_pod_its_own_namespace_is_taken(
    caller: Caller, token_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    caller.server.multi_user = True
    (tmp_path / "namespace").write_text("team-a")
    monkeypatch.setattr(server_module, "POD_NAMESPACE", tmp_path / "namespace")
    assert caller.submit(token_file=token_file).code == 0


def test_where_there_is_one_namespace_the_option_is_said_to_do_nothing(caller: Caller) -> None:
    end = caller.submit(namespace="team-a")
    assert end.code == 0
    assert "--namespace team-a has no effect" in end.err


def test_a_namespace_that_is_not_ours(caller: Caller, token_file: Path) -> None:
    caller.server.multi_user = True
    end = caller.submit(token_file=token_file, namespace="team-b")
    assert end.code == 2
    assert f"403: --token-file {token_file} may not list experiments in namespace team-b" in end.error
    assert "Unauthorized access to namespace team-b" in end.error


def test_an_interrupt_before_the_run_exists(caller: Caller) -> None:
    caller.server.troubles = [Trouble("POST .*runs", 503, times=10_000)]
    caller.time.then = {2: lambda: os.kill(os.getpid(), signal.SIGINT)}
    end = caller.submit(name="nightly", wait=True, on_interrupt="cancel")
    assert end.code == 75
    assert end.error == "interrupted: stopped; if run nightly did not start, run the same command again"


def test_a_refused_pipeline_is_not_tried_again(caller: Caller) -> None:
    caller.server.troubles = [Trouble("POST .*runs", 400), Trouble("POST .*runs", 500)]
    first, second = caller.submit(), caller.submit()
    assert (first.code, second.code) == (2, 1)
    assert "400: could not create a run: scripted 400" in first.error
    assert "500: could not create a run: scripted 500" in second.error
    assert caller.time.sleeps == []


# What is wrong before anybody is asked


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no documents with pipelineInfo"),
        ("[1, 2]", "no documents with pipelineInfo"),
        ("{a: [", "not readable as YAML"),
        ("apiVersion: argoproj.io/v1alpha1\nkind: Workflow\n", "no documents with pipelineInfo"),
        ("pipelineInfo: {name: x}\nroot: {dag: 3}\n", "not a compiled pipeline"),
        ("pipelineInfo: {}\nroot: {}\nschemaVersion: 2.1.0\n", "must have a pipelineInfo.name and tasks"),
    ],
)
def test_a_file_that_is_no_compiled_pipeline(caller: Caller, text: str, says: str) -> None:
    caller.pipeline.write_text(text)
    end = caller.submit()
    assert end.code == 2
    assert str(caller.pipeline) in end.error and says in end.error
    assert caller.server.requests == []


def test_a_missing_file(caller: Caller) -> None:
    caller.pipeline.unlink()
    assert caller.submit().code == 2


def test_a_pipeline_with_faults_is_refused(caller: Caller) -> None:
    caller.pipeline.write_text(compiled_text().replace(f"@sha256:{'5' * 64}", ":latest"))
    end = caller.submit()
    assert end.code == 3
    assert end.error.startswith("refused: ")
    assert caller.server.requests == []


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ({"on_interrupt": "maybe"}, "--on-interrupt maybe: must be one of leave, cancel, ask"),
        ({"experiment": " "}, "--experiment ' ': must be 1 to 128 characters"),
        ({"experiment": "x" * 129}, "must be 1 to 128 characters"),
        ({"name": " "}, "--name: must not be empty"),
    ],
)
def test_a_bad_option(caller: Caller, option: dict[str, str], says: str) -> None:
    end = caller.submit(**option)
    assert end.code == 2
    assert says in end.error
    assert caller.server.requests == []
