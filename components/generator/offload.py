"""Offloading: parts of a pipeline stay in host memory and are on the GPU only while they run.

A text encoder of billions of weights runs for a second per prompt, a VAE while clips are decoded. For the
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
    """Copy frozen parts to a device while the context is open; those on it already stay as they are.

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
    """Put a pipeline's parts on a device; where it is a GPU, `resting` parts stay on the host."""
    for name, part in pipeline.components.items():
        if isinstance(part, nn.Module) and not (device.type == "cuda" and name in resting):
            part.to(device)


def _copied(tensor: Tensor, device: torch.device) -> Tensor:
    return tensor.to(device, non_blocking=True)
