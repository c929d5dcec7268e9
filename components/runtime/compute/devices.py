"""Where the computing happens: device choice, thread count, determinism."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from components.runtime.errors import InputError

if TYPE_CHECKING:
    import torch


def has_torch() -> bool:
    """Whether torch is installed; an image for steps that compute nothing leaves it out."""
    return find_spec("torch") is not None


def resolve(device: str) -> torch.device:
    """The torch device for "auto" (a GPU where there is one), "cpu", "cuda", or "cuda:N", that very GPU.

    Under torchrun each process gets the GPU of its local rank for "auto" and "cuda".

    Raises:
        InputError: if a GPU is asked for and there is none, or the name is unknown.
    """
    import torch

    if device.startswith("cuda:") and device[5:].isdigit() and int(device[5:]) < _gpus():
        return torch.device(device)
    if device not in ("auto", "cpu", "cuda"):
        raise InputError(f"run.device = {device!r}: must be one of auto, cpu, cuda")
    if device == "cpu":
        return torch.device("cpu")
    if torch.cuda.is_available():
        local = int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count()
        return torch.device("cuda", local)
    if device == "cuda":
        raise InputError("run.device = 'cuda': this machine has no usable CUDA device; use auto or cpu")
    return torch.device("cpu")


def resolve_second(device: str, setting: str) -> torch.device:
    """A process's device beside that of `resolve`: "cpu", or "cuda:N".

    Under torchrun GPU N is that of a machine's first process; the others have those that follow.

    Args:
        setting: the params key that names it, for messages.

    Raises:
        InputError: another name, a GPU that is not there, or one that is a process's first.
    """
    import torch

    if device == "cpu":
        return torch.device("cpu")
    number = device.removeprefix("cuda:")
    if number == device or not number.isdigit():
        raise InputError(f"{setting} = {device!r}: must be cpu or cuda:N, the number of a GPU")
    first, processes = int(number), max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    gpus = _gpus()
    if not processes <= first <= gpus - processes:
        allowed = f"cuda:{processes} to cuda:{gpus - processes}, or cpu" if gpus >= 2 * processes else "cpu"
        raise InputError(
            f"{setting} = {device!r}: of {gpus} GPUs here {processes} process(es) have the first as "
            f"their own and need as many more; allowed: {allowed}"
        )
    return torch.device("cuda", first + int(os.environ.get("LOCAL_RANK", "0")))


def _gpus() -> int:
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def describe(device: str) -> str:
    """What `device` is in words, for a manifest: "cpu (16 threads)" or "cuda (NVIDIA H100)"."""
    if not has_torch():
        return "cpu"
    import torch

    chosen = resolve(device)
    if chosen.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(chosen)})"
    return f"cpu ({torch.get_num_threads()} threads)"


def available_cpus() -> int:
    """CPU cores this process may really use: affinity mask and container quota, not what the machine has."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max":
            cores = min(cores, max(1, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):
        pass
    return max(1, cores)


def configure_threads() -> int:
    """Give torch this process's share of the cores and return the count.

    OMP_NUM_THREADS wins when set (torchrun sets it to 1 where nobody did). More threads than cores, the
    default inside a container with a quota, costs a factor in speed.
    """
    import torch

    setting = os.environ.get("OMP_NUM_THREADS", "")
    processes = max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    threads = (
        int(setting) if setting.isdigit() and int(setting) > 0 else max(1, available_cpus() // processes)
    )
    torch.set_num_threads(threads)
    return threads


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on one thread for the block: sums of many terms depend, in their last digits, on how
    many threads share them, so what either this process or a worker may do has to be done on one in both.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def configure_determinism() -> None:
    """Choose kernels that give the same bits each time on one device type.

    warn_only, because a few backward kernels have no deterministic version and a step must still run on them.
    What the environment has set already wins. Call it before anything is computed: libraries look once.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # On Intel's processors MKL's products of matrices depend, in their last bits, on where in memory the
    # matrices lie, even at multiples of 64 bytes. With this they do not, at the same speed.
    os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")
    import torch

    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=True)
