"""What test_distributed starts under torchrun: writes what each process saw to <folder>/<rank>.json."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import torch

from components.runtime.artifacts.publish import publish
from components.runtime.compute.distributed import process_group
from components.runtime.compute.signals import StopSignal
from components.runtime.errors import GateRefused
from components.runtime.params import StepParams

folder = Path(sys.argv[1])
with process_group() as ranks:
    tensors = [
        torch.full((2, 3), float(ranks.rank)),
        torch.tensor(10.0 * ranks.rank),
        torch.arange(4).view(2, 2).T * 1.0,
    ]
    ranks.all_reduce_mean(tensors)
    with StopSignal() as stop:
        calm = stop.should_stop(ranks)
        stop.requested = ranks.rank == 1
        agreed = stop.should_stop(ranks)
    with publish(folder / "artifact", step="example", params=StepParams()) as workspace:
        if ranks.is_main:
            workspace.write_metrics({"x": 1})
        ranks.barrier()
        seen = (workspace.dir / "metrics.json").is_file()
    assert workspace.published is not None
    try:
        with publish(folder / "refused", step="example", params=StepParams()) as other:
            if ranks.is_main:
                other.write_metrics({"x": 1})
                time.sleep(1)  # the main process is the last to learn of it
            other.publish_on_refusal = True
            raise GateRefused("no")
    except GateRefused:
        refused = (folder / "refused" / "manifest.json").is_file()
    result = {
        "size": ranks.size,
        "means": [t.flatten().tolist() for t in tensors],
        "gathered": ranks.all_gather_object({"rank": ranks.rank}),
        "broadcast": ranks.broadcast_object(f"from {ranks.rank}"),
        "mine": list(ranks.mine(5)),
        "stop": [calm, agreed],
        "seen": seen,
        "refused": refused,
        "published": (workspace.published / "manifest.json").is_file(),
    }
    (folder / f"{ranks.rank}.json").write_text(json.dumps(result))
