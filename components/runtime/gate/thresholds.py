"""The gate file: what an aligned model must show to become the champion. One set of rules, read by the report
page and by the registry.

Everything but the comparison with the champion can be said of one evaluation, by `Gate.alone`: the page shows
it, the registry decides by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from components.runtime.errors import InputError
from components.runtime.gate.rules import Check, Margin, Rule, apply, figure_of
from components.runtime.io import storage
from components.runtime.params import Section, digest, validated

SHIPPED = Path(__file__).with_name("gate.yaml")
"""The gate that is used where no other is named."""
MAX_BYTES, MAX_BRACKETS = 32_768, 500
"""Of a gate file; one with more is refused unread: reading YAML takes time by the square of its depth."""


class SourcedRule(Rule):
    """One requirement on a figure of the candidate by itself."""

    source: Literal["evaluation", "reward", "generator", "alignment"] = Field(
        "evaluation", description="step whose metrics.json holds the metric"
    )


class Minimum(Section):
    """How much evidence an evaluation must hold at least."""

    prompts: int = Field(48, ge=1, description="distinct prompts")
    pairs: int = Field(96, ge=1, description="pairs of clips")


class Gate(Section):
    """A gate file. Every line of it must hold."""

    minimum: Minimum = Field(default_factory=Minimum, description="evidence that there must be")
    available: tuple[str, ...] = Field((), description="dimensions that must have been measured")
    absolute: tuple[SourcedRule, ...] = Field((), description="requirements on the candidate by itself")
    base: tuple[Margin, ...] = Field((), description="not inferior to the base, by these margins")
    champion: tuple[Margin, ...] = Field((), description="not inferior to the champion, by these margins")

    @property
    def digest(self) -> str:
        """SHA-256 of the rules as canonical JSON: what they say, not how the file is laid out."""
        return digest(self)

    def alone(
        self, metrics: Mapping[str, Mapping[str, float]], unavailable: Mapping[str, str]
    ) -> list[Check]:
        """Apply every rule that asks nothing of a champion.

        Args:
            metrics: by step, that step's metrics.json.
            unavailable: why each dimension that was not measured was not.
        """
        evaluation = metrics.get("evaluation", {})
        least = {"prompts": self.minimum.prompts, "pairs": self.minimum.pairs}
        checks = [
            apply(
                Rule(metric=name, at_least=number),
                figure_of(evaluation, name),
                "minimum",
                f"{name} >= {number}",
                "the evaluation has no such metric",
            )
            for name, number in least.items()
        ]
        checks += [_available(name, evaluation, unavailable) for name in self.available]
        checks += [absolute(rule, metrics.get(rule.source, {})) for rule in self.absolute]
        return checks + [against_base(margin, evaluation) for margin in self.base]


def absolute(rule: SourcedRule, metrics: Mapping[str, float]) -> Check:
    """Apply one rule on a figure by itself."""
    source = "" if rule.source == "evaluation" else f"{rule.source} "
    words = f"{source}{rule.metric} {rule.bounds}{rule.how}"
    return apply(
        rule, figure_of(metrics, rule.metric), "absolute", words, f"the {rule.source} has no such metric"
    )


def against_base(margin: Margin, metrics: Mapping[str, float]) -> Check:
    """Apply one margin against the base: the evaluation's own paired difference."""
    rule = margin.rule()
    words = f"{margin.metric} at most {margin.margin:g} below the base{rule.how}"
    return apply(rule, figure_of(metrics, rule.metric), "base", words, "was not measured")


def load_gate(place: str | Path | None = None) -> Gate:
    """Read a gate file: a path or s3:// URI, the one that is shipped if none is named.

    Raises:
        InputError: nothing there, not YAML, too large, or a rule that is unknown or malformed; the line names
            the key.
    """
    import yaml

    where = place or SHIPPED
    text = storage.read_bytes(where, at_most=MAX_BYTES + 1)
    if text is None:
        raise InputError(f"gate file {where}: nothing there")
    if len(text) > MAX_BYTES:
        raise InputError(f"gate file {where}: more than {MAX_BYTES:,} bytes, which is what is read at most")
    if text.count(b"[") + text.count(b"{") > MAX_BRACKETS:
        raise InputError(f"gate file {where}: at most {MAX_BRACKETS} brackets are read")
    try:
        # Anchors can make a small file a huge tree, and a gate has no use for them.
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text, Loader=yaml.SafeLoader)):
            raise InputError(f"gate file {where}: YAML aliases (*name) are not allowed")
        tree: Any = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(
            f"gate file {where}: not readable as YAML: {' '.join(str(error).split())[:200]}"
        ) from error
    if not isinstance(tree, dict):
        raise InputError(f"gate file {where}: must hold minimum, available, absolute, base or champion")
    try:
        return validated(Gate, {str(key): value for key, value in tree.items()})
    except InputError as error:
        raise InputError(f"gate file {where}: {error}") from None


def _available(name: str, evaluation: Mapping[str, float], unavailable: Mapping[str, str]) -> Check:
    value = evaluation.get(f"aligned/{name}")
    note = "" if value is not None else unavailable.get(name, "was not measured")
    return Check(
        "available",
        f"{name} is measured",
        value,
        value is not None,
        note=note,
        metric=f"aligned/{name}",
        shown=value is not None,
    )
