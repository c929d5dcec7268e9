"""The registry step: register the candidate, put it to the gate, move the alias or refuse with reasons."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from components.registry.gate import Decision, Standing, decide
from components.registry.models import CHAMPION, Models
from components.registry.params import RegistryParams
from components.runtime.artifacts import Artifact, open_artifact, publish
from components.runtime.errors import GateRefused, InputError
from components.runtime.tracking import track

SHIPPED = ("metrics.json", "comparison.json", "table.txt", "report.html", "manifest.json")


@dataclass(frozen=True)
class RegistryResult:
    """Where the decision is, the step's metrics, the candidate's version and what became of it."""

    out: Path
    metrics: dict[str, float]
    version: str
    decision: Decision


def run(
    params: RegistryParams,
    *,
    alignment: str | Path,
    evaluation: str | Path,
    generator: str | Path,
    reward: str | Path,
    out: str | Path,
) -> RegistryResult:
    """Register the aligned generator and decide whether it becomes the champion.

    Raises:
        InputError: an input is missing or altered, the evaluation is of another candidate, the registry
            cannot be reached.
        GateRefused: the candidate was refused and ``fail_on_refusal`` is set; the decision is published all
            the same.
    """
    opened = {
        "alignment": open_artifact(alignment, step="alignment"),
        "evaluation": open_artifact(evaluation, step="evaluation"),
        "generator": open_artifact(generator, step="generator"),
        "reward": open_artifact(reward, step="reward"),
    }
    _same_candidate(opened)
    evaluated = opened["evaluation"]
    comparison = json.loads(evaluated.file("comparison.json").read_text(encoding="utf-8"))
    digests = {name: str(value) for name, value in comparison.items() if name.endswith("_digest")}
    digests |= {f"{name}_artifact": artifact.manifest.digest for name, artifact in opened.items()}
    with (
        track("registry", params) as tracked,
        publish(str(out), step="registry", params=params, inputs=opened) as workspace,
    ):
        models = Models(params.model)
        champion = models.champion()
        metrics = {name: artifact.metrics() for name, artifact in opened.items()}
        version = models.find("evaluation_artifact", digests["evaluation_artifact"])
        if champion is not None and version == champion.version:
            decision = Decision(
                "unchanged", ("this candidate is the champion already",), (), champion.version
            )
        else:
            # The same weights evaluated anew need not be compared with themselves: the absolute rules decide.
            rival = None if _same_weights(champion, digests) else champion
            decision = decide(params.rules, params.relative, metrics, digests, rival)
        if version is None:
            tags = digests | {"headline": str(comparison["headline"])}
            version = models.register(tracked.run_id, _files(opened), metrics["evaluation"], tags)
        if decision.outcome != "unchanged":
            models.tag(version, {"decision": decision.outcome, "reasons": "; ".join(decision.reasons)})
        if decision.outcome == "accepted":
            expected = champion.version if champion else None
            models.promote(version, expected, "passed every rule of the gate")
        _write(workspace.dir, params, decision, version)
        figures = {
            "accepted": float(decision.outcome != "refused"),
            "version": float(version),
            "rules": float(len(decision.checks)),
            "rules_failed": float(len(decision.reasons)) if decision.outcome == "refused" else 0.0,
        }
        workspace.write_metrics(figures)
        _tell(params, evaluated, decision, version)
        if decision.outcome == "refused" and params.fail_on_refusal:
            workspace.publish_on_refusal = True
            raise GateRefused(f"version {version} of {params.model}: {'; '.join(decision.reasons)}")
    tracked.finish(workspace.published or Path(out))
    return RegistryResult(workspace.published or Path(out), figures, version, decision)


def _same_candidate(opened: dict[str, Artifact]) -> None:
    """Refuse an evaluation that was made from other inputs than the ones given."""
    evaluated = opened["evaluation"]
    for name in ("alignment", "generator", "reward"):
        if evaluated.manifest.inputs.get(name) != opened[name].manifest.digest:
            raise InputError(
                f"{evaluated.path} was not made from the {name} artifact at {opened[name].path}; "
                "run the evaluation of this candidate first"
            )


def _same_weights(champion: Standing | None, digests: dict[str, str]) -> bool:
    names = ("lora_digest", "generator_digest")
    return champion is not None and all(champion.digests.get(name) == digests.get(name) for name in names)


def _files(opened: dict[str, Artifact]) -> dict[str, Path]:
    """What a version holds: the LoRA, the sampler's settings, its evaluation and both manifests."""
    aligned, evaluated = opened["alignment"], opened["evaluation"]
    files = {name: aligned.file(name) for name in aligned.manifest.files if name.startswith("lora/")}
    files["alignment/manifest.json"] = aligned.path / "manifest.json"
    files["generator.json"] = opened["generator"].file("generator.json")
    files |= {f"evaluation/{name}": evaluated.path / name for name in SHIPPED}
    return files


def _write(folder: Path, params: RegistryParams, decision: Decision, version: str) -> None:
    text = {"model": params.model, "version": version} | decision.as_json()
    (folder / "decision.json").write_text(json.dumps(text, indent=1) + "\n", encoding="utf-8")


def _tell(params: RegistryParams, evaluated: Artifact, decision: Decision, version: str) -> None:
    print(evaluated.file("table.txt").read_text(encoding="utf-8"))
    for check in decision.checks:
        print(f"  {check.line}")
    name = f"version {version} of {params.model}"
    if decision.outcome == "refused":
        print(f"REFUSED: {name} stays a candidate; {len(decision.reasons)} rule(s) failed")
        for reason in decision.reasons:
            print(f"  - {reason}")
    elif decision.outcome == "unchanged":
        print(f"UNCHANGED: {name} is the {CHAMPION} already")
    else:
        print(f"ACCEPTED: {name} is now the {CHAMPION}")
    print(f"report page: {evaluated.file('report.html')}")
