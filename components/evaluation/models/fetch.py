"""Fetching weights from where they are published, and checking what was fetched.

Whatever the publisher's form, what is kept is safetensors. Some publishers offer only torch's own format,
which is a pickle: it is read here, once, by torch's weights-only reader, which makes tensors and runs
nothing, after its digest has been compared where one is known. Measuring never reads it.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from components.evaluation.models.catalogue import CARD, WEIGHTS, Weights
from components.runtime.artifacts import outputs
from components.runtime.errors import InputError, one_line
from components.runtime.io import storage
from components.runtime.io.files import replace_dir, sha256_file
from components.runtime.io.untrusted import parse_json

#: Of a hub repository, what is taken besides the tensors: configurations and tokenizers.
TEXTS = (".json", ".txt", ".model")
_TENSORS = "model.safetensors"
_STATE = "pytorch_model.bin"
_ATTENTION = ("SelfAttention_1", "MultiHeadDotProductAttention_1")


@dataclass(frozen=True)
class Checked:
    """What `verify` found of one set of weights: whether it is whole, and in words."""

    name: str
    state: Literal["whole", "missing", "damaged"]
    about: str


def known(names: list[str]) -> list[str]:
    """The names asked for, all of them if none is; a name that is not in the catalogue is an InputError."""
    for name in names:
        if name not in WEIGHTS:
            raise InputError(f"weights {name!r}: unknown; allowed are {', '.join(WEIGHTS)}")
    return names or list(WEIGHTS)


def fetch(name: str, place: str, origin: str = "") -> dict[str, Any]:
    """Fetch one set of weights to ``<place>/<name>`` and return its card.

    An earlier fetch is replaced; a folder made by hand is not.

    Args:
        name: in the catalogue.
        place: a folder or s3:// prefix.
        origin: another hub repository to take in its place.

    Raises:
        InputError: it cannot be reached, has another digest, or is not what is needed; or something else is
            at the place.
    """
    weights, where = WEIGHTS[name], f"{place.rstrip('/')}/{name}"
    kind = outputs.OutputKind(f"fetched weights `{name}`", CARD, _listed)
    outputs.check(where, kind)
    local = None if storage.is_remote(place) else storage.local_path(place)
    if local is not None:
        local.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=local) as aside:
        folder = Path(aside) / name
        folder.mkdir()
        version = (
            _from_hub(weights, folder, origin) if origin or weights.on_hub else _from_file(weights, folder)
        )
        absent = [file for file in weights.files if not (folder / file).is_file()]
        if absent:
            raise InputError(f"{origin or weights.origin}: has no {', '.join(absent)}, which `{name}` needs")
        card = {
            "name": name,
            "title": origin or weights.title,
            "origin": origin or weights.origin,
            "version": version,
            "licence": "as its publisher states it" if origin else weights.licence,
            "files": {
                file.name: {"bytes": file.stat().st_size, "sha256": sha256_file(file)}
                for file in sorted(folder.iterdir())
            },
        }
        (folder / CARD).write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
        if local is None:
            storage.upload_dir(folder, where, last=CARD, replaces=outputs.replaceable(where, kind))
        else:
            outputs.check(where, kind)
            replace_dir(folder, local / name, lambda old: outputs.remove_result(old, kind))
    return card


def _listed(card: bytes, where: str) -> list[str]:
    try:
        return [str(file) for file in parse_json(card, CARD)["files"]]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{where}/{CARD}: not a card of fetched weights; move the folder away") from error


def verify(name: str, place: str) -> Checked:
    """Compare every file of ``<place>/<name>`` with the sizes and digests of its card."""
    where = f"{place.rstrip('/')}/{name}"
    text = storage.read_bytes(f"{where}/{CARD}")
    if text is None:
        held = storage.list_files(where)
        return Checked(name, "missing" if not held else "damaged", f"{where} has no {CARD}")
    try:
        files = parse_json(text, CARD)["files"]
        wanted = {file: (int(entry["bytes"]), str(entry["sha256"])) for file, entry in files.items()}
    except (InputError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return Checked(name, "damaged", f"{where}/{CARD} cannot be read")
    held_bytes = {file.name: file.size for file in storage.list_files(where)}
    faults = [
        f"{file} is {'missing' if file not in held_bytes else 'of another size'}"
        for file, (size, _) in wanted.items()
        if held_bytes.get(file) != size
    ]
    if not faults:
        with _local(where) as folder:
            faults = [
                f"{file} has another SHA-256"
                for file, (_, sha) in wanted.items()
                if sha256_file(folder / file) != sha
            ]
    if faults:
        return Checked(name, "damaged", f"{where}: {'; '.join(faults)}")
    return Checked(
        name, "whole", f"{len(wanted)} files, {sum(size for size, _ in wanted.values()) / 1e6:.0f} MB"
    )


@contextmanager
def _local(where: str) -> Iterator[Path]:
    """A local folder with the files at a place."""
    if not storage.is_remote(where):
        yield storage.local_path(where)
        return
    with tempfile.TemporaryDirectory() as aside:
        storage.download_dir(where, Path(aside))
        yield Path(aside)


def _from_hub(weights: Weights, folder: Path, origin: str) -> str:
    """Download a hub repository's configurations and tensors; returns its commit."""
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    repository = origin or weights.origin
    try:
        info = HfApi().model_info(repository)
        names = [one.rfilename for one in info.siblings or []]
        tensors = next((name for name in (_TENSORS, _STATE) if name in names), None)
        if tensors is None:
            raise InputError(f"{repository}: has neither {_TENSORS} nor {_STATE}")
        texts = [name for name in names if name.endswith(TEXTS) and "/" not in name and "index" not in name]
        for name in (*texts, tensors):
            hf_hub_download(repository, name, revision=info.sha, local_dir=folder)
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise InputError(f"{repository}: cannot be fetched from the hub: {one_line(error)}") from error
    shutil.rmtree(folder / ".cache", ignore_errors=True)
    if tensors == _STATE:
        _write(folder, _read(repository, lambda: _torch_state(folder / _STATE)))
        (folder / _STATE).unlink()
    return str(info.sha)


def _from_file(weights: Weights, folder: Path) -> str:
    """Download a single file and turn it into safetensors; returns its digest."""
    file = folder / "origin"
    try:
        with urllib.request.urlopen(weights.origin, timeout=60) as answer, file.open("wb") as target:
            shutil.copyfileobj(answer, target)
    except (urllib.error.URLError, OSError) as error:
        raise InputError(f"{weights.origin}: cannot be fetched: {one_line(error)}") from error
    digest = sha256_file(file)
    if not digest.startswith(weights.sha256):
        raise InputError(
            f"{weights.origin}: its SHA-256 begins {digest[: len(weights.sha256)]}, not {weights.sha256}"
        )
    read = _torch_state if weights.form == "torch" else _flax_params
    _write(folder, _read(weights.origin, lambda: read(file)))
    file.unlink()
    return digest


def _read(origin: str, read: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    try:
        return read()
    except Exception as error:  # whatever a reader makes of a damaged or foreign file
        raise InputError(f"{origin}: cannot be read as tensors: {one_line(error)}") from error


def _torch_state(file: Path) -> dict[str, Tensor]:
    """The tensors of a state dict in torch's own format."""
    state = torch.load(file, map_location="cpu", weights_only=True)
    return {str(name): value for name, value in state.items() if isinstance(value, Tensor)}


def _flax_params(file: Path) -> dict[str, Tensor]:
    """The parameters of a flax checkpoint: arrays under opt/target, "/" in their names as "."."""
    with np.load(file, allow_pickle=False) as arrays:
        names = [name for name in arrays.files if name.startswith("opt/target/")]
        return {
            name.removeprefix("opt/target/").replace(*_ATTENTION).replace("/", "."): torch.from_numpy(
                np.asarray(arrays[name], dtype=np.float32)
            )
            for name in names
        }


def _write(folder: Path, tensors: dict[str, Tensor]) -> None:
    """Write tensors, each on its own: safetensors knows no shared memory."""
    alone = {name: value.detach().clone().contiguous() for name, value in tensors.items()}
    save_file(alone, folder / _TENSORS, metadata={"format": "pt"})
    try:
        with safe_open(folder / _TENSORS, framework="pt"):
            pass
    except SafetensorError as error:
        raise InputError(f"{folder / _TENSORS}: written damaged: {error}") from error
    os.chmod(folder / _TENSORS, 0o644)
