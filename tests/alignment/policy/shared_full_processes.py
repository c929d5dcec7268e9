"""What torchrun starts for `test_sharding_full`: two processes train all weights of a network together.

The tiny alignment twice: as a whole, and killed and gone on with; then one that follows by a moving average.
After that an optimizer step and a drift of each network, where one process has both pairs and the other none.
The main process writes weights and figures, every process how much it holds.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from components.alignment.loop import AlignmentLoop
from components.alignment.params import AlignmentParams
from components.alignment.policy import FullPolicy, Policy
from components.alignment.policy.sharding import ShardingContext
from components.alignment.policy.updater import Updater
from components.runtime.compute.distributed import Ranks, process_group
from tests.alignment.closeness import by_gradient, steady
from tests.alignment.policy.sharded_processes import HALF, halve
from tests.alignment.policy.test_families import PARAMS as FAMILY_PARAMS
from tests.alignment.policy.test_families import make, make_pairs
from tests.alignment.tiny import PARAMS, Killed, kill_after, make_generator, make_trainer

FULL = PARAMS.model_copy(update={"lora_rank": 0, "learning_rate": 1e-3})
EMA = FULL.model_copy(update={"reference": "ema", "iterations": 2})
#: Layers repeated in different ways; the second has two experts, called as times fall.
NETWORKS = ("wan-2.1", "wan-2.2-a14b", "modelscope", HALF)


def shared(params: AlignmentParams) -> AlignmentParams:
    """The same run, its weights shared out."""
    return params.model_copy(update={"fsdp": True, "gradient_checkpointing": True, "pairs_per_forward": 1})


def updated(name: str, ranks: Ranks) -> tuple[Policy, dict[str, float], float | None, dict[str, Tensor]]:
    """One update of a tiny model, shared out where there are several processes, all pairs in the first.

    Returns the policy, the update's figures, its drift, and this process's weights before.
    """
    model = "wan-2.1" if name == HALF else name
    family = make(model)
    if name == HALF:
        halve(family)
    pairs = make_pairs(family, model)
    policy = FullPolicy(family, ShardingContext(ranks, torch.device("cpu")) if ranks.size > 1 else None)
    start = {name: value.clone() for name, value in policy.tensors().items()}
    updater = by_gradient(Updater(policy, FAMILY_PARAMS.model_copy(update={"lora_rank": 0}), ranks))
    mine = pairs if ranks.is_main else []
    figures = updater.step(mine, 0, 0)
    return policy, figures, updater.drift(mine, 0), start


def together(policy: Policy) -> dict[str, Tensor]:
    """Policy and reference, whole."""
    tensors = policy.tensors().items()
    return {name: policy.whole_of(name.partition("/")[2], value).clone() for name, value in tensors}


def held(trainer: AlignmentLoop) -> dict[str, tuple[int, int]]:
    """Numbers in this process, and in all: of all sets of weights, and of the optimizer's moments."""
    policy = trainer.policy
    sizes = {name: value.numel() for name, value in together(policy).items()}
    moments = [v for state in trainer.updater.optimizer.state.values() for v in state.values() if v.dim()]
    trained = sum(value for name, value in sizes.items() if name.startswith("policy/"))
    return {
        "sets": (sum(value.numel() for value in policy.tensors().values()), sum(sizes.values())),
        "moments": (sum(value.numel() for value in moments), 2 * trained),
    }


def main(folder: Path, out: Path) -> None:
    with process_group() as ranks:

        def trainer(
            name: str, params: AlignmentParams, after: Callable[[dict[str, float]], None] = lambda row: None
        ) -> AlignmentLoop:
            return steady(
                make_trainer(
                    make_generator(folder), out / name, shared(params), ranks=ranks, on_iteration=after
                )
            )

        whole = trainer("loop", FULL)
        whole.run()
        whole.policy.save(out / "loop", ranks)
        weights = {f"loop/{name}": value for name, value in together(whole.policy).items()}
        try:
            trainer("cut", FULL, kill_after(2)).run()
        except Killed:
            ranks.barrier()
        if ranks.is_main:
            shutil.copytree(out / "cut", out / "left")
        ranks.barrier()
        resumed = trainer("cut", FULL)
        assert resumed.done == 2
        resumed.run()
        weights |= {f"cut/{name}": value for name, value in together(resumed.policy).items()}
        moving = trainer("ema", EMA)
        moving.run()
        weights |= {f"ema/{name}": value for name, value in together(moving.policy).items()}
        figures: dict[str, dict[str, float]] = {}
        for name in NETWORKS:
            policy, figures[name], drift, _ = updated(name, ranks)
            assert drift is not None
            figures[name]["drift"] = drift
            weights |= {f"{name}/{key}": value for key, value in together(policy).items()}
            policy.save(out / "saved" / name, ranks)
        (out / f"held{ranks.rank}.json").write_text(json.dumps(held(whole)))
        if ranks.is_main:
            save_file({name: value.contiguous() for name, value in weights.items()}, out / "w.safetensors")
            (out / "figures.json").write_text(json.dumps(figures))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
