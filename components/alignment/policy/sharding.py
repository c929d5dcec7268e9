"""One network held by several processes together: each keeps a share of every weight (FSDP2).

A block's weights are put together just before it computes and dropped after, so that a network that does not
fit one GPU is trained on several. Adapters on a frozen network stay whole in every process: they are small,
and their gradients are added up as without sharding. Where the network itself is trained, each process keeps
and steps its share of everything: gradients, the optimizer's state, the reference. Results do not change.

Putting a block together takes all processes at the same time, however many clips or pairs each of them has.
Those that have none left join the others' calls with numbers that lead nowhere; see `InStep`.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from components.runtime.compute.distributed import Ranks


@dataclass(frozen=True)
class Together:
    """Several processes that hold one network together, and this one's device."""

    ranks: Ranks
    device: torch.device


def shard(
    networks: Iterable[nn.Module], whole: Iterable[nn.Parameter], together: Together, *, trained: bool = False
) -> None:
    """Leave each process its share of the networks' weights, on its device.

    Networks that lie on the host travel block by block: no device ever holds one whole.

    Args:
        whole: parameters that every process keeps as they are; they are moved to the device.
        trained: the shares are changed between calls: nothing stays put together after a call. Gradients are
            exchanged in float32.
    """
    # Imported here: most runs share nothing.
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    ignored = set(whole)
    settings: dict[str, Any] = {
        "mesh": init_device_mesh(together.device.type, (together.ranks.size,)),
        "ignored_params": ignored,
    }
    if trained:
        settings |= {
            "reshard_after_forward": True, "mp_policy": MixedPrecisionPolicy(reduce_dtype=torch.float32),
        }  # fmt: skip
    for network in networks:
        for block in blocks_of(network):
            fully_shard(block, **settings)
        fully_shard(network, **settings)
    for parameter in ignored:
        parameter.data = parameter.data.to(together.device)


def blocks_of(network: nn.Module) -> list[nn.Module]:
    """The layers that a network repeats; each is put together for itself."""
    return [block for child in network.children() if isinstance(child, nn.ModuleList) for block in child]


def of_odd_type(network: nn.Module) -> list[nn.Parameter]:
    """The weights that are not of the type that most numbers are of, as norms in 32 bits of a base in 16.

    They are small, and FSDP2 trains weights of one type only.
    """
    numbers: Counter[torch.dtype] = Counter()
    for value in network.parameters():
        numbers[value.dtype] += value.numel()
    usual = max(numbers, key=lambda dtype: numbers[dtype])
    return [value for value in network.parameters() if value.dtype != usual]


def local(value: Tensor) -> Tensor:
    """What lies in this process of a weight, memory shared: its share of one that is held together."""
    data = value.data
    # Without importing what most runs need not.
    share: Tensor = data.to_local() if hasattr(data, "to_local") else data
    return share


def share_of(weight: Tensor, value: Tensor) -> Tensor:
    """Cut a whole tensor as a weight is cut; ``value`` where the weight is not."""
    if not hasattr(weight, "to_local"):
        return value
    from torch.distributed.tensor import distribute_tensor

    layout: Any = weight
    # Everybody has the whole: nothing is sent.
    cut = distribute_tensor(value, layout.device_mesh, layout.placements, src_data_rank=None)
    return local(cut).clone()


def whole_of(weight: Tensor, value: Tensor) -> Tensor:
    """Undo `share_of`: put together what every process has of a tensor; every process calls it."""
    if not hasattr(weight, "to_local"):
        return value
    from torch.distributed.tensor import DTensor

    layout: Any = weight
    cut = DTensor.from_local(
        value.to(layout.device), layout.device_mesh, layout.placements,
        shape=layout.shape, stride=layout.stride(),
    )  # fmt: skip
    whole: Tensor = cut.full_tensor()
    return whole


def whole_network(network: nn.Module, kind: Any, ranks: Ranks) -> Any:
    """Return a copy on the host of a diffusers network that is held together; every process calls it.

    Args:
        kind: its class before it was sharded.

    Returns:
        the copy in the main process, None in the others.
    """
    state = {}
    for name, value in network.state_dict().items():
        whole = whole_of(value, local(value))
        if ranks.is_main:
            state[name] = whole.cpu()
    if not ranks.is_main:
        return None
    with torch.device("meta"):
        copy = kind.from_config(network.config)
    copy.load_state_dict(state, assign=True)
    return copy


def clip_gradients(weights: Mapping[str, Tensor], cut: Collection[str], limit: float, ranks: Ranks) -> float:
    """Scale gradients so that their norm over all weights is at most ``limit``; returns it as it was.

    Args:
        weights: by name, each with a gradient.
        cut: names of those of which this process has a share only; every process has all of the others.
    """
    gradients = {name: weight.grad for name, weight in weights.items() if weight.grad is not None}
    norm = nn.utils.get_total_norm([g for name, g in gradients.items() if name not in cut])
    if cut:
        mine = nn.utils.get_total_norm([gradients[name] for name in cut])
        shares = ranks.all_gather_object(float(mine.double().square()))
        norm = (norm.double().square() + sum(shares)).sqrt().float().to(mine.device)
    nn.utils.clip_grads_with_norm_(weights.values(), limit, norm)
    return float(norm)


@dataclass(frozen=True)
class _Numbers:
    """A tensor of a call as the others are told of it."""

    shape: torch.Size
    dtype: torch.dtype


@dataclass(frozen=True)
class _Call:
    """A call of the network: whether a backward pass follows, which weights it computes with where it has
    several sets, and what it is given, numbers left out."""

    trains: bool
    used: str
    args: Any
    named: Any
    parts: frozenset[str]


class Sets(Protocol):
    """Several sets of weights for one network, of which it computes with one."""

    used: str

    def use(self, which: str) -> None:
        """Put this process's share of a set into the network."""


class InStep:
    """Keeps processes that hold one network together calling it equally often.

    Within a phase every call is announced to all. A process that is through with its own calls joins those of
    the others until nobody calls any more. A backward pass must follow its forward pass at once.
    """

    def __init__(self, network: Any, ranks: Ranks, sets: Sets | None = None) -> None:
        """Watch a network whose weights were sharded before: announcing comes first.

        Args:
            sets: the sets of weights that it may compute with, if each process has its share of them only:
                who joins a call uses the caller's set.
        """
        self.network, self.ranks, self.sets = network, ranks, sets
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
                before = self._used
                while (call := self._agree(None)) is not None:
                    self._take(call.used)
                    self._join(call)
                self._take(before)
        finally:
            self._inside = False

    @property
    def _used(self) -> str:
        return self.sets.used if self.sets is not None else ""

    def _take(self, which: str) -> None:
        if self.sets is not None and which != self.sets.used:
            self.sets.use(which)

    def _announce(self, network: Any, args: Any, named: dict[str, Any]) -> None:
        if self._joining:
            return
        if not self._inside:
            raise RuntimeError("a network that processes hold together is called outside a phase")
        told_args, told_named = tree_map(_without_numbers, (args, named))
        parts = network.parts_for(named["timestep"]) if hasattr(network, "parts_for") else frozenset()
        self._agree(_Call(torch.is_grad_enabled(), self._used, told_args, told_named, parts))

    def _agree(self, mine: _Call | None) -> _Call | None:
        """Tell everybody; returns the first process's call, None where nobody calls."""
        calls = [call for call in self.ranks.all_gather_object(mine) if call is not None]
        if len({(call.trains, call.used) for call in calls}) > 1:
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
