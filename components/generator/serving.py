"""A generator as an MLflow model: prompts in, MP4 files out.

In: prompts, as a list or as a DataFrame with a column `prompt` and, if wanted, `seed` (whole numbers; else
one is derived from the prompt) and `path` (where to write the MP4). Out: a DataFrame with a row for each, in
order: `prompt`, `seed`, and `path` where one was given, else `video`, the bytes of the MP4.

The same prompt and seed give the same clip on the same machine, whatever else is asked in the same call or
was before: each is drawn by itself, because rounding depends on the batch.

The version holds the LoRA or, after full fine-tuning, all of the denoiser's weights, with the sampler's
settings and base.json, which names the base and the SHA-256 of each of its files. The base itself is fetched:
from ONLINEVPO_BASE if that is set, else from where it was fetched for training, else from the copy that the
run kept in its store. Whatever place it comes from, its files must have the recorded digests. Only
safetensors are read; nothing is unpickled.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd
from mlflow.pyfunc import PythonModel

from components.generator.generator import Generator, fetch_base
from components.generator.params import SamplingParams
from components.runtime.compute.devices import configure_threads, resolve
from components.runtime.compute.seeds import derive
from components.runtime.errors import InputError
from components.runtime.io.files import atomic_file, sha256_file
from components.video.clip import Clip
from components.video.codec import write_video

BASE_VARIABLE = "ONLINEVPO_BASE"
#: The project's own folder, in which the miniature lies; params name it relative to that.
ROOT = Path(__file__).resolve().parents[2]
#: Characters of a prompt; a longer one is refused.
MAX_PROMPT = 20_000


class GeneratorModel(PythonModel):
    """Draws clips; ONLINEVPO_DEVICE chooses auto (the default), cpu or cuda."""

    def load_context(self, context: Any) -> None:
        """Fetch and check the base, then load the trained weights."""
        configure_threads()
        places = context.artifacts
        self.generator = open_aligned(
            Path(places["base"]),
            Path(places["settings"]),
            Path(places["aligned"]),
            os.environ.get("ONLINEVPO_DEVICE", "auto"),
        )
        self.generator.embeddings([""])  # or the first prompt would be encoded in one batch with it

    # A list comes as well; MLflow makes a schema of any other hint, and then refuses one of the two.
    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """A row for each prompt.

        Raises:
            InputError: no prompts, one that is no text or too long, or a seed that is no whole number >= 0.
        """
        prompts, seeds, paths = _requests(model_input)
        columns: dict[str, Any] = {"prompt": prompts, "seed": seeds}
        if paths is not None:
            for prompt, seed, path in zip(prompts, seeds, paths, strict=True):
                _write(self._clip(prompt, seed), Path(path))
            return pd.DataFrame({**columns, "path": paths})
        videos = []
        with tempfile.TemporaryDirectory(prefix="onlinevpo-") as scratch:
            file = Path(scratch) / "clip.mp4"
            for prompt, seed in zip(prompts, seeds, strict=True):
                write_video(self._clip(prompt, seed), file, scale=1)
                videos.append(file.read_bytes())
        return pd.DataFrame({**columns, "video": pd.Series(videos, dtype=object)})

    def _clip(self, prompt: str, seed: int) -> Clip:
        frames, _ = self.generator.sample([prompt], [seed])
        return Clip(frames[0], self.generator.fps)


def open_aligned(base: Path, settings: Path, aligned: Path, device: str = "auto") -> Generator:
    """A version's generator.

    Args:
        base: its base.json.
        settings: its generator.json.
        aligned: its folder `lora` or `weights`: a LoRA, or all of the denoiser's weights.

    Raises:
        InputError: the base is nowhere to be had, or a file of it has other bytes than recorded; a file of
            the version is missing or does not fit.
    """
    try:
        about = json.loads(base.read_text(encoding="utf-8"))
        sampling = SamplingParams.model_validate_json(settings.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{base.parent}: not a version of a generator: {error}") from error
    folder = located(about)
    check_base(folder, about["files"])
    return Generator.over(folder, sampling, resolve(device), aligned)


def located(about: Mapping[str, Any]) -> Path:
    """A local folder with the base that a version names.

    Raises:
        InputError: it is in none of the places; each is named with what was wrong there.
    """
    override = os.environ.get(BASE_VARIABLE)
    named, revision = str(about["base"]), about.get("revision")
    places = [(override, None)] if override else [(named, revision)]
    if not override and not Path(named).is_absolute() and (ROOT / named).is_dir():
        places.append((str(ROOT / named), None))
    if not override and about.get("copy"):
        places.append((about["copy"], None))
    tried = []
    for place, at in places:
        try:
            return fetch_base(str(place), at)
        except InputError as error:
            tried.append(str(error))
    raise InputError(f"{'; '.join(tried)}; set {BASE_VARIABLE} to a folder, an s3:// prefix or a hub id")


def check_base(folder: Path, files: Mapping[str, str]) -> None:
    """Check the base's files against a version's record.

    Raises:
        InputError: naming the first file that is missing or has other bytes.
    """
    for name, expected in files.items():
        file = folder / name
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise InputError(f"{folder}: refuses the unsafe file name {name!r}")
        if not file.is_file():
            raise InputError(f"{file}: missing; the version was aligned on a base that has it")
        if sha256_file(file) != expected:
            raise InputError(f"{file}: not the base this version was aligned on: its SHA-256 differs")


def _requests(given: Any) -> tuple[list[str], list[int], list[str] | None]:
    """Prompts, seeds and, where they were named, paths."""
    table = given if isinstance(given, pd.DataFrame) else pd.DataFrame({"prompt": list(given)})
    if "prompt" not in table.columns:
        raise InputError(f"no column `prompt`; there are {list(table.columns)}")
    prompts: list[str] = []
    for number, text in enumerate(table["prompt"]):
        if not isinstance(text, str) or len(text) > MAX_PROMPT:
            raise InputError(f"prompt {number}: must be text of at most {MAX_PROMPT} characters")
        prompts.append(text)
    if not prompts:
        raise InputError("no prompts given")
    paths = [str(path) for path in table["path"]] if "path" in table.columns else None
    return prompts, _seeds(table, prompts), paths


def _seeds(table: pd.DataFrame, prompts: Sequence[str]) -> list[int]:
    if "seed" not in table.columns:
        seen: dict[str, int] = {}
        derived = []
        for prompt in prompts:  # the same prompt twice shall give two clips
            seen[prompt] = seen.get(prompt, -1) + 1
            derived.append(derive(0, "serving", prompt, seen[prompt]))
        return derived
    seeds = []
    for number, seed in enumerate(table["seed"]):
        try:
            whole = int(seed)
        except (TypeError, ValueError, OverflowError):
            whole = -1
        if whole != seed or not 0 <= whole < 2**63:
            raise InputError(f"seed {number} = {seed!r}: must be a whole number from 0 to 2**63 - 1")
        seeds.append(whole)
    return seeds


def _write(clip: Clip, path: Path) -> None:
    """Write an MP4 that appears whole or not at all."""
    with atomic_file(path) as aside:
        write_video(clip, aside, scale=1)
