"""The registry step: register the candidate and its reward, put the candidate to the gate, say why.

Its effect lies in MLflow's store, outside its artifact. So it looks there each time it is run, makes what is
missing, and where nothing is missing leaves store and artifact as they are.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from components.registry.decisions import decision_record
from components.registry.gate.gate import Decision
from components.registry.params import RegistryParams
from components.registry.promote import REWARD_VERSION, Promotions
from components.registry.promotion_log import CANDIDATE, CHAMPION
from components.registry.report import decided_page
from components.registry.versions.files import SEAL, Unreadable, missing
from components.registry.versions.package import pack_generator, pack_reward
from components.registry.versions.provenance import VersionOrigin
from components.registry.versions.store import RegisteredModel
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
        GateRefused: the candidate was refused and `fail_on_refusal` is set; the decision is published all the
            same.
    """
    gate = load_gate(params.gate)
    promotions = Promotions(
        RegisteredModel(params.model, create=True), RegisteredModel(params.reward_model, create=True)
    )
    places = {"alignment": alignment, "evaluation": evaluation, "generator": generator, "reward": reward}
    opened = {name: open_artifact(place, step=name) for name, place in places.items()}
    _refuse_other_candidate(opened)
    origin = VersionOrigin(opened, {name: _absolute(place) for name, place in places.items()})
    inputs: dict[str, str | Path | Artifact] = {**opened, "gate": params.gate or SHIPPED}
    version = _registered(promotions, origin)
    decision = None if version is None else promotions.decided(version, gate)
    if version is not None and decision is not None:
        promotions.sync_aliases()
        texts = _texts(params, gate, version, decision, opened["evaluation"])
        if _is_published(out, params, inputs, texts):
            _print_unchanged(promotions, params, decision, version)
            _fail_on_refusal(params, decision, version)
            return RegistryResult(Path(out), _metrics(decision, version), version, decision)
    with (
        track("registry", params) as tracked,
        publish(str(out), step="registry", params=params, inputs=inputs) as workspace,
    ):
        version = version or _register(promotions, origin, gate, tracked.run_id)
        decision = decision or promotions.promote(version, gate)
        texts = _texts(params, gate, version, decision, opened["evaluation"])
        for name, text in texts.items():
            (workspace.dir / name).write_text(text, encoding="utf-8")
        workspace.about_run |= texts.keys() & {PAGE}  # it names the code version
        metrics = _metrics(decision, version)
        workspace.write_metrics(metrics)
        page = f"{str(out).rstrip('/')}/{PAGE}" if PAGE in texts else opened["evaluation"].file(PAGE)
        _print_decision(params, opened["evaluation"], decision, version, page)
        _print_notes(promotions)
        workspace.publish_on_refusal = True
        _fail_on_refusal(params, decision, version)
    tracked.finish(workspace.published or Path(out))
    return RegistryResult(workspace.published or Path(out), metrics, version, decision)


def _fail_on_refusal(params: RegistryParams, decision: Decision, version: str) -> None:
    if decision.outcome == "refused" and params.fail_on_refusal:
        raise GateRefused(f"version {version} of {params.model}: {'; '.join(decision.reasons)}")


def _refuse_other_candidate(opened: Mapping[str, Artifact]) -> None:
    """Refuse an evaluation that was made from other inputs than the ones given."""
    evaluated = opened["evaluation"]
    for name in ("alignment", "generator", "reward"):
        if evaluated.manifest.inputs.get(name) != opened[name].manifest.digest:
            raise InputError(
                f"{evaluated.path} was not made from the {name} artifact at {opened[name].path}; "
                "run the evaluation of this candidate first"
            )


def _absolute(place: str | Path) -> str:
    """Where an input lies, in words that hold in another folder too."""
    return str(place) if storage.is_remote(place) else os.path.abspath(storage.local_path(place))


def _registered(promotions: Promotions, origin: VersionOrigin) -> str | None:
    """The candidate's version where it is registered with all its files; mends what is missing beside it."""
    generator = promotions.generator
    version = generator.find("evaluation_artifact", origin.opened["evaluation"].manifest.digest)
    if version is None or SEAL not in generator.tags(version) or not _whole(promotions, generator, version):
        return None
    if generator.tags(version).get(REWARD_VERSION) not in promotions.reward.numbers():
        judged_by = _register_reward(promotions, origin.opened["reward"], None)
        generator.tag(version, {REWARD_VERSION: judged_by})
    if generator.aliases().get(CANDIDATE) != version:
        generator.set_alias(CANDIDATE, version)  # an attempt may have died before it came to that
    return version


def _whole(promotions: Promotions, model: RegisteredModel, version: str) -> bool:
    """Whether all files of a version are in the store; what is not is noted."""
    try:
        lacking = missing(model, version)
    except Unreadable as error:
        promotions.notes.append(f"{error}; it is registered anew")
        return False
    if lacking:
        promotions.notes.append(
            f"version {version} of {model.name}: {len(lacking)} of its files are missing from the "
            f"store ({lacking[0]}); it is registered anew"
        )
    return not lacking


def _register(promotions: Promotions, origin: VersionOrigin, gate: Gate, run_id: str | None) -> str:
    """Register the candidate; returns its version."""
    generator, evaluated = promotions.generator, origin.opened["evaluation"]
    judged_by = _register_reward(promotions, origin.opened["reward"], run_id)
    comparison = json.loads(evaluated.file("comparison.json").read_text(encoding="utf-8"))
    tags = {name: str(value) for name, value in comparison.items() if name.endswith("_digest")}
    tags |= {f"{name}_artifact": artifact.manifest.digest for name, artifact in origin.opened.items()}
    tags |= {"headline": str(comparison["headline"]), REWARD_VERSION: judged_by}
    run_id = run_id or generator.new_run()
    with tempfile.TemporaryDirectory(prefix="onlinevpo-registry-") as scratch:
        provenance, seal = pack_generator(origin, gate.digest, Path(scratch))
        code = provenance["code"]
        tags |= {SEAL: seal, "commit": code["commit"], "dirty": str(code["dirty"])}
        about = "Text-to-video generator aligned by online DPO"
        version = generator.register(run_id, Path(scratch), seal, tags, about)
        generator.describe(version, (Path(scratch) / "card.md").read_text(encoding="utf-8"))
    generator.log_metrics(run_id, evaluated.metrics())
    generator.set_alias(CANDIDATE, version)
    return version


def _register_reward(promotions: Promotions, reward: Artifact, run_id: str | None) -> str:
    """The reward's version, made where there is none yet or its files are gone."""
    model = promotions.reward
    version = model.find("reward_artifact", reward.manifest.digest)
    if version is not None and _whole(promotions, model, version):
        return version
    with tempfile.TemporaryDirectory(prefix="onlinevpo-registry-") as scratch:
        seal = pack_reward(reward, Path(scratch))
        tags = {"reward_artifact": reward.manifest.digest, SEAL: seal}
        about = "Video-quality reward: scores clips"
        version = model.register(run_id or model.new_run(), Path(scratch), seal, tags, about)
    model.set_alias(CANDIDATE, version)
    return version


def _texts(
    params: RegistryParams, gate: Gate, version: str, decision: Decision, evaluated: Artifact
) -> dict[str, str]:
    """The text of each file of the artifact but its metrics, by name."""
    record = decision_record(params.model, version, decision, gate)
    texts = {"decision.json": json.dumps(record, indent=1) + "\n"}
    page = evaluated.file(PAGE).read_text(encoding="utf-8")
    page_with_decision = decided_page(page, decision, params.model, version)
    return texts if page_with_decision is None else texts | {PAGE: page_with_decision}


def _metrics(decision: Decision, version: str) -> dict[str, float]:
    return {
        "accepted": float(decision.outcome != "refused"),
        "version": float(version),
        "rules": float(len(decision.checks)),
        "rules_failed": float(len(decision.reasons)) if decision.outcome == "refused" else 0.0,
    }


def _is_published(
    out: str | Path,
    params: RegistryParams,
    inputs: Mapping[str, str | Path | Artifact],
    texts: Mapping[str, str],
) -> bool:
    """Whether `out` is the artifact of these params and inputs already, with these files."""
    try:
        there = open_artifact(out, step="registry", allow_refused=True)
    except InputError:
        return False
    same_files = set(there.manifest.files) == {*texts, METRICS} and all(
        there.file(name).read_text(encoding="utf-8") == text for name, text in texts.items()
    )
    same_inputs = there.manifest.inputs == {name: input_digest(value) for name, value in inputs.items()}
    return same_files and same_inputs and there.manifest.params_digest == digest(params)


def _print_unchanged(
    promotions: Promotions, params: RegistryParams, decision: Decision, version: str
) -> None:
    """What stands in the registry where there was nothing to do, in a line or two."""
    _print_notes(promotions)
    champion = promotions.current().left.champion
    other = f"the {CHAMPION} is version {champion}" if champion else f"there is no {CHAMPION}"
    now = f"it is the {CHAMPION}" if champion == version else other
    print(
        f"version {version} of {params.model} is registered at {place()}, was {decision.outcome} by this "
        f"gate; {now}: nothing to do"
    )
    for reason in decision.reasons if decision.outcome == "refused" else ():
        print(f"  - {reason}")


def _print_notes(promotions: Promotions) -> None:
    for note in promotions.notes:
        print(f"note: {note}")


def _print_decision(
    params: RegistryParams, evaluated: Artifact, decision: Decision, version: str, page: str | Path
) -> None:
    print(evaluated.file("table.txt").read_text(encoding="utf-8"))
    for check in decision.checks:
        print(f"  {check.line}")
    if decision.note:
        print(f"note: {decision.note}")
    print(f"{decision.outcome.upper()}: {decision.sentence(f'version {version} of {params.model}')}")
    for reason in decision.reasons if decision.outcome == "refused" else ():
        print(f"  - {reason}")
    print(f"report page: {page}")
