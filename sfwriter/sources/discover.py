"""What there is to read: files, folders and globs, to a list of sources.

Receives: names as a person types them.
Produces: one `Source` for each file, known by its resolved path, in a stable order.
Guarantees: a file that is named twice, directly, through a folder or through a symbolic link, is there
    once. Its producer id depends on the resolved path alone.
Never does: open a file.
"""

from __future__ import annotations

import glob
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import xxhash

from sfwriter.exceptions import WriterValidationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

Format = Literal["parquet", "jsonl", "csv"]
Compression = Literal["gzip", "zstd"]

PRODUCER_PREFIX = "backfill:"

_FORMATS: dict[str, Format] = {
    ".parquet": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    # Spark and most exporters give one object a line this name; a JSON document is refused when it is read.
    ".json": "jsonl",
    ".csv": "csv",
}
_COMPRESSIONS: dict[str, Compression] = {".gz": "gzip", ".zst": "zstd", ".zstd": "zstd"}

ACCEPTED = ".parquet, .jsonl, .ndjson, .json (one object a line) and .csv, the text formats also with .gz or .zst"


@dataclass(frozen=True, slots=True)
class Source:
    """One file to read.

    Attributes:
        path: resolved: absolute, without symbolic links.
        format: how its rows are written.
        compression: of a text format, None where there is none.
    """

    path: Path
    format: Format
    compression: Compression | None = None

    @property
    def key(self) -> str:
        """32 hex digits of the resolved path."""
        return xxhash.xxh3_128_hexdigest(os.fsencode(self.path))

    def producer_id(self, generation: int = 0) -> str:
        """The producer that this source's rows are written under.

        Generation 0 is the source as it was first met; each `--as-new` that starts over is the next one.
        """
        return f"{PRODUCER_PREFIX}{self.key}" + (f".{generation}" if generation else "")

    def __str__(self) -> str:
        """The path, in characters that can be printed."""
        return os.fsencode(self.path).decode("utf-8", "backslashreplace")


@dataclass(frozen=True, slots=True)
class Found:
    """What the names led to.

    Attributes:
        sources: in the order of the names, the files of a folder or glob sorted by path.
        empty: folders in which there is nothing.
        skipped: files of folders and globs whose name says that they are something else.
    """

    sources: list[Source] = field(default_factory=list)
    empty: list[Path] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)


def source_of(path: Path) -> Source | None:
    """The source behind a path, by its name; None where the name says that it is something else."""
    resolved = path.resolve()
    stem = resolved.name.lower()
    compression = next((kind for suffix, kind in _COMPRESSIONS.items() if stem.endswith(suffix)), None)
    if compression is not None:
        stem = stem.rpartition(".")[0]
    found = next((kind for suffix, kind in _FORMATS.items() if stem.endswith(suffix)), None)
    if found is None or (found == "parquet" and compression is not None):
        return None
    return Source(resolved, found, compression)


def discover(names: Sequence[str]) -> Found:
    """Files, folders and globs (`*`, `?`, `[…]`, `**`) to sources.

    A folder is read with all folders below it, but for symbolic links to folders. In folders and globs,
    names that begin with `.` or `_` are left out, as Spark does. A name that exists is never a glob.

    Raises:
        WriterValidationError: nothing is there, it is nothing that can be read, or it is a Delta table.
    """
    found = Found()
    known: set[Path] = set()
    for name in names:
        _take(name, found, known)
    return found


def _take(name: str, found: Found, known: set[Path]) -> None:
    path = Path(name)
    if path.is_dir():
        _take_all(name, list(_walk(path)), found, known)
    elif path.exists():
        source = source_of(path) if path.is_file() else None
        if source is None:
            raise _unreadable(name, "is nothing that backfill reads" if path.is_file() else "is no regular file")
        _add(source, found, known)
    elif glob.has_magic(name):
        matches = sorted(set(_matches(name)))
        if not matches:
            raise _unreadable(name, "matches nothing")
        files = [file for match in matches if not _hidden(match, name) for file in _files_of(match)]
        _take_all(name, files, found, known)
    else:
        raise _unreadable(name, "is not there" if not path.is_symlink() else "is a symbolic link to nothing")


def _take_all(name: str, files: list[Path], found: Found, known: set[Path]) -> None:
    if not files:
        found.empty.append(Path(name))
        return
    sources = {file: source_of(file) for file in files}
    if not any(sources.values()):
        raise _unreadable(name, f"holds nothing that backfill reads ({files[0].name} and the like)")
    for file, source in sources.items():
        if source is None:
            found.skipped.append(file)
        else:
            _add(source, found, known)


def _add(source: Source, found: Found, known: set[Path]) -> None:
    if source.path not in known:
        known.add(source.path)
        found.sources.append(source)


def _visible(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Each folder from this one down with the names of its files, but for those that are left out."""
    for root, folders, names in os.walk(folder):
        if "_delta_log" in folders:
            raise _unreadable(
                root,
                "is a Delta table: its folder also holds files that the table has removed",
                "export its rows, and backfill the export",
            )
        folders[:] = sorted(name for name in folders if name[0] not in "._")
        yield root, sorted(name for name in names if name[0] not in "._")


def _files_of(path: Path) -> Iterable[Path]:
    if path.is_dir():
        return _walk(path)
    return [path] if path.is_file() else []


def _walk(folder: Path) -> Iterator[Path]:
    for root, names in _visible(folder):
        yield from (path for name in names if (path := Path(root, name)).is_file())


def _matches(pattern: str) -> Iterator[Path]:
    """What a glob stands for; `**` is what `_walk` goes through.

    The standard library's `**` follows symbolic links: two folders that hold links to one another keep it busy
    for hours. It also looks into folders whose names begin with `_`.
    """
    parts = Path(pattern).parts
    if "**" not in parts:
        yield from map(Path, glob.glob(pattern))  # noqa: PTH207  Path.glob takes no absolute pattern
        return
    place = parts.index("**")
    rest = parts[place + 1 :]
    for start in _matches(str(Path(*parts[:place]))) if place else [Path()]:
        if not start.is_dir():
            continue
        if not rest:
            yield start
            continue
        for folder in _folders(start):
            yield from _matches(str(Path(glob.escape(str(folder)), *rest)))


def _folders(start: Path) -> Iterator[Path]:
    """A folder and those below it."""
    for root, _ in _visible(start):
        yield Path(root)


def _hidden(match: Path, pattern: str) -> bool:
    return match.name[:1] in {".", "_"} and Path(pattern).name[:1] != match.name[:1]


def _unreadable(name: str, what: str, advice: str | None = None) -> WriterValidationError:
    return WriterValidationError(
        f"{name} {what}",
        context={"source": name},
        suggestions=[advice or f"give files, folders or globs (in quotes) of {ACCEPTED}"],
        code="source_unreadable",
    )
