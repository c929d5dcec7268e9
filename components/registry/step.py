"""The registry step: register the candidate and its reward, put the candidate to the gate, say why."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from components.registry.gate import Decision
from components.registry.models import CANDIDATE, CHAMPION, SEAL, Models
from components.registry.package import PROVENANCE, pack_generator, pack_reward
from components.registry.params import RegistryParams
from components.registry.promotion import REWARD_VERSION, Promotions, decision_record
from components.registry.provenance import Origin
from components.runtime import storage
from components.runtime.artifacts import Artifact, open_artifact, publish
from components.runtime.errors import GateRefused, InputError
from components.runtime.gate import SHIPPED, Gate, load_gate
from components.runtime.tracking import track


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
        InputError: an input is missing or altered, the evaluation is of another candidate, the gate file is
            wrong, the registry cannot be reached.
        GateRefused: the candidate was refused and ``fail_on_refusal`` is set; the decision is published all
            the same.
    """
    gate = load_gate(params.gate)
    given = {"alignment": alignment, "evaluation": evaluation, "generator": generator, "reward": reward}
    opened = {name: open_artifact(place, step=name) for name, place in given.items()}
    _same_candidate(opened)
    origin = Origin(opened, {name: _place(place) for name, place in given.items()})
    inputs: dict[str, str | Path | Artifact] = {**opened, "gate": params.gate or SHIPPED}
    with (
        track("registry", params) as tracked,
        publish(str(out), step="registry", params=params, inputs=inputs) as workspace,
    ):
        models = Promotions(Models(params.model), Models(params.reward_model))
        version = _registered(models, origin, gate, tracked.run_id)
        decision = models.promote(version, gate)
        record = decision_record(params.model, version, decision, gate)
        (workspace.dir / "decision.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        figures = {
            "accepted": float(decision.outcome != "refused"),
            "version": float(version),
            "rules": float(len(decision.checks)),
            "rules_failed": float(len(decision.reasons)) if decision.outcome == "refused" else 0.0,
        }
        workspace.write_metrics(figures)
        _tell(params, opened["evaluation"], decision, version)
        if decision.outcome == "refused" and params.fail_on_refusal:
            workspace.publish_on_refusal = True
            raise GateRefused(f"version {version} of {params.model}: {'; '.join(decision.reasons)}")
    tracked.finish(workspace.published or Path(out))
    return RegistryResult(workspace.published or Path(out), figures, version, decision)


def _registered(models: Promotions, origin: Origin, gate: Gate, run_id: str | None) -> str:
    """The candidate's version, made where there is none yet."""
    generator = models.generator
    evaluated = origin.opened["evaluation"]
    found = generator.find("evaluation_artifact", evaluated.manifest.digest)
    if found is not None and SEAL in generator.tags(found):
        generator.set_alias(CANDIDATE, found)  # an attempt may have died before it came to that
        return found
    judged_by = _registered_reward(models.reward, origin.opened["reward"], run_id)
    comparison = json.loads(evaluated.file("comparison.json").read_text(encoding="utf-8"))
    tags = {name: str(value) for name, value in comparison.items() if name.endswith("_digest")}
    tags |= {f"{name}_artifact": artifact.manifest.digest for name, artifact in origin.opened.items()}
    tags |= {"headline": str(comparison["headline"]), REWARD_VERSION: judged_by}
    holder = generator.run(run_id)
    with tempfile.TemporaryDirectory(prefix="onlinevpo-registry-") as scratch:
        provenance = pack_generator(origin, gate.digest, Path(scratch))
        seal = hashlib.sha256((Path(scratch) / PROVENANCE).read_bytes()).hexdigest()
        tags |= {
            SEAL: seal,
            "commit": provenance["code"]["commit"],
            "dirty": str(provenance["code"]["dirty"]),
        }
        version = generator.register(
            holder, Path(scratch), seal, tags, "Text-to-video generator aligned by online DPO"
        )
        card = (Path(scratch) / "card.md").read_text(encoding="utf-8")
    generator.describe(version, card)
    generator.log_metrics(holder, evaluated.metrics())
    generator.set_alias(CANDIDATE, version)
    return version


def _registered_reward(models: Models, reward: Artifact, run_id: str | None) -> str:
    """The reward's version, made where there is none yet."""
    digest = reward.manifest.digest
    found = models.find("reward_artifact", digest)
    if found is not None:
        return found
    with tempfile.TemporaryDirectory(prefix="onlinevpo-registry-") as scratch:
        pack_reward(reward, Path(scratch))
        seal = hashlib.sha256((Path(scratch) / PROVENANCE).read_bytes()).hexdigest()
        tags = {"reward_artifact": digest, SEAL: seal}
        version = models.register(
            models.run(run_id), Path(scratch), seal, tags, "Video-quality reward: scores clips"
        )
    models.set_alias(CANDIDATE, version)
    return version


def _place(place: str | Path) -> str:
    """Where an input lies, in words that hold in another folder too."""
    return str(place) if storage.is_remote(place) else os.path.abspath(storage.local_path(place))


def _same_candidate(opened: dict[str, Artifact]) -> None:
    """Refuse an evaluation that was made from other inputs than the ones given."""
    evaluated = opened["evaluation"]
    for name in ("alignment", "generator", "reward"):
        if evaluated.manifest.inputs.get(name) != opened[name].manifest.digest:
            raise InputError(
                f"{evaluated.path} was not made from the {name} artifact at {opened[name].path}; "
                "run the evaluation of this candidate first"
            )


def _tell(params: RegistryParams, evaluated: Artifact, decision: Decision, version: str) -> None:
    print(evaluated.file("table.txt").read_text(encoding="utf-8"))
    for check in decision.checks:
        print(f"  {check.line}")
    if decision.note:
        print(f"note: {decision.note}")
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
