"""One network held by several processes: each keeps a share of every weight (FSDP2).

A block's weights are gathered just before it computes and dropped afterwards, so that a network that does not
fit one GPU can be trained on several. Adapters on a frozen network stay whole in every process: they are
small, and their gradients are summed as without sharding. Where the network itself is trained, each process
keeps and steps its share of everything: gradients, optimizer state, reference. Results do not change.

Gathering a block takes all processes at the same time, however many clips or pairs each of them has. A
process without inputs of its own joins the others' calls with a dummy forward; see `UnevenInputJoin`.
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
class ShardingContext:
    """The processes that hold one network, and this process's device."""

    ranks: Ranks
    device: torch.device


def shard(
    networks: Iterable[nn.Module],
    whole: Iterable[nn.Parameter],
    context: ShardingContext,
    *,
    trained: bool = False,
) -> None:
    """Leave each process its share of the networks' weights, on its device.

    Networks on the host move block by block: no device ever holds a whole one.

    Args:
        whole: parameters that every process keeps whole; they are moved to the device.
        trained: weights change between calls: none stays gathered after a call, and gradients are exchanged
            in float32.
    """
    # Imported here: most runs do not shard.
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    ignored = set(whole)
    mesh = init_device_mesh(context.device.type, (context.ranks.size,))
    settings: dict[str, Any] = {"mesh": mesh, "ignored_params": ignored}
    if trained:
        policy = MixedPrecisionPolicy(reduce_dtype=torch.float32)
        settings |= {"reshard_after_forward": True, "mp_policy": policy}
    for network in networks:
        for block in blocks_of(network):
            fully_shard(block, **settings)
        fully_shard(network, **settings)
    for parameter in ignored:
        parameter.data = parameter.data.to(context.device)


def blocks_of(network: nn.Module) -> list[nn.Module]:
    """Return the layers that a network repeats; each is gathered separately."""
    return [block for child in network.children() if isinstance(child, nn.ModuleList) for block in child]


def minority_dtype_parameters(network: nn.Module) -> list[nn.Parameter]:
    """Return the parameters whose dtype differs from most others', such as float32 norms in a bfloat16 base.

    They are small, and FSDP2 trains weights of one dtype only.
    """
    sizes: Counter[torch.dtype] = Counter()
    for value in network.parameters():
        sizes[value.dtype] += value.numel()
    majority = max(sizes, key=lambda dtype: sizes[dtype])
    return [value for value in network.parameters() if value.dtype != majority]


def local(value: Tensor) -> Tensor:
    """Return this process's part of a weight, sharing its memory; all of it where it is not sharded."""
    data: Any = value.data
    return data.to_local() if hasattr(data, "to_local") else data


def share_of(weight: Any, value: Tensor) -> Tensor:
    """Cut a whole tensor as a weight is sharded; return `value` where the weight is not."""
    if not hasattr(weight, "to_local"):
        return value
    from torch.distributed.tensor import distribute_tensor

    # Every process has the whole tensor: nothing is sent.
    return local(distribute_tensor(value, weight.device_mesh, weight.placements, src_data_rank=None)).clone()


def whole_of(weight: Any, value: Tensor) -> Tensor:
    """Undo `share_of`: gather a tensor from all processes; every process calls it."""
    if not hasattr(weight, "to_local"):
        return value
    from torch.distributed.tensor import DTensor

    share = DTensor.from_local(
        value.to(weight.device), weight.device_mesh, weight.placements,
        shape=weight.shape, stride=weight.stride(),
    )  # fmt: skip
    return share.full_tensor()


def whole_network(network: nn.Module, kind: Any, ranks: Ranks) -> Any:
    """Return a whole copy, on the host, of a sharded diffusers network; every process calls it.

    Args:
        kind: its class before it was sharded.

    Returns:
        The copy in the main process, None in the others.
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


def clip_gradients(
    weights: Mapping[str, Tensor], sharded: Collection[str], limit: float, ranks: Ranks
) -> float:
    """Scale gradients so that their norm over all weights is at most `limit`; return the norm before.

    Args:
        weights: by name, each with a gradient.
        sharded: names of the weights of which this process has a share; it has the others whole.
    """
    gradients = {name: weight.grad for name, weight in weights.items() if weight.grad is not None}
    norm = nn.utils.get_total_norm([g for name, g in gradients.items() if name not in sharded])
    if sharded:
        mine = nn.utils.get_total_norm([gradients[name] for name in sharded])
        shares = ranks.all_gather_object(float(mine.double().square()))
        norm = (norm.double().square() + sum(shares)).sqrt().float().to(mine.device)
    nn.utils.clip_grads_with_norm_(weights.values(), limit, norm)
    return float(norm)


@dataclass(frozen=True)
class _TensorSpec:
    """The shape and dtype of a tensor argument; its values stay in the calling process."""

    shape: torch.Size
    dtype: torch.dtype


@dataclass(frozen=True)
class _Call:
    """A call of the network as other processes join it.

    Attributes:
        trains: whether a backward pass follows.
        weights: the set of weights that the network computes with.
        experts: the experts that it calls; empty for a network without experts.
    """

    trains: bool
    weights: str
    args: Any
    kwargs: Any
    experts: frozenset[str]


class WeightSets(Protocol):
    """Several sets of weights for one network, which computes with one of them."""

    used: str

    def use(self, which: str) -> None:
        """Make the network compute with a set; every process has its share of it."""


class UnevenInputJoin:
    """Makes processes that share one network call it equally often, however many inputs each has.

    Within `phase` every call is announced to all processes. A process that has made its own calls joins the
    others' calls with dummy forwards until all are done. A backward pass must follow its forward at once.
    """

    def __init__(self, network: Any, ranks: Ranks, sets: WeightSets) -> None:
        """Watch a sharded network.

        Args:
            sets: the sets of weights that it may compute with; a dummy forward uses the caller's set.
        """
        self.network, self.ranks, self.sets = network, ranks, sets
        self._inside = self._joining = False
        network.register_forward_pre_hook(self._announce, prepend=True, with_kwargs=True)

    @contextmanager
    def phase(self) -> Iterator[None]:
        """Allow a different number of calls in each process; every process enters."""
        self._inside = True
        try:
            with warnings.catch_warnings():
                # It warns of changing the output in place, which no family does.
                warnings.filterwarnings("ignore", message="FSDP2-wrapped module")
                yield
                before = self.sets.used
                while (call := self._agree(None)) is not None:
                    self._use(call.weights)
                    self._dummy_forward(call)
                self._use(before)
        finally:
            self._inside = False

    def _use(self, which: str) -> None:
        if which != self.sets.used:
            self.sets.use(which)

    def _announce(self, network: Any, args: Any, kwargs: dict[str, Any]) -> None:
        if self._joining:
            return
        if not self._inside:
            raise RuntimeError("a sharded network is called outside a phase")
        arg_specs, kwarg_specs = tree_map(
            lambda v: _TensorSpec(v.shape, v.dtype) if isinstance(v, Tensor) else v, (args, kwargs)
        )
        experts = network.parts_for(kwargs["timestep"]) if hasattr(network, "parts_for") else frozenset()
        self._agree(_Call(torch.is_grad_enabled(), self.sets.used, arg_specs, kwarg_specs, experts))

    def _agree(self, mine: _Call | None) -> _Call | None:
        """Announce a call to all processes; return the first process's call, None where nobody calls."""
        calls = [call for call in self.ranks.all_gather_object(mine) if call is not None]
        if len({(call.trains, call.weights) for call in calls}) > 1:
            raise RuntimeError("processes that share one network are at different places")
        if calls and hasattr(self.network, "asked"):
            self.network.asked = frozenset().union(*(call.experts for call in calls))
        return calls[0] if calls else None

    def _dummy_forward(self, call: _Call) -> None:
        device = next(self.network.parameters()).device

        def ones(value: Any) -> Any:
            is_spec = isinstance(value, _TensorSpec)
            return torch.ones(value.shape, dtype=value.dtype, device=device) if is_spec else value

        args, kwargs = tree_map(ones, (call.args, call.kwargs))
        self._joining = True
        try:
            with torch.set_grad_enabled(call.trains):
                output = self.network(*args, **kwargs)[0]
            if call.trains:
                output.backward(torch.zeros_like(output))
        finally:
            self._joining = False
