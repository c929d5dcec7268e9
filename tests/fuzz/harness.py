"""Runs cases against a parser in a process of its own: with a limit on memory, and on each case's time.

A case passes if the parser returns, or raises one of the project's own errors. Anything else is a finding:
another exception, an empty message, more memory than allowed, a crash of the process, no end.
"""

from __future__ import annotations

import faulthandler
import io
import mmap
import os
import random
import resource
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path

from components.runtime.errors import OnlineVPOError, one_line
from tests.fuzz.mutation import Turn

CASE_SECONDS = 20
MEMORY_BYTES = 2**30
"""What a parser may ask for beyond what the process had at its first case."""


@dataclass(frozen=True)
class Parser:
    """Something that reads outside data.

    Attributes:
        name: shown in the table.
        examples: makes valid inputs, in a folder that lasts as long as the parser's process.
        read: reads one; it is given the bytes and a fresh folder.
        turn: makes a neighbour of an example.
        share: how many cases it gets, as a multiple of the others' number.
    """

    name: str
    examples: Callable[[Path], list[bytes]]
    read: Callable[[bytes, Path], object]
    turn: Turn
    share: float = 1.0


@dataclass
class Outcome:
    """What came of a parser's cases."""

    parser: str
    cases: int = 0
    accepted: int = 0
    refused: int = 0
    slowest: float = 0.0
    peak_mb: float = 0.0
    findings: list[str] = field(default_factory=list)


def run(parser: Parser, cases: int, seed: int) -> Outcome:
    """Run `cases` cases, the first of them the examples themselves, which must be accepted."""
    board = mmap.mmap(-1, 1 << 20)  # written by the child, read after its end, however it ended
    # Artifacts are pushed to the disk when they are published; in memory that costs nothing.
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="onlinevpo-fuzz-", dir=place) as scratch:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                _work(parser, cases, seed, Path(scratch), board)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    told = board[: board.find(b"\0")].decode(errors="replace").splitlines()
    outcome = Outcome(parser.name)
    if told:
        numbers = told[0].split()
        outcome.cases, outcome.accepted, outcome.refused = (int(n) for n in numbers[:3])
        outcome.slowest, outcome.peak_mb = float(numbers[3]), float(numbers[4])
        outcome.findings = told[1:]
    if status != 0:
        outcome.findings.append(
            f"case {outcome.cases}: the process ended with {status} (crash, or over {CASE_SECONDS} s)"
        )
    return outcome


def _work(parser: Parser, cases: int, seed: int, scratch: Path, board: mmap.mmap) -> None:
    (scratch / "examples").mkdir()
    examples = parser.examples(scratch / "examples")
    outcome = Outcome(parser.name)
    before = _peak()
    soft = _address_space() + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (soft, soft))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    quiet = io.StringIO()
    for number in range(cases):
        _tell(board, outcome)
        rng = random.Random(f"{seed} {parser.name} {number}")
        plain = number < len(examples)
        data = examples[number] if plain else parser.turn(rng.choice(examples), rng)
        folder = scratch / f"case{number}"
        folder.mkdir()
        faulthandler.dump_traceback_later(CASE_SECONDS, exit=True)
        began = time.monotonic()
        trouble = ""
        try:
            with redirect_stdout(quiet), redirect_stderr(quiet):
                parser.read(data, folder)
            outcome.accepted += 1
        except OnlineVPOError as error:
            outcome.refused += 1
            line = one_line(str(error))
            if plain:
                trouble = f"a valid example was refused: {line}"
            elif not line.strip():
                trouble = "refused without a word"
        except BaseException as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            trouble = (
                f"{type(error).__name__}: {one_line(str(error))[:150]} at {where.filename}:{where.lineno}"
            )
        faulthandler.cancel_dump_traceback_later()
        quiet.seek(0), quiet.truncate()
        outcome.cases += 1
        outcome.slowest = max(outcome.slowest, time.monotonic() - began)
        outcome.peak_mb = (_peak() - before) / 2**20
        if trouble:
            outcome.findings.append(f"case {number}: {trouble}")
        _removed(folder)
    _tell(board, outcome)


def _removed(folder: Path) -> None:
    for entry in sorted(folder.rglob("*"), reverse=True):
        entry.rmdir() if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    folder.rmdir()


def _tell(board: mmap.mmap, outcome: Outcome) -> None:
    head = f"{outcome.cases} {outcome.accepted} {outcome.refused} {outcome.slowest:.3f} {outcome.peak_mb:.1f}"
    text = "\n".join([head, *outcome.findings]).encode()[: len(board) - 1] + b"\0"
    board[: len(text)] = text


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def table(outcomes: list[Outcome]) -> str:
    """A row for each parser, then every finding."""
    rows = [
        f"{'parser':<28} {'cases':>6} {'accepted':>8} {'refused':>8} {'slowest s':>9} {'+MB':>6} {'wrong':>5}"
    ]
    for one in outcomes:
        rows.append(
            f"{one.parser:<28} {one.cases:>6} {one.accepted:>8} {one.refused:>8} {one.slowest:>9.2f} "
            f"{one.peak_mb:>6.0f} {len(one.findings):>5}"
        )
    total = sum(one.cases for one in outcomes)
    rows.append(f"{'all':<28} {total:>6}")
    rows += [f"{one.parser}: {finding}" for one in outcomes for finding in one.findings]
    return "\n".join(rows)


if __name__ == "__main__":
    sys.exit("run python -m tests.fuzz")
