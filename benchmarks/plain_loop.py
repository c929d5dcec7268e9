"""An alignment's iteration as a plain loop, as such loops are commonly found; see alignment_iteration.py."""

from __future__ import annotations

import time
from copy import deepcopy
from typing import Any

import torch
from peft import LoraConfig
from torch import Tensor
from torch.nn import functional as F

from components.alignment.candidates.rollout import candidate_seed, prompts_of_iteration
from components.alignment.params import AlignmentParams
from components.corpus.prompts import Prompt
from components.generator.generator import Generator
from components.generator.sampling import sample_latents
from components.reward.base import Reward
from components.runtime.compute.seeds import torch_generator


class PlainLoop:
    """Online DPO in the fewest words: nothing is batched over prompts, kept or shared."""

    def __init__(self, generator: Generator, params: AlignmentParams, reward: Reward) -> None:
        self.generator, self.params, self.reward = generator, params, reward
        self.family = generator.family
        self.policy: Any = self.family.pipeline.transformer
        self.reference: Any = deepcopy(self.policy)
        rank = params.lora_rank
        self.policy.add_adapter(
            LoraConfig(r=rank, lora_alpha=rank, target_modules=list(self.family.lora_targets))
        )
        self.weights = [weight for weight in self.policy.parameters() if weight.requires_grad]
        self.optimizer = torch.optim.AdamW(self.weights, lr=params.learning_rate, weight_decay=0.0)
        self.seconds = {"rollout": 0.0, "update": 0.0}

    def iterate(self, prompts: list[Prompt], iteration: int) -> float:
        """One iteration; returns how many pairs it trained on."""
        params, clips = self.params, []
        began = time.process_time()
        for prompt in prompts_of_iteration(prompts, params.prompts_per_iteration, params.run.seed, iteration):
            seeds = [
                candidate_seed(params.run.seed, iteration, prompt.id, i)
                for i in range(params.num_generations)
            ]
            with torch.no_grad():
                frames = self.family.decode(self.sample(prompt.text, seeds))
            scores = self.reward.rate(frames, 8.0, [prompt.text] * len(frames)).score
            best, worst = int(scores.argmax()), int(scores.argmin())
            if scores[best] > scores[worst]:
                clips.append((prompt, frames[best : best + 1], frames[worst : worst + 1]))
        self.seconds["rollout"] += time.process_time() - began
        began = time.process_time()
        for update in range(params.inner_updates):
            self.optimizer.zero_grad()
            for prompt, winner, loser in clips:
                for draw in range(params.timesteps_per_pair):
                    loss = self.loss(prompt, winner, loser, (iteration, update, draw))
                    (loss / (len(clips) * params.timesteps_per_pair)).backward()
            torch.nn.utils.clip_grad_norm_(self.weights, 1.0)
            self.optimizer.step()
        self.seconds["update"] += time.process_time() - began
        return float(len(clips))

    def sample(self, prompt: str, seeds: list[int]) -> Tensor:
        """One prompt's candidates in one call of the sampler."""
        settings = self.generator.settings
        text = self.family.encode_prompts([prompt] * len(seeds))
        return sample_latents(
            self.family, text, text[:1], seeds, self.generator.geometry,
            steps=settings.steps, guidance=settings.guidance,
        )  # fmt: skip

    def loss(self, prompt: Prompt, winner: Tensor, loser: Tensor, names: tuple[int, ...]) -> Tensor:
        """The DPO loss with the winner's own error, four forward passes for one draw of noise."""
        process, params = self.family.noise_process, self.params
        own, reference = [], []
        for frames in (winner, loser):
            clean = self.family.encode(frames)
            text = self.family.encode_prompts([prompt.text])
            draws = torch_generator(params.run.seed, "dpo noise", *names, prompt.id)
            noise = torch.randn(clean.shape[1:], generator=draws)[None]
            moment = process.sample_times(1, draws)
            noisy, target = process.add_noise(clean, noise, moment), process.target(clean, noise, moment)
            own.append((self.predict(self.policy, noisy, moment, text) - target).square().mean())
            with torch.no_grad():
                reference.append((self.predict(self.reference, noisy, moment, text) - target).square().mean())
        margin = (own[0] - reference[0]) - (own[1] - reference[1])
        return -F.logsigmoid(-0.5 * params.beta * margin) + params.sft_weight * own[0]

    def predict(self, network: Any, noisy: Tensor, moment: Tensor, text: Tensor) -> Tensor:
        """One forward pass of the policy or of the reference."""
        prediction: Tensor = network(
            hidden_states=noisy, timestep=moment, encoder_hidden_states=text, return_dict=False
        )[0]
        return prediction
