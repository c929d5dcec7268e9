"""Seeds derived by name, never by order of use.

A result then does not depend on batch size, number of workers or number of processes: candidate 3 of prompt
"p17" in iteration 5 has the same noise wherever and whenever it is drawn.
"""

from __future__ import annotations

import hashlib
import json
import operator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch


def derive(seed: int, *names: str | int) -> int:
    """A seed in [0, 2**63) for the named purpose under the run's `seed`.

    The first 63 bits of SHA-256 over the JSON array [seed, *names]; "1" and 1 are different names.

    Raises:
        TypeError: if a name is neither text nor a whole number.
    """
    parts = [operator.index(seed), *(n if isinstance(n, str) else operator.index(n) for n in names)]
    encoded = json.dumps(parts, ensure_ascii=True, separators=(",", ":")).encode()
    return int.from_bytes(hashlib.sha256(encoded).digest()[:8], "big") >> 1


def torch_generator(seed: int, *names: str | int, device: str | torch.device = "cpu") -> torch.Generator:
    """A fresh torch generator seeded with `derive(seed, *names)`.

    Draw on the CPU and move the result when it must be the same on every device: CUDA has its own stream of
    numbers.
    """
    import torch

    return torch.Generator(device=device).manual_seed(derive(seed, *names))


def numpy_rng(seed: int, *names: str | int) -> np.random.Generator:
    """A fresh NumPy generator (PCG64, named so that a new NumPy default changes nothing)."""
    import numpy as np

    return np.random.Generator(np.random.PCG64(derive(seed, *names)))
