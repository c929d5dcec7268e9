"""Peak memory of the reward's data path and training for one corpus and one eight times as large; who waits
for whom.

    python benchmarks/reward_memory.py [--clips 240] [--ladders 256] [--steps 200] [--workers N]

Each size runs in a process of its own. Clips are noise in files, so that nothing but reading, damaging,
labelling and training is measured.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FACTORS = (1, 8)
WINDOW = 4


def main() -> None:
    """Runs both sizes and prints a line for each, then the ratio."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clips", type=int, default=240, help="clips of the smaller corpus")
    parser.add_argument("--ladders", type=int, default=256, help="ladders on the smaller corpus")
    parser.add_argument("--steps", type=int, default=200, help="training steps for the smaller corpus")
    parser.add_argument(
        "--workers", type=int, help="processes that build ladders; by default one a spare core"
    )
    parser.add_argument("--factor", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.factor is not None:
        print(json.dumps(measure(given.clips, given.ladders, given.steps, given.workers, given.factor)))
        return
    found = []
    for factor in FACTORS:
        command = [sys.executable, __file__, *sys.argv[1:], "--factor", str(factor)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found.append(json.loads(done.stdout.splitlines()[-1]))
        row = found[-1]
        print(
            f"{factor}x: {row['clips']} clips ({row['corpus_mib']:.0f} MiB), {row['ladders']} ladders: "
            f"peak {row['peak_mib']:.0f} MiB, worker {row['worker_mib']:.0f} MiB; "
            f"{row['seconds']:.0f} s, of which the network {row['network_seconds']:.0f} s and waiting for "
            f"ladders {row['waited']:.0f} s "
            f"(data path / network {row['waited'] / row['network_seconds']:.1f})"
        )
    print(f"peak memory 8x / 1x: {found[1]['peak_mib'] / found[0]['peak_mib']:.3f}")


def measure(clips: int, ladders: int, steps: int, workers: int | None, factor: int) -> dict[str, float]:
    """One training on `factor` times the clips and ladders."""
    import torch
    from safetensors import safe_open

    from components.reward.ladders.plan import ShardPlan
    from components.reward.ladders.shards import ShardFolder
    from components.reward.ladders.sources import Pool, SourceClips, StoredClips
    from components.reward.model.training import train
    from components.reward.params import RewardParams
    from components.runtime.compute.devices import configure_threads
    from components.runtime.compute.signals import StopSignal
    from components.video.clip import ClipFormat

    configure_threads()
    geometry = ClipFormat(9, 48, 48, 8.0)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        file = folder / "clips.safetensors"
        write_clips(file, clips * factor, geometry.frames, geometry.height, geometry.width)
        with safe_open(file, "pt") as opened:
            assert opened.get_slice("frames").get_shape()[0] == clips * factor
        stored = StoredClips(file, "frames", range(clips * factor), geometry)
        names = [f"clip/{number}" for number in range(clips * factor)]
        params = RewardParams.model_validate(
            {"training": {"steps": steps * factor, "window": WINDOW, "batch": 24}}
        )
        plan = ShardPlan(
            (Pool("footage", SourceClips(stored, names), ladders * factor, True),), params.ladders, 0
        )
        shards = ShardFolder(folder / "shards", plan)
        began = time.monotonic()
        with shards.workers(workers):
            train(
                shards,
                params,
                checkpoints=folder / "checkpoints",
                stop=StopSignal(),
                device=torch.device("cpu"),
            )
        seconds = time.monotonic() - began
        size = file.stat().st_size
    own, child = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return {
        "clips": clips * factor,
        "ladders": ladders * factor,
        "corpus_mib": size / 2**20,
        "peak_mib": own.ru_maxrss / 1024,
        "worker_mib": child.ru_maxrss / 1024,
        "seconds": seconds,
        "waited": shards.waited,
        "network_seconds": seconds - shards.waited,
    }


def write_clips(file: Path, count: int, frames: int, height: int, width: int) -> None:
    """A safetensors file of `count` clips, written clip by clip: smoothed noise that slides."""
    import numpy as np
    from scipy.ndimage import gaussian_filter

    shape = [count, frames, 3, height, width]
    size = int(np.prod(shape))
    header = json.dumps({"frames": {"dtype": "U8", "shape": shape, "data_offsets": [0, size]}}).encode()
    header += b" " * (-len(header) % 8)
    rng = np.random.default_rng(0)
    with file.open("wb") as out:
        out.write(len(header).to_bytes(8, "little") + header)
        for _ in range(count):
            field = gaussian_filter(rng.standard_normal((3, height, width + frames)), (0, 1.5, 1.5))
            field = np.clip(128 + 150 * field, 0, 255).astype(np.uint8)
            out.write(np.stack([field[:, :, t : t + width] for t in range(frames)]).tobytes())


if __name__ == "__main__":
    main()
