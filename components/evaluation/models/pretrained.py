"""Opening a folder in transformers' form: safetensors only, nothing from the network, nothing left random."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch


def open_model(cls: Any, folder: Path, device: torch.device, **options: Any) -> Any:
    """``cls.from_pretrained(folder)`` in float32, for inference, on ``device``.

    Raises:
        ValueError: tensors are missing or of another shape; transformers would leave those random.
    """
    model, found = cls.from_pretrained(
        folder,
        use_safetensors=True,
        local_files_only=True,
        dtype=torch.float32,
        output_loading_info=True,
        **options,
    )
    missing = sorted([*found["missing_keys"], *(str(one[0]) for one in found.get("mismatched_keys", ()))])
    if missing:
        raise ValueError(f"{len(missing)} tensors are missing or of another shape, among them {missing[0]}")
    return model.eval().to(device)
