from __future__ import annotations

import pytest

from components.video.clip import Clip
from tests.video.files import drifting_clip


@pytest.fixture(scope="session")
def drifting() -> Clip:
    """24 frames at 24 fps of smooth texture that drifts, 64 x 96."""
    return drifting_clip()
