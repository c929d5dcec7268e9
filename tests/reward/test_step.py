"""The step as a whole and its command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from components.reward.params import RewardParams
from components.reward.scoring.trained import TrainedReward
from components.reward.step import run
from components.runtime.artifacts.artifact import open_artifact
from components.runtime.errors import GateRefused, InputError
from components.video.clip import Clip
from components.video.codec import write_video
from tests.reward.conftest import world, write_inputs

Inputs = tuple[Path, Path]


@pytest.fixture(scope="module")
def reward(inputs: Inputs, tiny: RewardParams, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("reward") / "reward"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONLINEVPO_TRACKING", "off")
        run(tiny, corpus=inputs[0], generator=inputs[1], out=out)
    return out


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "components.reward", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=120,
    )


def test_the_artifact_holds_weights_card_metrics_and_plots(reward: Path, tiny: RewardParams) -> None:
    artifact = open_artifact(reward, step="reward")
    names = set(artifact.manifest.files)
    assert {"model.safetensors", "config.json", "card.json", "card.md", "metrics.json"} <= names
    plots = ("labels.png", "types.png", "ladders.png", "attacks.png", "training.png", "training.csv")
    assert {f"plots/{name}" for name in plots} <= names
    metrics = artifact.metrics()
    assert {
        "srcc_world",
        "srcc_all",
        "srcc_heldout_types",
        "reference_above_generated",
        "two_apart_ordered_all",
        "frozen_below_original",
        "stillness_gain",
        "pairs_beyond_uncertainty_generated_ladders",
        "gate_room",
        "judge_srcc",
    } <= set(metrics)
    assert "judge_srcc_low" not in metrics  # of so few prompts there is no interval
    card = json.loads((reward / "card.json").read_text())
    assert card["gate"]["passed"] is True
    trained = card["data"]["training"]
    for source in ("world", "footage", "generated", "reconstructed"):
        assert trained[source]["ladders"] == getattr(tiny.ladders, source), source
    assert card["columns"]["world"]["srcc"] == pytest.approx(metrics["srcc_world"])
    assert torch.isfinite(TrainedReward.load(reward, "cpu").score(world(2), 8.0)).all()


def test_the_ladders_are_not_published_and_who_waited_is_told(reward: Path) -> None:
    assert not list(reward.glob(".*"))
    timing = json.loads((reward / "timing.json").read_text())
    assert 0 < timing["train_waited_for_ladders"] <= timing["train_seconds"]


def test_a_refused_reward_is_published_with_its_reasons(
    inputs: Inputs, tiny: RewardParams, tmp_path: Path
) -> None:
    strict = tiny.model_copy(update={"gate": tiny.gate.model_copy(update={"srcc_world": 1.0})})
    with pytest.raises(GateRefused, match=r"srcc_world is .* must be at least 1"):
        run(strict, corpus=inputs[0], generator=inputs[1], out=tmp_path / "r")
    card = json.loads((tmp_path / "r" / "card.json").read_text())
    assert card["gate"]["passed"] is False and "srcc_world" in card["gate"]["reasons"][0]
    with pytest.raises(InputError, match="refused"):
        open_artifact(tmp_path / "r", step="reward")


@pytest.mark.slow
def test_footage_alone_is_enough(tiny: RewardParams, tmp_path: Path) -> None:
    corpus, generator = write_inputs(tmp_path, with_world=False)
    metrics = run(tiny, corpus=corpus, generator=generator, out=tmp_path / "r").metrics
    assert "srcc_footage" in metrics and "srcc_world" not in metrics and "judge_srcc" not in metrics
    card = json.loads((tmp_path / "r" / "card.json").read_text())
    assert set(card["unavailable"]) == {"world", "judge", "few_steps, early_checkpoint"}


def test_unknown_distortion_names_are_refused_before_any_work(
    inputs: Inputs, tiny: RewardParams, tmp_path: Path
) -> None:
    bad = tiny.model_copy(update={"ladders": tiny.ladders.model_copy(update={"heldout_types": ("blurr",)})})
    with pytest.raises(InputError, match=r"heldout_types.*blurr.*known"):
        run(bad, corpus=inputs[0], generator=inputs[1], out=tmp_path / "r")
    assert not (tmp_path / "r").exists() and not (tmp_path / "r.partial").exists()


def _settings(params: RewardParams, folder: Path) -> Path:
    tree = params.model_dump(mode="json")
    run_section = tree.pop("run")
    file = folder / "params.yaml"
    file.write_text(json.dumps({"run": run_section, "reward": tree}))
    return file


def test_killed_stopped_and_run_again_ends_in_the_same_weights(
    inputs: Inputs, tiny: RewardParams, reward: Path, tmp_path: Path
) -> None:
    """kill -9 after the first checkpoint, SIGTERM after a later one, then to the end: equal to the
    uninterrupted run."""
    out = tmp_path / "stopped"
    arguments = [sys.executable, "-m", "components.reward", "run", "--params", str(_settings(tiny, tmp_path))]
    arguments += ["--corpus", str(inputs[0]), "--generator", str(inputs[1]), "--out", str(out)]
    checkpoints = Path(f"{out}.partial") / ".checkpoints"
    seen: set[str] = set()
    for number, code in ((signal.SIGKILL, -9), (signal.SIGTERM, 75)):
        process = subprocess.Popen(arguments, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            found = {path.name for path in checkpoints.glob("step-*")}
            if found - seen:
                seen |= found
                break
            time.sleep(0.005)
        process.send_signal(number)
        assert process.wait(60) == code
        assert not out.exists()
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    for name in ("model.safetensors", "plots/training.csv"):
        assert (out / name).read_bytes() == (reward / name).read_bytes(), name


def test_gate_refusal_is_exit_3_with_the_reason_last(
    inputs: Inputs, tiny: RewardParams, tmp_path: Path
) -> None:
    file = _settings(tiny, tmp_path)
    done = command(
        "run", "--params", str(file), "--set", "reward.gate.srcc_all=1", "--corpus", str(inputs[0]),
        "--generator", str(inputs[1]), "--out", str(tmp_path / "r"),
    )  # fmt: skip
    assert done.returncode == 3
    assert "srcc_all" in done.stderr.strip().splitlines()[-1]
    assert (tmp_path / "r" / "card.json").is_file()


def test_score_prints_json_lines_and_goes_on_past_broken_files(reward: Path, tmp_path: Path) -> None:
    good, broken = tmp_path / "good.mp4", tmp_path / "broken.mp4"
    write_video(Clip(world(1)[0], 8.0), good)
    broken.write_bytes(good.read_bytes()[:300])
    done = command("score", "--reward", str(reward), str(broken), str(good), str(tmp_path / "none.mp4"))
    assert done.returncode == 2
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["path"] for row in rows] == [str(good)] and isinstance(rows[0]["score"], float)
    errors = done.stderr.strip().splitlines()
    assert (
        len(errors) == 3 and "broken.mp4" in errors[0] and "none.mp4" in errors[1] and "2 of 3" in errors[2]
    )
    assert command("score", "--reward", str(reward), str(good)).returncode == 0


def test_the_catalogue_lists_and_draws_every_distortion(inputs: Inputs, tmp_path: Path) -> None:
    from components.reward.distortions import REGISTRY

    sheet = tmp_path / "sheet.png"
    done = command("distortions", "--corpus", str(inputs[0]), "--out", str(sheet))
    assert done.returncode == 0, done.stderr
    for name in REGISTRY:
        assert f" {name} " in done.stdout
    with Image.open(sheet) as picture:
        assert picture.height > 50 * len(REGISTRY)


def test_help_comes_without_torch() -> None:
    code = "import sys, components.reward.params, components.reward; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
