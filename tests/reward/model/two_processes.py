"""What torchrun starts in ``test_backbone_training``: a tiny training on all processes, each of which writes
its network."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from components.reward.ladders.ladder import NAMES, Ladders
from components.reward.model.training import train
from components.reward.params import RewardParams
from components.runtime.compute.distributed import process_group
from components.runtime.compute.signals import StopSignal

if __name__ == "__main__":
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    about = json.loads((folder / "about.json").read_text())
    names = {name: about[name] for name in NAMES}
    names["recipes"] = [tuple(recipe) for recipe in names["recipes"]]
    ladders = Ladders(**load_file(folder / "ladders"), **names)
    with process_group() as ranks:
        network, _ = train(
            [ladders],
            RewardParams.model_validate(about["params"]),
            checkpoints=folder / "together",
            stop=StopSignal(),
            device=torch.device("cpu"),
            ranks=ranks,
        )
        save_file(
            {name: value.contiguous() for name, value in network.state_dict().items()},
            folder / f"rank{ranks.rank}.safetensors",
        )
