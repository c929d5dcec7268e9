"""Memory of code that runs on the meta device: its shapes are real, its numbers are not there."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.weak import WeakIdKeyDictionary


class PeakMemory(TorchDispatchMode):
    """Counts the bytes of tensors that come and go while it is on.

    What existed before (weights, inputs) is named in `known` and not counted. An allocator's rounding, its
    fragmentation and libraries' workspaces are not seen.

    Attributes:
        live: bytes that are alive now.
        peak: most bytes that were alive at once.
    """

    def __init__(self, known: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._seen: Any = WeakIdKeyDictionary()
        for tensor in known:
            self._seen[tensor.untyped_storage()] = True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for value in tree_iter(out):
            if isinstance(value, Tensor):
                self._count(value.untyped_storage())
        return out

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage in self._seen:
            return
        self._seen[storage] = True
        size = storage.nbytes()
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._free, size)

    def _free(self, size: int) -> None:
        self.live -= size


@contextmanager
def fused_attention() -> Iterator[None]:
    """Run attention by the operators a GPU has for it, which keep no matrix of tokens by tokens.

    On the meta device torch takes the plain formula, whose memory is that of no GPU. The function itself is
    exchanged for the time being: a mode would not see what is recomputed in the middle of a backward pass.
    """
    functional: Any = F
    plain = functional.scaled_dot_product_attention
    functional.scaled_dot_product_attention = _fused
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = plain


def _fused(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    **others: Any,
) -> Tensor:
    if attn_mask is None:
        operator = torch.ops.aten._scaled_dot_product_flash_attention
        attended: Tensor = operator(query, key, value, dropout_p, is_causal)[0]
        return attended
    bias = attn_mask.to(query.dtype).expand(*query.shape[:-1], key.shape[-2])
    masked: Tensor = torch.ops.aten._scaled_dot_product_efficient_attention(
        query, key, value, bias, query.requires_grad, dropout_p, is_causal
    )[0]
    return masked


def peak_bytes(action: Callable[[], Any], known: Iterable[Tensor]) -> int:
    """Return the most bytes that `action` holds at once on meta, beside the `known` tensors."""
    with fused_attention(), PeakMemory(known) as memory:
        action()
    return memory.peak
