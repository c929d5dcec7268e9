"""A page made of known things, and a browser to look at it with."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from components.evaluation.comparison.measure import Side
from components.evaluation.comparison.verdict import Verdict, flat_metrics, judge_pairs, put_to_gate
from components.evaluation.dimensions.catalogue import catalogue
from components.evaluation.params import EvaluationParams
from components.evaluation.report.page import PageContent, render
from components.evaluation.report.reward_section import read_reward
from components.evaluation.report.side_by_side import ExamplePair
from components.runtime.artifacts.manifest import Manifest
from components.runtime.gate.thresholds import Gate, Minimum, load_gate
from components.runtime.stats import ClusterMean, Clusters

FPS, FRAMES, PAIRS = 8.0, 9, 24
NASTY = '"><script>window.broken = 1</script>'


def sides(**changed: Any) -> tuple[Side, Side]:
    """A base side and an aligned one that is better in everything but what ``changed`` says."""
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.01, PAIRS)
    names = ("temporal_flickering", "motion_smoothness", "dynamic_degree", "color")
    base = Side(
        scores={name: np.full(PAIRS, 0.5) + noise for name in names},
        used={name: catalogue()[name][0] for name in names},
        unavailable={"scene": "needs the weights of Tag2Text"},
        reward=noise,
        judge=0.5 + noise,
        parts={},
        motion=np.full(PAIRS, 2.0),
        moved="the object's own way",
        flow=np.full(PAIRS, 2.0),
        diversity=np.full(PAIRS, 0.1),
        compared="prompts",
    )
    # A change that is the same for every prompt would have no spread, and so no interval.
    spread = rng.normal(0, 0.004, PAIRS)
    better = {
        "scores": {name: values + 0.05 + spread for name, values in base.scores.items()},
        "reward": base.reward + 1 + spread,
        "judge": 0.6 + noise + spread,
        "motion": base.motion + spread,
        "diversity": base.diversity + spread / 10,
    }
    return base, replace(base, **(better | changed))


def gate(**changed: Any) -> Gate:
    """The shipped gate, content with the few pairs of the tests; ``changed`` replaces its parts."""
    few = {"minimum": Minimum(prompts=1, pairs=1)}
    return load_gate().model_copy(update=few | changed)


def judged(base: Side, aligned: Side, rules: Gate | None = None) -> Verdict:
    params = EvaluationParams.model_validate({"resamples": 1000})
    labels = [i // 2 for i in range(len(base.reward))]
    verdict = judge_pairs(base, aligned, params, Clusters(labels, 1000, np.random.default_rng(0)))
    metrics = {"evaluation": flat_metrics(verdict, base, aligned)}
    return put_to_gate(verdict, rules or gate(), metrics, base.unavailable)


def card(folder: Path) -> Path:
    """A reward's folder with a card whose every number is different."""
    (folder / "plots").mkdir(parents=True)
    shares = {"won": 9, "clips": 10, "share": 0.9, "low": 0.6, "high": 0.98}
    full = {"won": 10, "clips": 10, "share": 1.0, "low": 0.72, "high": 1.0}
    worst = {"won": 8, "clips": 10, "share": 0.8, "low": 0.49, "high": 0.94}
    content = {
        "columns": {
            "world": {"clips": 11, "ladders": 5, "srcc": 0.91},
            "generated": {"clips": 12, "ladders": 5, "srcc": None},
        },
        "baselines": {"niqe": {"world": {"clips": 11, "ladders": 5, "srcc": -0.25}}},
        "attacks": {
            "world": {"frozen": full, "blank": shares},
            "generated": {"frozen": full, "blank": worst, "few_steps": shares},
            "pooled": {"frozen": full},
        },
        "judge": asdict(ClusterMean(0.61, 0.49, 0.72, 32)),
        "judge_pairs": 0.76,
        "gate": {
            "passed": False,
            "reasons": ["srcc_footage is 0.400, must be at least 0.5"],
            "checks": [
                {
                    "name": "srcc_world",
                    "value": 0.91,
                    "least": 0.85,
                    "passed": True,
                    "line": "srcc_world 0.910 >= 0.85",
                },
                {
                    "name": "srcc_footage",
                    "value": 0.4,
                    "least": 0.5,
                    "passed": False,
                    "line": "srcc_footage 0.400 >= 0.5",
                },
                {"name": "frozen_below_original", "value": None, "least": 0.93, "passed": None, "line": ""},
            ],
        },
        "by_type": {
            "desaturate": {"srcc_footage": -0.3, "pairs_footage": 0.31},
            "ghost": {"pairs_generated": 0.37},
        },
        "unavailable": {"spread": "one member only"},
        "of_a_later_version": [1, 2],
    }
    (folder / "card.json").write_text(json.dumps(content))
    (folder / "plots" / "training.csv").write_text("step,loss,rank\n10,1.5,0.5\n20,0.5,0.25\n")
    for name in ("labels", "attacks"):
        Image.new("RGB", (8, 8), "white").save(folder / "plots" / f"{name}.png")
    return folder


def counted(frames: int = FRAMES, side: int = 48) -> tuple[torch.Tensor, torch.Tensor]:
    """Clips that show their frame's number as a grey level, rising in the base and falling in the aligned."""
    level = (20 + 25 * torch.arange(frames)).to(torch.uint8)
    base = level.reshape(1, frames, 1, 1, 1).expand(PAIRS, frames, 3, side, side).clone()
    return base, 255 - base


def page_content(reward: Path, verdict: Verdict | None = None, **changed: Any) -> PageContent:
    base, aligned = sides()
    manifest = Manifest(
        step="reward",
        params={},
        params_digest="0" * 64,
        inputs={},
        files={},
        seed=41,
        code_version="c0ffee" * 6,
        wall_seconds=1.0,
        created="2030-01-02T03:04:05+00:00",
    )
    plain = PageContent(
        verdict=verdict or judged(base, aligned),
        base=base,
        shown=[
            ExamplePair(group, 2 * i + j, f"a {group} thing {NASTY}", j, {"judge": (0.5, 0.6)})
            for i, group in enumerate(("best", "worst", "random"))
            for j in range(2)
        ],
        chosen_by="the change of the judge",
        log={
            "iteration": [0.0, 1.0, 2.0],
            "reward_mean": [1.0, 2.0, 3.0],
            "loss": [0.7, float("nan"), 0.5],
            "reference_version": [0.0, 1.0, 1.0],
            "rewards/margins": [0.0, 0.1, 0.2],
        },
        reward=read_reward(reward, {"srcc_world": 0.91}),
        totals="No VBench total.",
        provenance=[("run seed", "7"), ("code", "c0ffee")],
        sources={"reward": manifest},
        setting="24 pairs of clips",
    )
    return replace(plain, **changed)


@pytest.fixture(scope="session")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with six pairs whose frames count."""
    root = tmp_path_factory.mktemp("page")
    file = root / "report.html"
    file.write_text(render(page_content(card(root / "reward")), *counted(), FPS), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Headless Chromium: the system's, or the one that `playwright install chromium` brings.

    Not for the whole session: while it is open, other tests could not run event loops of their own.
    """
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
        if found is None and not Path(own).exists():
            pytest.skip("no Chromium: install the system's package or run `playwright install chromium`")
        opened = playwright.chromium.launch(executable_path=found or own)
        yield opened
        opened.close()
