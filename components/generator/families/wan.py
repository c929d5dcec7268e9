"""Wan 2.1 and 2.2 text-to-video: a flow-matching transformer over a causal 3D VAE. The miniature is one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from components.generator.families.base import MemoryHints, ModelFamily
from components.generator.families.noise_process import FlowMatching
from components.runtime.errors import InputError


class Experts(nn.Module):
    """Wan 2.2 A14B's two transformers as one: each answers for its span of time, adapters are put on both.

    Args:
        high: the transformer for times of `boundary` and above, where noise is high.
        low: the transformer for times below it.
        boundary: a training time.
    """

    def __init__(self, high: Any, low: Any, boundary: float) -> None:
        super().__init__()
        self.high, self.low, self.boundary = high, low, boundary
        #: Experts that are called even where no row is theirs: other processes hold their weights, too.
        self.asked: frozenset[str] = frozenset()
        self.eval()

    @property
    def config(self) -> Any:
        """The configuration that both share."""
        return self.high.config

    @property
    def dtype(self) -> torch.dtype:
        """The type of the weights."""
        dtype: torch.dtype = self.high.dtype
        return dtype

    @property
    def peft_config(self) -> Any:
        """The adapters' configurations, the same on both."""
        return self.high.peft_config

    def forward(
        self, hidden_states: Tensor, timestep: Tensor, encoder_hidden_states: Tensor, return_dict: bool = True
    ) -> tuple[Tensor]:
        """Predict each row with the expert for its time; a batch may hold both kinds."""
        rows_high = timestep >= self.boundary
        output = torch.empty_like(hidden_states)
        for name, rows in (("high", rows_high), ("low", ~rows_high)):
            chosen = rows.nonzero().flatten()
            if not len(chosen) and name not in self.asked:
                continue
            rows_fed = chosen if len(chosen) else torch.zeros_like(timestep[:1], dtype=torch.long)
            answer = getattr(self, name)(
                hidden_states=hidden_states[rows_fed],
                timestep=timestep[rows_fed],
                encoder_hidden_states=encoder_hidden_states[rows_fed],
                return_dict=False,
            )[0].to(output.dtype)
            # An expert that was only asked along adds nothing, but its backward pass comes, too.
            output = output.index_copy(0, chosen, answer) if len(chosen) else output + 0.0 * answer.sum()
        return (output,)

    def parts_for(self, timestep: Tensor) -> frozenset[str]:
        """Return the names of the experts that some times need."""
        high = timestep >= self.boundary
        return frozenset(name for name, needed in (("high", high.any()), ("low", (~high).any())) if needed)

    def _both(self, method: str, *arguments: Any, **named: Any) -> None:
        for expert in (self.high, self.low):
            getattr(expert, method)(*arguments, **named)

    def add_adapter(self, adapter_config: Any, adapter_name: str = "default") -> None:
        """Add an adapter to both experts."""
        self._both("add_adapter", adapter_config, adapter_name=adapter_name)

    def set_adapter(self, adapter_name: str) -> None:
        """Make an adapter the active one on both experts."""
        self._both("set_adapter", adapter_name)

    def disable_adapters(self) -> None:
        """Switch adapters off on both experts."""
        self._both("disable_adapters")

    def enable_adapters(self) -> None:
        """Switch adapters on again on both experts."""
        self._both("enable_adapters")

    def enable_gradient_checkpointing(self) -> None:
        """Recompute activations in the backward pass of both experts."""
        self._both("enable_gradient_checkpointing")


class Wan(ModelFamily):
    """`WanPipeline`: Wan 2.1 (1.3B, 14B), Wan 2.2 A14B with two experts, Wan 2.2 TI2V-5B, the miniature.

    TI2V-5B's pipeline gives each token its own time, for the sake of a given first frame. Without one they
    are all the same, so the clip's one time is passed: the same prediction without a modulation per token.
    """

    pipeline_class = "WanPipeline"
    lora_targets = ("to_q", "to_k", "to_v", "to_out.0", "ffn.net.0.proj", "ffn.net.2", "proj_out")
    hints = MemoryHints(vae=torch.float32)

    def __init__(self, pipeline: Any) -> None:
        super().__init__(pipeline)
        times = float(pipeline.scheduler.config.num_train_timesteps)
        self.noise_process = FlowMatching(times)
        self._experts: Experts | None = None
        if getattr(pipeline, "transformer_2", None) is not None:
            ratio = pipeline.config.boundary_ratio
            if ratio is None or pipeline.transformer is None:
                raise InputError(
                    f"boundary_ratio = {ratio} with a second transformer: a share of the times in (0, 1)"
                    " and both transformers are needed"
                )
            self.denoisers = ("transformer", "transformer_2")
            self._experts = Experts(pipeline.transformer, pipeline.transformer_2, ratio * times)
            # Times drawn without the sampler's shift would leave one in forty to the expert for high noise.
            config = pipeline.scheduler.config
            self.noise_process = FlowMatching(
                times, float(config.get("flow_shift") or config.get("shift") or 1.0)
            )
        # Released Wan models are trained at 512 tokens; a small tokenizer says its own length.
        self.max_tokens = min(512, int(pipeline.tokenizer.model_max_length))

    @property
    def denoiser(self) -> Any:
        return self._experts or self.pipeline.transformer

    @property
    def embedding_shape(self) -> tuple[int, int]:
        return self.max_tokens, self.denoiser.config.text_dim

    @property
    def patch(self) -> tuple[int, int, int]:
        time, rows, columns = self.denoiser.config.patch_size
        return time, rows, columns

    def check_frames(self, frames: int, period: int | None = None) -> None:
        # The VAE encodes the first frame and then four at a time; it loses a shorter rest.
        super().check_frames(frames, max(self.compression[0], 4))

    def latent_statistics(self, device: torch.device) -> tuple[Tensor, Tensor]:
        config = self.pipeline.vae.config
        return torch.tensor(config.latents_mean, device=device), torch.tensor(
            config.latents_std, device=device
        )
