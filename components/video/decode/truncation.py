"""Whether a container's bytes stop inside its pictures: some demuxers end quietly there.

Each format says how long its parts are. A part of pictures that is longer than the rest of the file was cut.
A part after the pictures (an index, tags) may be cut and nothing of the video is lost.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import BinaryIO

# Matroska (RFC 9559): IDs of the segment, of a cluster of frames.
_SEGMENT, _CLUSTER = 0x18538067, 0x1F43B675
_OGG_PAGE = 27  # bytes of a page's header before its table of segments (RFC 3533)
_OGG_LARGEST = _OGG_PAGE + 255 + 255 * 255


def ends_early(path: Path, container: str) -> bool:
    """Whether the file ends inside its pictures, as far as its format tells.

    Args:
        path: the file.
        container: FFmpeg's name of its format. False for those that are not Matroska, AVI, Ogg or GIF.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        if "matroska" in container:
            return _matroska(stream, size)
        if container == "avi":
            return _avi(stream, size)
        if container == "ogg":
            return _ogg(stream, size)
        if container == "gif":
            return _gif(stream)
    return False


def _matroska(stream: BinaryIO, size: int) -> bool:
    """A segment that says it is longer than the file, whose last element there is a cluster that is cut."""
    end = size
    while stream.tell() < end:
        identity, length = _ebml_number(stream, keep_marker=True), _ebml_number(stream)
        if identity is None or length is None:
            return False  # it ends between two elements: no telling whether a cluster should follow
        if identity == _SEGMENT:
            if length >= 0:
                end = stream.tell() + length
            continue
        if length < 0:
            return False  # a live recording: nothing says how long it is
        if stream.tell() + length > size:
            return identity == _CLUSTER
        stream.seek(length, os.SEEK_CUR)
    return False


def _ebml_number(stream: BinaryIO, keep_marker: bool = False) -> int | None:
    """One variable-length number (RFC 8794); -1 for the length "unknown", None where the file ends."""
    first = stream.read(1)
    if not first or not first[0]:
        return None
    more = 8 - first[0].bit_length()
    rest = stream.read(more)
    if len(rest) < more:
        return None
    value = int.from_bytes(first + rest, "big")
    if keep_marker:
        return value
    value -= 1 << (7 * (more + 1))
    return -1 if value == (1 << (7 * (more + 1))) - 1 else value


def _avi(stream: BinaryIO, size: int) -> bool:
    """A list `movi` that is longer than the rest of the file."""
    while stream.tell() + 12 <= size:
        start = stream.tell()
        name, length, kind = struct.unpack("<4sI4s", stream.read(12))
        if name == b"RIFF":
            continue  # its chunks follow; a file over 1 GB has several
        if name == b"LIST" and kind == b"movi" and start + 8 + length > size:
            return True
        stream.seek(start + 8 + length + length % 2)  # chunks fill up to an even length
    return False


def _ogg(stream: BinaryIO, size: int) -> bool:
    """A last page that is longer than the rest of the file."""
    start = max(0, size - 2 * _OGG_LARGEST)
    stream.seek(start)
    tail = stream.read()
    place = tail.rfind(b"OggS")
    if place < 0:
        return False
    page = tail[place:]
    if len(page) < _OGG_PAGE:
        return True
    segments = page[_OGG_PAGE - 1]
    table = page[_OGG_PAGE : _OGG_PAGE + segments]
    return len(table) < segments or len(page) < _OGG_PAGE + segments + sum(table)


def _gif(stream: BinaryIO) -> bool:
    """Blocks that stop before their terminator (GIF89a). Whole blocks need no trailer after them."""
    head = stream.read(13)
    if len(head) < 13:
        return True
    if head[10] & 0x80:
        stream.seek(3 << ((head[10] & 7) + 1), os.SEEK_CUR)
    while (kind := stream.read(1)) in (b"\x21", b"\x2c"):
        if kind == b"\x21":
            stream.seek(1, os.SEEK_CUR)
        else:
            picture = stream.read(9)
            if len(picture) < 9:
                return True
            if picture[8] & 0x80:
                stream.seek(3 << ((picture[8] & 7) + 1), os.SEEK_CUR)
            stream.seek(1, os.SEEK_CUR)
        while (length := stream.read(1)) != b"\0":
            if not length or len(stream.read(length[0])) < length[0]:
                return True
    return False
