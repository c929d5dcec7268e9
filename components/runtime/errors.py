"""The errors a step may end with, and the exit code each one stands for.

Anything that is not one of these is a bug and is shown with its traceback (exit code 1).
"""

from __future__ import annotations

import errno
import os
import re


class OnlineVPOError(Exception):
    """An expected end of a step: one line for the person who reads it, no traceback."""

    exit_code = 1
    label = "error"


class InputError(OnlineVPOError):
    """Bad params, input or output location. The message says what, where, and what is allowed."""

    exit_code = 2


class GateRefused(OnlineVPOError):
    """A quality gate said no. The message is the reason, with the figures that decided it."""

    exit_code = 3
    label = "refused"


class Interrupted(OnlineVPOError):
    """Stopped from outside; the same command resumes where this one ended."""

    exit_code = 75
    label = "interrupted"

    def __init__(self, message: str = "stopped on request; run the same command again to resume") -> None:
        super().__init__(message)


#: Characters of an error that are shown.
LINE_CAP = 4000


def one_line(text: object) -> str:
    """`text`, or an error's message, as one line that is safe to print.

    Line ends become spaces, control characters are escaped, and a long text is cut short: messages
    quote names and values that others chose, and a terminal obeys control characters.
    """
    line = shortened(" ".join(str(text).split()), LINE_CAP)
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in line)


def shortened(text: str, cap: int) -> str:
    """`text`, or where it is longer than `cap` characters its whole words that fit, and how long it was."""
    if len(text) <= cap:
        return text
    note = f" ... ({len(text):,} characters)"
    kept = text[: max(cap - len(note), 0)]
    return f"{kept.rsplit(None, 1)[0] if ' ' in kept.strip() else kept}{note}"[:cap]


_STORAGE_ERRNOS = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EROFS,
        errno.EACCES,
        errno.EPERM,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.ENAMETOOLONG,
        errno.EFBIG,
    }
)

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})

# safetensors reports I/O failures from Rust as text: IoError(Os { code: 28, kind: StorageFull, ... })
_RUST_OS_ERROR = re.compile(r"Os \{ code: (\d+)|os error (\d+)")


def storage_failure(error: BaseException) -> str | None:
    """One line about a full, read-only or forbidden disk if that is what `error` is, else None.

    Looks through the chain of causes, because libraries wrap the operating system's error in their own.
    """
    seen: set[int] = set()
    allowed = _STORAGE_ERRNOS
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        if isinstance(current, OSError) and current.errno in allowed:
            names = [str(n) for n in (current.filename, current.filename2) if n]
            where = f"{' -> '.join(names)}: " if names else ""
            return f"{where}{os.strerror(current.errno)}"
        if type(current).__name__ == "SafetensorError":
            match = _RUST_OS_ERROR.search(str(current))
            code = int(match[1] or match[2]) if match else 0
            if code in allowed:
                return f"writing tensors: {os.strerror(code)}"
        if current.__cause__ is None:
            # Not a declared cause, merely what was being handled: only a full disk explains what came after
            # it.
            allowed = _FULL
            current = None if current.__suppress_context__ else current.__context__
        else:
            current = current.__cause__
    return None
