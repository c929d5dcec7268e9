"""What torchrun starts for `test_loop` and `test_current_reward`: the tiny alignment on all processes.

Twice in one go, as starting costs more than either: in `plain` to brightness, in `refreshed` to a reward
that is refreshed on the way. The main process writes the weights of the first; of the second every process
writes down which versions it knows and what the last one says of a given clip.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from components.runtime.compute.distributed import process_group
from tests.alignment.closeness import steady
from tests.alignment.tiny import REFRESHING, make_generator, make_trainer, probe
from tests.reward.refresh.refreshing import make_refresher

if __name__ == "__main__":
    torch.set_num_threads(1)
    folder, out = Path(sys.argv[1]), Path(sys.argv[2])
    with process_group() as ranks:
        plain = steady(make_trainer(make_generator(folder), out / "plain", ranks=ranks))
        plain.run()
        if ranks.is_main:
            weights = {k: v.contiguous() for k, v in plain.policy.tensors().items()}
            save_file(weights, out / "plain" / "weights.safetensors")
        refresher = make_refresher()
        refreshed = make_trainer(
            make_generator(folder), out / "refreshed", REFRESHING, ranks=ranks, reward=refresher.first,
            refresher=refresher,
        )  # fmt: skip
        refreshed.run()
        told = {"versions": refreshed.reward.state(), "scores": probe(refreshed.reward.reward).tolist()}
        (out / f"rank{ranks.rank}.json").write_text(json.dumps(told))
