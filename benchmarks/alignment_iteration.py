"""One iteration of the alignment beside the same one as a plain loop, and beside its bare network calls.

    python benchmarks/alignment_iteration.py [--sizes miniature wan-100m] [--iterations 3]

The plain loop (plain_loop.py) is written the way such loops are commonly found: one prompt at a time, its
text encoded each time it is needed, the decoded clips encoded again by the VAE for the update, a second full
model as the reference, winner and loser in forward passes of their own. Both draw the same clips, in the same
steps, from the same seeds, and make as many pairs and updates of them; both train a LoRA. The bare calls are
those that no way of writing it avoids: sampling, decoding, and the update's forward and backward passes, in
our batches.

Each side runs in a process of its own, one after the other, on one thread. Time is that process's CPU time,
which other work on the machine does not lengthen, of its fastest iteration after the first; memory is the
peak of its resident memory from when the weights are loaded, above what it held once everything was imported
(Linux tells both). Rewards are the clips' mean
brightness, so that scoring costs nothing on any side.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from components.alignment.params import AlignmentParams
    from components.corpus.prompts import Prompt
    from components.generator.generator import Generator

ROOT = Path(__file__).resolve().parents[1]
COLOURS = ("red", "green", "blue", "yellow", "cyan", "magenta", "white", "orange")


@dataclass(frozen=True)
class Size:
    """What is aligned: an iteration's prompts, candidates, updates, the clip, and our settings for memory."""

    prompts: int
    candidates: int
    updates: int
    frames: int
    side: int
    steps: int
    settings: dict[str, Any] = field(default_factory=dict)
    batch: int = 48


SIZES = {
    # The default run's iteration.
    "miniature": Size(prompts=8, candidates=6, updates=4, frames=9, side=48, steps=8),
    # With what the profile of Wan 2.1 sets.
    "wan-100m": Size(
        prompts=4,
        candidates=4,
        updates=2,
        frames=5,
        side=64,
        steps=4,
        batch=4,
        settings={"pairs_per_forward": 2, "gradient_checkpointing": True},
    ),
}


def main() -> None:
    """Runs both sides at each size and prints a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--iterations", type=int, default=3, help="of each side; the first does not count")
    parser.add_argument("--side", choices=("ours", "plain"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side is not None:
        print(json.dumps(measure(given.side, given.sizes[0], Path(given.folder), given.iterations)))
        return
    if given.iterations < 2:
        parser.error("--iterations: at least 2, as the first does not count")
    print("| model | side | CPU s an iteration | memory MiB | pairs | time / ours | memory, ours / it |")
    print("|---|---|---|---|---|---|---|")
    for name in given.sizes:
        with tempfile.TemporaryDirectory() as temporary:
            found = {side: _run(side, name, temporary, given.iterations) for side in ("ours", "plain")}
        ours, plain = found["ours"], found["plain"]
        label = f"{name}, {ours['parameters'] / 1e6:.0f} M in all"
        print(f"| {label} | ours | {ours['seconds']:.2f} | {ours['mib']:.0f} | {ours['pairs']:.0f} | 1 | 1 |")
        print(
            f"| | plain loop | {plain['seconds']:.2f} | {plain['mib']:.0f} | {plain['pairs']:.0f} | "
            f"{plain['seconds'] / ours['seconds']:.2f} | {ours['mib'] / plain['mib']:.2f} |"
        )
        print(
            f"| | bare calls | {ours['bare']:.2f} | | | {ours['bare'] / ours['seconds']:.2f} | |", flush=True
        )


def _run(side: str, size: str, folder: str, iterations: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--side", side, "--sizes", size, "--folder", folder]
    done = subprocess.run(
        [*command, "--iterations", str(iterations)],
        stdout=subprocess.PIPE, text=True, check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"{size}, {side}: {found}", file=sys.stderr, flush=True)
    return found


def measure(side: str, name: str, folder: Path, iterations: int) -> dict[str, Any]:
    """One side at one size, in this process."""
    # Imported, so that they are not counted as memory: tables load pandas only when first written.
    import pandas  # noqa: F401
    import torch

    import components.alignment.loop  # noqa: F401
    from components.corpus.prompts import Prompt

    torch.set_num_threads(1)
    size = SIZES[name]
    before = _status_mib("VmRSS")
    generator = make_generator(name, size, folder)
    # The peak counts anew: reading files is not the iteration's.
    Path("/proc/self/clear_refs").write_text("5")
    params = make_params(size, iterations)
    prompts = [
        Prompt(
            id=f"{place}", text=f"a {colour} circle moving {way} slowly on a grey background", split="train"
        )
        for place, (colour, way) in enumerate(
            (colour, way) for way in ("left", "right", "up", "down") for colour in COLOURS
        )
    ]
    run = measure_ours if side == "ours" else measure_plain
    found = run(generator, params, prompts, folder)
    modules = (m for m in generator.family.pipeline.components.values() if isinstance(m, torch.nn.Module))
    return {
        **found,
        "mib": found["peak"] - before,
        "parameters": sum(p.numel() for m in modules for p in m.parameters()),
    }


def measure_ours(generator: Generator, params: AlignmentParams, prompts: list[Prompt], folder: Path) -> Any:
    """The loop itself; then, once its time and memory are taken, the bare calls of as many iterations."""
    from components.alignment.loop import AlignmentLoop
    from components.runtime.compute.distributed import Ranks

    seconds: list[float] = []
    bare: list[float] = []
    pairs: list[float] = []
    began = 0.0

    def after(row: dict[str, float]) -> None:
        nonlocal began
        seconds.append(time.process_time() - began)
        pairs.append(row["pairs"])
        began = time.process_time()

    trainer = AlignmentLoop(
        generator, make_reward(), prompts, params, reward_digest="", checkpoints=folder / "checkpoints",
        ranks=Ranks(), on_iteration=after,
    )  # fmt: skip
    began = time.process_time()
    trainer.run()
    peak = _status_mib("VmHWM")
    for made in pairs:
        started = time.process_time()
        bare_calls(generator, trainer, int(made))
        bare.append(time.process_time() - started)
    phases = {name: round(value / len(seconds), 2) for name, value in trainer.seconds.items()}
    return {
        "seconds": min(seconds[1:]), "bare": min(bare[1:]), "pairs": pairs[-1],
        "phases": phases, "peak": peak,
    }  # fmt: skip


def bare_calls(generator: Generator, trainer: Any, pairs: int) -> None:
    """The network calls of one iteration on noise: sampling, decoding, and the update's passes."""
    import torch

    family, params, settings = generator.family, trainer.params, generator.settings
    shape = family.latent_shape(generator.geometry)
    clips, rows = params.prompts_per_iteration * params.num_generations, 2 * pairs * params.timesteps_per_pair
    text = generator.embeddings([""])
    latents = torch.randn(max(clips, rows), *shape)
    time_of = family.noise_process.sample_times(max(clips, rows), torch.Generator().manual_seed(0))

    def call(count: int) -> Tensor:
        embeddings = text.expand(count, *text.shape[1:])
        return family.predict(latents[:count], time_of[:count], embeddings)

    with torch.no_grad():
        for start in range(0, clips, settings.batch):
            for _ in range(settings.steps):
                call(min(settings.batch, clips - start))
        family.decode(latents[:clips])
    most = 2 * params.pairs_per_forward
    for _ in range(params.inner_updates):
        for start in range(0, rows, most):
            count = min(most, rows - start)
            with trainer.policy.reference():
                call(count)
            call(count).square().mean().backward()
        for weight in trainer.updater.weights:
            weight.grad = None


def measure_plain(generator: Generator, params: AlignmentParams, prompts: list[Prompt], folder: Path) -> Any:
    """The same iterations as a plain loop."""
    from plain_loop import PlainLoop

    seconds, pairs, phases = [], 0.0, {}
    loop = PlainLoop(generator, params, make_reward())
    for iteration in range(params.iterations):
        started = time.process_time()
        pairs = loop.iterate(prompts, iteration)
        seconds.append(time.process_time() - started)
        phases = {name: round(value / (iteration + 1), 2) for name, value in loop.seconds.items()}
    return {"seconds": min(seconds[1:]), "pairs": pairs, "phases": phases, "peak": _status_mib("VmHWM")}


def make_reward() -> Any:
    """Mean brightness, 0 to 1."""
    import torch

    from components.reward.base import Rating

    class Brightness:
        def rate(self, frames: Tensor, fps: float, prompts: Any = None) -> Rating:
            bright = frames.double().mean(dim=(1, 2, 3, 4)).div(255).float()
            return Rating(bright, torch.zeros(len(frames)), {})

        def score(self, frames: Tensor, fps: float, prompts: Any = None) -> Tensor:
            return self.rate(frames, fps, prompts).score

    return Brightness()


def make_params(size: Size, iterations: int) -> AlignmentParams:
    """The default params but for the sizes; every prompt gives a pair."""
    from components.alignment.params import AlignmentParams

    return AlignmentParams.model_validate(
        {
            "iterations": iterations, "prompts_per_iteration": size.prompts,
            "num_generations": size.candidates,
            "inner_updates": size.updates, "loss": "dpo",
            "min_gap": 0.0, "noise_gap": 0.0, "motion_floor": 0.0,
            "guards": {"every": 0}, **size.settings,
        }
    )  # fmt: skip


def make_generator(name: str, size: Size, folder: Path) -> Generator:
    """The committed miniature, or a Wan with random weights, drawn once for both sides."""
    import torch

    from components.generator.generator import Generator, load_family
    from components.generator.params import SamplingParams

    settings = SamplingParams(
        num_frames=size.frames,
        height=size.side,
        width=size.side,
        steps=size.steps,
        guidance=1.0,
        batch=size.batch,
    )
    model = ROOT / "models" / "miniature" if name == "miniature" else folder / "model"
    if not model.exists():
        subprocess.run(
            [sys.executable, "-c", f"from alignment_iteration import save_wan; save_wan({str(model)!r})"],
            check=True, env={**os.environ, "PYTHONPATH": f"{ROOT}:{Path(__file__).parent}"},
        )  # fmt: skip
    return Generator(load_family(model, torch.device("cpu")), settings)


def save_wan(folder: str) -> None:
    """Write a Wan 2.1 in small: its layout, over 100 M weights in the transformer, its VAE's strides."""
    import torch
    from diffusers import (
        AutoencoderKLWan,
        FlowMatchEulerDiscreteScheduler,
        WanPipeline,
        WanTransformer3DModel,
    )
    from transformers import UMT5Config, UMT5EncoderModel

    from components.generator.miniature.architecture import build_tokenizer

    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    text = UMT5Config(
        vocab_size=len(tokenizer), d_model=256, d_kv=64, d_ff=640, num_layers=4, num_heads=4,
        dropout_rate=0.0, feed_forward_proj="gated-gelu", pad_token_id=0, eos_token_id=1,
    )  # fmt: skip
    pipeline = WanPipeline(
        tokenizer=tokenizer,
        text_encoder=UMT5EncoderModel(text),
        vae=AutoencoderKLWan(base_dim=16, z_dim=16),
        transformer=WanTransformer3DModel(
            num_attention_heads=6, attention_head_dim=128, text_dim=256, ffn_dim=3072, num_layers=12
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )
    pipeline.save_pretrained(folder, safe_serialization=True)


def _status_mib(field: str) -> float:
    """A figure of this process's memory as Linux tells it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))


if __name__ == "__main__":
    main()
