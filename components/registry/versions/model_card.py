"""The model card of a version, in Markdown, from its provenance and its metrics alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from components.runtime.gate.rules import figure_of

Metrics = Mapping[str, Mapping[str, float]]
#: Figures of the evaluation that the card shows, and their names in words.
_FIGURES = {
    "win_rate_reward": "aligned wins by the training reward",
    "win_rate_judge": "aligned wins by the oracle judge",
    "motion_ratio": "motion, aligned / base",
    "diversity_ratio": "diversity, aligned / base",
}
_TEXT = """# Aligned text-to-video generator

{kind} `{base}`{revision}, aligned by online DPO with a trained video-quality reward.
Generated from `provenance.json`; every figure stands in the version's own files.

## What it does

On {pairs} pairs of clips ({prompts} held-out prompts), aligned and base with the same prompts and seeds:

{figures}

{dimensions}

A difference whose interval holds 0 is not shown to be one. Dimensions that were not measured are absent,
here {unavailable} of them; no VBench total is claimed.

## What it came from

{origin}

## What it cost

{cost}

In all {seconds} process-seconds, {gpu_hours} GPU-hours. Energy: {energy}.
A step that was interrupted counts the process that finished it.

## Limits

It was rewarded for what its reward sees; the figures above are of the prompts it was evaluated on and say
nothing of others. It inherits what its base can and cannot do.

## Use

    import mlflow
    model = mlflow.pyfunc.load_model("models:/onlinevpo-generator@champion")
    model.predict(["a red circle moving left"])  # a row per prompt, the MP4 in `video`

or, with diffusers and no code of ours, {plain}.
"""


def card(provenance: Mapping[str, Any], metrics: Metrics, whole: bool = False) -> str:
    """The card: what it is, what it was measured on, what it came from, what it cost, how to load it.

    Args:
        whole: the version holds all of the denoiser's weights, not a LoRA.
    """
    evaluation = metrics.get("evaluation", {})
    base, cost = provenance["base"], provenance["cost"]
    folder = "`from_pretrained` of the denoiser's class on the version's folder `weights/<denoiser>`"
    return _TEXT.format(
        kind="All of the denoiser's weights, trained from" if whole else "A LoRA over",
        base=_escaped(base["base"]),
        plain=folder if whole else "`pipeline.load_lora_weights` on the version's folder `lora`",
        revision=f", revision `{_escaped(base['revision'])}`" if base["revision"] else "",
        pairs=f"{evaluation.get('pairs', 0):.0f}",
        prompts=f"{evaluation.get('prompts', 0):.0f}",
        figures=_table(("figure", "value", "interval"), _figures(evaluation)),
        dimensions=_table(("mean of", "base", "aligned", "difference", "interval"), _dimensions(evaluation)),
        unavailable=f"{evaluation.get('dimensions_unavailable', 0):.0f}",
        origin=_table(("what", "value"), _origin(provenance)),
        cost=_table(("step", "process-seconds", "device", "phases (s)"), _cost(cost)),
        seconds=f"{cost['process_seconds']:.0f}",
        gpu_hours=f"{cost['gpu_hours']:.3f}",
        energy=cost["energy_note"] if cost["energy_joules"] is None else f"{cost['energy_joules']} J",
    )


def _figures(evaluation: Mapping[str, float]) -> Iterator[tuple[str, ...]]:
    for name, words in _FIGURES.items():
        figure = figure_of(evaluation, name)
        if figure is not None:
            ends = f"[{figure.low:.3f}, {figure.high:.3f}]" if figure.known else ""
            yield words, f"{figure.value:.3f}", ends


def _dimensions(evaluation: Mapping[str, float]) -> Iterator[tuple[str, ...]]:
    for name in sorted(key.removeprefix("delta/") for key in evaluation if key.startswith("delta/")):
        means = [evaluation.get(f"{side}/{name}") for side in ("base", "aligned")]
        change = figure_of(evaluation, f"delta/{name}")
        assert change is not None
        ends = f"[{change.low:+.4f}, {change.high:+.4f}]" if change.known else ""
        cells = ("" if mean is None else f"{mean:.4f}" for mean in means)
        yield name.replace("_", " "), *cells, f"{change.value:+.4f}", ends


def _origin(provenance: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    code, corpus, base = (provenance[key] for key in ("code", "corpus", "base"))
    yield "code", f"{code['commit']}{' with uncommitted changes' if code['dirty'] else ''}"
    for step, commit in sorted(code["commits"].items()):
        if commit != code["commit"]:
            yield f"code of {step}", commit
    yield "params", provenance["params_digest"]
    yield "dvc.lock", provenance["dvc_lock"] or "none in the folder of the run"
    yield "corpus", corpus["digest"]
    yield "prompt list", corpus["prompts_sha256"] or "the corpus was not beside the evaluation"
    yield "evaluated prompts and seeds", provenance["evaluated_on"]["prompts_and_seeds_digest"]
    yield "reward, what decides its scores", provenance["reward"]["scores_digest"]
    for name, step in sorted(provenance["steps"].items()):
        yield f"{name} artifact", step["digest"]
    yield "base", f"{base['base']}, {len(base['files'])} files"
    yield "seeds", _listed(provenance["seeds"])
    yield "images", _listed(provenance["images"]) or "none: not run in containers"
    yield "Kubeflow run", provenance["kfp_run_id"] or "none"
    yield "libraries of the alignment", _listed(provenance["libraries"].get("alignment", {}))


def _cost(cost: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for name, step in sorted(cost["steps"].items()):
        phases = {phase.removesuffix("_seconds"): f"{value:.0f}" for phase, value in step["phases"].items()}
        yield name, f"{step['process_seconds']:.0f}", step["device"], _listed(phases)


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in sorted(values.items()))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(_escaped(cell) for cell in line)} |" for line in lines)


def _escaped(text: object) -> str:
    """Text for a cell: on one line, and nothing in it that Markdown or HTML would take for markup."""
    line = " ".join(str(text).split())
    for sign, harmless in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("|", "\\|"), ("`", "'")):
        line = line.replace(sign, harmless)
    return line
