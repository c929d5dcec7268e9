"""The gate against the champion: every rule with its figure, interval and bound, and whether it holds.

Values in, values out. What one evaluation can say alone is `components.runtime.gate.thresholds`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from components.registry.gate.champion import difference, same_requests
from components.runtime.gate.rules import Check, Margin
from components.runtime.gate.thresholds import Gate
from components.runtime.stats import without_interval

#: What two evaluations must share for their figures to be comparable.
COMPARABLE = {"requests_digest": "prompts and seeds", "reward_digest": "reward"}
#: What makes two versions the same model.
WEIGHTS = ("lora_digest", "weights_digest", "generator_digest")


@dataclass(frozen=True)
class EvaluatedVersion:
    """A version as the gate sees it.

    Attributes:
        version: its number; "" for a candidate that has none yet.
        metrics: by step, that step's metrics.json.
        digests: of its evaluation: ``COMPARABLE`` and ``WEIGHTS``.
        rows: of its pairs.jsonl; () where they were not kept.
        unavailable: why each dimension that was not measured was not.
    """

    version: str
    metrics: Mapping[str, Mapping[str, float]]
    digests: Mapping[str, str]
    rows: Sequence[dict[str, Any]] = ()
    unavailable: Mapping[str, str] = field(default_factory=dict)

    @property
    def evaluation(self) -> Mapping[str, float]:
        """Metrics of the evaluation."""
        return self.metrics.get("evaluation", {})


@dataclass(frozen=True)
class Decision:
    """Accepted or refused, and on what grounds.

    Attributes:
        reasons: the failed checks as lines.
        champion: the version compared with; None where there was none.
        gate: digest of the rules.
        note: what else a reader must know: that the candidate's report page went by other rules.
    """

    outcome: Literal["accepted", "refused", "unchanged"]
    reasons: tuple[str, ...]
    checks: tuple[Check, ...]
    champion: str | None
    gate: str = ""
    note: str = ""

    def sentence(self, name: str) -> str:
        """What became of the candidate called `name`."""
        return {
            "accepted": f"{name} is now the champion",
            "refused": f"{name} stays a candidate, {len(self.reasons)} rule(s) failed",
            "unchanged": f"{name} was the champion already",
        }[self.outcome]

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def decide(gate: Gate, candidate: EvaluatedVersion, champion: EvaluatedVersion | None) -> Decision:
    """Put a candidate to the gate; ``champion`` is None where there is none.

    The champion's own weights, evaluated anew, are not compared with themselves: the rest of it decides.
    """
    checks = gate.without_champion(candidate.metrics, candidate.unavailable)
    if champion is not None and not same_weights(candidate, champion):
        checks += against_champion(gate.champion, candidate, champion)
    reasons = tuple(check.reason for check in checks if check.passed is False)
    number = champion.version if champion else None
    shown_by = candidate.digests.get("gate_digest", gate.digest)
    note = "" if shown_by == gate.digest else f"the report page went by other rules (gate {shown_by[:12]})"
    return Decision("refused" if reasons else "accepted", reasons, tuple(checks), number, gate.digest, note)


def same_weights(one: EvaluatedVersion, other: EvaluatedVersion) -> bool:
    """Whether two versions are the same base with the same LoRA."""
    shared = [name for name in WEIGHTS if name in one.digests]
    return (
        "generator_digest" in shared
        and len(shared) > 1
        and all(one.digests.get(name) == other.digests.get(name) for name in WEIGHTS)
    )


def against_champion(
    margins: Sequence[Margin], candidate: EvaluatedVersion, champion: EvaluatedVersion
) -> list[Check]:
    """Apply the margins against the champion; figures taken in different ways are never compared."""
    differing = [
        words
        for name, words in COMPARABLE.items()
        if not champion.digests.get(name) or candidate.digests.get(name) != champion.digests[name]
    ]
    paired = bool(candidate.rows and champion.rows)
    if not differing and paired and not same_requests(candidate.rows, champion.rows):
        differing = [COMPARABLE["requests_digest"]]
    words = f"comparable with champion version {champion.version}"
    if differing:
        note = f"not comparable: evaluated with other {' and other '.join(differing)}"
        return [Check("comparable", words, None, False, note=f"{note}; evaluate the champion again that way")]
    checks = [Check("comparable", words, None, True, note="same prompts, seeds and reward")]
    for margin in margins:
        scores = [one.evaluation.get(f"aligned/{margin.metric}") for one in (candidate, champion)]
        gain = None
        if paired:
            gain = difference(candidate.rows, champion.rows, margin.metric)
        elif scores[0] is not None and scores[1] is not None:
            gain = without_interval(scores[0] - scores[1])
        absent = "neither has this score"
        if gain is None and scores.count(None) == 1:  # what one of them has is not passed over in silence
            margin = margin.model_copy(update={"when_absent": "refuse"})
            absent = f"the {'candidate' if scores[0] is None else 'champion'} has no such score"
        checks.append(margin.check(gain, "champion", f"champion version {champion.version}", absent))
    return checks
