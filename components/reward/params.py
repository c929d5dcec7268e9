"""Params of the reward step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator

from components.runtime.gate.rules import Rule
from components.runtime.gate.thresholds import shipped
from components.runtime.params import Place, Section, StepParams

Count = Annotated[int, Field(ge=0, le=100_000)]
#: A share, a probability.
Share = Annotated[float, Field(ge=0, le=1)]
Correlation = Annotated[float, Field(ge=-1, le=1)]
#: A weight of a loss, a decay.
Weight = Annotated[float, Field(ge=0)]


class LadderParams(Section):
    """How many ladders of each source the reward trains on, and what they are made of."""

    renamed_keys: ClassVar[Mapping[str, str]] = {"rungs": "clips_per_ladder"}
    world: Count = Field(600, description="ladders on pristine clips of the miniature world")
    footage: Count = Field(1000, description="ladders on pristine real footage")
    generated: Count = Field(700, description="ladders on the base generator's own samples")
    reconstructed: Count = Field(
        120, description="ladders of original, VAE reconstruction, reconstruction distorted"
    )
    few_steps: Count = Field(
        96, description="ladders of the generator's own sample and the same drawn in fewer and fewer steps"
    )
    clips_per_ladder: int = Field(
        4, ge=2, le=6, description="clips in a ladder: the original, and one at each of its severity levels"
    )
    composed: Share = Field(
        0.2, description="share of ladders whose damage is a composition of 2 to 4 distortions"
    )
    stressed: tuple[str, ...] = Field(
        (
            "erase", "erase", "ghost", "freeze", "lattice", "warp", "blur", "boiling", "flicker_white",
            "first_frame_ramp", "loop", "brightness_ramp", "oversmooth", "oversaturate", "oversaturate",
            "brighten",
        ),
        description="distortions drawn once more for each time they are named: attacks on a reward",
    )  # fmt: skip
    heldout_types: tuple[str, ...] = Field(
        ("motion_blur", "impulse_noise", "av1", "bit_errors", "shuffle", "colour_drift", "local_flicker"),
        description="distortions never trained on; the card measures generalisation on them",
    )


class TrainingParams(Section):
    """The optimisation: fixed steps, never seconds."""

    steps: int = Field(2000, ge=1, le=1_000_000, description="optimiser steps")
    batch: int = Field(48, ge=2, le=4096, description="ladders in a batch, over all processes together")
    window: int = Field(
        64, ge=1, le=100_000, description="shards of 64 ladders held in memory, from which batches are drawn"
    )
    learning_rate: float = Field(
        2e-3, gt=0, le=1, description="peak AdamW learning rate; warm-up, then cosine to 0"
    )
    warmup: int = Field(30, ge=0, description="steps of linear warm-up")
    weight_decay: Weight = Field(0.3, description="AdamW weight decay")
    correlation_weight: Weight = Field(3.0, description="weight of the correlation loss against the labels")
    rank_weight: Weight = Field(0.5, description="weight of the ranking loss inside ladders")
    aspect_weight: Weight = Field(
        0.2, description="weight of the aspects: each ranks its own family's ladders, keeps still on others"
    )
    margin: Weight = Field(2.0, description="score units a ladder's first and last level should lie apart")
    average: float = Field(
        0.99, ge=0, lt=1, description="decay per step of the averaged weights that are kept"
    )
    checkpoint_every: int = Field(200, ge=1, description="optimiser steps between checkpoints")


class NetworkParams(Section):
    """Sizes of the scoring network."""

    members: int = Field(
        4,
        ge=1,
        le=64,
        description="networks in the ensemble: the score is their mean, the uncertainty their std",
    )
    bins: int = Field(5, ge=1, le=32, description="quantile bins into which each statistic is cut")
    hidden: int = Field(96, ge=4, le=1024, description="width of a member's first layer")
    embedding: int = Field(64, ge=4, le=512, description="width of a member's later layers")
    dropout: float = Field(
        0.2, ge=0, lt=1, description="probability of dropping a statistic or an entry of a layer"
    )
    backbone: Annotated[str, Place(hub=True)] = Field(
        "",
        description="pretrained model that sees the clips, next to their statistics: a hub id "
        "(owner/name, owner/name@revision), a folder or an s3:// prefix; empty for none",
    )
    backbone_rate: Share = Field(
        0.02,
        description="learning rate of the backbone as a share of the other layers'; 0 leaves it as it is",
    )


class CardParams(Section):
    """How large the held-out measurements are."""

    contents_per_type: int = Field(
        3, ge=1, le=1000, description="held-out clips of each source per distortion"
    )
    attacks: int = Field(
        60,
        ge=4,
        le=10_000,
        description="held-out clips per source for each attack and each probe of stillness",
    )
    generator_attacks: int = Field(
        32,
        ge=0,
        le=10_000,
        description="prompts for the attacks that the generator draws: few steps, spoilt weights; 0 for none",
    )
    baselines: bool = Field(True, description="fit NIQE, BRISQUE and two plain measures, for comparison")
    prompts: float = Field(
        0.5,
        gt=0,
        lt=1,
        description="share of the generator's sampled prompts kept from training for the card",
    )


#: The param that sets the bound of a rule under `reward` of the gate file, where it is not the metric's name.
_PARAM_OF = {
    "reference_above_*": "reference_above",
    "adjacent_ordered_all": "adjacent_ordered",
    "two_apart_ordered_all": "two_apart_ordered",
    "*_below_original": "attacks",
    "*_below_original_generated": "attacks",
    "judge_srcc_low": "judge_low",
}


def _bound(rule: Rule) -> tuple[str, float]:
    """Name and value of the one bound of a rule."""
    bounds = rule.model_dump(include={"at_least", "above", "at_most"}, exclude_none=True)
    ((name, value),) = bounds.items()
    return name, value


_DEFAULTS = {_PARAM_OF.get(rule.metric, rule.metric): _bound(rule)[1] for rule in shipped().reward}


def _gated(param: str, description: str) -> Any:
    return Field(_DEFAULTS[param], description=description)


class GateParams(Section):
    """Bounds that a reward's figures on held-out content must keep before anything is aligned to it.

    The defaults are those of the gate file, components/runtime/gate/gate.yaml, which gives their reasons.
    """

    srcc_world: Correlation = _gated("srcc_world", "rank correlation in the miniature world, seen types")
    srcc_footage: Correlation = _gated("srcc_footage", "rank correlation on real footage, seen types")
    srcc_all: Correlation = _gated("srcc_all", "rank correlation over world and footage, seen types")
    srcc_heldout_types: Correlation = _gated(
        "srcc_heldout_types", "rank correlation on distortions never trained on"
    )
    reference_above: Share = _gated("reference_above", "share of distorted clips scored below their original")
    adjacent_ordered: Share = _gated(
        "adjacent_ordered", "share of a ladder's neighbouring levels in the right order"
    )
    two_apart_ordered: Share = _gated(
        "two_apart_ordered", "share of a ladder's levels two apart in the right order"
    )
    attacks: Share = _gated(
        "attacks", "share of attacked clips (frozen, blank, latticed, ...) scored below their original"
    )
    stillness_gain: float = _gated("stillness_gain", "the most that less motion may gain, in severity levels")
    judge_low: Annotated[float, Field(ge=-2, le=1)] = _gated(
        "judge_low", "lower end of the 95 % interval of its agreement with the judge must lie above this"
    )

    def rules(self) -> list[Rule]:
        """The rules under `reward` of the gate file, with these bounds."""
        params = self.model_dump()
        return [
            rule.model_copy(update={_bound(rule)[0]: params[_PARAM_OF.get(rule.metric, rule.metric)]})
            for rule in shipped().reward
        ]


class RewardParams(StepParams):
    """The video-quality reward: ladders, network, training, card, gate."""

    ladders: LadderParams = Field(LadderParams(), description="training material")
    network: NetworkParams = Field(NetworkParams(), description="the scoring network")
    training: TrainingParams = Field(TrainingParams(), description="the optimisation")
    card: CardParams = Field(CardParams(), description="held-out measurements")
    gate: GateParams = Field(GateParams(), description="thresholds of the quality gate")

    @model_validator(mode="after")
    def _consistent(self) -> RewardParams:
        both = set(self.ladders.stressed) & set(self.ladders.heldout_types)
        if both:
            raise ValueError(f"{', '.join(sorted(both))}: cannot be both stressed and held out")
        counts = self.ladders
        sources = (counts.world, counts.footage, counts.generated, counts.reconstructed, counts.few_steps)
        if not any(sources):
            raise ValueError("no ladders at all: the counts of every source are 0")
        return self
