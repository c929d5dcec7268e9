"""The policy as all of the denoiser's weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from components.alignment.policy.base import ALONE, POLICY, REFERENCE, Policy
from components.alignment.policy.sharding import (
    InStep,
    Together,
    local,
    of_odd_type,
    shard,
    share_of,
    whole_network,
    whole_of,
)
from components.generator.families import WEIGHTS_FOLDER, ModelFamily
from components.runtime.compute.distributed import Ranks

BASE = "base"


class FullPolicy(Policy):
    """All weights of a family's denoiser are trained.

    The network computes with one set of weights at a time: they are copied into its own, in its own type. The
    base is kept in that type, policy and reference in float32: in 16 bits, steps of a small learning rate and
    of a moving average round to nothing. Gradients are added up in float32, too. The reference is the base,
    and takes no memory of its own, until it is refreshed for the first time.

    Processes that hold the network together have their share of each set of weights, and step it: weights are
    changed number by number, so that nobody needs those of the others.
    """

    def __init__(self, family: ModelFamily, together: Together | None = None) -> None:
        """Take the base from the network.

        Args:
            together: the processes that hold it together.
        """
        super().__init__(family)
        self.network.requires_grad_(True)
        self._kinds = {name: type(getattr(family.pipeline, name)) for name in family.denoisers}
        if together is not None:
            networks = [getattr(family.pipeline, name) for name in family.denoisers]
            odd = [value for network in networks for value in of_odd_type(network)]
            shard(networks, odd, together, trained=True)
            self._in_step = InStep(self.network, together.ranks, self)
        own = dict(self.network.named_parameters())
        self._own = own
        self.cut = frozenset(name for name, value in own.items() if hasattr(value, "to_local"))
        self._base = {name: local(value).clone() for name, value in own.items()}
        self._policy = {name: value.float().clone() for name, value in self._base.items()}
        self._reference: dict[str, Tensor] | None = None
        self.used = POLICY
        for name, value in own.items():
            self._policy[name].requires_grad_(True)
            value.register_post_accumulate_grad_hook(self._collecting(self._policy[name]))

    def parameters(self, of: str = POLICY) -> dict[str, Tensor]:
        """See `Policy.parameters`; the reference has none of its own before its first refresh."""
        return self._policy if of == POLICY else self._reference or {}

    def use(self, which: str) -> None:
        """Copy one set of weights into the network."""
        sets = {POLICY: self._policy, REFERENCE: self._reference or self._base, BASE: self._base}
        with torch.no_grad():
            for name, value in sets[which].items():
                local(self._own[name]).copy_(value)
        self.used = which

    @contextmanager
    def base(self) -> Iterator[None]:
        """Run with the base's weights, without gradients."""
        self.use(BASE)
        try:
            with torch.no_grad():
                yield
        finally:
            self.use(POLICY)

    @torch.no_grad()
    def to_base(self) -> None:
        """See `Policy.to_base`."""
        for name, value in self._policy.items():
            value.copy_(self._base[name])
        self.stepped()

    @torch.no_grad()
    def refresh_reference(self, share: float = 1.0) -> None:
        """See `Policy.refresh_reference`."""
        self._detach_reference()
        super().refresh_reference(share)

    @torch.no_grad()
    def restore(self, tensors: dict[str, Tensor]) -> None:
        """See `Policy.restore`."""
        if any(name.startswith(f"{REFERENCE}/") for name in tensors):
            self._detach_reference()
        else:
            self._reference = None
        super().restore(tensors)

    def whole_of(self, name: str, value: Tensor) -> Tensor:
        """See `Policy.whole_of`."""
        return whole_of(self._own[name], value) if value.dim() else value

    def share_of(self, name: str, value: Tensor) -> Tensor:
        """See `Policy.share_of`."""
        return share_of(self._own[name], value) if value.dim() else value

    def save(self, folder: Path, ranks: Ranks = ALONE) -> None:
        """Write the weights in the network's type into ``weights/``; see ``ModelFamily.save_weights``."""
        self.use(POLICY)
        networks = {name: getattr(self.family.pipeline, name) for name in self.family.denoisers}
        if self.cut:
            networks = {name: whole_network(n, self._kinds[name], ranks) for name, n in networks.items()}
        if ranks.is_main:
            self.family.save_weights(folder / WEIGHTS_FOLDER, networks)

    def _detach_reference(self) -> None:
        """Give the reference weights of its own."""
        if self._reference is None:
            self._reference = {name: value.float().clone() for name, value in self._base.items()}

    @staticmethod
    def _collecting(weight: Tensor) -> Callable[[Tensor], None]:
        """What moves a gradient from the network to the float32 weight, as soon as it is there."""

        def collect(own: Tensor) -> None:
            assert own.grad is not None
            gradient = local(own.grad).float()
            weight.grad = gradient if weight.grad is None else weight.grad.add_(gradient)
            own.grad = None

        return collect
