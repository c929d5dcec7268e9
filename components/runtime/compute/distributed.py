"""Several processes on one job, as torchrun starts them. With one process everything here does nothing."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

# Long enough for one process to compute something alone while the others wait, e.g. an upload.
_TIMEOUT = timedelta(minutes=60)


def is_main_process() -> bool:
    """Whether this process is the one that writes (rank 0, or the only one)."""
    return int(os.environ.get("RANK", "0")) == 0


def world_size() -> int:
    """How many processes work on the job together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def wait_for_all() -> None:
    """A barrier over the open process group, nothing where none is open. Does not import torch by itself."""
    if (dist := _open_group()) is not None:
        dist.barrier()


def is_node_leader() -> bool:
    """Whether this process is the first of its machine."""
    return int(os.environ.get("LOCAL_RANK", "0")) == 0


def from_main(value: T, source: int = 0) -> T:
    """Process `source`'s `value` in every process of the open group; one's own where none is open."""
    if (dist := _open_group()) is None:
        return value
    box: list[Any] = [value]
    dist.broadcast_object_list(box, src=source)
    return box[0]


def _open_group() -> Any:
    """`torch.distributed` where it has a process group, else None."""
    dist = sys.modules.get("torch.distributed")
    return dist if dist is not None and dist.is_available() and dist.is_initialized() else None


@dataclass(frozen=True)
class Ranks:
    """This process among `size` of them."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait until every process has come here."""
        if self.size > 1:
            wait_for_all()

    def mine(self, count: int) -> range:
        """The indices of `count` items that fall to this process, dealt in turn."""
        return range(self.rank, count, self.size)

    def broadcast_object(self, value: T, source: int = 0) -> T:
        """The value that process `source` has."""
        return value if self.size == 1 else from_main(value, source)

    def all_gather_object(self, value: T) -> list[T]:
        """Everybody's value, in order of rank."""
        if self.size == 1:
            return [value]
        import torch.distributed as dist

        box: list[Any] = [None] * self.size
        dist.all_gather_object(box, value)
        return box

    def all_reduce_mean(self, tensors: Iterable[torch.Tensor]) -> None:
        """Replace each tensor in place by its mean over the processes: one exchange per dtype and device."""
        if self.size == 1:
            return
        import torch
        import torch.distributed as dist

        groups: dict[Any, list[torch.Tensor]] = {}
        for tensor in tensors:
            groups.setdefault((tensor.dtype, tensor.device), []).append(tensor)
        with torch.no_grad():
            for members in groups.values():
                flat = torch.cat([m.reshape(-1) for m in members])
                dist.all_reduce(flat)
                flat /= self.size
                for member, part in zip(members, flat.split([m.numel() for m in members]), strict=True):
                    member.copy_(part.view_as(member))


@contextmanager
def process_group(device: str = "cpu") -> Iterator[Ranks]:
    """Join the processes torchrun started (it sets RANK, WORLD_SIZE, MASTER_*), leave them at the end.

    Gloo carries CPU tensors and objects; where `device` is a CUDA device NCCL carries its tensors.
    """
    size = world_size()
    if size <= 1:
        yield Ranks()
        return
    import torch
    import torch.distributed as dist

    on_gpu = torch.device(device).type == "cuda"
    if on_gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo", timeout=_TIMEOUT)
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()
