"""The parts the alignment tests share, importable by the program that torchrun starts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow.parquet as pq
import torch
from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler, WanPipeline, WanTransformer3DModel
from torch import Tensor

from components.alignment.ledger import LedgerReader, LedgerWriter
from components.alignment.loop import AlignmentLoop
from components.alignment.monitor.heldout_judge import HeldOutJudge
from components.alignment.params import AlignmentParams, GuardParams
from components.alignment.policy import policy_of
from components.alignment.strategies import Setting
from components.alignment.versioned_reward import VersionedReward
from components.corpus.prompts import Prompt
from components.generator.generator import Generator, load_family
from components.generator.miniature.architecture import TEXT_WIDTH, build_text_encoder, build_tokenizer
from components.generator.params import SamplingParams
from components.reward.base import Rating, Reward
from components.reward.refresh.refresher import Refresher
from components.runtime.compute.distributed import Ranks

PROMPTS = [
    Prompt(id=f"p{number}", text=f"a {colour} circle moving left slowly on a grey background", split="train")
    for number, colour in enumerate(("red", "green", "blue", "yellow", "cyan"))
]
PARAMS = AlignmentParams(
    iterations=4, prompts_per_iteration=3, num_generations=3, inner_updates=2, timesteps_per_pair=2,
    reference_sync_every=3, learning_rate=1e-2,
    lora_rank=2, beta=50.0, min_gap=0.0, motion_floor=0.0, checkpoint_every=1,
    guards=GuardParams(every=0, drift_limit=1e9),
)  # fmt: skip
#: Eight updates with a refresh of the reference after 2, 4, 6, 8 of them; the reward's turn is after 4 and 8.
REFRESHING = PARAMS.model_copy(
    update={"reference_sync_every": 2, "refresh_reward_every": 2, "noise_gap": 0.0}
)


class Brightness:
    """A reward without a network: the mean of the clip's pixels, 0..1; it keeps the prompts it was given.

    Its spread is 0; its one aspect is the mean of the red channel.
    """

    def __init__(self) -> None:
        self.prompts: list[str] = []

    def score(self, frames: Tensor, fps: float, prompts: Sequence[str] | None = None) -> Tensor:
        """frames uint8 (B, T, 3, H, W) -> (B,)."""
        return self.rate(frames, fps, prompts).score

    def rate(self, frames: Tensor, fps: float, prompts: Sequence[str] | None = None) -> Rating:
        """frames uint8 (B, T, 3, H, W) -> (B,) each."""
        assert prompts is not None and len(prompts) == len(frames)
        self.prompts += prompts
        bright = frames.double().mean(dim=(1, 2, 3, 4)).div(255).float()
        red = frames[:, :, 0].double().mean(dim=(1, 2, 3)).div(255).float()
        return Rating(bright, torch.zeros(len(frames)), {"red": red})


def save_tiny(folder: Path) -> Path:
    """Write a tiny WanPipeline with seeded random weights to a folder."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        tokenizer = build_tokenizer()
        pipeline = WanPipeline(
            tokenizer=tokenizer,
            text_encoder=build_text_encoder(len(tokenizer)),
            vae=AutoencoderKLWan(
                base_dim=4, z_dim=4, dim_mult=[1], num_res_blocks=1, temperal_downsample=[], in_channels=48,
                out_channels=48, patch_size=4, scale_factor_temporal=1, scale_factor_spatial=4,
                latents_mean=[0.0] * 4, latents_std=[1.0] * 4,
            ),
            transformer=WanTransformer3DModel(
                patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=4,
                out_channels=4, text_dim=TEXT_WIDTH, freq_dim=16, ffn_dim=32, num_layers=1,
                rope_max_seq_len=16,
            ),
            scheduler=FlowMatchEulerDiscreteScheduler(),
        )  # fmt: skip
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


def make_generator(folder: Path, batch: int = 16) -> Generator:
    """Load the tiny pipeline; clips of 5 frames, 16 x 16 px, in two denoising steps."""
    settings = SamplingParams(num_frames=5, height=16, width=16, fps=8.0, steps=2, guidance=1.0, batch=batch)
    return Generator(load_family(folder, torch.device("cpu")), settings)


def make_trainer(
    generator: Generator,
    checkpoints: Path,
    params: AlignmentParams = PARAMS,
    ranks: Ranks | None = None,
    on_iteration: Callable[[dict[str, float]], None] = lambda row: None,
    reward: Reward | None = None,
    refresher: Refresher | None = None,
    judge: HeldOutJudge | None = None,
    ledger: LedgerReader | None = None,
) -> AlignmentLoop:
    """An alignment of the tiny model to brightness, or to another reward."""
    ranks = ranks or Ranks()
    policy = policy_of(generator.family, params, ranks)
    return AlignmentLoop(
        Setting(generator, policy, PROMPTS, params, ranks, ledger),
        VersionedReward(reward or Brightness(), "brightness", checkpoints / "reward", ranks, refresher),
        checkpoints,
        judge,
        on_iteration,
    )


class Killed(BaseException):
    """Stands for a kill: nothing is saved any more."""


def kill_after(iteration: int) -> Callable[[dict[str, float]], None]:
    """End a run that is given this as `on_iteration` before the iteration's checkpoint is written."""

    def kill(row: dict[str, float]) -> None:
        if row["iteration"] == iteration:
            raise Killed

    return kill


def weights(loop: AlignmentLoop) -> dict[str, Tensor]:
    """Copies of policy and reference."""
    return {name: value.clone() for name, value in loop.policy.tensors().items()}


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Whether two sets of tensors are equal to the bit."""
    assert one.keys() == other.keys()
    return all(torch.equal(value, other[name]) for name, value in one.items())


def ledger_rows(checkpoints: Path, iterations: int = PARAMS.iterations) -> list[dict[str, Any]]:
    """The rows of a run's ledger as it would be published, from the folder of its checkpoints."""
    with TemporaryDirectory() as folder:
        LedgerWriter(checkpoints / "ledger").publish(Path(folder), iterations)
        rows: list[dict[str, Any]] = pq.read_table(Path(folder) / "ledger.parquet").to_pylist()
    return rows


def probe(reward: Reward) -> Tensor:
    """What a reward says of two clips of stripes."""
    frames = torch.arange(2 * 5 * 3 * 16 * 16).remainder(251).to(torch.uint8)
    return reward.score(frames.reshape(2, 5, 3, 16, 16), 8.0, ["", ""])
