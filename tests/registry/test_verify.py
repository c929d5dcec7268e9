"""Provenance: what a version carries, and that one changed byte anywhere is named."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from components.registry.params import RegistryParams
from components.registry.promote import Promotions
from components.registry.promotion_log import CHAMPION
from components.registry.step import run
from components.registry.verify import VerifiedItem, verify
from components.registry.versions.diff import lines
from components.registry.versions.files import evaluated, provenance
from components.registry.versions.store import RegisteredModel
from components.runtime.artifacts.artifact import Artifact, open_artifact
from components.runtime.errors import InputError
from components.runtime.gate.thresholds import load_gate
from tests.registry.conftest import Candidate, command

pytestmark = pytest.mark.usefixtures("mlflow_home")


@pytest.fixture
def inputs(candidate: Candidate) -> dict[str, Path]:
    return candidate("a")


@pytest.fixture
def registered(inputs: dict[str, Path], params: RegistryParams, tmp_path: Path) -> Promotions:
    run(params, **inputs, out=tmp_path / "registry")
    return Promotions(RegisteredModel(params.model), RegisteredModel(params.reward_model))


def stored(models: RegisteredModel) -> Path:
    """Folder of version 1 in the artifact store."""
    return Path(urlsplit(models.client.get_model_version_download_uri(models.name, "1")).path)


def differing(promotions: Promotions) -> list[VerifiedItem]:
    return [finding for finding in verify(promotions, "1") if finding.state == "differs"]


def flip(file: Path) -> None:
    """Change one bit of the middle byte; the size stays."""
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))


def test_a_version_as_registered_verifies(registered: Promotions, params: RegistryParams) -> None:
    found = verify(registered, "1")
    assert {finding.state for finding in found} <= {"same", "absent"}
    checked = {finding.what.split(": ")[-1] for finding in found if finding.state == "same"}
    assert {
        "lora/pytorch_lora_weights.safetensors",
        "MLmodel",
        "card.md",
        "pairs.jsonl",
        "aliases",
    } <= checked
    assert "reward/model.safetensors" in checked
    assert command(params, "verify") == 0


@pytest.mark.parametrize(
    "name", ["lora/pytorch_lora_weights.safetensors", "model_code.py", "evaluation/metrics.json", "card.md"]
)
def test_one_changed_byte_of_a_version_is_named(
    registered: Promotions, params: RegistryParams, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    flip(stored(registered.generator) / name)
    assert [finding.what for finding in differing(registered)] == [f"{params.model} version 1: {name}"]
    assert command(params, "verify") == 3
    assert name in capsys.readouterr().err


def test_changed_provenance_is_not_believed(registered: Promotions) -> None:
    flip(stored(registered.generator) / "provenance.json")
    assert any("provenance.json" in finding.what for finding in differing(registered))
    with pytest.raises(InputError, match="altered"):
        evaluated(registered.generator, "1")


def test_the_gate_does_not_read_altered_figures(
    registered: Promotions, candidate: Candidate, params: RegistryParams, tmp_path: Path
) -> None:
    flip(stored(registered.generator) / "evaluation" / "metrics.json")
    with pytest.raises(InputError, match=r"evaluation/metrics\.json is altered"):
        run(params, **candidate("b"), out=tmp_path / "registry")
    assert registered.generator.aliases()[CHAMPION] == "1"


def test_altered_weights_are_not_promoted(
    registered: Promotions, candidate: Candidate, params: RegistryParams, tmp_path: Path
) -> None:
    run(params, **candidate("b", **{"aligned/judge": 0.8}), out=tmp_path / "registry")
    assert registered.roll_back("to promote it again") == ("2", "1")
    models = registered.generator
    place = Path(urlsplit(models.client.get_model_version_download_uri(models.name, "2")).path)
    flip(place / "lora" / "pytorch_lora_weights.safetensors")
    with pytest.raises(InputError, match=r"pytorch_lora_weights\.safetensors is missing or altered"):
        registered.promote("2", load_gate())
    assert models.aliases()[CHAMPION] == "1"


def test_the_reward_the_inputs_decisions_and_aliases_are_checked_too(
    registered: Promotions, inputs: dict[str, Path], params: RegistryParams
) -> None:
    flip(stored(registered.reward) / "reward" / "model.safetensors")
    flip(inputs["alignment"] / "lora" / "pytorch_lora_weights.safetensors")
    decision = next(stored(registered.generator).parent.glob("decisions/*.json"))
    flip(decision)
    registered.generator.set_alias(CHAMPION, None)
    (stored(registered.generator) / "extra.py").write_text("x = 1")
    what = [finding.what for finding in differing(registered)]
    assert what == [
        f"{params.model} version 1: extra.py",
        f"alignment artifact at {inputs['alignment']}: lora/pytorch_lora_weights.safetensors",
        f"{params.reward_model} version 1: reward/model.safetensors",
        "decision of entry 1",
        "aliases",
    ]


def test_a_file_that_is_gone_is_named(registered: Promotions, params: RegistryParams) -> None:
    (stored(registered.generator) / "lora" / "pytorch_lora_weights.safetensors").unlink()
    (found,) = differing(registered)
    assert "pytorch_lora_weights" in found.what and found.note == "missing"


def test_provenance_says_where_everything_came_from(
    candidate: Candidate, params: RegistryParams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.lock").write_text("schema: '2.0'\n")
    monkeypatch.setenv("ONLINEVPO_IMAGES", '{"model": "r/model@sha256:00"}')
    monkeypatch.setenv("ONLINEVPO_RUN", "run-7")
    inputs = candidate("a")
    run(params, **inputs, out=tmp_path / "registry")
    models = RegisteredModel(params.model)
    found = provenance(models, "1")
    assert found is not None
    manifests = {name: json.loads((path / "manifest.json").read_text()) for name, path in inputs.items()}
    assert found["code"]["commits"] == {name: one["code_version"] for name, one in manifests.items()}
    assert isinstance(found["code"]["dirty"], bool)
    assert found["dvc_lock"] == hashlib.sha256(b"schema: '2.0'\n").hexdigest()
    assert found["steps"]["alignment"]["place"] == str(inputs["alignment"])
    assert found["evaluated_on"]["prompts_and_seeds_digest"] == "r1"
    assert found["reward"]["scores_digest"] == "w1"
    assert found["base"]["files"] == {"model_index.json": hashlib.sha256(b"{}").hexdigest()}
    assert found["images"] == {"model": "r/model@sha256:00"}
    assert found["kfp_run_id"] == "run-7"
    assert found["libraries"]["evaluation"]["torch"] == manifests["evaluation"]["libraries"]["torch"]
    assert found["seeds"] == dict.fromkeys(manifests, 0)
    assert found["cost"]["steps"]["alignment"]["phases"] == {"rollout": 3.0}
    assert found["cost"]["process_seconds"] == pytest.approx(
        sum(one["wall_seconds"] for one in manifests.values()), abs=0.001
    )
    assert found["cost"]["gpu_hours"] == 0.0
    for name, entry in found["files"].items():
        assert hashlib.sha256((stored(models) / name).read_bytes()).hexdigest() == entry["sha256"]
    card = (stored(models) / "card.md").read_text()
    for said in ("r/model@sha256:00", "run-7", found["params_digest"], "0.700", "[0.600, 0.800]"):
        assert said in card


def test_gpu_hours_count_every_process_and_only_steps_on_gpus(
    candidate: Candidate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from components.registry.versions.provenance import VersionOrigin, cost

    monkeypatch.setenv("WORLD_SIZE", "4")  # as torchrun tells each of four processes
    opened = {step: open_artifact(place, step=step) for step, place in candidate("a").items()}
    assert {artifact.manifest.processes for artifact in opened.values()} == {4}
    took = {
        "generator": ("cuda (NVIDIA H100)", 1, 1800.0),
        "reward": ("cpu (8 threads)", 1, 7200.0),
        "alignment": ("cuda (NVIDIA H100)", 16, 9000.0),
        "evaluation": ("cuda (NVIDIA H100)", 1, 3600.0),
    }
    measured = {
        step: Artifact(
            opened[step].path,
            opened[step].manifest.model_copy(
                update={"device": device, "processes": processes, "wall_seconds": seconds}
            ),
        )
        for step, (device, processes, seconds) in took.items()
    }
    found = cost(VersionOrigin(measured, dict.fromkeys(measured, "")))
    assert found["gpu_hours"] == 0.5 + 16 * 2.5 + 1.0
    assert found["process_seconds"] == 1800 + 7200 + 16 * 9000 + 3600


def test_the_card_of_whole_weights_and_with_the_corpus_beside(
    candidate: Candidate, params: RegistryParams, tmp_path: Path
) -> None:
    inputs = candidate("a", kind="weights", corpus=True)
    run(params, **inputs, out=tmp_path / "registry")
    models = RegisteredModel(params.model)
    found = provenance(models, "1")
    assert found is not None
    steps = [*inputs.values(), inputs["evaluation"].parent / "corpus"]
    manifests = [json.loads((path / "manifest.json").read_text()) for path in steps]
    total = sum(one["wall_seconds"] for one in manifests)
    assert found["cost"]["process_seconds"] == pytest.approx(total, abs=0.001)
    assert found["seeds"]["corpus"] == 0
    evaluated = json.loads((inputs["evaluation"] / "manifest.json").read_text())
    assert found["corpus"]["digest"] == evaluated["inputs"]["corpus"]
    prompts = (steps[-1] / "prompts.jsonl").read_bytes()
    assert found["corpus"]["prompts_sha256"] == hashlib.sha256(prompts).hexdigest()
    card = (stored(models) / "card.md").read_text()
    assert "All of the denoiser's weights, trained from" in card and "LoRA" not in card
    assert "| corpus |" in card.partition("What it cost")[2]


def test_a_card_cannot_be_made_to_hold_markup(tmp_path: Path) -> None:
    from components.registry.versions.model_card import _table

    table = _table(("a", "b"), [("<script>x</script>\n# head", "1 | 2 `code`")])
    assert "<script" not in table and "\n# head" not in table
    assert table.splitlines()[-1].count(" | ") == 1 and "\\|" in table


def test_diff_tells_scores_and_origin_apart(
    registered: Promotions, candidate: Candidate, params: RegistryParams, tmp_path: Path
) -> None:
    run(params, **candidate("b", **{"aligned/judge": 0.8}), out=tmp_path / "registry")
    said = list(lines(registered.generator, "1", "2"))
    assert any(line.startswith("  judge: 0.7000 | 0.8000  +0.1000 [+0.09") for line in said)
    assert any(line.startswith("  steps.alignment.digest:") for line in said)
    assert not any("reward.scores_digest" in line for line in said)
    run(params, **candidate("c", requests="r2"), out=tmp_path / "registry")
    assert "scores are not comparable: other prompts and seeds" in list(lines(registered.generator, "1", "3"))
