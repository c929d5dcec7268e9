"""What an alignment trained, a LoRA or all weights, is what evaluation draws with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from components.alignment.policy import FullPolicy, LoraPolicy, Policy
from components.evaluation.inputs import trained_by
from components.evaluation.samples import open_sampler
from components.generator.families import ModelFamily
from components.generator.generator import PIPELINE, SETTINGS, Generator
from components.runtime.artifacts.artifact import Artifact, open_artifact
from components.runtime.artifacts.publish import publish
from components.runtime.errors import InputError
from components.runtime.params import StepParams
from tests.alignment.tiny import make_generator, save_tiny
from tests.evaluation.conftest import make

CPU = torch.device("cpu")
TEXTS, SEEDS = ["a red circle moving left"] * 2, [1, 2]


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """A generator's artifact with the tiny pipeline."""
    folder = tmp_path_factory.mktemp("made") / "generator"
    with publish(folder, step="generator", params=StepParams(), inputs={}) as workspace:
        tiny = make_generator(save_tiny(workspace.dir / PIPELINE))
        (workspace.dir / SETTINGS).write_text(tiny.settings.model_dump_json())
        workspace.write_metrics({"figure": 1.0})
    return open_artifact(folder)


@torch.no_grad()
def align(generator: Artifact, make_policy: Callable[[ModelFamily], Policy], folder: Path) -> Artifact:
    """An alignment's artifact whose weights are somewhere else than the base's."""
    policy = make_policy(Generator.load(generator.path).family)
    draws = torch.Generator().manual_seed(5)
    for value in policy.parameters().values():
        value.add_(0.1 * torch.randn(value.shape, generator=draws))
    policy.stepped()
    with publish(folder, step="alignment", params=StepParams(), inputs={}) as workspace:
        policy.save(workspace.dir)
        workspace.write_metrics({"figure": 1.0})
    return open_artifact(folder)


KINDS: dict[str, Callable[[ModelFamily], Policy]] = {
    "lora": lambda family: LoraPolicy(family, rank=2, seed=0),
    "weights": FullPolicy,
}


@pytest.mark.parametrize("kind", list(KINDS))
def test_evaluation_draws_with_what_was_trained(kind: str, generator: Artifact, tmp_path: Path) -> None:
    policies: list[Policy] = []

    def kept(family: ModelFamily) -> Policy:
        policies.append(KINDS[kind](family))
        return policies[0]

    alignment = align(generator, kept, tmp_path / "alignment")
    trained = trained_by(alignment)
    assert trained.folder.name == kind and list(trained.digest) == [f"{kind}_digest"]
    found = open_sampler(generator, CPU, trained.folder).sample(TEXTS, SEEDS)[0]
    base = open_sampler(generator, CPU, None).sample(TEXTS, SEEDS)[0]
    settings = Generator.load(generator.path).settings
    expected = Generator(policies[0].family, settings).sample(TEXTS, SEEDS)[0]
    assert torch.equal(found, expected) and not torch.equal(found, base)
    # Equal weights have equal digests, wherever their base was read from.
    again = align(generator, KINDS[kind], tmp_path / "again")
    assert trained_by(again).digest == trained.digest
    assert again.manifest.files == alignment.manifest.files


def test_an_alignment_without_weights_is_refused(tmp_path: Path) -> None:
    empty = open_artifact(make(tmp_path / "empty", "alignment", {"plots/training.csv": "iteration\n"}))
    with pytest.raises(InputError, match="no aligned weights in lora/ or weights/"):
        trained_by(empty)
