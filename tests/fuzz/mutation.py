"""Hostile neighbours of a valid file, drawn from a seed: bytes turned, structure turned, sizes made up."""

from __future__ import annotations

import copy
import json
import random
import struct
from collections.abc import Callable
from typing import Any

#: Replaced in the text after it was written, because no JSON writer nests this deeply.
_DEEP, _HUGE, _RAW = "@DEEP@", "@HUGE@", "@RAW@"

VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63) - 1, 10**40, 0.5, -0.0, 1e-320, 1e308, "", " ", "x",
    "-1", "nan", "true", "${oc.env:HOME}", "${run.seed}", "../../etc/passwd", "/etc/passwd", "a\\b",
    "\x00", "\x1b[2J", "\n\n", "\u202e", "\ud800", "é" * 300, "<script>alert(1)</script>", "file:///etc/passwd",
    "s3://", "s3://bucket/../x", "http://127.0.0.1:9/", [], {}, [[]], [None], {"": None}, {"a": {"b": []}},
    [0, 1], [1, "x"], _DEEP, _HUGE, _RAW,
)  # fmt: skip
RAW = (
    "NaN",
    "Infinity",
    "-Infinity",
    "1e999",
    "9" * 5000,
    "0x10",
    "1_000",
    "[",
    "}",
    "*a",
    "&a [*a]",
    "!!python/x",
)
TOKENS: tuple[bytes, ...] = (
    b"\x00", b"\xff", b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"\x7f\xff\xff\xff", b"\r\n",
    b"\xef\xbb\xbf", b"\t", b"[" * 50, b"{" * 50, b"&a ", b"*a", b"<<: *a\n", b"---\n",
    b"!!python/object:os.system ",
    b"${", b"}", b"'", b'"', b": ", b"- ", b"\\ud800", b"1e999", b"NaN", b"../",
    b"\xf0\x9f\x98\x80", b"\xe2\x80\xa8",
)  # fmt: skip


def bytes_turned(data: bytes, rng: random.Random) -> bytes:
    """A few random edits of the bytes."""
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at = rng.randrange(len(found) + 1)
        length = min(rng.choice((1, 2, 4, 8, 64, 1024)), len(found))
        match rng.randrange(7):
            case 0 if found:
                found[at % len(found)] ^= 1 << rng.randrange(8)
            case 1:
                found[at:at] = rng.choice(TOKENS)
            case 2:
                del found[at : at + length]
            case 3:
                found[at:at] = found[at : at + length]
            case 4:
                found[at : at + length] = rng.randbytes(length)
            case 5:
                other = rng.randrange(len(found) + 1)
                found[at : at + length] = found[other : other + length]
            case 6:
                number = rng.choice((0, 1, 2**31 - 1, 2**32 - 1, 2**63, rng.getrandbits(64)))
                found[at : at + 8] = struct.pack(rng.choice("<>") + "Q", number)
    if rng.random() < 0.1:
        del found[rng.randrange(len(found) + 1) :]
    return bytes(found)


def structure_turned(data: bytes, rng: random.Random) -> bytes:
    """A JSON text (which is YAML as well) with random values, keys and depths at random places."""
    tree = [json.loads(data)]
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        holder, key = rng.choice(list(_places(tree)))
        match rng.randrange(5):
            case 0 if isinstance(holder, dict):
                del holder[key]
            case 1 if isinstance(holder, dict):
                new = rng.choice(("", "x", "run", "é", "a.b", "\x1b[2J", "__class__", key + " "))
                holder[new] = copy.deepcopy(holder[key])
            case 2 if isinstance(holder, list):
                holder.append(copy.deepcopy(holder[key]))
            case _:
                holder[key] = copy.deepcopy(rng.choice(VALUES))
    text = json.dumps(tree[0] if tree else None)
    depth, raw = rng.choice((30, 1000, 20_000)), rng.choice(RAW)
    opening, closing = rng.choice((("[", "]"), ('{"a":', "}")))
    text = text.replace(f'"{_DEEP}"', opening * depth + "0" + closing * depth)
    text = text.replace(f'"{_HUGE}"', '"' + "A" * rng.choice((70_000, 1_000_000)) + '"').replace(
        f'"{_RAW}"', raw
    )
    return text.encode()


def _places(tree: Any) -> Any:
    """Every (container, key) of a tree of lists and dicts."""
    pairs = list(enumerate(tree)) if isinstance(tree, list) else list(tree.items())
    for key, value in pairs:
        yield tree, key
        if isinstance(value, list | dict):
            yield from _places(value)


def json_turned(data: bytes, rng: random.Random) -> bytes:
    """Half of the time by structure, half of the time by bytes."""
    return structure_turned(data, rng) if rng.random() < 0.5 else bytes_turned(data, rng)


def lines_turned(data: bytes, rng: random.Random) -> bytes:
    """JSON lines: one line turned, or the bytes of the whole."""
    if rng.random() < 0.5:
        return bytes_turned(data, rng)
    lines = data.splitlines()
    place = rng.randrange(len(lines))
    lines[place] = structure_turned(lines[place], rng)
    return b"\n".join(lines) + b"\n"


def tensors_turned(data: bytes, rng: random.Random) -> bytes:
    """A safetensors file: its header by structure with the length put right, or the bytes of the whole."""
    if rng.random() < 0.4:
        return bytes_turned(data, rng)
    size = int.from_bytes(data[:8], "little")
    header = structure_turned(data[8 : 8 + size], rng)
    if rng.random() < 0.2:
        header = header.replace(b'"dtype": "', b'"dtype": "' + rng.choice((b"F", b"U", b"C", b"BF")))
    length = len(header) if rng.random() < 0.8 else rng.choice((0, 2**63, 2**64 - 1, 10**9, len(header) + 1))
    return length.to_bytes(8, "little") + header + data[8 + size :]


Turn = Callable[[bytes, random.Random], bytes]
