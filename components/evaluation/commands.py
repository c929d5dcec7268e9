"""What the verbs for people do: draw and measure a suite's videos, look after weights."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from components.evaluation.dimensions.catalogue import catalogue
from components.evaluation.models import WEIGHTS, Shelf
from components.evaluation.models.fetch import fetch, known, verify
from components.evaluation.params import EvaluationParams
from components.evaluation.vbench.files import in_words, write_full_info, write_lines, write_results
from components.evaluation.vbench.folder import counts
from components.evaluation.vbench.sample import sample_suite, suite_requests, videos_folder
from components.evaluation.vbench.score import Scores, Settings, notes
from components.evaluation.vbench.score import score as measure_folder
from components.evaluation.vbench.suites import Suite, load_suite
from components.runtime.artifacts.outputs import check_file, starts_with
from components.runtime.compute import devices
from components.runtime.compute.distributed import Ranks, process_group
from components.runtime.errors import InputError
from components.runtime.io.files import atomic_file


def _ready(params: EvaluationParams) -> str:
    """Make results depend on nothing but the work: one thread a process on a CPU, repeatable kernels."""
    import torch

    device = devices.resolve(params.run.device)
    if device.type == "cpu":
        torch.set_num_threads(1)
    devices.configure_determinism()
    return str(device)


def _suite(
    given: str, samples: int | None, dimensions: list[str], ranks: Ranks, augmented: str = ""
) -> Suite:
    """The suite, read by one process, so that a download happens once."""

    def read() -> Suite:
        whole = load_suite(given, samples)
        part = whole.only(dimensions) if dimensions else whole
        return part.augmented_by(augmented, whole) if augmented else part

    suite = ranks.broadcast_object(read() if ranks.is_main else None)
    assert suite is not None
    return suite


def sample(
    params: EvaluationParams,
    suite: str,
    videos: str,
    generator: str,
    alignment: str,
    dimensions: list[str],
    samples: int | None,
    augmented: str = "",
) -> None:
    """Draw a suite's missing videos into a folder."""
    from components.evaluation.step import open_sampler, trained_by
    from components.runtime.artifacts.artifact import open_artifact

    folder = videos_folder(videos)
    device = _ready(params)
    with process_group(device) as ranks:
        wanted = _suite(suite, samples, dimensions, ranks, augmented)
        opened = open_artifact(generator, step="generator")
        trained = trained_by(open_artifact(alignment, step="alignment")) if alignment else None
        fps = float(json.loads(opened.file("generator.json").read_text(encoding="utf-8"))["fps"])
        parts = [opened.manifest.digest, *(trained.digest.values() if trained else ("",))]
        model = hashlib.sha256(" ".join(parts).encode()).hexdigest()
        sampler = open_sampler(
            opened, devices.resolve(params.run.device), trained.folder if trained else None
        )
        asked = suite_requests(wanted, params.run.seed)
        done = sample_suite(sampler, asked, folder, fps, params.batch, model, ranks, wanted.augmented)
        if ranks.is_main:
            print(f"{folder}: {done} videos drawn, {len(asked) - done} were there already")


def score(
    params: EvaluationParams,
    suite: str,
    videos: str,
    out: str,
    name: str,
    dimensions: list[str],
    samples: int | None,
    fps: float,
) -> None:
    """Measure a folder of videos and write the three result files."""
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
        found = measure_folder(
            wanted, folder, Shelf(params.weights, device), settings, target / f".{name}.partial", ranks
        )
        if ranks.is_main:
            write(target, name, wanted, found, settings)
            print(as_text(found))
            print(f"written: {target / name}_eval_results.json, _full_info.json, _notes.jsonl")


def check_results(folder: Path, name: str) -> None:
    """Refuse to replace result files that this command did not write: VBench's own have the same names.

    Raises:
        InputError: there are such files.
    """
    if not name or "/" in name or name in (".", ".."):
        raise InputError(f"--name {name!r}: must be a name for files, without `/`")
    if os.path.lexists(folder) and not folder.is_dir():
        raise InputError(f"--out {folder}: cannot be written: it is no folder")
    notes_file = folder / f"{name}_notes.jsonl"
    check_file(notes_file, "the notes of an earlier measurement", starts_with('{"kind": "about"'))
    for suffix in ("eval_results.json", "full_info.json"):
        file = folder / f"{name}_{suffix}"
        if os.path.lexists(file) and not notes_file.exists():
            raise InputError(
                f"{file}: there already, and without {notes_file.name}, so not written by this command; "
                "give another --name or --out"
            )


def write(folder: Path, name: str, suite: Suite, scores: Scores, settings: Settings) -> None:
    """Write ``{name}_eval_results.json``, ``{name}_full_info.json`` and ``{name}_notes.jsonl``."""
    folder.mkdir(parents=True, exist_ok=True)
    for suffix, writer in (  # the notes first: they tell that all three are ours
        ("notes.jsonl", lambda file: write_lines(file, notes(suite, scores, settings))),
        ("eval_results.json", lambda file: write_results(file, scores.results)),
        ("full_info.json", lambda file: write_full_info(file, scores.entries)),
    ):
        with atomic_file(folder / f"{name}_{suffix}") as aside:
            writer(aside)


def as_text(scores: Scores) -> str:
    """Each dimension's score or why it has none, and what is wrong with the videos."""
    lines = []
    for name in catalogue():
        if name in scores.results:
            result = scores.results[name]
            other = in_words(result.method, result.variant) if result.method or result.variant else ""
            lines.append(f"{name:24}{100 * result.score:8.2f}  {len(result.videos)} videos  {other}".rstrip())
        elif name in scores.unavailable:
            lines.append(f"{name:24}     n/a  {scores.unavailable[name]}")
    for kind, number in counts(scores.problems).items():
        if number:
            named = [one.name for one in scores.problems if one.kind == kind]
            more = f" and {number - 3} more" if number > 3 else ""
            lines.append(f"{kind:24}{number:5}     {', '.join(named[:3])}{more}")
    return "\n".join(lines)


def list_weights(place: str) -> None:
    """Print the catalogue, with what is at ``place`` where one is named."""
    shelf = Shelf(place)
    total = 0
    for name, weights in WEIGHTS.items():
        users = [
            key for key, providers in catalogue().items() if any(name in one.opens(True) for one in providers)
        ]
        state = "" if not place else "  here" if shelf.missing(name) is None else "  missing"
        total += weights.megabytes
        print(f"{name:12}{weights.megabytes:6} MB  {weights.licence:14}{weights.title}{state}")
        print(f"{'':12}from {weights.origin}")
        instead = f"; in place of VBench's {weights.instead_of}" if weights.instead_of else ""
        print(f"{'':12}for {', '.join(users)}{instead}")
    print(f"{'together':12}{total:6} MB")


def fetch_weights(names: list[str], to: str, origin: str) -> None:
    """Fetch sets of weights one after the other; one that fails does not keep the others."""
    chosen = known(names)
    if origin and len(chosen) != 1:
        raise InputError("--origin goes with the name of one set of weights")
    failed = []
    for name in chosen:
        try:
            card = fetch(name, to, origin)
        except InputError as error:
            failed.append(f"{name}: {error}")
            print(f"{name:12}not fetched: {error}")
            continue
        size = sum(entry["bytes"] for entry in card["files"].values())
        print(f"{name:12}{size / 1e6:8.0f} MB  {card['licence']}  {card['origin']}", flush=True)
    if failed:
        raise InputError(f"{len(failed)} of {len(chosen)} not fetched: {'; '.join(failed)}")


def verify_weights(names: list[str], place: str) -> None:
    """Check sets of weights; a damaged one, or one that was named and is missing, is an error."""
    found = [verify(name, place) for name in known(names)]
    for one in found:
        print(f"{one.name:12}{one.state:9}{one.about}")
    faults = [one.name for one in found if one.state == "damaged" or (names and one.state == "missing")]
    if faults:
        raise InputError(f"{place}: {', '.join(faults)} cannot be used; fetch again")
    if all(one.state == "missing" for one in found):
        raise InputError(f"{place}: no weights there")
