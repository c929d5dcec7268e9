"""Parts of a pipeline that rest in the host's memory and come to the GPU only for their work.

A text encoder of billions of weights serves for a second per prompt, a VAE while clips are decoded; for the
rest of the time the GPU's memory is the denoiser's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def at_work(parts: Sequence[nn.Module | None], device: torch.device) -> Iterator[None]:
    """Bring frozen parts to a device for the time being; those that lie there already stay as they are.

    The host keeps its copy, so that nothing is copied back: the copies at work are dropped.
    """
    rested: list[tuple[Tensor, Tensor]] = []
    for part in parts:
        for tensor in () if part is None else (*part.parameters(), *part.buffers()):
            if tensor.device != device:
                rested.append((tensor, tensor.data))
                tensor.data = _copied(tensor.data, device)
    try:
        yield
    finally:
        for tensor, data in rested:
            tensor.data = data


def place(pipeline: Any, resting: Sequence[str], device: torch.device) -> None:
    """Put a pipeline's parts on a device, but for those that rest on the host where the device is a GPU."""
    for name, part in pipeline.components.items():
        if isinstance(part, nn.Module) and not (device.type == "cuda" and name in resting):
            part.to(device)


def _copied(tensor: Tensor, device: torch.device) -> Tensor:
    return tensor.to(device, non_blocking=True)
