"""How a folder of weights becomes a model: by a class of transformers, or as bare tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from safetensors.torch import load_file
from torch import Tensor

from components.evaluation.models.preprocessing import Preparation
from components.runtime.artifacts.pretrained import open_model


class PreparedModel:
    """A model of transformers with its own preprocessing and, where it knows words, its tokenizer.

    Attributes:
        auto: name of the class of transformers that opens the folder.
        tokenized: whether the folder holds a tokenizer.
    """

    auto: ClassVar[str]
    tokenized: ClassVar[bool] = False

    def __init__(self, model: Any, prepare: Preparation, tokenizer: Any = None) -> None:
        self.model, self.prepare, self.tokenizer = model, prepare, tokenizer

    @classmethod
    def load(cls, folder: Path, device: torch.device) -> Self:
        """Open a folder in the form of transformers."""
        import transformers

        model = open_model(getattr(transformers, cls.auto), folder, device)
        tokenizer = None
        if cls.tokenized:
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        return cls(model, Preparation.read(folder), tokenizer)

    @property
    def labels(self) -> list[str]:
        """Names of the classes, in lower case, by index."""
        names = {int(key): str(name).lower() for key, name in self.model.config.id2label.items()}
        return [names[index] for index in sorted(names)]


class TensorModel:
    """A model whose code is here and whose folder holds nothing but ``model.safetensors``.

    Attributes:
        title: the model in words.
        landmark: name of a tensor that only this model has.
    """

    title: ClassVar[str]
    landmark: ClassVar[str]

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.tensors = tensors

    @classmethod
    def load(cls, folder: Path, device: torch.device) -> Self:
        """Open ``model.safetensors``.

        Raises:
            ValueError: it holds the tensors of another model.
        """
        tensors = load_file(folder / "model.safetensors", device=str(device))
        if cls.landmark not in tensors:
            raise ValueError(f"not the tensors of {cls.title}")
        return cls(tensors)
