"""The gate file: what a candidate must show to become the champion, as data."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from components.runtime import storage
from components.runtime.errors import InputError
from components.runtime.params import Section, digest, validated

SHIPPED = Path(__file__).with_name("gate.yaml")
"""The gate that is used where no other is named."""
MAX_BYTES, MAX_BRACKETS = 32_768, 500
"""Of a gate file; one with more is refused unread: reading YAML takes time by the square of its depth."""

Absent = Literal["refuse", "skip"]


class Rule(Section):
    """One requirement on a figure of the candidate by itself."""

    metric: str = Field(min_length=1, description="name in the metrics.json of the source")
    source: Literal["evaluation", "reward", "generator", "alignment"] = Field(
        "evaluation", description="step whose metrics.json holds the metric"
    )
    at_least: float | None = Field(None, description="smallest allowed value, in the metric's own unit")
    above: float | None = Field(None, description="the value must lie above this, in the metric's own unit")
    at_most: float | None = Field(None, description="largest allowed value, in the metric's own unit")
    proven: bool = Field(
        False, description="the whole interval must keep the bounds; otherwise the estimate must"
    )
    when_absent: Absent = Field("refuse", description="what a missing metric means")

    @model_validator(mode="after")
    def _bounded(self) -> Rule:
        if self.at_least is None and self.at_most is None and self.above is None:
            raise ValueError("a rule needs at_least, above or at_most")
        return self


class Margin(Section):
    """One figure in which the candidate must not be inferior to another model; higher is better."""

    metric: str = Field(min_length=1, description="name of the score, as `judge` in `aligned/judge`")
    margin: float = Field(0.0, ge=0, description="how far below the other it may lie, in its own unit")
    proven: bool = Field(
        False, description="the whole interval of the difference must keep the margin, not the estimate only"
    )
    when_absent: Absent = Field("refuse", description="what a score that neither model has means")


class Minimum(Section):
    """How much evidence an evaluation must hold at least."""

    prompts: int = Field(48, ge=1, description="distinct prompts")
    pairs: int = Field(96, ge=1, description="pairs of clips")


class Gate(Section):
    """A gate file. Every line of it must hold."""

    minimum: Minimum = Field(default_factory=Minimum, description="evidence that there must be")
    available: tuple[str, ...] = Field((), description="dimensions that must have been measured")
    absolute: tuple[Rule, ...] = Field((), description="requirements on the candidate by itself")
    base: tuple[Margin, ...] = Field((), description="not inferior to the base, by these margins")
    champion: tuple[Margin, ...] = Field((), description="not inferior to the champion, by these margins")

    @property
    def digest(self) -> str:
        """SHA-256 of the rules as canonical JSON: what they say, not how the file is laid out."""
        return digest(self)


def load_gate(place: str | Path | None = None) -> Gate:
    """Read a gate file: a path or s3:// URI, the one shipped with the registry if none is named.

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
