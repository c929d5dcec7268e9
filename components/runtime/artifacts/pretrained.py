"""Pretrained models of others: where their files come from, and how they are opened.

Weights are read from safetensors only, and no code that comes with them is run.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from components.runtime.artifacts.artifact import cache_dir, input_digest
from components.runtime.errors import InputError, one_line
from components.runtime.io import storage
from components.runtime.io.files import atomic_dir

#: What is fetched from the hub; pickled weights are not even downloaded.
FILES = ("*.json", "*.safetensors")


def fetch(
    name: str,
    setting: str = "pretrained model",
    *,
    revision: str | None = None,
    files: Sequence[str] = FILES,
) -> Path:
    """A local folder with the files of a pretrained model.

    A folder is taken as it is. An s3:// prefix is copied to the cache once for each state of it. A hub id
    goes to the hub's own cache, which alone is looked at where HF_HUB_OFFLINE is set.

    Args:
        name: a folder, an s3:// prefix, or `owner/name` on the hub, `owner/name@revision` for one of its
            revisions.
        setting: how the model was named, for messages: "generator.base =".
        revision: branch, tag or commit on the hub, if `name` has none.
        files: glob patterns of what is fetched from the hub.

    Raises:
        InputError: nothing there, or it cannot be reached.
    """
    if storage.is_remote(name):
        return mirrored(name)
    folder = storage.local_path(name)
    if folder.is_dir():
        return folder
    repository, _, pinned = name.partition("@")
    if repository.count("/") != 1 or name.startswith((".", "/", "~")) or "//" in name:
        raise InputError(
            f"{setting} {name!r}: no such folder; "
            "allowed are a folder, an s3:// prefix or a hub id owner/name"
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repository, revision=pinned or revision, allow_patterns=list(files)))
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") else ""
        raise InputError(
            f"{setting} {name!r}: no such folder, and the hub cannot serve it{offline}: {one_line(error)}"
        ) from error


def mirrored(uri: str) -> Path:
    """The cache's copy of an s3:// prefix; its folder appears whole, and is named after what it holds.

    Raises:
        InputError: nothing there, or it cannot be reached.
    """
    uri = uri.rstrip("/")
    target = cache_dir() / "pretrained" / f"{uri.rsplit('/', 1)[-1]}-{input_digest(uri)[:16]}"
    if not target.is_dir():
        with atomic_dir(target) as aside:  # where another process was faster, its copy has the same content
            storage.download_dir(uri, aside)
    return target


def open_model(cls: Any, folder: Path, device: Any = "cpu", dtype: Any = "float32", **options: Any) -> Any:
    """`cls.from_pretrained(folder)` of transformers for inference, on `device`.

    Safetensors only, and nothing from the network.

    Raises:
        ValueError: tensors are missing or of another shape; transformers would leave those random.
    """
    model, report = cls.from_pretrained(
        folder,
        use_safetensors=True,
        local_files_only=True,
        dtype=dtype,
        output_loading_info=True,
        **options,
    )
    missing = sorted([*report["missing_keys"], *(str(key[0]) for key in report.get("mismatched_keys", ()))])
    if missing:
        raise ValueError(f"{len(missing)} tensors are missing or of another shape, among them {missing[0]}")
    return model.eval().to(device)


@contextmanager
def quiet() -> Iterator[None]:
    """Without the progress bars and load reports of transformers: `open_model` checks what is missing."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
