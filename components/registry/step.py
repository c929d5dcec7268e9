"""The registry step: register the candidate and its reward, put the candidate to the gate, say why.

What it does lies in MLflow's store, outside its artifact. So it looks there each time it is run, makes what
is missing, and where nothing is missing leaves store and artifact as they are.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from components.registry.gate.gate import Decision
from components.registry.params import RegistryParams
from components.registry.promote import REWARD_VERSION, Promotions, decision_record
from components.registry.report import decided_page
from components.registry.versions.package import PROVENANCE, pack_generator, pack_reward
from components.registry.versions.provenance import Origin
from components.registry.versions.store import CANDIDATE, CHAMPION, SEAL, Models, Unreadable
from components.runtime.artifacts.artifact import METRICS, Artifact, input_digest, open_artifact
from components.runtime.artifacts.publish import publish
from components.runtime.errors import GateRefused, InputError
from components.runtime.gate.thresholds import SHIPPED, Gate, load_gate
from components.runtime.io import storage
from components.runtime.params import digest
from components.runtime.tracking.retry import place
from components.runtime.tracking.step_run import track

#: The evaluation's page, and the registry's copy of it with the decision.
PAGE = "report.html"


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
    models = Promotions(Models(params.model, create=True), Models(params.reward_model, create=True))
    given = {"alignment": alignment, "evaluation": evaluation, "generator": generator, "reward": reward}
    opened = {name: open_artifact(place, step=name) for name, place in given.items()}
    _same_candidate(opened)
    origin = Origin(opened, {name: _place(place) for name, place in given.items()})
    inputs: dict[str, str | Path | Artifact] = {**opened, "gate": params.gate or SHIPPED}
    found = _registered_whole(models, origin)
    before = None if found is None else models.decided(found, gate)
    if found is not None and before is not None:
        models.follow()
        made = _made(params, gate, found, before, opened["evaluation"])
        if _holds(out, params, inputs, made):
            _tell_unchanged(models, params, before, found)
            if before.outcome == "refused" and params.fail_on_refusal:
                raise GateRefused(f"version {found} of {params.model}: {'; '.join(before.reasons)}")
            return RegistryResult(Path(out), _figures(before, found), found, before)
    with (
        track("registry", params) as tracked,
        publish(str(out), step="registry", params=params, inputs=inputs) as workspace,
    ):
        version = found or _registered(models, origin, gate, tracked.run_id)
        decision = before or models.promote(version, gate)
        made = _made(params, gate, version, decision, opened["evaluation"])
        for name, text in made.items():
            (workspace.dir / name).write_text(text, encoding="utf-8")
        workspace.about_run |= made.keys() & {PAGE}  # it names the code version
        figures = _figures(decision, version)
        workspace.write_metrics(figures)
        page = f"{str(out).rstrip('/')}/{PAGE}" if PAGE in made else opened["evaluation"].file(PAGE)
        _tell(params, opened["evaluation"], decision, version, page)
        for note in models.notes:
            print(f"note: {note}")
        if decision.outcome == "refused" and params.fail_on_refusal:
            workspace.publish_on_refusal = True
            raise GateRefused(f"version {version} of {params.model}: {'; '.join(decision.reasons)}")
    tracked.finish(workspace.published or Path(out))
    return RegistryResult(workspace.published or Path(out), figures, version, decision)


def _registered_whole(models: Promotions, origin: Origin) -> str | None:
    """The candidate's version where it is registered with all its files; mends what is missing beside it."""
    generator = models.generator
    found = generator.find("evaluation_artifact", origin.opened["evaluation"].manifest.digest)
    if found is None or SEAL not in generator.tags(found) or not _whole(models, generator, found):
        return None
    judged_by = generator.tags(found).get(REWARD_VERSION)
    if judged_by not in {row["version"] for row in models.reward.versions()}:
        generator.tag(found, {REWARD_VERSION: _registered_reward(models, origin.opened["reward"], None)})
    if generator.aliases().get(CANDIDATE) != found:
        generator.set_alias(CANDIDATE, found)  # an attempt may have died before it came to that
    return found


def _whole(models: Promotions, registered: Models, version: str) -> bool:
    """Whether all files of a version are in the store; what is not is noted."""
    try:
        missing = registered.missing(version)
    except Unreadable as error:
        models.notes.append(f"{error}; it is registered anew")
        return False
    if missing:
        models.notes.append(
            f"version {version} of {registered.name}: {len(missing)} of its files are missing from the "
            f"store ({missing[0]}); it is registered anew"
        )
    return not missing


def _made(
    params: RegistryParams, gate: Gate, version: str, decision: Decision, evaluated: Artifact
) -> dict[str, str]:
    """The text of each file of the artifact but its metrics, by name."""
    record = decision_record(params.model, version, decision, gate)
    made = {"decision.json": json.dumps(record, indent=1) + "\n"}
    text = evaluated.file(PAGE).read_text(encoding="utf-8")
    page = decided_page(text, decision, params.model, version)
    return made if page is None else made | {PAGE: page}


def _figures(decision: Decision, version: str) -> dict[str, float]:
    """The step's metrics."""
    return {
        "accepted": float(decision.outcome != "refused"),
        "version": float(version),
        "rules": float(len(decision.checks)),
        "rules_failed": float(len(decision.reasons)) if decision.outcome == "refused" else 0.0,
    }


def _holds(
    out: str | Path,
    params: RegistryParams,
    inputs: Mapping[str, str | Path | Artifact],
    made: Mapping[str, str],
) -> bool:
    """Whether `out` is the artifact of these params and inputs already, with these files."""
    try:
        there = open_artifact(out, step="registry", allow_refused=True)
    except InputError:
        return False
    same_files = set(there.manifest.files) == {*made, METRICS} and all(
        there.file(name).read_text(encoding="utf-8") == text for name, text in made.items()
    )
    same_inputs = there.manifest.inputs == {name: input_digest(value) for name, value in inputs.items()}
    return same_files and same_inputs and there.manifest.params_digest == digest(params)


def _registered(models: Promotions, origin: Origin, gate: Gate, run_id: str | None) -> str:
    """Register the candidate; returns its version."""
    generator = models.generator
    evaluated = origin.opened["evaluation"]
    judged_by = _registered_reward(models, origin.opened["reward"], run_id)
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


def _registered_reward(promotions: Promotions, reward: Artifact, run_id: str | None) -> str:
    """The reward's version, made where there is none yet or its files are gone."""
    models = promotions.reward
    found = models.find("reward_artifact", reward.manifest.digest)
    if found is not None and _whole(promotions, models, found):
        return found
    with tempfile.TemporaryDirectory(prefix="onlinevpo-registry-") as scratch:
        pack_reward(reward, Path(scratch))
        seal = hashlib.sha256((Path(scratch) / PROVENANCE).read_bytes()).hexdigest()
        tags = {"reward_artifact": reward.manifest.digest, SEAL: seal}
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


def _tell_unchanged(models: Promotions, params: RegistryParams, decision: Decision, version: str) -> None:
    """What stands in the registry where there was nothing to do, in a line or two."""
    for note in models.notes:
        print(f"note: {note}")
    name = f"version {version} of {params.model}"
    champion = models.present().left.champion
    other = f"the {CHAMPION} is version {champion}" if champion else f"there is no {CHAMPION}"
    now = f"it is the {CHAMPION}" if champion == version else other
    print(f"{name} is registered at {place()}, was {decision.outcome} by this gate; {now}: nothing to do")
    for reason in decision.reasons if decision.outcome == "refused" else ():
        print(f"  - {reason}")


def _tell(
    params: RegistryParams, evaluated: Artifact, decision: Decision, version: str, page: str | Path
) -> None:
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
    print(f"report page: {page}")
