"""One table's Delta log: handles that are fresh when they are used, and entries that are on the disk.

Receives: the spec of a table; entries to be made.
Produces: delta-rs handles at the newest version, new entries, and durability of what delta-rs writes.
Guarantees: a table that vanished, or was replaced by another at the same place, is an error and never
    looks like an empty one; delta-rs alone notices neither.
Never does: decide what an entry says; change or delete one that is there.
"""

from __future__ import annotations

import errno
import json
import os
import re
import threading
import uuid
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, cast
from urllib.parse import unquote

from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError

from sfwriter.exceptions import WriterTableError
from sfwriter.storage.faults import is_foreign, reported, reported_by_delta
from sfwriter.storage.log_entry import moves_of
from sfwriter.storage.log_tail import LAST_CHECKPOINT, entry_name, entry_path, missing_behind, tail_of
from sfwriter.storage.place import LOG_FOLDER, fsync_path, local_root, place_of
from sfwriter.storage.spares import SPARES, name_file, names_at_first

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sfwriter.clock import Clock
    from sfwriter.storage.engine import TableSpec
    from sfwriter.storage.log_entry import Moves

COMMITS_PER_HANDLE = 20
"""A handle costs 0.35 ms more at each look for every commit since it was opened; a checkpoint and a
reopened handle every 20 commits keep a commit at 9 to 27 ms over thousands of commits."""

_ESCAPE = re.compile("%[0-9A-Fa-f]{2}")

_TRUSTED_S = 600.0
"""For how long a missing next entry proves that a handle is at the newest version: far shorter than the
time after which log entries are tidied away."""

_MOST_PASSED = 100
_MOST_PASSED_BYTES = 1 << 20
"""Entries that are read in Python one by one, and how large one may be; beyond it delta-rs is faster."""

_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
"""`link(2)`: where the file system has none."""

_SETTLED_AT_FIRST = 64
"""How many of the newest entries are flushed when a table is first seen: those before were followed by
so many others that whoever wrote them has flushed them or is gone. Flushing a clean file is free."""


def uri_of(spec: TableSpec) -> str:
    """The address as delta-rs takes it."""
    root = local_root(spec.location)
    return spec.location if root is None else root.as_uri()


def open_table(spec: TableSpec, *, with_files: bool) -> DeltaTable | None:
    """A new handle, None where there is no table.

    `with_files` False leaves the list of data files out: at 5,000 files a commit then costs 5 ms
    instead of 21.

    Raises:
        WriterTableError: something is there that is no readable Delta table.
    """
    root = local_root(spec.location)
    if root is not None:
        _check_name(root, spec)
        with reported("open", spec):
            folder = next(folder for folder in (root, *root.parents) if folder.exists())
            if not folder.is_dir():
                raise NotADirectoryError(20, "Not a folder", str(folder))
            if folder != root:
                return None
    with reported_by_delta("open", spec):
        try:
            return _handle_on(spec, with_files=with_files)
        except TableNotFoundError:
            if root is None or not _has_entries(root / LOG_FOLDER):
                return None
        # Entries, and no table: damaged, or made between the two looks. A first entry appears whole, so
        # a second attempt tells which.
        return _handle_on(spec, with_files=with_files)


def _handle_on(spec: TableSpec, *, with_files: bool) -> DeltaTable:
    root = local_root(spec.location)
    entries = [] if root is None else _newest_entries(root)
    version = None
    if root is not None and entries:
        # Of a folder that grows a listing may show an entry and not the one before it, which delta-rs takes for
        # damage: in a log of 66,000 entries, with a commit each 5 ms, six openings of seven failed. What was there
        # before the listing began is shown.
        version = int(entries[-1].stem)
        missing = missing_behind(root, version)
        if missing is not None:
            raise _damaged(f"entry {missing} of its log is missing", [entry_name(missing)], spec)
    options = dict(spec.storage_options)
    table = DeltaTable(uri_of(spec), version=version, storage_options=options, without_files=not with_files)
    # A power cut may leave nothing of an entry: delta-rs takes that for a commit of no rows.
    empty = [entry for entry in entries if not _has_content(entry)]
    if empty:
        raise _damaged(f"entry {int(empty[0].stem)} of its log is empty", [entry.name for entry in empty], spec)
    return table


def _damaged(what: str, entries: list[str], spec: TableSpec) -> WriterTableError:
    return WriterTableError(
        f"Could not open {spec.name} at {spec.location}: {what}",
        context={"table": spec.name, "location": spec.location, "entries": entries},
        suggestions=["Put it back from a copy, and never delete it: the rows that it added are not seen without."],
        code="log_unreadable",
    )


def _newest_entries(root: Path) -> list[Path]:
    """Those that the newest version is read from; empty where there is no log."""
    try:
        return [root / LOG_FOLDER / name for name in tail_of(root).entries]
    except FileNotFoundError:
        return []


def _has_content(entry: Path) -> bool:
    try:
        return entry.stat().st_size > 0
    except FileNotFoundError:  # tidied away meanwhile, behind a checkpoint
        return True


def _check_name(root: Path, spec: TableSpec) -> None:
    # delta-rs would go to another folder: it decodes `%20`, and takes a backslash for a slash.
    if "\\" in str(root) or _ESCAPE.search(str(root)):
        raise WriterTableError(
            f"The path {root} of {spec.name} has a backslash, or a % with two digits after it: Delta's log cannot be"
            " kept there.",
            context={"table": spec.name, "location": spec.location},
            suggestions=["Choose a `warehouse` without these signs in its path."],
            code="unusable_path",
        )


class TableIdentity:
    """Which table it is: the id in its metadata, once seen. Shared by all handles on it."""

    def __init__(self, spec: TableSpec) -> None:
        self._spec = spec
        self._table_id: str | None = None

    @property
    def known(self) -> bool:
        """Whether the table was ever seen."""
        return self._table_id is not None

    @property
    def table_id(self) -> str | None:
        """The id; None where the table was never seen."""
        return self._table_id

    def expect(self, table_id: str | None) -> None:
        """Take over what another process has seen, where this one has seen nothing yet."""
        if self._table_id is None:
            self._table_id = table_id

    def check(self, table: DeltaTable | None) -> None:
        """Raise `WriterTableError` where the table that was seen earlier is gone or another one."""
        found = None if table is None else str(table.metadata().id)
        if self._table_id is None:
            self._table_id = found
        elif found != self._table_id:
            what = "is gone" if found is None else "was replaced by another table"
            raise WriterTableError(
                f"Table {self._spec.name} at {self._spec.location} {what} since it was opened.",
                context={"table": self._spec.name, "location": self._spec.location},
                suggestions=[
                    "See who removed it: rows that were acknowledged went with it.",
                    "Open a new writer to begin a new table.",
                ],
                code="table_gone",
            )


class DeltaHandle:
    """One handle, without the list of data files, brought up to date at each use. For one thread at a time.

    On a local disk delta-rs lists the whole log to bring a handle up to date: 1.3 µs for each entry. So the
    handle may stay behind commits that change nothing of what it is asked for but producers' numbers: our own
    appends, and whatever others do with files.
    """

    def __init__(self, spec: TableSpec, identity: TableIdentity, clock: Clock) -> None:
        self._spec = spec
        self._identity = identity
        self._clock = clock
        self._place = place_of(spec)
        self._root = local_root(spec.location)
        self._table: DeltaTable | None = None
        self._version = -1
        self._opened_at_version = 0
        self._looked_at_s = 0.0
        self._seen: tuple[int, tuple[int, int, int]] | None = None

    def newest(self, passed: Callable[[int, Moves], None]) -> tuple[DeltaTable, int] | None:
        """The newest version, and a handle that may be behind it by commits of files and producers' numbers.

        `passed` is told each of those that this handle was not told of by `appended`: its version, and its moves.
        Raises as `fresh`.
        """
        table = self._table
        if table is not None and self._is_same_table() and not self._has_entry(self._version + _MOST_PASSED):
            for _ in range(_MOST_PASSED):
                if self._is_newest():
                    return table, self._version
                if not self._has_passed(passed):
                    break
        table = self.fresh()
        return None if table is None else (table, self._version)

    def _has_passed(self, passed: Callable[[int, Moves], None]) -> bool:
        """Whether the next entry is there and changes nothing that the handle is asked for."""
        if self._root is None or not self._is_trusted():
            return False
        entry = self._root / entry_path(self._version + 1)
        try:
            if entry.stat().st_size > _MOST_PASSED_BYTES:
                return False
            moves = moves_of(entry.read_bytes())
        except (OSError, ValueError, LookupError, TypeError):
            self.forget()  # damaged: opening tells how
            return False
        if moves is None:
            return False
        passed(self._version + 1, moves)
        self._remember(self._version + 1)
        return True

    def fresh(self) -> DeltaTable | None:
        """The handle at the newest version, None where there is no table and never was one.

        Raises:
            WriterTableError: the table cannot be opened, is damaged, gone, or another.
        """
        table = self._table
        if table is None or not self._is_same_table():
            return self._reopened()
        if table.version() == self._version and self._is_newest():
            return table
        if self._version - table.version() > COMMITS_PER_HANDLE or self._has_entry(self._version + COMMITS_PER_HANDLE):
            return self._reopened()
        try:
            table.update_incremental()
        except BaseException as error:
            if not is_foreign(error):
                raise
            return self._reopened()  # a listing with a gap; opening tells what else there is
        self._looked_at_s = self._clock.monotonic()
        # A handle on a table that is gone brings itself "up to date" without a word.
        unchanged = table.version() <= self._version and self._place.facts(entry_path(self._version)) is None
        if unchanged or table.version() - self._opened_at_version > COMMITS_PER_HANDLE:
            return self._reopened()
        self._remember(table.version())
        return table

    def appended(self, version: int) -> bool:
        """Our own append has just made this version, the one after the newest that is known.

        False where the look that it was made by is so old that the entry may have been made a second time: the
        first one followed by others, put into a checkpoint and tidied away, while this process stood still.
        """
        trusted = self._is_trusted()
        self._remember(version)
        return trusted

    def forget(self) -> None:
        """The next `fresh` opens a new handle."""
        self._table = None

    def _reopened(self) -> DeltaTable | None:
        self._table = None
        looked_at_s = self._clock.monotonic()
        table = open_table(self._spec, with_files=False)
        self._identity.check(table)
        if table is not None:
            self._opened_at_version = table.version()
            self._remember(table.version())
        self._looked_at_s = looked_at_s
        self._table = table
        return table

    def _is_newest(self) -> bool:
        """Local only, two `stat` calls: versions have no gaps, so the next one's entry would be there."""
        if self._root is None or not self._is_trusted():
            return False
        known, following = self._root / entry_path(self._version), self._root / entry_path(self._version + 1)
        return known.exists() and not following.exists()

    def _has_entry(self, version: int) -> bool:
        """Local only: whether the table has come to this version."""
        return self._root is not None and (self._root / entry_path(version)).exists()

    def _is_trusted(self) -> bool:
        return self._clock.monotonic() - self._looked_at_s <= _TRUSTED_S

    def _is_same_table(self) -> bool:
        """Local only: entries never change, so another file under a known name belongs to another table."""
        if self._root is None:
            return True
        return self._seen is not None and self._look_of(self._seen[0]) == self._seen[1]

    def _remember(self, version: int) -> None:
        look = self._look_of(version)
        self._version = version
        self._seen = None if look is None else (version, look)

    def _look_of(self, version: int) -> tuple[int, int, int] | None:
        if self._root is None:
            return None
        try:
            found = (self._root / entry_path(version)).stat()
        except OSError:
            return None
        # The number alone is not enough: a file made after another was deleted often gets the same.
        return found.st_ino, found.st_mtime_ns, found.st_size


class LogDisk:
    """A local log's entries: makes ours, and flushes all that acknowledged rows stand on. Thread-safe."""

    def __init__(self, spec: TableSpec) -> None:
        self._spec = spec
        self._local = local_root(spec.location)
        self._root = self._local if spec.fsync else None
        self._settled = -1
        self._whole = -1
        self._lock = threading.Lock()

    @property
    def makes_entries(self) -> bool:
        """Whether `publish` may be called: delta-rs makes those in object stores."""
        return self._local is not None

    def has_links(self) -> bool:
        """Whether the file system has hard links, without which `publish` cannot work. Raises OSError."""
        with self._hidden(b"") as hidden:
            second = hidden.with_name(f"{hidden.name}.tmp")
            try:
                os.link(hidden, second)
            except OSError as error:
                if error.errno in _NO_LINKS:
                    return False
                raise
            second.unlink()
        return True

    @contextmanager
    def prepared(self, content: bytes) -> Iterator[Path]:
        """An entry that is whole and on the disk, under a name that no reader looks at or none. Raises OSError."""
        spare = SPARES.take(self._folder)
        if spare is None:
            with self._hidden(content) as hidden:
                yield hidden
        else:
            with os.fdopen(spare.descriptor, "wb") as file:
                self._write(file, content)
                yield spare.path

    @property
    def _folder(self) -> Path:
        return cast("Path", self._local) / LOG_FOLDER

    def _write(self, file: IO[bytes], content: bytes) -> None:
        file.write(content)
        file.flush()
        if self._root is not None:
            os.fsync(file.fileno())

    @contextmanager
    def _hidden(self, content: bytes) -> Iterator[Path]:
        hidden = self._folder / f".{uuid.uuid4()}.json.tmp"
        try:
            with hidden.open("xb") as file:
                self._write(file, content)
            yield hidden
        finally:
            with suppress(OSError):  # VACUUM sweeps it up
                hidden.unlink()

    def publish(self, hidden: Path, version: int, link: Callable[[Path, Path], None] | None = None) -> bool:
        """Give a prepared entry its name, where there is no entry of this version; durable after `settle`.

        `link` does it as `os.link` does; it is given an entry that has a hidden name.

        Raises:
            WriterTableError: the file system has no hard links.
            OSError: it may have its name all the same, where the answer of a network's disk was lost.
        """
        try:
            (link or name_file)(hidden, cast("Path", self._local) / entry_path(version))
        except FileExistsError:
            # A network's disk that repeats a call, whose answer was lost, finds our own entry.
            if hidden.stat().st_nlink == names_at_first(hidden):
                return False
        except OSError as error:
            if error.errno in _NO_LINKS:
                raise _no_links(self._spec) from error
            raise
        self._whole = version
        return True

    def settle(self, version: int) -> None:
        """Flush the entries up to this version that were not flushed yet, and their folder. Raises OSError.

        Entries of others too: rows that are acknowledged stand on every entry before them. And before an entry
        that takes files away, the files that it puts in their place: after OPTIMIZE, or a DELETE of somebody
        else, acknowledged rows are in those.
        """
        if self._root is None:
            return
        with self._lock:
            if version <= self._settled:
                return
            for number in range(max(self._settled + 1, version + 1 - _SETTLED_AT_FIRST), version + 1):
                entry = self._root / entry_path(number)
                if number == self._whole:
                    continue
                if number == version or entry.exists():  # older ones may be tidied away behind a checkpoint
                    self._settle_files(_stand_ins(entry.read_bytes()))
                    fsync_path(entry)
            fsync_path(self._root / LOG_FOLDER)
            self._settled = version

    def _settle_files(self, paths: list[str]) -> None:
        root = cast("Path", self._root)
        files = [root / path for path in paths]
        for path in (*files, *{file.parent for file in files}):
            with suppress(FileNotFoundError):  # a later version did without it, and VACUUM took it away
                fsync_path(path)

    def settle_new_table(self) -> None:
        """Flush everything that creating a table made. Raises OSError."""
        if self._root is not None:
            self.settle(0)
            fsync_path(self._root)
            fsync_path(self._root.parent)

    def settle_checkpoint(self, version: int) -> None:
        """Flush a checkpoint and the pointer to it. Raises OSError."""
        if self._root is None:
            return
        log = self._root / LOG_FOLDER
        for path in (*log.glob(f"{version:020}.checkpoint*.parquet"), log / LAST_CHECKPOINT):
            fsync_path(path)
        fsync_path(log)


def _no_links(spec: TableSpec) -> WriterTableError:
    """The error for a disk on which no commit can be told from another's."""
    return WriterTableError(
        f"The file system of {spec.location} has no hard links: commits to {spec.name} cannot exclude each other.",
        context={"table": spec.name, "location": spec.location},
        suggestions=["Choose a `warehouse` on a file system with hard links, or in an object store."],
        code="no_hard_links",
    )


def _stand_ins(entry: bytes) -> list[str]:
    """Paths that a log entry adds, where it removes others."""
    if b'"remove"' not in entry:
        return []
    actions = [json.loads(line) for line in entry.splitlines() if line.startswith((b'{"add"', b'{"remove"'))]
    if not any("remove" in action for action in actions):
        return []
    return [unquote(action["add"]["path"]) for action in actions if "add" in action]


def is_vacant(spec: TableSpec) -> bool:
    """Whether a table can be made there; always True for object stores. Raises `WriterTableError`.

    A log folder without an entry is what a creation leaves that ran out of space or was killed.
    """
    root = local_root(spec.location)
    if root is None:
        return True
    with reported("open", spec):
        if not root.exists():
            return True
        return all(child.name == LOG_FOLDER for child in root.iterdir()) and not _has_entries(root / LOG_FOLDER)


def _has_entries(log: Path) -> bool:
    return log.is_dir() and any(child.suffix in (".json", ".parquet") for child in log.iterdir())
