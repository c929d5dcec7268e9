"""The generator's tiny models."""

from tests.generator.conftest import model_folder

__all__ = ["model_folder"]
