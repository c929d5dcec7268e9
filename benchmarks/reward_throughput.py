"""How fast a reward scores video files beside decoding them, and whether its training waits for ladders.

    python benchmarks/reward_throughput.py [--videos 96] [--frames 49] [--size 480x270]
                                           [--ladders 256] [--steps 400] [--workers N]

Everything in one run; decoding, scoring and both together take turns, and their medians count. The figures
that mean something elsewhere are the ratios. Videos and clips are sliding noise; the reward that scores is
the one that was trained just before, in the default sizes.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from reward_memory import write_clips

if TYPE_CHECKING:
    from components.reward.scoring.trained import TrainedReward

ROUNDS = 3
DISTINCT = 8


def main() -> None:
    """Trains, scores, and prints both."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--videos", type=int, default=96, help="files scored in a round")
    parser.add_argument("--frames", type=int, default=49, help="frames of a video")
    parser.add_argument("--size", default="480x270", help="width x height of a video, px")
    parser.add_argument("--ladders", type=int, default=256, help="training ladders")
    parser.add_argument("--steps", type=int, default=400, help="training steps")
    parser.add_argument(
        "--workers", type=int, help="processes that build ladders; by default one a spare core"
    )
    given = parser.parse_args()
    width, height = (int(side) for side in given.size.split("x"))

    from components.runtime.compute.devices import available_cpus, configure_threads

    print(f"{available_cpus()} cores, {configure_threads()} torch threads")
    with tempfile.TemporaryDirectory() as temporary:
        scorer = training(Path(temporary), given.ladders, given.steps, given.workers)
        scoring(Path(temporary), scorer, given.videos, given.frames, height, width)


def training(folder: Path, ladders: int, steps: int, workers: int | None) -> TrainedReward:
    """One training while workers build its ladders, and the same once more with every ladder there."""
    import torch

    from components.reward.ladders.plan import ShardPlan
    from components.reward.ladders.shards import ShardFolder
    from components.reward.ladders.sources import Pool, SourceClips, StoredClips
    from components.reward.model.training import train
    from components.reward.params import RewardParams
    from components.reward.scoring.trained import TrainedReward
    from components.runtime.compute.signals import StopSignal
    from components.video.clip import ClipFormat

    geometry = ClipFormat(9, 48, 48, 8.0)
    file = folder / "clips.safetensors"
    write_clips(file, 120, geometry.frames, geometry.height, geometry.width)
    stored = StoredClips(file, "frames", range(120), geometry)
    clips = SourceClips(stored, [f"clip/{number}" for number in range(120)])
    params = RewardParams.model_validate({"training": {"steps": steps}})
    plan = ShardPlan((Pool("footage", clips, ladders, True),), params.ladders, 0)
    shards = ShardFolder(folder / "shards", plan)
    began = time.perf_counter()
    # Labels and shards from nothing: what a first training meets.
    with shards.workers(workers):
        first, _ = train(
            shards, params, checkpoints=folder / "first", stop=StopSignal(), device=torch.device("cpu")
        )
    streamed, waited = time.perf_counter() - began, shards.waited
    again = ShardFolder(folder / "shards", plan)
    began = time.perf_counter()
    second, _ = train(
        again, params, checkpoints=folder / "second", stop=StopSignal(), device=torch.device("cpu")
    )
    alone = time.perf_counter() - began - again.waited
    same = all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    print(
        f"training, {steps} steps on {ladders} ladders: network alone {1000 * alone / steps:.2f} ms a step; "
        f"with ladders made meanwhile {1000 * streamed / steps:.2f} ms (ratio {streamed / alone:.2f}), "
        f"of which it waited {waited:.1f} of {streamed:.1f} s ({waited / streamed:.0%}); "
        f"reading ladders that were there {again.waited:.2f} s; {'same' if same else 'OTHER'} weights"
    )
    price = max(0.0, streamed - alone) / ladders / (alone / steps)
    print(f"  a ladder made meanwhile cost as much time as {price:.2f} steps of the network")
    return TrainedReward(first, geometry)


def scoring(folder: Path, scorer: TrainedReward, videos: int, frames: int, height: int, width: int) -> None:
    """Decoding alone, scoring alone and both together, on the same files."""
    import torch

    from components.reward.base import input_spec_of
    from components.reward.scoring import videos as files
    from components.video.clip import Clip
    from components.video.codec import write_video

    stream = torch.Generator().manual_seed(0)
    for number in range(DISTINCT):
        noise = torch.randn(1, 3, height // 8, width // 8 + 2, generator=stream)
        wide = torch.nn.functional.interpolate(noise, (height, width + 2 * frames), mode="bicubic")[0]
        field = (128 + 60 * wide).clamp(0, 255).to(torch.uint8)
        moving = torch.stack([field[:, :, 2 * t : 2 * t + width] for t in range(frames)])
        write_video(Clip(moving, 24.0), folder / f"{number}.mp4", crf=23, scale=1)
    listed = [files.Source(str(folder / f"{place % DISTINCT}.mp4")) for place in range(videos)]
    reading = input_spec_of(scorer)
    clips = list(files._decoded(listed[:DISTINCT], reading))
    assert all(isinstance(clip, Clip) for clip in clips)
    batch = torch.stack([clips[place % DISTINCT].frames for place in range(reading.batch)])

    def decode() -> None:
        for _ in files._decoded(listed, reading):
            pass

    def score() -> None:
        for start in range(0, videos, reading.batch):
            scorer.rate(batch[: min(reading.batch, videos - start)], 24.0)

    def both() -> None:
        assert all(result.error is None for result in files.score_files(scorer, listed))

    taken: dict[str, list[float]] = {"decode": [], "score": [], "both": []}
    for _ in range(ROUNDS):
        for name, act in (("decode", decode), ("score", score), ("both", both)):
            taken[name].append(timed(act))
    seconds = {name: statistics.median(values) for name, values in taken.items()}
    slower = max(seconds["decode"], seconds["score"])
    print(
        f"scoring, {videos} videos of {frames} frames {width} x {height}: "
        + ", ".join(f"{name} {videos / value:.1f} clips/s" for name, value in seconds.items())
    )
    print(
        f"  score end to end / decoding alone {seconds['both'] / seconds['decode']:.2f}, "
        f"/ the slower of the two {seconds['both'] / slower:.2f}, "
        f"/ one after the other {seconds['both'] / (seconds['decode'] + seconds['score']):.2f}"
    )


def timed(act: Callable[[], None]) -> float:
    """Seconds that a call takes."""
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
