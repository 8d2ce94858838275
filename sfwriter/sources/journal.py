"""Keeps the record of a source in the warehouse of the table that its rows are written to.

Receives: the name and location of a table, and records.
Produces: the record of a source, as it was last kept.
Guarantees: a kept record is whole and durable (local disk: written under another name, fsynced, renamed,
    its folder fsynced) when `keep` returns. It lies in the warehouse, at
    `_sfwriter/backfill/<schema.table>/<source's key>.json`.
Never does: decide what a record means; touch a table's folder.
"""

from __future__ import annotations

import fcntl
import json
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sfwriter.exceptions import WriterError, WriterTableError
from sfwriter.sources.cuts import Record
from sfwriter.storage.place import fsync_path, local_root, make_folders

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sfwriter.sources.discover import Source

FOLDER = "_sfwriter/backfill"


class Journal(Protocol):
    """The records of one table's sources."""

    def load(self, source: Source) -> Record | None:
        """The record, None where there is none.

        Raises:
            WriterTableError: it cannot be read, or is not what `keep` wrote.
        """

    def keep(self, source: Source, record: Record) -> None:
        """Put the record in the place of the one before."""

    def held(self, source: Source) -> Any:
        """Keep other backfills of the same source out, where that can be known.

        Raises:
            WriterError: one is under way.
        """

    def where(self, source: Source) -> str:
        """Where the record is."""


def journal_of(table: str, location: str, storage_options: Mapping[str, str]) -> Journal:
    """The journal of a table, by its name and its location `<warehouse>/<schema>/<table>`. Touches nothing."""
    root = local_root(location)
    if root is not None:
        return _LocalJournal(root.parent.parent / FOLDER / table)
    return _ObjectJournal(location.rstrip("/").rsplit("/", 2)[0], f"{FOLDER}/{table}", storage_options)


class _LocalJournal:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def where(self, source: Source) -> str:
        return str(self._folder / f"{source.key}.json")

    def load(self, source: Source) -> Record | None:
        try:
            data = Path(self.where(source)).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _unusable(self.where(source), f"cannot be read: {error.strerror}") from error
        return _parsed(self.where(source), data)

    def keep(self, source: Source, record: Record) -> None:
        final = self._folder / f"{source.key}.json"
        fresh = final.with_suffix(".new")
        try:
            make_folders(self._folder, fsync=True)
            with fresh.open("wb") as file:
                file.write(_text(record))
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(final)
            fsync_path(self._folder)
        except OSError as error:
            raise _unusable(str(final), f"cannot be written: {error.strerror}") from error

    @contextmanager
    def held(self, source: Source) -> Iterator[None]:
        path = self._folder / f"{source.key}.lock"
        try:
            make_folders(self._folder, fsync=True)
            # The file stays: removing it would let two processes lock two files of one name.
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise _unusable(str(path), f"cannot be made: {error.strerror}") from error
        try:
            try:
                # The kernel lets go of it when the process ends, however it ends.
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise WriterError(
                    f"{source} is being backfilled into this table by another process",
                    context={"source": str(source), "lock": str(path)},
                    suggestions=["wait for it, then run the same command again: it writes only what is missing"],
                    code="source_busy",
                    retriable=True,
                ) from error
            yield
        finally:
            os.close(descriptor)


class _ObjectJournal:
    """In an object store: a put is whole or not there. Nobody is kept out; the table's numbers settle who was first."""

    def __init__(self, warehouse: str, folder: str, storage_options: Mapping[str, str]) -> None:
        self._warehouse = warehouse
        self._folder = folder
        self._options = dict(storage_options)
        self._connected: Any = None

    def where(self, source: Source) -> str:
        return f"{self._warehouse}/{self._path(source)}"

    def _path(self, source: Source) -> str:
        return f"{self._folder}/{source.key}.json"

    @property
    def _files(self) -> Any:
        if self._connected is None:
            # The handler itself: pyarrow's stream around it hands over buffers that it does not take (1.6.3).
            from deltalake.fs import DeltaStorageHandler

            self._connected = DeltaStorageHandler(self._warehouse, self._options)._handler  # noqa: SLF001
        return self._connected

    def load(self, source: Source) -> Record | None:
        try:
            stream = self._files.open_input_file(self._path(source))
            data = stream.read(stream.size())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _unusable(self.where(source), f"cannot be read: {_first_line(error)}") from error
        return _parsed(self.where(source), bytes(data))

    def keep(self, source: Source, record: Record) -> None:
        try:
            stream = self._files.open_output_stream(self._path(source), None)
            stream.write(_text(record))
            stream.close()
        except OSError as error:
            raise _unusable(self.where(source), f"cannot be written: {_first_line(error)}") from error

    @contextmanager
    def held(self, source: Source) -> Iterator[None]:  # noqa: ARG002  the protocol's
        yield


def _text(record: Record) -> bytes:
    return json.dumps(record.as_dict(), indent=1).encode()


def _parsed(where: str, data: bytes) -> Record:
    try:
        return Record.from_dict(json.loads(data))
    except (ValueError, KeyError, TypeError) as error:
        raise _unusable(where, f"is not what backfill wrote there ({error})") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _unusable(where: str, what: str) -> WriterTableError:
    return WriterTableError(
        f"{where}, the record of what was read from a source, {what}",
        context={"path": where},
        suggestions=["see that the warehouse can be read and written, and bring the file back if it was changed"],
        code="journal_unusable",
    )
