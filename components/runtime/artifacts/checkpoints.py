"""Checkpoints of long work: atomic, safetensors and JSON only; a broken one gives way to the one before."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from components.runtime.artifacts import remote_checkpoints as mirror
from components.runtime.errors import one_line
from components.runtime.io.files import atomic_dir, fsync, sha256_file

_TENSORS = "tensors.safetensors"
_STATE = "state.json"


@dataclass(frozen=True)
class Checkpoint:
    """Work as it stood after `step` steps."""

    step: int
    tensors: dict[str, Tensor]
    state: dict[str, Any]


class Checkpointer:
    """Keeps the last `keep` checkpoints under `dir`, one folder each."""

    def __init__(self, dir: Path, keep: int = 2) -> None:
        if keep < 1:
            raise ValueError(f"keep = {keep}: at least one checkpoint must be kept")
        self.dir, self.keep = Path(dir), keep

    def save(self, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any] | None = None) -> Path:
        """Write a checkpoint beside the others, make it appear in one rename, drop those past `keep`.

        Args:
            step: steps done so far, >= 0; the number `latest` goes by.
            tensors: any dtype and device; moved to the CPU.
            state: everything else, as JSON values (floats come back exactly).
        """
        final = self.dir / f"step-{step:010d}"
        with atomic_dir(final) as aside:
            save_file(_on_cpu(tensors), aside / _TENSORS)
            body = {"step": step, "state": dict(state or {}), "tensors_sha256": sha256_file(aside / _TENSORS)}
            text = json.dumps(body)
            sealed = {"body": text, "sha256": hashlib.sha256(text.encode()).hexdigest()}
            (aside / _STATE).write_text(json.dumps(sealed))
            for path in (aside / _TENSORS, aside / _STATE, aside):
                fsync(path)
        for old in self._folders()[self.keep :]:
            shutil.rmtree(old, ignore_errors=True)
        mirror.saved(final)
        return final

    def latest(self) -> Checkpoint | None:
        """The newest checkpoint that is whole, on the CPU; None where there is none."""
        for folder in self._folders():
            try:
                return _read(folder)
            except Exception as error:
                reason = one_line(error)
                print(f"warning: checkpoint {folder} is broken, passed over: {reason}", file=sys.stderr)
        return None

    def _folders(self) -> list[Path]:
        return sorted(self.dir.glob("step-*"), reverse=True)


def _read(folder: Path) -> Checkpoint:
    sealed = json.loads((folder / _STATE).read_text())
    text = sealed["body"]
    if hashlib.sha256(text.encode()).hexdigest() != sealed["sha256"]:
        raise ValueError(f"{_STATE} does not match its digest")
    body = json.loads(text)
    if sha256_file(folder / _TENSORS) != body["tensors_sha256"]:
        raise ValueError(f"{_TENSORS} does not match its digest")
    return Checkpoint(body["step"], load_file(folder / _TENSORS), body["state"])


def _on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous CPU tensors that share no memory, as safetensors wants them; copies only where needed."""
    seen: set[int] = set()
    ready = {}
    for name, tensor in tensors.items():
        flat = tensor.detach().to("cpu").contiguous()
        storage = flat.untyped_storage()
        if storage.data_ptr() in seen or storage.nbytes() != flat.numel() * flat.element_size():
            flat = flat.clone()
        seen.add(flat.untyped_storage().data_ptr())
        ready[name] = flat
    return ready


def pack_optimizer(
    optimizer: torch.optim.Optimizer, prefix: str = "optimizer"
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimizer's state as tensors named "<prefix>.<param index>.<key>" and a JSON value."""
    packed = optimizer.state_dict()
    tensors: dict[str, Tensor] = {}
    values: dict[str, dict[str, Any]] = {}
    for index, entry in packed["state"].items():
        for key, value in entry.items():
            if isinstance(value, Tensor):
                tensors[f"{prefix}.{index}.{key}"] = value
            else:
                values.setdefault(str(index), {})[key] = value
    return tensors, {"values": values, "groups": packed["param_groups"]}


def unpack_optimizer(
    optimizer: torch.optim.Optimizer,
    tensors: Mapping[str, Tensor],
    state: Mapping[str, Any],
    prefix: str = "optimizer",
) -> None:
    """Put back what `pack_optimizer` took, bit for bit; tensors under other names are left alone.

    Raises:
        ValueError: if the optimizer has other parameter groups than the packed one.
    """
    entries: dict[int, dict[str, Any]] = {int(i): dict(v) for i, v in state["values"].items()}
    for name, tensor in tensors.items():
        head, _, rest = name.partition(f"{prefix}.")
        if head == "" and rest:
            index, _, key = rest.partition(".")
            entries.setdefault(int(index), {})[key] = tensor.clone()
    # JSON turned tuples (AdamW's betas) into lists; the optimizer's own groups tell which.
    groups = []
    if len(state["groups"]) != len(optimizer.param_groups):
        raise ValueError(
            f"{len(state['groups'])} packed groups, the optimizer has {len(optimizer.param_groups)}"
        )
    for packed, own in zip(state["groups"], optimizer.param_groups, strict=True):
        groups.append({k: tuple(v) if isinstance(own.get(k), tuple) else v for k, v in packed.items()})
    optimizer.load_state_dict({"state": entries, "param_groups": groups})
