"""What torchrun starts in ``test_backbone_training``: a tiny training on all processes, each of which writes
its network."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from components.reward.ladders.ladder_file import read_ladders
from components.reward.params import RewardParams
from components.runtime.compute.distributed import process_group
from tests.reward.model.trainings import trained

if __name__ == "__main__":
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    ladders, _ = read_ladders(folder / "ladders", "not ladders")
    params = RewardParams.model_validate_json((folder / "params.json").read_text())
    with process_group() as ranks:
        network, _ = trained(ladders, params, folder / "together", ranks=ranks)
        save_file(
            {name: value.contiguous() for name, value in network.state_dict().items()},
            folder / f"rank{ranks.rank}.safetensors",
        )
