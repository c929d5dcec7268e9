"""Where results may go: nothing is erased that no command of this project made.

A place that is not empty is replaced only if all that is in it is an earlier result of the same kind: the
folder's index (an artifact's manifest.json) lists every file there. What an interrupted attempt of ours left
is known as well: a workspace by its identity, a folder about to be replaced by its mark, an unfinished upload
by its list. Everything else is refused in one line before the work begins.
"""

from __future__ import annotations

import os
import pwd
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

from components.runtime.artifacts.manifest import MANIFEST, parse_manifest
from components.runtime.artifacts.workspace import IDENTITY, identity_of, is_workspace
from components.runtime.errors import InputError
from components.runtime.io import storage
from components.runtime.io.files import REPLACED, previous_of, unused

#: Names that a refusal gives as examples.
SHOWN = 3


@dataclass(frozen=True)
class OutputKind:
    """A kind of result that is a folder.

    Attributes:
        about: what it is called in an error, with its article.
        index: the file in it that lists the others.
        listed: the names in an index's text, relative to the folder; InputError if that is no such index.
            Its second argument names the place.
        step: the step that makes it, "" if none does.
    """

    about: str
    index: str
    listed: Callable[[bytes, str], Iterable[str]]
    step: str = ""


def artifact_of(step: str) -> OutputKind:
    """Artifacts of a step."""

    def listed(text: bytes, where: str) -> Iterable[str]:
        manifest = parse_manifest(text, f"{where}/{MANIFEST}")
        if manifest.step != step:
            raise InputError(
                f"{where}: holds an artifact of step {manifest.step}, which one of step {step} does not "
                "replace; name another place"
            )
        return manifest.files

    return OutputKind(f"an artifact of step {step}", MANIFEST, listed, step)


def check(out: str | Path, kind: OutputKind, reads: Iterable[Any] = ()) -> None:
    """Check that a result of this kind may be put at `out`. Changes nothing.

    Args:
        out: a folder, file:// or s3:// URI.
        kind: what is to be put there.
        reads: the places that the work reads; what is no path or URI among them counts as nothing.

    Raises:
        InputError: `out` is a place that is never replaced (see `never`), lies in, at or around something
            that is read, or holds anything else than an earlier result of this kind.
    """
    if storage.is_remote(out):
        _check_apart(str(out), reads)
        replaceable(str(out), kind)
        return
    target = target_of(out)
    never(target)
    _check_apart(str(target), reads)
    if target.exists():
        foreign = foreign_names(target, kind)
        if foreign:
            raise InputError(_refusal(str(target), foreign, kind, (target / kind.index).is_file()))
    if kind.step:
        check_workspace(target.with_name(f"{target.name}.partial"), kind)


def target_of(out: str | Path) -> Path:
    """The folder that a local `out` names: absolute, and what it leads to where it is a symbolic link.

    Raises:
        InputError: it is the root of the file system.
    """
    path = Path(os.path.abspath(storage.local_path(out)))
    path = path.resolve() if path.is_symlink() else path
    if not path.name:
        never(path)
    return path


def never(target: Path) -> None:
    """Refuse the places that no command may replace, whatever is in them.

    Raises:
        InputError: `target` is a file, a mounted file system's root, the working folder or a home folder, or
            contains one of the latter two.
    """
    real = target.resolve()
    if target.exists() and not target.is_dir():
        raise InputError(f"{target}: cannot be written: a file is in the place of the folder")
    for folder, name in ((Path.cwd(), "the working folder"), *((home, "a home folder") for home in _homes())):
        if folder.is_relative_to(real):
            word = "is" if folder == real else "contains"
            raise InputError(f"{target}: {word} {name}, which is never replaced; name a folder of its own")
    if os.path.ismount(real):
        raise InputError(f"{target}: is where a file system begins; name a folder inside it")


def check_workspace(partial: Path, kind: OutputKind) -> None:
    """Refuse a folder in the place of a result's workspace that no attempt at this kind of result left.

    Raises:
        InputError: there is such a folder, or a file or link.
    """
    if not os.path.lexists(partial):
        return
    if partial.is_symlink() or not partial.is_dir():
        raise InputError(f"{partial}: in the way: the work is done in a folder of that name; move it away")
    if is_workspace(partial):
        step = identity_of(partial).get("step", kind.step)
        if step != kind.step:
            raise InputError(
                f"{partial}: an unfinished attempt at step {step}; remove it or name another place"
            )
        return
    try:  # an earlier result that has been replaced and not yet been removed
        foreign = foreign_names(partial, kind)
    except InputError:
        foreign = [kind.index]
    if foreign:
        raise InputError(
            f"{partial}: in the way: the work is done in a folder of that name, and this one was not made by "
            f"an earlier attempt (it holds {_examples(foreign)}); move it away"
        )


def replaceable(uri: str, kind: OutputKind) -> set[str]:
    """The names under an s3:// prefix that a result of this kind may overwrite or remove.

    Raises:
        InputError: `uri` is a whole bucket, or holds anything else.
    """
    if "/" not in uri.removeprefix("s3://").strip("/"):
        raise InputError(f"{uri}: is a whole bucket, which is never replaced; the form is s3://bucket/prefix")
    place = uri.rstrip("/")
    text = storage.read_bytes(f"{place}/{kind.index}")
    ours = storage.unfinished_upload(place)
    if text is not None:
        ours |= {kind.index, *kind.listed(text, place)}
    others = (f.name for f in storage.each_file(place) if f.name not in ours and not storage.is_probe(f))
    foreign = list(islice(others, SHOWN + 1))  # a prefix may hold millions
    if foreign:
        raise InputError(_refusal(uri, foreign, kind, text is not None))
    return ours


def foreign_names(folder: Path, kind: OutputKind, readable: bool = True) -> list[str]:
    """Names in `folder` that are not part of a result of this kind, nor of our work on it.

    Raises:
        InputError: its index is damaged, or that of another result; as a foreign name if not `readable`.
    """
    entries = _entries(folder)
    text = _read(folder / kind.index)
    known = {REPLACED}
    if text is not None:
        try:
            known |= {kind.index, *kind.listed(text, str(folder))}
        except InputError:
            if readable:
                raise
    parents = {str(parent) for name in known for parent in PurePosixPath(name).parents}
    published = text is not None and (folder / IDENTITY).is_file()  # killed before the rest was cleared
    return [
        name
        for name in entries
        if name not in known
        and not (published and name.startswith("."))
        and not (name in parents and (folder / name).is_dir() and not (folder / name).is_symlink())
    ]


def recover(target: Path, kind: OutputKind) -> None:
    """Put back, or finish removing, what a kill left of a result that was being replaced."""
    for previous in previous_of(target):
        if bool(foreign_names(previous, kind, readable=False)):
            continue
        if target.exists():
            remove_result(previous, kind)
        else:
            previous.rename(target)
            (target / REPLACED).unlink()


def remove_result(folder: Path, kind: OutputKind) -> None:
    """Remove a result that has been replaced: the files that its index lists, and no others.

    The index and the mark go last: cut short, the rest is still known as ours. Files that somebody put there
    in the meantime stay, in a folder whose name is printed.
    """
    text = _read(folder / kind.index)
    names = set() if text is None else set(kind.listed(text, str(folder)))
    if (folder / IDENTITY).is_file():
        names |= {name for name in _entries(folder) if name.startswith(".") and name != REPLACED}
    for name in sorted(names - {IDENTITY}):
        path = folder / name
        if any(
            (folder / parent).is_symlink() for parent in PurePosixPath(name).parents if str(parent) != "."
        ):
            continue  # what a link leads to is somebody else's
        if path.is_symlink() or path.is_file():
            path.unlink()
        elif path.is_dir():
            _rmdir(path)
    for parent in sorted({p for name in names for p in PurePosixPath(name).parents}, reverse=True):
        if str(parent) != ".":
            _rmdir(folder / parent)
    for name in (IDENTITY, kind.index, REPLACED):
        (folder / name).unlink(missing_ok=True)
    if not _rmdir(folder):
        kept = unused(folder.with_name(f"{folder.name.removesuffix('.partial')}.kept"))
        folder.rename(kept)
        print(f"warning: {kept}: kept, it was not part of the result that was replaced", file=sys.stderr)


def check_file(path: Path, what: str, ours: Callable[[Path], bool]) -> None:
    """Check that a file may be written at `path`: nothing is there, or what a command of ours wrote.

    Args:
        path: the file to be written.
        what: what is written, with its article.
        ours: whether an existing file is one of these.

    Raises:
        InputError: there is a folder, or a file of another kind.
    """
    if path.is_dir():
        raise InputError(f"{path}: cannot be written: it is a folder")
    if not path.exists():
        return
    try:
        known = path.stat().st_size == 0 or ours(path)
    except (OSError, ValueError):
        known = False
    if not known:
        raise InputError(f"{path}: holds something else than {what}, and is not replaced; name another file")


def starts_with(*beginnings: str) -> Callable[[Path], bool]:
    """For `check_file`: whether a file's text begins with one of these."""

    def matches(path: Path) -> bool:
        with path.open("rb") as file:
            begin = file.read(max(len(text.encode()) for text in beginnings))
        return any(begin.startswith(text.encode()) for text in beginnings)

    return matches


def _entries(folder: Path) -> list[str]:
    """Names, relative to `folder`, of every file, link and empty folder in it."""
    entries = []
    for at, folders, files in os.walk(folder, onerror=_raise):
        links = [name for name in folders if os.path.islink(os.path.join(at, name))]
        names = files + links if files or folders or at == str(folder) else [""]
        entries += [Path(at, name).relative_to(folder).as_posix() for name in names]
    return sorted(entries)


def _raise(error: OSError) -> None:
    raise InputError(f"{error.filename}: cannot be read: {error.strerror}; it is not replaced") from error


def _read(file: Path) -> bytes | None:
    return file.read_bytes() if file.is_file() else None


def _rmdir(folder: Path) -> bool:
    try:
        folder.rmdir()
    except OSError:
        return not folder.exists()
    return True


def _homes() -> list[Path]:
    homes = [os.environ.get("HOME", ""), pwd.getpwuid(os.getuid()).pw_dir if _has_account() else ""]
    return [Path(home).resolve() for home in homes if home]


def _has_account() -> bool:
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:  # a container's user need not have one
        return False
    return True


def _check_apart(out: str, reads: Iterable[Any]) -> None:
    target = _parts(out)
    for read in reads:
        place = getattr(read, "path", read)  # an opened artifact
        if not isinstance(place, (str, Path)) or not str(place):
            continue
        source = _parts(str(place))
        if target[0] != source[0] or (target[0] == "local" and not Path(source[1]).exists()):
            continue
        mine, theirs = PurePosixPath(target[1]), PurePosixPath(source[1])
        word = "is" if mine == theirs else "contains" if theirs.is_relative_to(mine) else "lies in"
        if mine.is_relative_to(theirs) or theirs.is_relative_to(mine):
            raise InputError(f"{out}: {word} {place}, which is an input; name another place")


def _parts(place: str) -> tuple[str, str]:
    if "://" in place and not place.startswith("file://"):
        scheme, _, rest = place.partition("://")
        return scheme, rest.rstrip("/")
    return "local", str(storage.local_path(place).resolve())


def _refusal(place: str, foreign: list[str], kind: OutputKind, has_index: bool) -> str:
    if has_index:
        return (
            f"{place}: holds {kind.about}, and with it what is not part of it ({_examples(foreign)}); move "
            "that away or name another place"
        )
    return (
        f"{place}: not empty ({_examples(foreign)}), and not {kind.about}, which alone would be replaced; "
        "name a new or empty place"
    )


def _examples(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (" and more" if len(names) > SHOWN else "")
