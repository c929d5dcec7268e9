"""What ``test_ten_kills`` kills: the tiny alignment with all that goes from one iteration to the next, the
reference moving along and the reward refreshed now and then."""

from __future__ import annotations

import json
from multiprocessing.synchronize import Event
from pathlib import Path

import torch
from safetensors.torch import save_file

from tests.alignment.tiny import REFRESHING, ledger_rows, make_generator, make_trainer
from tests.reward.refresh.refreshing import make_refresher

PARAMS = REFRESHING.model_copy(update={"iterations": 12, "reference": "ema", "checkpoint_every": 2})
RESULTS = ("weights.safetensors", "curve.json", "ledger.json")


def align(model: Path, out: Path, begun: Event) -> None:
    """Begin, or go on where a killed process left off, and write what came of it into ``out``."""
    torch.set_num_threads(1)
    refresher = make_refresher()
    trainer = make_trainer(make_generator(model), out, PARAMS, reward=refresher.first, refresher=refresher)
    begun.set()
    trainer.run()
    weights = {name: value.contiguous().clone() for name, value in trainer.policy.tensors().items()}
    save_file(weights, out / RESULTS[0])
    (out / RESULTS[1]).write_text(json.dumps(trainer.curve))
    (out / RESULTS[2]).write_text(json.dumps(ledger_rows(out, trainer.done)))
