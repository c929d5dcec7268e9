"""Online DPO of a text-to-video diffusion model in one file, in one process.

    python examples/online_dpo.py [--iterations 8] [--reward artifacts/reward] [--prompts prompts.txt]

The method of OnlineVPO (arXiv 2412.15159) with the functions of the alignment step: the same params and seed
give the step's pairs and losses (tests/examples/test_online_dpo.py). The step adds what a real run needs:
several GPUs, checkpoints, a ledger, guards against reward hacking, refreshes of the reward.

The base is the committed miniature: some ten seconds an iteration on two CPU cores. Without --reward the
clips are scored by the oracle judge of the miniature's world, a verifiable reward without weights.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from components.alignment.candidates.pairs import PairDecision, pair_groups
from components.alignment.candidates.rollout import prompts_of_iteration, roll_out
from components.alignment.objectives import OBJECTIVES, pair_errors
from components.alignment.params import AlignmentParams
from components.alignment.policy import Policy, policy_of
from components.alignment.policy.updater import GRADIENT_CLIP, Pair, draw_noise, pairs_of
from components.corpus.prompts import Prompt, read_prompts, world_prompts
from components.corpus.world.judge import judge
from components.generator.generator import Generator, load_family
from components.generator.params import SamplingParams
from components.reward.base import Rating, Reward
from components.reward.scoring.load import open_reward
from components.runtime.artifacts.artifact import open_artifact
from components.runtime.compute.distributed import Ranks

MINIATURE = Path(__file__).resolve().parents[1] / "models" / "miniature"


class Iteration(NamedTuple):
    """The mean reward, each prompt's pair, and the loss of the last update."""

    reward: float
    decisions: list[PairDecision]
    loss: float | None


def online_dpo(
    generator: Generator, reward: Reward, prompts: Sequence[Prompt], params: AlignmentParams
) -> Iterator[Iteration]:
    """Align the generator to the reward in place; yield after each iteration."""
    seed, updates = params.run.seed, 0
    # pi_theta and pi_ref: two LoRA adapters on one frozen network, both equal to the base at first.
    policy = policy_of(generator.family, params, Ranks())
    weights = list(policy.parameters().values())
    optimizer = torch.optim.AdamW(weights, lr=params.learning_rate, weight_decay=0.0)
    for iteration in range(params.iterations):
        share = iteration / max(1, params.iterations - 1)
        optimizer.param_groups[0]["lr"] = params.learning_rate * (1.0 - 0.9 * share)

        # 1. Online preference generation: sample x^1 .. x^N ~ pi_theta(x | c) for each prompt c,
        # 2. and score them by the video reward, r(x^i, c).
        batch = prompts_of_iteration(prompts, params.prompts_per_iteration, seed, iteration)
        groups = roll_out(generator, reward, batch, params.num_generations, seed, iteration)
        candidates = [group.candidates for group in groups]

        # 3. Pair the best and the worst: x^w > x^l, where r(x^w, c) - r(x^l, c) is significant.
        decisions = pair_groups(candidates, params.min_gap, params.motion_floor, params.noise_gap)
        pairs = pairs_of(groups, decisions, generator)

        loss = None
        for update in range(params.inner_updates if pairs else 0):
            # 4. DPO update: the mean loss over all pairs, with fresh noise and timesteps.
            optimizer.zero_grad(set_to_none=True)
            loss = dpo_loss(policy, pairs, params, (iteration, update))
            torch.nn.utils.clip_grad_norm_(weights, GRADIENT_CLIP)
            optimizer.step()
            updates += 1
            # 5. Curriculum preference update: pi_ref <- pi_theta.
            if updates % params.reference_sync_every == 0:
                policy.sync_reference()
        rewards = [candidate.reward for group in candidates for candidate in group]
        yield Iteration(sum(rewards) / len(rewards), decisions, loss)


def dpo_loss(policy: Policy, pairs: Sequence[Pair], params: AlignmentParams, names: tuple[int, int]) -> float:
    """Add up the gradient of the mean loss over pairs and timesteps; return the loss.

    Diffusion-DPO (arXiv 2311.12908, eq. 14), with its T * omega(lambda_t) taken into beta:

        L = -log sigmoid(-beta / 2 * ((|e_w|^2 - |r_w|^2) - (|e_l|^2 - |r_l|^2)))

    e are the errors of pi_theta's prediction on the noised winner x^w_t and loser x^l_t, r those of pi_ref.
    """
    family, process, total = policy.family, policy.family.noise_process, 0.0
    rows = [
        (pair, *draw_noise(policy, pair, params.run.seed, (*names, draw)))
        for pair in pairs
        for draw in range(params.timesteps_per_pair)
    ]
    for start in range(0, len(rows), params.pairs_per_forward):
        part, noises, times = zip(*rows[start : start + params.pairs_per_forward], strict=True)
        # Winner and loser share eps and t; one forward pass of x^w_t and x^l_t serves both.
        clean = torch.stack([pair.winner for pair in part] + [pair.loser for pair in part])
        text = torch.stack([pair.embeddings for pair in part] * 2)
        noise, time = torch.stack(noises * 2), torch.cat(times * 2)
        noisy, target = process.add_noise(clean, noise, time), process.target(clean, noise, time)
        with policy.reference():
            reference = family.predict(noisy, time, text)
        errors = pair_errors(family.predict(noisy, time, text), reference, target, params.loss_reduction)
        # The default is DPO with a hinge on the winner (DPOP), plus a share of the winner's SFT loss.
        losses = OBJECTIVES[params.loss](errors, params.beta) + params.sft_weight * errors.winner
        loss = losses.sum() / len(rows)
        loss.backward()
        total += loss.item()
    return total


class OracleReward:
    """The oracle judge: reads a clip's quality, 0 to 1, back from its pixels by the laws of its world."""

    def rate(self, frames: Tensor, fps: float, prompts: Sequence[str] | None = None) -> Rating:
        scores = torch.tensor([judge(clip).quality for clip in frames])
        return Rating(scores, torch.zeros(len(frames)), {})


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--iterations", type=int, default=8, help="rounds of: sample, score, pair, update")
    parser.add_argument("--reward", help="a reward artifact; the oracle judge if not given")
    parser.add_argument(
        "--prompts", help="a text file with a prompt a line; the miniature's own if not given"
    )
    options = parser.parse_args()
    generator = Generator(load_family(MINIATURE, torch.device("cpu")), SamplingParams())
    reward = open_reward(open_artifact(options.reward, step="reward")) if options.reward else OracleReward()
    prompts = read_prompts(options.prompts) if options.prompts else world_prompts()
    training = [prompt for prompt in prompts if prompt.split == "train"]
    params = AlignmentParams(iterations=options.iterations, reference_sync_every=8)
    for number, done in enumerate(online_dpo(generator, reward, training, params)):
        pairs = sum(decision.accepted for decision in done.decisions)
        print(f"iteration {number}: reward {done.reward:.4f}, {pairs} pairs, loss {done.loss}", flush=True)


if __name__ == "__main__":
    main()
