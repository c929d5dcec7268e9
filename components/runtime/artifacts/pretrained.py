"""Where a backbone's files come from: a folder, an s3:// mirror, or the hub."""

from __future__ import annotations

import os
from pathlib import Path

from components.runtime.artifacts.artifact import cache_dir, input_digest
from components.runtime.errors import InputError
from components.runtime.io import storage
from components.runtime.io.files import atomic_dir

FILES = ("*.json", "*.safetensors")
"""What is fetched from the hub; pickled weights are not even downloaded."""


def fetch(name: str) -> Path:
    """A local folder with the files of a backbone.

    A folder is taken as it is; an s3:// prefix is copied to the cache once per state of the mirror; a hub id
    goes to the hub's own cache, which alone is looked at where HF_HUB_OFFLINE is set.

    Args:
        name: a folder, an s3:// prefix, or `owner/name` on the hub, `owner/name@revision` for one of its
            revisions.

    Raises:
        InputError: nothing there, or it cannot be reached.
    """
    if storage.is_remote(name):
        return _mirrored(name.rstrip("/"))
    folder = storage.local_path(name)
    if folder.is_dir():
        return folder
    owner_name, _, revision = name.partition("@")
    if owner_name.count("/") != 1 or name.startswith((".", "/", "~")) or "//" in name:
        raise InputError(
            f"reward.network.backbone = {name!r}: no such folder; "
            "allowed are a folder, an s3:// prefix or a hub id owner/name"
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(owner_name, revision=revision or None, allow_patterns=list(FILES)))
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as error:
        offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") else ""
        raise InputError(
            f"reward.network.backbone = {name!r}: no such folder, and the hub cannot serve it{offline}: "
            f"{' '.join(str(error).split())}"
        ) from error


def _mirrored(uri: str) -> Path:
    """The cache's copy of an s3:// prefix; its folder appears whole, and is named after what it holds."""
    target = cache_dir() / "backbones" / f"{uri.rsplit('/', 1)[-1]}-{input_digest(uri)[:16]}"
    if target.is_dir():
        return target
    with atomic_dir(target) as aside:  # where another process was faster, its copy has the same content
        storage.download_dir(uri, aside)
    return target
