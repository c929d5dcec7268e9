"""Sample and measure a suite's videos, in one process or in several of which one writes."""

from __future__ import annotations

import hashlib

from components.evaluation.inputs import frame_rate, trained_by
from components.evaluation.models import ModelStore
from components.evaluation.params import EvaluationParams
from components.evaluation.samples import open_sampler
from components.evaluation.vbench.output import as_text, check_results, write
from components.evaluation.vbench.sample import sample_suite, suite_requests, videos_folder
from components.evaluation.vbench.score import Settings, score
from components.evaluation.vbench.suites import Suite, load_suite
from components.runtime.artifacts.artifact import open_artifact
from components.runtime.compute import devices
from components.runtime.compute.distributed import Ranks, process_group
from components.runtime.errors import InputError


def sample_videos(
    params: EvaluationParams,
    suite: str,
    videos: str,
    generator: str,
    alignment: str,
    dimensions: list[str],
    samples: int | None,
    augmented: str = "",
) -> None:
    """Sample a suite's missing videos into a folder; for the arguments see the verb `sample`."""
    folder = videos_folder(videos)
    device = _ready(params)
    with process_group(device) as ranks:
        wanted = _suite(suite, samples, dimensions, ranks, augmented)
        opened = open_artifact(generator, step="generator")
        trained = trained_by(open_artifact(alignment, step="alignment")) if alignment else None
        parts = [opened.manifest.digest, *(trained.digest.values() if trained else ("",))]
        model = hashlib.sha256(" ".join(parts).encode()).hexdigest()
        sampler = open_sampler(
            opened, devices.resolve(params.run.device), trained.folder if trained else None
        )
        requests, fps = suite_requests(wanted, params.run.seed), frame_rate(opened)
        drawn = sample_suite(sampler, requests, folder, fps, params.batch, model, ranks, wanted.augmented)
        if ranks.is_main:
            print(f"{folder}: {drawn} videos drawn, {len(requests) - drawn} were there already")


def score_videos(
    params: EvaluationParams,
    suite: str,
    videos: str,
    out: str,
    name: str,
    dimensions: list[str],
    samples: int | None,
    fps: float,
) -> None:
    """Measure a folder of videos and write the three result files; for the arguments see the verb `score`."""
    folder, target = videos_folder(videos), videos_folder(out)
    if target == folder:
        raise InputError(
            f"--out {out}: that is the folder of the videos, and VBench finds none beside other files; take "
            "another one"
        )
    name = name or folder.resolve().name
    check_results(target, name)
    device = _ready(params)
    settings = Settings(params.compat == "vbench", fps)
    with process_group(device) as ranks:
        wanted = _suite(suite, samples, dimensions, ranks)
        store = ModelStore(params.weights, device)
        scores = score(wanted, folder, store, settings, target / f".{name}.partial", ranks)
        if ranks.is_main:
            write(target, name, wanted, scores, settings)
            print(as_text(wanted, scores))
            print(f"written: {target / name}_eval_results.json, _full_info.json, _notes.jsonl")


def _ready(params: EvaluationParams) -> str:
    """Make results depend on nothing but the work: one thread a process on a CPU, repeatable kernels."""
    import torch

    device = devices.resolve(params.run.device)
    if device.type == "cpu":
        torch.set_num_threads(1)
    devices.configure_determinism()
    return str(device)


def _suite(
    place: str, samples: int | None, dimensions: list[str], ranks: Ranks, augmented: str = ""
) -> Suite:
    """The suite, read by one process, so that a download happens once."""

    def read() -> Suite:
        whole = load_suite(place, samples)
        part = whole.only(dimensions) if dimensions else whole
        return part.augmented_by(augmented, whole) if augmented else part

    suite = ranks.broadcast_object(read() if ranks.is_main else None)
    assert suite is not None
    return suite
