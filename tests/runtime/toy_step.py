"""A whole step in miniature, run as a command by tests: trains one small layer, checkpoints, resumes.

Usage: python toy_step.py run --set toy.steps=40 --corpus DIR --out DIR
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import Field
from safetensors.torch import save_file

from components.runtime.artifacts.artifact import open_artifact
from components.runtime.artifacts.checkpoints import Checkpointer, pack_optimizer, unpack_optimizer
from components.runtime.artifacts.publish import publish
from components.runtime.compute.seeds import derive, torch_generator
from components.runtime.compute.signals import StopSignal
from components.runtime.errors import GateRefused
from components.runtime.params import StepParams
from components.runtime.progress import Progress
from components.runtime.step import main, step_app
from components.runtime.tracking.step_run import track


class ToyParams(StepParams):
    steps: int = Field(20, ge=1, description="training steps")
    pause: float = Field(0.0, ge=0, description="seconds slept per step")
    threshold: float = Field(0.0, description="loss below which the gate refuses")
    write_bytes: int = Field(0, ge=0, description="size of a file written at the end, bytes")


@dataclass
class ToyResult:
    out: Path
    metrics: dict[str, float]


def run(params: ToyParams, *, corpus: str | Path, out: str | Path) -> ToyResult:
    open_artifact(corpus, step="corpus")
    with (
        track("toy", params) as tracked,
        publish(out, step="toy", params=params, inputs={"corpus": corpus}) as workspace,
        StopSignal() as stop,
    ):
        print(f"resumed={workspace.resumed}", flush=True)
        torch.manual_seed(derive(params.run.seed, "toy", "init"))
        layer = torch.nn.Linear(4, 4)
        optimizer = torch.optim.AdamW(layer.parameters(), lr=1e-2)
        keeper = Checkpointer(workspace.checkpoints)
        start = 0
        saved = keeper.latest()
        if saved:
            start = saved.step
            layer.load_state_dict({k: saved.tensors[k] for k in layer.state_dict()})
            unpack_optimizer(optimizer, saved.tensors, saved.state["optimizer"])
            print(f"from={start}", flush=True)
        loss = torch.zeros(())
        with Progress(params.steps, "toy: training", start=start) as progress:
            for step in range(start, params.steps):
                noise = torch.randn(8, 4, generator=torch_generator(params.run.seed, "toy", step))
                loss = ((layer(noise) - noise.flip(1)) ** 2).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                tracked.metrics({"loss": loss.item()}, at=step)
                progress.update(loss=loss.item())
                time.sleep(params.pause)
                if step % 5 == 4 or stop.should_stop():
                    tensors, state = pack_optimizer(optimizer)
                    keeper.save(step + 1, {**layer.state_dict(), **tensors}, {"optimizer": state})
                    print(f"saved={step + 1}", flush=True)
                stop.raise_if_requested()
        save_file(layer.state_dict(), workspace.dir / "model.safetensors")
        (workspace.dir / "padding.bin").write_bytes(b"\0" * params.write_bytes)
        metrics = {"loss": loss.item()}
        workspace.write_metrics(metrics)
        if metrics["loss"] < params.threshold:
            workspace.publish_on_refusal = True
            raise GateRefused(f"loss {metrics['loss']:.3f} is below {params.threshold}")
    assert workspace.published is not None
    return ToyResult(workspace.published, metrics)


if __name__ == "__main__":
    main(step_app("toy", ToyParams, run, inputs=("corpus",)))
