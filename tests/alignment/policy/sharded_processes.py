"""What torchrun starts for `test_sharding`: two processes that hold each base together.

First the whole tiny alignment, its activations checkpointed, into `loop`; then an optimizer step and a
drift of each network, where one process has both pairs and the other none. The main process writes weights
and figures, every process how much of each base it holds.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from components.alignment.policy import LoraPolicy, Policy
from components.alignment.policy.sharding import ShardingContext
from components.alignment.policy.updater import Updater
from components.generator.families import ModelFamily
from components.runtime.compute.distributed import Ranks, process_group
from tests.alignment.closeness import by_gradient, steady
from tests.alignment.policy.test_families import PARAMS as FAMILY_PARAMS
from tests.alignment.policy.test_families import make, make_pairs
from tests.alignment.tiny import PARAMS, make_generator, make_trainer

SHARDED = PARAMS.model_copy(update={"fsdp": True, "gradient_checkpointing": True, "pairs_per_forward": 1})
#: Networks that repeat their layers in different ways; the second has two experts, called as times fall.
FAMILIES = ("wan-2.1", "wan-2.2-a14b", "cogvideox-5b", "ltx", "hunyuan-video", "modelscope")
#: 16 bits, with parts that stay in 32: a base as it is released.
HALF = "wan-2.1 in 16 bits"


def updated(name: str, ranks: Ranks) -> tuple[Policy, dict[str, float], float | None, dict[str, Tensor]]:
    """One update of a tiny model, sharded where there are several processes, all pairs in the first.

    Returns the policy, the update's figures, its drift, and the weights before.
    """
    model = "wan-2.1" if name == HALF else name
    family = make(model)
    if name == HALF:
        halve(family)
    pairs = make_pairs(family, model)
    sharding = ShardingContext(ranks, torch.device("cpu")) if ranks.size > 1 else None
    policy = LoraPolicy(family, rank=2, seed=0, sharding=sharding)
    start = {name: value.clone() for name, value in policy.tensors().items()}
    updater = by_gradient(Updater(policy, FAMILY_PARAMS, ranks))
    mine = pairs if ranks.is_main else []
    figures = updater.step(mine, 0, 0)
    return policy, figures, updater.drift(mine, 0), start


def halve(family: ModelFamily) -> None:
    """Leave a Wan in 16 bits, as it is released: but for the parts that stay in 32."""
    keep = set(family.denoiser._keep_in_fp32_modules)
    for path, parameter in family.denoiser.named_parameters():
        if not keep & set(path.split(".")):
            parameter.data = parameter.data.bfloat16()


def held(policy: Policy) -> tuple[int, int]:
    """Numbers of the base in this process and in all, between calls of the network."""
    for module in policy.network.modules():
        if isinstance(module, FSDPModule):
            module.reshard()  # the outermost keeps its own weights whole after a call, for the next one
    base = [value for name, value in policy.network.named_parameters() if ".lora_" not in name]
    local = sum((v.to_local() if isinstance(v, DTensor) else v).numel() for v in base)
    return local, sum(value.numel() for value in base)


def main(folder: Path, out: Path) -> None:
    with process_group() as ranks:
        trainer = steady(make_trainer(make_generator(folder), out / "loop", SHARDED, ranks=ranks))
        trainer.run()
        told = {"loop": held(trainer.policy)}
        weights = {f"loop/{k}": v for k, v in trainer.policy.tensors().items()}
        figures: dict[str, dict[str, float]] = {}
        for name in (*FAMILIES, HALF):
            policy, figures[name], drift, _ = updated(name, ranks)
            assert drift is not None
            figures[name]["drift"] = drift
            told[name] = held(policy)
            weights |= {f"{name}/{k}": v for k, v in policy.tensors().items()}
        (out / f"held{ranks.rank}.json").write_text(json.dumps(told))
        if ranks.is_main:
            save_file({k: v.contiguous().clone() for k, v in weights.items()}, out / "weights.safetensors")
            (out / "figures.json").write_text(json.dumps(figures))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
