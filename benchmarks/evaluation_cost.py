"""What each dimension costs: seconds and peak memory per 100 clips, and the share of decoding and models.

    python -m benchmarks.evaluation_cost --weights DIR --videos DIR    # real weights, real videos
    python -m benchmarks.evaluation_cost --random DIR                  # full-size models, random weights

Each dimension is measured in a process of its own, so that its peak memory is its own. Decoding and the calls
of the opened models are timed on the way; the last column is the whole time over those two together. A ratio
near 1 says that everything else costs little. Seconds are CPU seconds of one thread on a CPU, so that a busy
machine does not show, and wall seconds on a GPU.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.full_size_weights import make
from components.evaluation.dimensions.base import Dimension, Video
from components.evaluation.dimensions.catalogue import catalogue
from components.evaluation.models import ModelStore
from components.video.clip import Clip
from components.video.codec import read_video, write_video

FACTS: dict[str, Any] = {
    "object_class": {"object": "car"},
    "multiple_objects": {"object": "car and person"},
    "color": {"color": "red"},
    "spatial_relationship": {"object_a": "car", "object_b": "person", "relationship": "on the left of"},
    "scene": {"scene": "beach"},
    "appearance_style": {"appearance_style": "oil painting"},
    "temporal_style": {},
}
#: The methods of each opened model that are "the model"; everything else is ours.
PASSES = {
    "dino": ["features"],
    "clip-b32": ["features", "text"],
    "clip-l14": ["features", "text"],
    "aesthetic": ["scores"],
    "musiq": ["scores"],
    "raft": ["flow"],
    "detector": ["detect"],
    "captioner": ["captions"],
    "action": ["logits"],
    "video-text": ["cosine"],
}


class Timed:
    """An opened model whose forward passes are timed."""

    def __init__(self, model: Any, names: list[str], device: torch.device) -> None:
        self._model, self._names, self._device, self.seconds = model, names, device, 0.0

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._model, name)
        if name not in self._names:
            return found

        def timed(*arguments: Any, **options: Any) -> Any:
            began = _now(self._device)
            result = found(*arguments, **options)
            self.seconds += _now(self._device) - began
            return result

        return timed


class TimedModelStore(ModelStore):
    """A store of timed models."""

    def open(self, name: str) -> Any:
        fresh = name not in self._models
        model = super().open(name)
        if fresh:
            self._models[name] = Timed(model, PASSES[name], self.device)
        return self._models[name]

    @property
    def seconds(self) -> float:
        return sum(one.seconds for one in self._models.values())


def measure(name: str, needs: str, weights: str, paths: list[str], device: str) -> dict[str, float]:
    """Seconds and megabytes of one dimension over the clips; runs in a process of its own."""
    torch.set_num_threads(1)
    store = TimedModelStore(weights, device)
    dimension = next(one for one in catalogue()[name] if one.needs == needs)
    with _watched(store.device) as peak:
        _one(dimension, store, paths[0])  # opens the models, outside the clock
        before, began = store.seconds, _now(store.device)
        decode = sum(_one(dimension, store, path) for path in paths)
        seconds = _now(store.device) - began
    return {"seconds": seconds, "decode": decode, "model": store.seconds - before, "megabytes": peak()}


def _one(dimension: Dimension, store: ModelStore, path: str) -> float:
    began = _now(store.device)
    clip = read_video(path)
    decoded = _now(store.device) - began
    prompt = "a red car" if dimension.name == "color" else "A person is juggling balls"
    dimension.of(Video(clip.frames, clip.fps, prompt, FACTS, Path(path).name), store)
    return decoded


@contextmanager
def _watched(device: torch.device) -> Iterator[Callable[[], float]]:
    """Peak memory in 10^6 bytes: of the GPU where there is one, else of the process."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        yield lambda: torch.cuda.max_memory_allocated(device) / 1e6
    else:
        # Not getrusage: its maximum includes what the starting process had before this one began.
        yield lambda: int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024 / 1e6


def _now(device: torch.device) -> float:
    if device.type != "cuda":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def _in_own_process(*arguments: Any) -> dict[str, float]:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measure, *arguments).result()


def _made_up(folder: Path, clips: int, frames: int, height: int, width: int) -> list[str]:
    rng = np.random.default_rng(0)
    paths = []
    for number in range(clips):
        small = torch.from_numpy(rng.integers(0, 256, (1, 3, 9, 16 + frames // 4 + 1))).float()
        wide = torch.nn.functional.interpolate(small, (height, width + 2 * frames), mode="bicubic").clamp(
            0, 255
        )
        shown = torch.stack([wide[0, :, :, 2 * t : 2 * t + width] for t in range(frames)])
        paths.append(str(folder / f"{number}.mp4"))
        write_video(Clip(shown.round().to(torch.uint8), 8.0), paths[-1], scale=1)
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", default="", help="place of the weights")
    parser.add_argument("--random", type=Path, help="make full-size random weights there, where missing")
    parser.add_argument("--videos", type=Path, help="folder of clips [default: made up]")
    parser.add_argument("--clips", type=int, default=4)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--size", default="320x512", help="HEIGHTxWIDTH of made-up clips, px")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dimension", action="append", help="only this one; may be repeated")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    given = parser.parse_args()
    height, width = map(int, given.size.split("x"))
    with tempfile.TemporaryDirectory() as aside:
        folder = Path(aside)
        if given.videos:
            paths = [str(path) for path in sorted(given.videos.glob("*.mp4"))[: given.clips]]
        else:
            paths = _made_up(folder, given.clips, given.frames, height, width)
        weights = given.weights
        if given.random:
            asked = [one for name in given.dimension or catalogue() for one in catalogue()[name]]
            weights = make(given.random, sorted({name for one in asked for name in one.models}))
        rows = []
        print(
            f"{'per 100 clips':24}{'seconds':>9}{'decode':>9}{'model':>9}{'other':>9}{'peak MB':>9}"
            f"{'whole / (decode + model)':>26}"
        )
        for name, providers in catalogue().items():
            for one in providers:
                if one.needs == "world" or (given.dimension and name not in given.dimension):
                    continue
                if one.missing(ModelStore(weights)):
                    print(f"{name:24} unavailable")
                    continue
                found = _in_own_process(name, one.needs, weights, paths, given.device)
                scale = 100 / len(paths)
                row = {key: found[key] * scale for key in ("seconds", "decode", "model")}
                rest, base = row["seconds"] - row["decode"] - row["model"], row["decode"] + row["model"]
                rows.append(row | {"dimension": name, "needs": one.needs, "megabytes": found["megabytes"]})
                # A dimension without a model is all ours: its ratio is to decoding alone.
                label = f"{name}{'' if one.needs == 'weights' else ' (no weights)'}"
                print(
                    f"{label[:36]:24}{row['seconds']:9.1f}{row['decode']:9.1f}{row['model']:9.1f}{rest:9.1f}"
                    f"{found['megabytes']:9.0f}{row['seconds'] / base:26.2f}",
                    flush=True,
                )
        with_model = [row for row in rows if row["needs"] == "weights"]
        if with_model:
            whole = sum(row["seconds"] for row in with_model)
            base = sum(row["decode"] + row["model"] for row in with_model)
            print(f"{'all with models':24}{whole:9.1f}{'':36}{whole / base:26.2f}")
        if given.json:
            given.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
