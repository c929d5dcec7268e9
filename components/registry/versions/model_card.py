"""The model card of a version, in Markdown, from its provenance and its metrics alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from components.runtime.gate.rules import figure_of

Metrics = Mapping[str, Mapping[str, float]]
_WINS = (("win_rate_reward", "by the training reward"), ("win_rate_judge", "by the independent judge"))
_RATIOS = (("motion_ratio", "motion, aligned / base"), ("diversity_ratio", "diversity, aligned / base"))


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
    return _TEXT.format(
        kind="All of the denoiser's weights, trained from" if whole else "A LoRA over",
        base=_plain(base["base"]),
        plain="`from_pretrained` of the denoiser's class on the version's folder `weights/<denoiser>`"
        if whole
        else "`pipeline.load_lora_weights` on the version's folder `lora`",
        revision=f", revision `{_plain(base['revision'])}`" if base["revision"] else "",
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


def _figures(evaluation: Mapping[str, float]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for name, words in (*_WINS, *_RATIOS):
        figure = figure_of(evaluation, name)
        if figure is not None:
            ends = "" if not figure.known else f"[{figure.low:.3f}, {figure.high:.3f}]"
            title = f"aligned wins {words}" if name.startswith("win_rate") else words
            rows.append((title, f"{figure.value:.3f}", ends))
    return rows


def _dimensions(evaluation: Mapping[str, float]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for key in sorted(evaluation):
        group, _, name = key.partition("/")
        if group != "delta":
            continue
        figure = figure_of(evaluation, key)
        assert figure is not None
        ends = "" if not figure.known else f"[{figure.low:+.4f}, {figure.high:+.4f}]"
        sides = [
            f"{evaluation[f'{side}/{name}']:.4f}" if f"{side}/{name}" in evaluation else ""
            for side in ("base", "aligned")
        ]
        rows.append((name.replace("_", " "), *sides, f"{figure.value:+.4f}", ends))
    return rows


def _origin(provenance: Mapping[str, Any]) -> list[tuple[str, ...]]:
    steps, code = provenance["steps"], provenance["code"]
    state = " with uncommitted changes" if code["dirty"] else ""
    others = {name: one for name, one in sorted(code["commits"].items()) if one != code["commit"]}
    rows = [
        ("code", f"{code['commit']}{state}"),
        *((f"code of {name}", one) for name, one in others.items()),
        ("params", provenance["params_digest"]),
        ("dvc.lock", provenance["dvc_lock"] or "none in the folder of the run"),
        ("corpus", provenance["corpus"]["digest"]),
        ("prompt list", provenance["corpus"]["prompts_sha256"] or "the corpus was not beside the evaluation"),
        ("evaluated prompts and seeds", provenance["evaluated_on"]["prompts_and_seeds_digest"]),
        ("reward, what decides its scores", provenance["reward"]["scores_digest"]),
        *((f"{name} artifact", step["digest"]) for name, step in sorted(steps.items())),
        ("base", f"{provenance['base']['base']}, {len(provenance['base']['files'])} files"),
        ("seeds", ", ".join(f"{name} {seed}" for name, seed in sorted(provenance["seeds"].items()))),
        (
            "images",
            ", ".join(f"{name} {image}" for name, image in sorted(provenance["images"].items()))
            or "none: not run in containers",
        ),
        ("Kubeflow run", provenance["kfp_run_id"] or "none"),
        (
            "libraries of the alignment",
            ", ".join(
                f"{name} {one}" for name, one in sorted(provenance["libraries"].get("alignment", {}).items())
            ),
        ),
    ]
    return [(name, str(value)) for name, value in rows]


def _cost(cost: Mapping[str, Any]) -> list[tuple[str, ...]]:
    return [
        (
            name,
            f"{part['process_seconds']:.0f}",
            part["device"],
            ", ".join(
                f"{phase.removesuffix('_seconds')} {value:.0f}"
                for phase, value in sorted(part["phases"].items())
            ),
        )
        for name, part in sorted(cost["steps"].items())
    ]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(_plain(cell) for cell in line)} |" for line in lines)


def _plain(text: object) -> str:
    """Text for a cell: on one line, and nothing in it that Markdown or HTML would take for markup."""
    kept = " ".join(str(text).split())
    for sign, harmless in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("|", "\\|"), ("`", "'")):
        kept = kept.replace(sign, harmless)
    return kept
