"""One frozen network held by several processes together: each keeps a share of every weight (FSDP2).

A block's weights are put together just before it computes and dropped after, so that a network that does not
fit one GPU is trained on several. Adapters stay whole in every process: they are small, and their gradients
are added up as without sharding, so that results do not change.

Putting a block together takes all processes at the same time, however many clips or pairs each of them has.
Those that have none left join the others' calls with numbers that lead nowhere; see `InStep`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from components.runtime.distributed import Ranks


def shard(
    networks: Iterable[nn.Module], whole: Iterable[nn.Parameter], ranks: Ranks, device: torch.device
) -> None:
    """Leave each process its share of the networks' weights, on its device.

    Networks that lie on the host travel block by block: no device ever holds one whole.

    Args:
        whole: parameters that every process keeps as they are; they are moved to the device.
    """
    # Imported here: most runs share nothing.
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    ignored = set(whole)
    mesh = init_device_mesh(device.type, (ranks.size,))
    for network in networks:
        for block in _blocks(network):
            fully_shard(block, mesh=mesh, ignored_params=ignored)
        fully_shard(network, mesh=mesh, ignored_params=ignored)
    for parameter in ignored:
        parameter.data = parameter.data.to(device)


def _blocks(network: nn.Module) -> list[nn.Module]:
    """The layers that a network repeats."""
    return [block for child in network.children() if isinstance(child, nn.ModuleList) for block in child]


@dataclass(frozen=True)
class _Numbers:
    """A tensor of a call as the others are told of it."""

    shape: torch.Size
    dtype: torch.dtype


@dataclass(frozen=True)
class _Call:
    """A call of the network: whether a backward pass follows, and what it is given, numbers left out."""

    trains: bool
    args: Any
    named: Any
    parts: frozenset[str]


class InStep:
    """Keeps processes that hold one network together calling it equally often.

    Within a phase every call is announced to all. A process that is through with its own calls joins those of
    the others until nobody calls any more. A backward pass must follow its forward pass at once.
    """

    def __init__(self, network: Any, ranks: Ranks) -> None:
        """Watch a network whose weights were sharded before: announcing comes first."""
        self.network, self.ranks = network, ranks
        self._inside = self._joining = False
        network.register_forward_pre_hook(self._announce, prepend=True, with_kwargs=True)

    @contextmanager
    def phase(self) -> Iterator[None]:
        """Calls that may be more in one process than in another; every process enters, none talks inside."""
        self._inside = True
        try:
            with warnings.catch_warnings():
                # It warns of changing the output in place, which no family does.
                warnings.filterwarnings("ignore", message="FSDP2-wrapped module")
                yield
                while (call := self._agree(None)) is not None:
                    self._join(call)
        finally:
            self._inside = False

    def _announce(self, network: Any, args: Any, named: dict[str, Any]) -> None:
        if self._joining:
            return
        if not self._inside:
            raise RuntimeError("a network that processes hold together is called outside a phase")
        told_args, told_named = tree_map(_without_numbers, (args, named))
        parts = network.parts_for(named["timestep"]) if hasattr(network, "parts_for") else frozenset()
        self._agree(_Call(torch.is_grad_enabled(), told_args, told_named, parts))

    def _agree(self, mine: _Call | None) -> _Call | None:
        """Tell everybody; returns the first process's call, None where nobody calls."""
        calls = [call for call in self.ranks.all_gather_object(mine) if call is not None]
        if len({call.trains for call in calls}) > 1:
            raise RuntimeError("processes that hold one network together are at different places")
        if calls and hasattr(self.network, "asked"):
            self.network.asked = frozenset().union(*(call.parts for call in calls))
        return calls[0] if calls else None

    def _join(self, call: _Call) -> None:
        device = next(self.network.parameters()).device
        args, named = tree_map(lambda value: _some_numbers(value, device), (call.args, call.named))
        self._joining = True
        try:
            with torch.set_grad_enabled(call.trains):
                output = self.network(*args, **named)[0]
            if call.trains:
                output.backward(torch.zeros_like(output))
        finally:
            self._joining = False


def _without_numbers(value: Any) -> Any:
    return _Numbers(value.shape, value.dtype) if isinstance(value, Tensor) else value


def _some_numbers(value: Any, device: torch.device) -> Any:
    if not isinstance(value, _Numbers):
        return value
    return torch.ones(value.shape, dtype=value.dtype, device=device)
