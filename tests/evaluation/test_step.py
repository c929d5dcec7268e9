"""The step end to end on stand-ins: real artifacts on disk, a generator that draws the world, a simple
reward.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from components.corpus.prompts import Prompt
from components.evaluation import samples, step
from components.evaluation.__main__ import app
from components.evaluation.params import EvaluationParams
from components.evaluation.samples import Request, evenly_over_prompts, sample_side
from components.evaluation.vbench.files import read_results
from components.runtime.artifacts.artifact import open_artifact
from components.runtime.errors import InputError, Interrupted
from components.runtime.gate.thresholds import load_gate
from components.video.decode.container import probe


def params(**values: Any) -> EvaluationParams:
    return EvaluationParams.model_validate(
        {"prompts": 4, "flow_pairs": 1, "resamples": 1000, "report_pairs": 2, "run": {"device": "cpu"}}
        | values
    )


def test_a_cleaner_aligned_model_wins_and_everything_is_published(finished: Path) -> None:
    artifact = open_artifact(finished, step="evaluation")
    metrics = artifact.metrics()
    assert metrics["pairs"] == 12
    assert metrics["prompts"] == 12
    assert metrics["win_rate_judge"] == 1.0
    assert metrics["win_rate_judge_low"] > 0.5
    assert metrics["aligned/judge"] > metrics["base/judge"]
    assert metrics["delta/judge"] == pytest.approx(metrics["aligned/judge"] - metrics["base/judge"])
    assert 0.9 < metrics["motion_ratio"] < 1.1
    assert metrics["dimensions_unavailable"] == 11
    names = set(artifact.manifest.files)
    assert {"report.html", "table.txt", "comparison.json", "pairs.jsonl", "plots/dimensions.csv"} <= names
    assert sum(name.startswith("videos/base/") for name in names) == 12
    assert any(name.startswith("clips/") and name.endswith(".mp4") for name in names)
    rows = [json.loads(line) for line in artifact.file("pairs.jsonl").read_text().splitlines()]
    assert len({row["seed"] for row in rows}) == 12
    assert np.mean([row["aligned"]["judge"] for row in rows]) == pytest.approx(metrics["aligned/judge"])


def test_results_have_vbenchs_form_and_name_videos_that_exist(finished: Path) -> None:
    file = finished / "results" / "base_eval_results.json"
    found = json.loads(file.read_text())
    score, videos = found["temporal_flickering"]
    assert score == pytest.approx(np.mean([video["video_results"] for video in videos]))
    assert len(videos) == 12
    assert len(found["dynamic_degree"][1]) == 2
    path = finished / videos[0]["video_path"]
    assert re.fullmatch(r"a \w+ \w+ moving .* background-0\.mp4", path.name)
    assert probe(path).width == 48
    raw = read_results(file, with_videos=False)
    assert {name for name, one in raw.items() if not one.method} == {"temporal_flickering"}
    assert "detector" in raw["color"].method
    assert "classical" in raw["motion_smoothness"].method


def test_batch_size_changes_nothing_and_the_seed_does(stand_ins: Any, tmp_path: Path) -> None:
    inputs = stand_ins.inputs(stand_ins.world_prompts(4))
    first = step.run(params(batch=3), **inputs, out=tmp_path / "a").metrics
    assert step.run(params(batch=8), **inputs, out=tmp_path / "b").metrics == pytest.approx(first)
    other = step.run(params(run={"seed": 1, "device": "cpu"}), **inputs, out=tmp_path / "c").metrics
    assert other["base/judge"] != pytest.approx(first["base/judge"])


def test_a_stopped_run_goes_on_from_its_finished_batches(
    stand_ins: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = stand_ins.inputs(stand_ins.world_prompts(4))
    whole = step.run(params(batch=4), **inputs, out=tmp_path / "whole").metrics
    real = samples.open_sampler

    def interrupted(generator: Any, device: Any, lora: Path | None) -> Any:
        if lora is not None:
            raise Interrupted
        return real(generator, device, lora)

    monkeypatch.setattr(samples, "open_sampler", interrupted)
    with pytest.raises(Interrupted):
        step.run(params(batch=4), **inputs, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(samples, "open_sampler", real)
    stand_ins.sampler.calls = 0
    assert step.run(params(batch=4), **inputs, out=tmp_path / "out").metrics == pytest.approx(whole)
    assert stand_ins.sampler.calls == 2


def test_prompts_outside_the_world_leave_judge_and_semantics_unavailable(
    stand_ins: Any, tmp_path: Path
) -> None:
    nasty = '"><script>alert(1)</script>'
    prompts = [Prompt(f"u{i}", f"a/b {i} {nasty}", "heldout") for i in range(4)]
    result = step.run(params(prompts=4, seeds=1), **stand_ins.inputs(prompts), out=tmp_path / "out")
    assert not any("judge" in name or "color" in name for name in result.metrics)
    comparison = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert comparison["judge"] is None
    assert "miniature world" in comparison["unavailable"]["judge"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert nasty not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "oracle judge reads scenes of the miniature world" in page


def test_the_page_stands_alone(finished: Path) -> None:
    page = (finished / "report.html").read_text()
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert "http://" not in page
    assert "https://" not in page
    assert page.count("data:video/mp4;base64,") == 6
    for word in (
        "Won, tied, lost",
        "Denoising error",
        "srcc world",
        "GRiT",
        "run seed",
        "margins stated before looking",
        "The reward artifact records no gate",
        "The alignment artifact records no versions",
    ):
        assert word in page, word
    assert "{{" not in page
    assert len(page) < 15 * 2**20
    # The shipped gate asks for 48 prompts and 96 pairs; here are 12.
    assert '<h1 id="verdict">Not worth promoting</h1>' in page
    assert "12 prompts of at least 48" in page
    assert "Left to the registry, which knows the champion" in page


def test_the_page_goes_by_the_gate_file_that_is_named(stand_ins: Any, tmp_path: Path) -> None:
    inputs = stand_ins.inputs(stand_ins.world_prompts(14))
    gate = tmp_path / "own.yaml"
    gate.write_text(
        "minimum: {prompts: 1, pairs: 1}\nabsolute: [{metric: win_rate_judge, above: 0.5, confident: true}]\n"
    )
    result = step.run(params(prompts=12, seeds=1, gate=str(gate)), **inputs, out=tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text()
    assert '<h1 id="verdict">Worth promoting</h1>' in page
    assert result.metrics["rules_failed"] == 0
    comparison = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert [check["metric"] for check in comparison["checks"]] == ["prompts", "pairs", "win_rate_judge"]
    assert comparison["gate_digest"] == load_gate(gate).digest
    gate.write_text("absolute: [{metric: win_rate_judge}]\n")
    with pytest.raises(InputError, match="at_least, above or at_most"):
        step.run(params(gate=str(gate)), **inputs, out=tmp_path / "other")
    assert not list(tmp_path.glob("other*"))


def test_a_corpus_without_held_out_prompts_is_one_clear_line(stand_ins: Any, tmp_path: Path) -> None:
    inputs = stand_ins.inputs([Prompt("t", "a cat", "train")])
    with pytest.raises(InputError, match="no held-out prompt"):
        step.run(params(), **inputs, out=tmp_path / "out")
    assert not list(tmp_path.glob("out*"))


def test_an_alignment_without_weights_is_one_clear_line(stand_ins: Any, tmp_path: Path) -> None:
    inputs = stand_ins.inputs(stand_ins.world_prompts(6))
    (inputs["alignment"] / "lora" / "pytorch_lora_weights.safetensors").write_bytes(b"LORA")
    with pytest.raises(InputError, match=r"pytorch_lora_weights\.safetensors.*altered"):
        step.run(params(), **inputs, out=tmp_path / "out")


def test_table_verb_prints_the_table_and_the_pages_path(finished: Path) -> None:
    table = (finished / "table.txt").read_text()
    shown = CliRunner().invoke(app, ["table", "--evaluation", str(finished)])
    assert shown.exit_code == 0, shown.output
    assert shown.output.startswith(table)
    assert shown.output.rstrip().endswith(str(finished / "report.html"))
    assert max(len(line) for line in table.splitlines()[:14]) < 100


def test_flow_is_spread_over_prompts_first() -> None:
    asked = [Request(f"p{i // 2}", f"prompt {i // 2}", i % 2, i) for i in range(12)]
    assert np.flatnonzero(evenly_over_prompts(asked, 3)).tolist() == [0, 4, 10]
    assert evenly_over_prompts(asked, 6).tolist() == [True, False] * 6
    assert evenly_over_prompts(asked, 8).sum() == 8
    assert evenly_over_prompts(asked, 99).all()


def test_a_half_written_batch_is_drawn_again(tmp_path: Path, stand_ins: Any) -> None:
    asked = [Request("p", prompt.text, 0, 7) for prompt in stand_ins.world_prompts(2)]
    sampler = stand_ins.sampler(0.5)
    whole = sample_side(sampler, asked, 1, tmp_path / "keep")
    kept = sorted((tmp_path / "keep").iterdir())
    kept[1].write_bytes(kept[1].read_bytes()[:100])
    assert torch.equal(sample_side(sampler, asked, 1, tmp_path / "keep"), whole)
