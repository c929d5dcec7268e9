"""GPUs as their makers state them: memory, and matrix operations a second without sparsity."""

from __future__ import annotations

from dataclasses import dataclass

from components.runtime.errors import InputError


@dataclass(frozen=True)
class Gpu:
    """One kind of GPU.

    Attributes:
        label: what GPU feature discovery writes into a node's label `nvidia.com/gpu.product`.
        memory_gb: stated memory, 10^9 bytes.
        tflops_16: stated dense bfloat16 and float16 rate, 10^12 operations a second.
        tflops_tf32: stated dense TF32 rate, which torch's convolutions in float32 use.
        tflops_32: stated float32 rate without tensor cores, which its matrix products in float32 use.
    """

    label: str
    memory_gb: float
    tflops_16: float
    tflops_tf32: float
    tflops_32: float


#: From NVIDIA's data sheets of each product; where a sheet states a rate with sparsity, half of it.
GPUS: tuple[Gpu, ...] = (
    Gpu("NVIDIA-H200", 141, 989.4, 494.7, 66.9),
    Gpu("NVIDIA-H100-80GB-HBM3", 80, 989.4, 494.7, 66.9),
    Gpu("NVIDIA-H100-PCIe", 80, 756.0, 378.0, 51.2),
    Gpu("NVIDIA-A100-SXM4-80GB", 80, 312.0, 156.0, 19.5),
    Gpu("NVIDIA-A100-SXM4-40GB", 40, 312.0, 156.0, 19.5),
    Gpu("NVIDIA-L40S", 48, 362.0, 183.0, 91.6),
    Gpu("NVIDIA-L4", 24, 121.0, 60.0, 30.3),
    Gpu("NVIDIA-GeForce-RTX-4090", 24, 165.2, 82.6, 82.6),
)


def gpu_of(label: str) -> Gpu:
    """Return the GPU of a label.

    Raises:
        InputError: an unknown one; the known ones are listed.
    """
    for gpu in GPUS:
        if gpu.label == label:
            return gpu
    raise InputError(f"GPU {label!r}: unknown; allowed: {', '.join(gpu.label for gpu in GPUS)}")
