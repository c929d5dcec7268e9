from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from components.runtime.compute import devices
from components.runtime.errors import InputError


def test_resolve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert devices.resolve("auto") == devices.resolve("cpu") == torch.device("cpu")
    with pytest.raises(InputError, match="no usable CUDA device"):
        devices.resolve("cuda")
    with pytest.raises(InputError, match="auto, cpu, cuda"):
        devices.resolve("tpu")
    assert devices.describe("auto").startswith("cpu (")


def test_each_process_has_its_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert devices.resolve("auto") == torch.device("cuda", 1)
    assert devices.resolve("cpu") == torch.device("cpu")


def test_a_second_gpu_is_none_of_the_processes_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert devices.resolve_second("cuda:1", "key") == torch.device("cuda", 1)
    assert devices.resolve("cuda:3") == torch.device("cuda", 3)
    with pytest.raises(InputError, match="auto, cpu, cuda"):
        devices.resolve("cuda:4")
    with pytest.raises(
        InputError, match=r"key = 'cuda:0': of 4 GPUs here.*allowed: cuda:1 to cuda:3, or cpu"
    ):
        devices.resolve_second("cuda:0", "key")
    with pytest.raises(InputError, match=r"key = 'gpu': must be cpu or cuda:N"):
        devices.resolve_second("gpu", "key")
    # Two processes sample on the first two, and each has one more.
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert devices.resolve_second("cuda:2", "key") == torch.device("cuda", 3)
    assert devices.resolve_second("cpu", "key") == torch.device("cpu")
    for wrong in ("cuda:1", "cuda:3"):
        with pytest.raises(InputError, match="allowed: cuda:2 to cuda:2, or cpu"):
            devices.resolve_second(wrong, "key")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=r"of 0 GPUs here.*allowed: cpu$"):
        devices.resolve_second("cuda:2", "key")


def test_threads_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    monkeypatch.setattr(devices, "available_cpus", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert devices.configure_threads() == 8
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    assert devices.configure_threads() == 2
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert devices.configure_threads() == 5
    assert asked == [8, 2, 5]


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="this torch has no MKL")
def test_products_do_not_depend_on_where_matrices_lie() -> None:
    """MKL itself says so, on any processor: strict numerical reproducibility, set after torch is loaded."""
    program = (
        "import torch; from components.runtime.compute.devices import configure_determinism; "
        "configure_determinism(); torch.ones(8, 9) @ torch.ones(9, 5)"
    )
    inherited = {name: value for name, value in os.environ.items() if name != "MKL_CBWR"}
    for given, expected in (({}, "CNR:AUTO,STRICT"), ({"MKL_CBWR": "COMPATIBLE"}, "CNR:COMPATIBLE")):
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**inherited, **given, "MKL_VERBOSE": "1"}, capture_output=True, text=True, check=True,
        )  # fmt: skip
        called = [line for line in done.stdout.splitlines() if "SGEMM" in line]
        assert called and all(expected in line for line in called)
