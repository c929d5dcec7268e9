"""From a decoded frame to the RGB pixels that a player shows: colours, size, orientation, dynamic range.

Everything comes out as 8-bit RGB, full range. YUV is read by the matrix and range that the file names; where
it names none FFmpeg's rule holds, BT.601 of limited range.

HDR (HLG or PQ) is shown as on an SDR screen: HDR's diffuse white, 203 cd/m2 (ITU-R BT.2408), becomes SDR's
white, and what is brighter or outside BT.709's colours is clipped. A picture that was SDR before it was put
into an HDR file comes out as it was.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from components.runtime.errors import InputError

Pixels = NDArray[np.uint8]

# ITU-T H.273's code points.
_PQ, _HLG = 16, 18
_BT709_PRIMARIES = 1
_UNREADABLE = {14: "ICtCp", 15: "Dolby Vision's own colours (IPT-C2)"}
# cd/m2: diffuse white (BT.2408), PQ's and the nominal HLG screen's peak (BT.2100).
WHITE, PQ_PEAK, HLG_PEAK = 203.0, 10_000.0, 1_000.0
HLG_GAMMA = 1.2  # of the nominal screen (BT.2100, table 5)
SDR_GAMMA = 2.4  # of a studio screen (BT.1886)
LUMINANCE_2020 = (0.2627, 0.6780, 0.0593)
# Linear BT.2020 to BT.709 (BT.2087, its inverse).
TO_BT709 = ((1.6605, -0.5876, -0.0728), (-0.1246, 1.1329, -0.0083), (-0.0182, -0.1006, 1.1187))


class RgbReader:
    """Turns the frames of one file into RGB, through FFmpeg's own scale filter."""

    # AREA averages source pixels when shrinking. Without the other two swscale halves the chroma's resolution
    # again and rounds down, by one or two levels of 255.
    FLAGS = "area+accurate_rnd+full_chroma_int"

    def __init__(self) -> None:
        self._key: tuple[object, ...] = ()
        self._graph: Any = None
        self._count = 0
        self._matrix: tuple[int, int, int, int] | None = None

    def pixels(self, frame: Any, size: tuple[int, int]) -> Pixels:
        """uint8 (h, w, 3) of a decoded frame, scaled to (height, width) as stored, then turned as shown.

        Raises:
            InputError: colours that cannot be read.
        """
        if frame.colorspace in _UNREADABLE:
            raise InputError(f"its colours are {_UNREADABLE[frame.colorspace]}, which cannot be read")
        # The first frame's orientation holds for all. Asking each would also tie it into a circle of
        # references, which keeps it alive until Python's collector comes by.
        self._matrix = self._matrix or display_matrix(frame)
        if frame.color_trc in (_PQ, _HLG):
            hlg, wide = frame.color_trc == _HLG, frame.color_primaries != _BT709_PRIMARIES
            light = self._scaled(frame, size, "gbrpf32le")
            shown = sdr(torch.from_numpy(light), hlg=hlg, wide=wide).numpy()
        else:
            shown = self._scaled(frame, size, "rgb24")
        return oriented(shown, self._matrix)

    def _scaled(self, frame: Any, size: tuple[int, int], form: str) -> Any:
        """(height, width, 3) in a pixel format.

        A filter graph and not PyAV's `reformat`: that takes H.264's chroma to lie left of the luma, by the
        letter of the standard. Encoders that are fed RGB (ours too) put it in the middle, and FFmpeg reads it
        there.
        """
        key = (frame.width, frame.height, frame.format.name, frame.colorspace, frame.color_range, size, form)
        if key != self._key:
            self._key, self._graph = key, _scaling_graph(frame, size, form, self.FLAGS)
        frame.pts, self._count = self._count, self._count + 1
        self._graph.push(frame)
        return self._graph.pull().to_ndarray()


def _scaling_graph(frame: Any, size: tuple[int, int], form: str, flags: str) -> Any:
    import av.filter

    graph = av.filter.Graph()
    graph.threads = 1
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 1000)
    )
    scale = graph.add("scale", f"w={size[1]}:h={size[0]}:flags={flags}")
    wanted, sink = graph.add("format", form), graph.add("buffersink")
    source.link_to(scale)
    scale.link_to(wanted)
    wanted.link_to(sink)
    graph.configure()
    return graph


def sdr(signal: Tensor, *, hlg: bool, wide: bool) -> Tensor:
    """HDR to SDR, by the electro-optical transfer functions of ITU-R BT.2100.

    Args:
        signal: float32 (..., 3) RGB, 0..1 as coded.
        hlg: by hybrid log-gamma, else by PQ.
        wide: with BT.2020's primaries, else with BT.709's.

    Returns:
        uint8 (..., 3).
    """
    light = (_hlg_light(signal) if hlg else _pq_light(signal)) / WHITE
    if wide:
        light = light @ torch.tensor(TO_BT709, dtype=light.dtype).T
    return (light.clamp(0.0, 1.0).pow(1 / SDR_GAMMA) * 255.0).round().to(torch.uint8)


def _hlg_light(signal: Tensor) -> Tensor:
    """cd/m2 on the nominal screen."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    coded = signal.clamp(0.0, 1.0)
    scene = torch.where(coded <= 0.5, coded.square() / 3, (((coded - c) / a).exp() + b) / 12)
    luminance = (scene * torch.tensor(LUMINANCE_2020, dtype=scene.dtype)).sum(dim=-1, keepdim=True)
    return HLG_PEAK * luminance.pow(HLG_GAMMA - 1) * scene


def _pq_light(signal: Tensor) -> Tensor:
    """cd/m2 (SMPTE ST 2084)."""
    m1, m2 = 2610 / 16384, 2523 / 32
    c1, c2, c3 = 3424 / 4096, 2413 / 128, 2392 / 128
    root = signal.clamp(0.0, 1.0).pow(1 / m2)
    return PQ_PEAK * ((root - c1).clamp(min=0.0) / (c2 - c3 * root)).pow(1 / m1)


def display_matrix(frame: Any) -> tuple[int, int, int, int]:
    """(a, b, c, d) of a frame's display matrix: x' = a x + c y, y' = b x + d y, up to a factor."""
    try:
        matrix = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # data that PyAV has no name for (a headset's second view) hides all the rest
        turns = round(frame.rotation / 90) % 4
        return ((1, 0, 0, 1), (0, -1, 1, 0), (-1, 0, 0, -1), (0, 1, -1, 0))[turns]
    if matrix is None:
        return 1, 0, 0, 1
    a, b, _, c, d = (int(value) for value in np.frombuffer(bytes(matrix), "=i4")[:5])
    return a, b, c, d


def oriented(pixels: Pixels, matrix: tuple[int, int, int, int]) -> Pixels:
    """(h, w, 3) turned and mirrored by a display matrix; one between two quarter turns takes the nearer.

    All eight orientations: where x' depends on y, rows and columns change places; then each axis whose entry
    is negative runs the other way.
    """
    a, b, c, d = matrix
    if abs(b) + abs(c) > abs(a) + abs(d):
        pixels, across, down = pixels.transpose(1, 0, 2), c, b
    else:
        across, down = a, d
    return np.ascontiguousarray(pixels[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1])
