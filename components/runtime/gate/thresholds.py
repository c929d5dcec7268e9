"""The gate file: one set of thresholds for the report page, the registry, and the reward with its refreshes.

Everything but the comparison with the champion can be said of one evaluation, by `Gate.without_champion`: the
page shows it, the registry decides by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from components.runtime.errors import InputError, one_line
from components.runtime.gate.rules import Check, Margin, Rule, apply, figure_of
from components.runtime.io import storage
from components.runtime.io.untrusted import check_yaml
from components.runtime.params import Section, digest, validated

#: The gate that is used where no other is named.
SHIPPED = Path(__file__).with_name("gate.yaml")
#: Of a gate file; a larger one is refused unread.
MAX_BYTES = 32_768


class SourcedRule(Rule):
    """One requirement on a figure of the candidate by itself."""

    source: Literal["evaluation", "reward", "generator", "alignment"] = Field(
        "evaluation", description="step whose metrics.json holds the metric"
    )

    def check(self, metrics: Mapping[str, float]) -> Check:
        """The rule applied to the metrics of its source."""
        source = "" if self.source == "evaluation" else f"{self.source} "
        words = f"{source}{self.metric} {self.bounds}{self.how}"
        absent = f"the {self.source} has no such metric"
        return apply(self, figure_of(metrics, self.metric), "absolute", words, absent)


class Minimum(Section):
    """How much evidence an evaluation must hold at least."""

    prompts: int = Field(48, ge=1, description="distinct prompts")
    pairs: int = Field(96, ge=1, description="pairs of clips")


class Gate(Section):
    """The rules of promotion. Every one of them must hold."""

    minimum: Minimum = Field(default_factory=Minimum, description="evidence that there must be")
    available: tuple[str, ...] = Field((), description="dimensions that must have been measured")
    absolute: tuple[SourcedRule, ...] = Field((), description="requirements on the candidate by itself")
    base: tuple[Margin, ...] = Field((), description="not inferior to the base, by these margins")
    champion: tuple[Margin, ...] = Field((), description="not inferior to the champion, by these margins")

    @property
    def digest(self) -> str:
        """SHA-256 of the rules as canonical JSON: what they say, not how the file is laid out."""
        return digest(self)

    def without_champion(
        self, metrics: Mapping[str, Mapping[str, float]], unavailable: Mapping[str, str]
    ) -> list[Check]:
        """Apply every rule that one evaluation can answer.

        Args:
            metrics: by step, that step's metrics.json.
            unavailable: why each dimension that was not measured was not.
        """
        evaluation = metrics.get("evaluation", {})
        checks = []
        for name, least in self.minimum:
            words, absent = f"{name} >= {least}", "the evaluation has no such metric"
            rule = Rule(metric=name, at_least=least)
            checks.append(apply(rule, figure_of(evaluation, name), "minimum", words, absent))
        checks += [_available(name, evaluation, unavailable) for name in self.available]
        checks += [rule.check(metrics.get(rule.source, {})) for rule in self.absolute]
        for margin in self.base:
            difference = figure_of(evaluation, f"delta/{margin.metric}")
            checks.append(margin.check(difference, "base", "the base", "was not measured"))
        return checks


class Refresh(Section):
    """Whether a refreshed version of the reward is adopted."""

    margin: float = Field(
        0.02, ge=0, description="how far below version 0 a figure may lie that misses its rule under `reward`"
    )


class Thresholds(Gate):
    """The whole gate file: the rules of promotion, and those of the reward."""

    reward: tuple[Rule, ...] = Field((), description="requirements on a reward's card")
    refresh: Refresh = Field(default_factory=Refresh, description="requirements on a refreshed reward")


@cache
def shipped() -> Thresholds:
    """The thresholds that are shipped."""
    return _read(SHIPPED)


def load_gate(place: str | Path | None = None) -> Gate:
    """The rules of promotion in a gate file: a path or s3:// URI, the one that is shipped if none is named.

    Raises:
        InputError: nothing there, not YAML, too large, a rule that is unknown or malformed (the line names
            the key), or other thresholds of the reward than those shipped, which would have no effect.
    """
    thresholds = _read(place) if place else shipped()
    for name in {"reward", "refresh"} & thresholds.model_fields_set:
        if getattr(thresholds, name) != getattr(shipped(), name):
            raise InputError(
                f"gate file {place}: {name}: has no effect in a file of your own; "
                "set the params reward.gate.* and leave it out here"
            )
    return Gate(**{name: getattr(thresholds, name) for name in Gate.model_fields})


def _read(place: str | Path) -> Thresholds:
    import yaml

    where = f"gate file {place}"
    text = storage.read_bytes(place, at_most=MAX_BYTES + 1)
    if text is None:
        raise InputError(f"{where}: nothing there")
    if len(text) > MAX_BYTES:
        raise InputError(f"{where}: more than {MAX_BYTES:,} bytes, which is what is read at most")
    check_yaml(text, where)
    try:
        tree: Any = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"{where}: not readable as YAML: {one_line(error)}") from error
    if not isinstance(tree, dict):
        raise InputError(f"{where}: must hold minimum, available, absolute, base or champion")
    try:
        return validated(Thresholds, {str(key): value for key, value in tree.items()})
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _available(name: str, evaluation: Mapping[str, float], unavailable: Mapping[str, str]) -> Check:
    value = evaluation.get(f"aligned/{name}")
    known = value is not None
    note = "" if known else unavailable.get(name, "was not measured")
    words = f"{name} is measured"
    return Check("available", words, value, known, note=note, metric=f"aligned/{name}", shown=known)
