"""The base text-to-video model: families over diffusers, sampling, and the miniature.

The miniature ships with the project.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from components.generator.generator import Generator

__all__ = ["Generator"]


def __getattr__(name: str) -> Any:
    # diffusers takes seconds to load; asking a command for --help should not need it.
    if name == "Generator":
        from components.generator.generator import Generator

        return Generator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
