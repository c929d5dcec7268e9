from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from components.runtime.errors import GateRefused, InputError, Interrupted, OnlineVPOError, storage_failure


def test_exit_codes() -> None:
    kinds = (OnlineVPOError, InputError, GateRefused, Interrupted)
    assert [kind.exit_code for kind in kinds] == [1, 2, 3, 75]


def test_os_errors_about_the_disk() -> None:
    assert storage_failure(OSError(errno.ENOSPC, "x", "/out/a")) == "/out/a: No space left on device"
    assert storage_failure(PermissionError(errno.EACCES, "x", "/a")) == "/a: Permission denied"
    assert storage_failure(FileNotFoundError(errno.ENOENT, "x", "/a")) is None
    assert storage_failure(ValueError("No space left")) is None


def test_wrapped_errors() -> None:
    def wrap(code: int, declared: bool) -> BaseException:
        try:
            try:
                raise OSError(code, os.strerror(code), "/a")
            except OSError as error:
                if declared:
                    raise RuntimeError("could not save") from error
                raise RuntimeError("could not save")  # noqa: B904
        except RuntimeError as error:
            return error

    assert storage_failure(wrap(errno.ENOSPC, True)) == "/a: No space left on device"
    assert storage_failure(wrap(errno.ENOSPC, False)) == "/a: No space left on device"
    assert storage_failure(wrap(errno.EACCES, True)) == "/a: Permission denied"
    # A bug that happens while an expected error is handled stays a bug.
    assert storage_failure(wrap(errno.EACCES, False)) is None


def test_safetensors_into_a_place_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(Exception) as caught:
        save_file({"x": torch.ones(3)}, tmp_path / "file" / "model.safetensors")
    assert "Not a directory" in (storage_failure(caught.value) or "")
