"""Writes the report page of a comparison, with the clips that it shows as files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from components.evaluation.comparison.measure import Side
from components.evaluation.comparison.results import ModelComparison
from components.evaluation.dimensions.names import QUALITY, SEMANTIC
from components.evaluation.inputs import KINDS, Inputs
from components.evaluation.params import EvaluationParams
from components.evaluation.report.page import PageContent, render
from components.evaluation.report.reward_section import read_log, read_reward
from components.evaluation.report.side_by_side import choose_pairs
from components.evaluation.vbench.totals import totals
from components.reward.refresh.versions import read_versions
from components.runtime.artifacts import provenance
from components.runtime.compute.seeds import numpy_rng
from components.runtime.tracking.step_run import flattened
from components.video.clip import Clip
from components.video.codec import write_video
from components.video.contact_sheets import side_by_side


def write_report(folder: Path, comparison: ModelComparison, inputs: Inputs, params: EvaluationParams) -> None:
    """Write ``report.html`` and ``clips/``."""
    requests, frames = comparison.requests, comparison.frames
    base, aligned = comparison.sides["base"], comparison.sides["aligned"]
    chosen_by, figures = "training reward", {"reward": (base.reward, aligned.reward)}
    if base.judge is not None and aligned.judge is not None:
        chosen_by, figures = "oracle judge", {"judge": (base.judge, aligned.judge)} | figures
    rng = numpy_rng(params.run.seed, "evaluation", "shown")
    shown = choose_pairs(requests, figures, params.report_pairs, rng)
    (folder / "clips").mkdir(exist_ok=True)
    for number, pair in enumerate(shown):
        clips = [Clip(side[pair.place], comparison.fps) for side in frames.values()]
        file = folder / "clips" / f"{number:02d}-{pair.group}.mp4"
        write_video(side_by_side(clips, list(frames)), file)
    number_of_prompts = len({request.prompt_id for request in requests})
    content = PageContent(
        verdict=comparison.verdict,
        base=base,
        shown=shown,
        chosen_by=f"the change of the {chosen_by}",
        log=read_log(inputs.alignment.path / "plots" / "training.csv"),
        reward=read_reward(inputs.reward.path, inputs.reward.metrics()),
        versions=read_versions(inputs.alignment.path / "reward"),
        totals=_totals_in_words(base, comparison.compat),
        provenance=_provenance(comparison, inputs, params),
        sources={step: artifact.manifest for step, artifact in vars(inputs).items()},
        setting=f"{len(requests)} pairs of clips, {number_of_prompts} held-out prompts x "
        f"{len(requests) // number_of_prompts} seeds, the same for both models",
    )
    page = render(content, frames["base"], frames["aligned"], comparison.fps)
    (folder / "report.html").write_text(page, encoding="utf-8")


def _totals_in_words(side: Side, compat: bool) -> str:
    found = totals(
        {
            name: float(np.nanmean(scores))
            for name, scores in side.scores.items()
            if not side.used[name].method and (compat or not side.used[name].variant)
        }
    )
    if not found.missing:
        figures = f"quality {found.quality:.4f}, semantic {found.semantic:.4f}, total {found.total:.4f}"
        return f"VBench of the base model: {figures}."
    return (
        f"No VBench total: {len(found.missing)} of its {len(QUALITY + SEMANTIC)} dimensions are unavailable "
        "here or not measured in VBench's way, and a total of the rest would not be comparable."
    )


def _provenance(
    comparison: ModelComparison, inputs: Inputs, params: EvaluationParams
) -> list[tuple[str, str]]:
    requests, digests = comparison.requests, inputs.digests(comparison.requests)
    version, dirty = provenance.code_version()
    libraries = provenance.library_versions()
    sampler = json.loads(inputs.generator.file("generator.json").read_text(encoding="utf-8"))
    aligned = next(digests[kind] for kind in KINDS if kind in digests)
    return [
        ("code", f"{version}{' with uncommitted changes' if dirty else ''}"),
        ("run seed", str(params.run.seed)),
        ("first and last sampling seed", f"{requests[0].seed}, {requests[-1].seed}"),
        ("prompts and seeds", f"sha256 {digests['requests_digest']}"),
        ("reward", f"sha256 {digests['reward_digest']}"),
        ("aligned weights", f"sha256 {aligned}"),
        ("sampler", _listed(sampler)),
        ("evaluation params", _listed(params.model_dump(mode="json", exclude={"run"}))),
        ("libraries", ", ".join(f"{name} {libraries[name]}" for name in sorted(libraries))),
    ]


def _listed(values: Mapping[str, Any]) -> str:
    """``steps 8, guidance 1.0``; what is nested gets its place's name."""
    flat = flattened(dict(values))
    return ", ".join(f"{name} {value if value != '' else 'none'}" for name, value in flat.items())
