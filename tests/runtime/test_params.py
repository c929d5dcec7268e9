from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

import pytest
from pydantic import Field, ValidationError

from components.runtime.errors import InputError
from components.runtime.params import Section, StepParams, digest, known_sections, load_step_params


class Schedule(Section):
    renamed_keys: ClassVar[dict[str, str]] = {"warm_steps": "warmup"}
    warmup: int = Field(10, ge=0, description="steps of linear warm-up")
    kind: Literal["cosine", "constant"] = Field("cosine", description="shape of the learning rate")


class ExampleParams(StepParams):
    renamed_keys: ClassVar[dict[str, str]] = {"videos": "candidates", "decay.kind": "schedule.kind"}
    candidates: int = Field(4, ge=2, description="videos per prompt")
    rate: float = Field(1e-4, gt=0, description="learning rate per step")
    schedule: Schedule = Field(default_factory=Schedule, description="learning rate over time")
    stages: list[Schedule] = Field(default_factory=list, description="stages in order")
    names: tuple[str, ...] = Field((), description="names")


# `reward` stands for any real section: the top-level keys are checked against the packages that exist.
def load(text: str | None, tmp_path: Path, *overrides: str) -> ExampleParams:
    file = None
    if text is not None:
        file = tmp_path / "params.yaml"
        file.write_text(text)
    return load_step_params(ExampleParams, "runtime_example", file, overrides)


@pytest.fixture(autouse=True)
def _sections(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["run", "corpus", "reward", "runtime_example"]
    monkeypatch.setattr("components.runtime.params.known_sections", lambda: names)


def message(text: str | None, tmp_path: Path, *overrides: str) -> str:
    with pytest.raises(InputError) as caught:
        load(text, tmp_path, *overrides)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_defaults_file_and_overrides_in_rising_order(tmp_path: Path) -> None:
    text = "run: {seed: 7}\nruntime_example:\n  candidates: 6\n  rate: 1e-5\n"
    params = load(
        text, tmp_path, "runtime_example.candidates=8", "run.seed=9", "runtime_example.candidates=3"
    )
    assert (params.candidates, params.rate, params.run.seed, params.schedule.warmup) == (3, 1e-5, 9, 10)


def test_override_values_are_yaml(tmp_path: Path) -> None:
    params = load(None, tmp_path, "runtime_example.names=[a, b]", "runtime_example.schedule.kind=constant")
    assert params.names == ("a", "b")
    assert params.schedule.kind == "constant"


def test_large_seed_survives(tmp_path: Path) -> None:
    assert load(f"run: {{seed: {2**62 + 1}}}", tmp_path).run.seed == 2**62 + 1


@pytest.mark.parametrize(
    ("text", "overrides", "parts"),
    [
        (
            None,
            ["runtime_example.candidates=1"],
            ["runtime_example.candidates = 1", "greater than or equal to 2"],
        ),
        (None, ["runtime_example.candidates=1"], ["videos per prompt"]),
        (None, ["runtime_example.candidates=many"], ["runtime_example.candidates = 'many'", "integer"]),
        (
            None,
            ["runtime_example.candidtes=3"],
            ["runtime_example.candidtes", "did you mean `candidates`", "rate"],
        ),
        (
            None,
            ["runtime_example.schedule.kind=linear"],
            ["schedule.kind = 'linear'", "'cosine' or 'constant'"],
        ),
        (
            None,
            ["runtime_example.schedule.warm=1"],
            ["runtime_example.schedule.warm", "allowed: kind, warmup"],
        ),
        (None, ["run.sed=1"], ["run.sed", "did you mean `seed`", "device"]),
        (None, ["run.seed=-1"], ["run.seed = -1", "greater than or equal to 0"]),
        (None, ["run.device=tpu"], ["run.device = 'tpu'", "'cuda'"]),
        (None, ["reward.steps=1"], ["reward.steps", "no effect on step runtime_example"]),
        (None, ["rewrd.steps=1"], ["rewrd.steps", "unknown to step runtime_example"]),
        (None, ["runtime_example.candidates"], ["section.key=value"]),
        (None, ["runtime_example=3"], ["section.key=value"]),
        (None, ["runtime_example.rate=.nan"], ["runtime_example.rate = nan", "finite"]),
        (
            "runtime_example: {stages: [{warmup: 1}, {wramup: 2}]}",
            [],
            ["runtime_example.stages.1.wramup", "warmup"],
        ),
        ("runtime_exmple: {}", [], ["unknown section `runtime_exmple`", "did you mean `runtime_example`"]),
        ("runtime_example: 3", [], ["runtime_example = 3", "section of keys"]),
        ("runtime_example: {run: {seed: 1}}", [], ["runtime_example.run", "top-level"]),
        ("- a\n- b", [], ["must hold sections"]),
        ("runtime_example: {a: [}", [], ["not readable as YAML"]),
        ("runtime_example: {candidates: 3, candidates: 4}", [], ["not readable as YAML", "candidates"]),
        ("runtime_example: !!python/object/apply:os.system [id]", [], ["not readable as YAML"]),
        ("runtime_example: {candidates: 1, rate: 0}", [], ["candidates = 1", "rate = 0"]),
    ],
)
def test_error_names_key_given_and_allowed(
    text: str | None, overrides: list[str], parts: list[str], tmp_path: Path
) -> None:
    found = message(text, tmp_path, *overrides)
    for part in parts:
        assert part in found


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.yaml: No such file"):
        load_step_params(ExampleParams, "runtime_example", tmp_path / "absent.yaml", [])


@pytest.mark.parametrize(
    ("text", "overrides", "old", "new"),
    [
        ("{videos: 6}", (), "videos", "candidates"),
        (None, ("videos=6",), "videos", "candidates"),
        ("{decay: {kind: constant}}", (), "decay.kind", "schedule.kind"),
        ("{schedule: {warm_steps: 3}}", (), "schedule.warm_steps", "schedule.warmup"),
        ("{stages: [{warmup: 1}, {warm_steps: 3}]}", (), "stages.1.warm_steps", "stages.1.warmup"),
    ],
)
def test_renamed_key_is_read_with_a_warning_line(
    text: str | None,
    overrides: tuple[str, ...],
    old: str,
    new: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = text and f"runtime_example: {text}"
    params = load(file, tmp_path, *(f"runtime_example.{o}" for o in overrides)).model_dump()
    for key in new.split("."):
        params = params[int(key)] if isinstance(params, list) else params[key]
    assert params in (6, 3, "constant")
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"warning: runtime_example.{old} is deprecated; use runtime_example.{new}"]


def test_old_and_new_name_together_are_an_error(tmp_path: Path) -> None:
    text = "runtime_example: {videos: 6, schedule: {warmup: 2}}"
    assert message(text, tmp_path, "runtime_example.candidates=6").endswith(
        "give runtime_example.candidates alone"
    )
    found = message(text.replace("videos: 6, ", ""), tmp_path, "runtime_example.schedule.warm_steps=3")
    assert "runtime_example.schedule.warm_steps is the old name of" in found


def test_environment_is_not_read_through_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "hunter2")
    assert load("runtime_example: {names: ['${oc.env:SECRET}']}", tmp_path).names == ("${oc.env:SECRET}",)


def test_other_sections_are_checked_and_not_read(tmp_path: Path) -> None:
    assert load("reward: {card: {}}\n", tmp_path) == ExampleParams()


def test_params_are_frozen() -> None:
    with pytest.raises(ValidationError):
        ExampleParams().candidates = 5  # type: ignore[misc]


def test_digest_is_of_values_not_of_how_they_were_given(tmp_path: Path) -> None:
    given = load("runtime_example: {candidates: 4, rate: 0.0001}", tmp_path)
    assert digest(given) == digest(ExampleParams())
    assert digest(ExampleParams(candidates=5)) != digest(ExampleParams())
    assert len(digest(given)) == 64


def test_known_sections_are_the_packages_with_params(monkeypatch: pytest.MonkeyPatch) -> None:
    assert known_sections()[0] == "run"
    assert "runtime" not in known_sections()
    assert "corpus" in known_sections()
