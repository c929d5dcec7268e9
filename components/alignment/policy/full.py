"""The policy as all of the denoiser's weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from components.alignment.policy.base import ALONE, BASE, POLICY, REFERENCE, Policy
from components.alignment.policy.sharding import (
    ShardingContext,
    UnevenInputJoin,
    local,
    minority_dtype_parameters,
    shard,
    share_of,
    whole_network,
    whole_of,
)
from components.generator.families import WEIGHTS_FOLDER, ModelFamily
from components.runtime.compute.distributed import Ranks


class FullPolicy(Policy):
    """All weights of a family's denoiser are trained.

    The network computes with one set of weights at a time: they are copied into its own, in its own dtype.
    The base is kept in that dtype, policy and reference in float32: in 16 bits, small steps round to nothing.
    Gradients are summed in float32, too. The reference is the base, without memory of its own, until it is
    synced for the first time.

    Sharded processes have their share of each set of weights, and step it: weights change element by element,
    so that no process needs the others' shares.
    """

    def __init__(self, family: ModelFamily, sharding: ShardingContext | None = None) -> None:
        """Take the base from the network; shard it where there is a `sharding` context."""
        super().__init__(family)
        self.network.requires_grad_(True)
        self._kinds = {name: type(getattr(family.pipeline, name)) for name in family.denoisers}
        if sharding is not None:
            networks = [getattr(family.pipeline, name) for name in family.denoisers]
            whole = [value for network in networks for value in minority_dtype_parameters(network)]
            shard(networks, whole, sharding, trained=True)
            self._join = UnevenInputJoin(self.network, sharding.ranks, self)
        self._own = dict(self.network.named_parameters())
        self.sharded = frozenset(name for name, value in self._own.items() if hasattr(value, "to_local"))
        self._base = {name: local(value).clone() for name, value in self._own.items()}
        self._policy = {name: value.float().clone() for name, value in self._base.items()}
        self._reference: dict[str, Tensor] | None = None
        for name, value in self._own.items():
            self._policy[name].requires_grad_(True)
            value.register_post_accumulate_grad_hook(_collect_into(self._policy[name]))

    def parameters(self, of: str = POLICY) -> dict[str, Tensor]:
        """See `Policy.parameters`; the reference has none of its own before its first sync."""
        return self._policy if of == POLICY else self._reference or {}

    def use(self, which: str) -> None:
        """Copy one set of weights into the network."""
        sets = {POLICY: self._policy, REFERENCE: self._reference or self._base, BASE: self._base}
        with torch.no_grad():
            for name, value in sets[which].items():
                local(self._own[name]).copy_(value)
        self.used = which

    @torch.no_grad()
    def reset_to_base(self) -> None:
        for name, value in self._policy.items():
            value.copy_(self._base[name])
        self.stepped()

    @torch.no_grad()
    def sync_reference(self, share: float = 1.0) -> None:
        self._detach_reference()
        super().sync_reference(share)

    @torch.no_grad()
    def restore(self, tensors: dict[str, Tensor]) -> None:
        if any(name.startswith(f"{REFERENCE}/") for name in tensors):
            self._detach_reference()
        else:
            self._reference = None
        super().restore(tensors)

    def whole_of(self, name: str, value: Tensor) -> Tensor:
        return whole_of(self._own[name], value) if value.dim() else value

    def share_of(self, name: str, value: Tensor) -> Tensor:
        return share_of(self._own[name], value) if value.dim() else value

    def save(self, folder: Path, ranks: Ranks = ALONE) -> None:
        """Write the weights in the network's dtype into `weights/`; see `ModelFamily.save_weights`."""
        self.use(POLICY)
        networks = {name: getattr(self.family.pipeline, name) for name in self.family.denoisers}
        if self.sharded:
            networks = {name: whole_network(n, self._kinds[name], ranks) for name, n in networks.items()}
        if ranks.is_main:
            self.family.save_weights(folder / WEIGHTS_FOLDER, networks)

    def _detach_reference(self) -> None:
        """Give the reference weights of its own."""
        if self._reference is None:
            self._reference = {name: value.float().clone() for name, value in self._base.items()}


def _collect_into(weight: Tensor) -> Callable[[Tensor], None]:
    """Return a hook that moves a gradient from the network to a float32 weight as soon as it is there."""

    def collect(own: Tensor) -> None:
        assert own.grad is not None
        gradient = local(own.grad).float()
        weight.grad = gradient if weight.grad is None else weight.grad.add_(gradient)
        own.grad = None

    return collect
