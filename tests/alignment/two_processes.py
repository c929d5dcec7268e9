"""What torchrun starts in ``test_online``: the tiny alignment on all processes.

The main one writes the weights.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from components.runtime.distributed import process_group
from tests.alignment.tiny import make_generator, make_trainer

if __name__ == "__main__":
    torch.set_num_threads(1)
    folder, out = Path(sys.argv[1]), Path(sys.argv[2])
    with process_group() as ranks:
        trainer = make_trainer(make_generator(folder), out, ranks=ranks)
        trainer.run()
        if ranks.is_main:
            save_file(
                {k: v.contiguous() for k, v in trainer.policy.tensors().items()}, out / "weights.safetensors"
            )
