"""Where a table's files are: a folder of this machine, or an object store.

Receives: a location and paths relative to it, with `/` between folders.
Produces: files that are whole when they have their name.
Guarantees: on a local disk a kept file was written under a hidden name or none, flushed to the disk (where
    asked for) and then named; a dropped one leaves nothing. An object appears when its upload is complete.
Never does: list, overwrite, or create the location itself: a table that vanished stays away.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa
import pyarrow.fs as pafs

from sfwriter.storage.spares import SPARES, name_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sfwriter.storage.engine import TableSpec
    from sfwriter.storage.spares import Spare

_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*://")

LOG_FOLDER = "_delta_log"


@dataclass(frozen=True, slots=True)
class FileFacts:
    """A file's size in bytes and its modification time in epoch milliseconds."""

    size_bytes: int
    modified_ms: int


class NewFile(Protocol):
    """A file being written: `sink`, then `keep` or `drop`."""

    @property
    def sink(self) -> Any:
        """What pyarrow writes to; `tell()` gives the bytes so far."""

    def keep(self) -> FileFacts:
        """Give it its name. Durable after `Place.settle`."""

    def drop(self) -> None:
        """Leave nothing of it. Never raises."""


class Place(Protocol):
    """Files under one location."""

    def create(self, path: str) -> NewFile:
        """Begin a file."""

    def settle(self, paths: Iterable[str]) -> None:
        """Make the names of kept files durable."""

    def facts(self, path: str) -> FileFacts | None:
        """Size and time of a file, None where there is none."""

    def open(self, path: str) -> Any:
        """A file to read from, at any position."""

    def remove(self, path: str) -> None:
        """Delete a file; a missing one is no error."""


def local_root(location: str) -> Path | None:
    """The absolute folder of a local location, None where it is in an object store."""
    if location.startswith("file://"):
        return Path(location[len("file://") :])
    return None if _SCHEME.match(location) else Path(location).absolute()


def place_of(spec: TableSpec) -> Place:
    """Where this table's files are. Touches nothing."""
    root = local_root(spec.location)
    return ObjectPlace(spec.location, spec.storage_options) if root is None else LocalPlace(root, fsync=spec.fsync)


def get_ready(spec: TableSpec, *, to_commit: bool) -> None:
    """Make the file that the next staging or the next commit of this process will write, when nobody waits for it.

    Never raises, and does nothing in object stores.
    """
    root = local_root(spec.location)
    if root is not None:
        SPARES.make(root / LOG_FOLDER if to_commit else root)


def fsync_path(path: Path) -> None:
    """Flush a file or folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folders(folder: Path, *, fsync: bool) -> None:
    """Create a folder and the parents that it lacks, each one's name durable where asked for."""
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for new in reversed(missing):
        new.mkdir(exist_ok=True)
        if fsync:
            fsync_path(new.parent)


class LocalPlace:
    """A folder of this machine."""

    def __init__(self, root: Path, *, fsync: bool) -> None:
        """`fsync`: whether kept files are flushed before they get their name."""
        self.root = root
        self._fsync = fsync

    def create(self, path: str) -> NewFile:
        """Begin a file beside its final name. Raises FileNotFoundError where the location is missing."""
        final = self.root / path
        if final.parent != self.root and not final.parent.exists():
            if not self.root.is_dir():
                raise FileNotFoundError(2, "The table's folder does not exist", str(self.root))
            make_folders(final.parent, fsync=self._fsync)
        return _NewLocalFile(final, SPARES.take(self.root), fsync=self._fsync)

    def settle(self, paths: Iterable[str]) -> None:
        """Flush the folders of kept files."""
        if self._fsync:
            for folder in sorted({(self.root / path).parent for path in paths}):
                fsync_path(folder)

    def facts(self, path: str) -> FileFacts | None:
        """One `stat`."""
        try:
            found = (self.root / path).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return FileFacts(found.st_size, found.st_mtime_ns // 1_000_000)

    def open(self, path: str) -> Any:
        """A file to read from. Raises OSError."""
        return pa.OSFile(str(self.root / path), "rb")

    def remove(self, path: str) -> None:
        """Unlink; the folder stays."""
        (self.root / path).unlink(missing_ok=True)


class _NewLocalFile:
    """A file under a hidden name, or a spare, which has none."""

    def __init__(self, final: Path, spare: Spare | None, *, fsync: bool) -> None:
        self._final = final
        self._spare = spare
        # Hidden, so that neither Delta's readers nor a glob over *.parquet sees half a file.
        self._path = final.with_name(f".{final.name}.tmp") if spare is None else spare.path
        self._fsync = fsync
        try:
            # A spare is opened to append: to open it anew is to empty it, which would wait for the disk again.
            self.sink: Any = pa.OSFile(str(self._path), "wb" if spare is None else "ab")
        except BaseException:
            if spare is not None:
                spare.let_go()
            raise

    def keep(self) -> FileFacts:
        if not self.sink.closed:
            self.sink.close()
        if self._fsync:
            fsync_path(self._path)
        found = self._path.stat()
        if self._spare is None:
            self._path.rename(self._final)
        else:
            name_file(self._path, self._final)
            self._spare.let_go()
        return FileFacts(found.st_size, found.st_mtime_ns // 1_000_000)

    def drop(self) -> None:
        with suppress(OSError):  # a full disk refuses the last flush; the file goes all the same
            if not self.sink.closed:
                self.sink.close()
        with suppress(OSError):  # the error that led here is the one to tell
            if self._spare is None:
                self._path.unlink(missing_ok=True)
            else:
                self._spare.let_go()


class ObjectPlace:
    """A prefix of an object store, reached as delta-rs reaches it, with the same options."""

    def __init__(self, location: str, storage_options: Mapping[str, str]) -> None:
        """Keep the address; the first file connects."""
        self._location = location
        self._options = dict(storage_options)
        self._connected: Any = None

    @property
    def _files(self) -> Any:
        if self._connected is None:
            from sfwriter.storage.object_store import file_system  # staging to a local disk never needs delta-rs

            self._connected = file_system(self._location, self._options)
        return self._connected

    def create(self, path: str) -> NewFile:
        """Begin an upload."""
        return _NewObject(self._files, path)

    def settle(self, paths: Iterable[str]) -> None:
        """Nothing to do: a completed upload is durable."""

    def facts(self, path: str) -> FileFacts | None:
        """One HEAD request."""
        found = self._files.get_file_info(path)
        if found.type != pafs.FileType.File:
            return None
        modified = found.mtime_ns
        return FileFacts(int(found.size), 0 if modified is None else int(modified) // 1_000_000)

    def open(self, path: str) -> Any:
        """An object to read from. Raises OSError."""
        return self._files.open_input_file(path)

    def remove(self, path: str) -> None:
        """Delete the object."""
        with suppress(FileNotFoundError):
            self._files.delete_file(path)


class _NewObject:
    def __init__(self, files: Any, path: str) -> None:
        self._files = files
        self._path = path
        self.sink: Any = files.open_output_stream(path)

    def keep(self) -> FileFacts:
        if not self.sink.closed:
            self.sink.close()
        found = self._files.get_file_info(self._path)
        modified = found.mtime_ns
        return FileFacts(int(found.size), 0 if modified is None else int(modified) // 1_000_000)

    def drop(self) -> None:
        with suppress(OSError):  # what stays behind has a name that no commit knows: VACUUM removes it
            if not self.sink.closed:
                self.sink.close()
            self._files.delete_file(self._path)
