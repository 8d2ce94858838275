"""A look at a table's log: where producers stand at its newest version, and what is remembered of their batches.

Receives: producers.
Produces: a watermark for each.
Guarantees: at a version that was the newest during the call; a table that vanished, or was replaced, is an error.
Never does: wait for a commit; bring a handle up to date for entries that it can read by itself.

delta-rs lists the whole log of a local table to bring a handle up to date: 40 ms at 40,000 entries, for one new
idempotency key. So the handle stays behind, and what newer entries moved is kept beside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sfwriter.storage.delta_log import DeltaHandle
from sfwriter.storage.engine import Watermark
from sfwriter.storage.faults import is_foreign, reported_by_delta

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deltalake import DeltaTable

    from sfwriter.clock import Clock
    from sfwriter.storage.delta_log import LogDisk, TableIdentity
    from sfwriter.storage.engine import TableSpec
    from sfwriter.storage.log_entry import Moves
    from sfwriter.storage.log_memory import LogMemory

_MOST_BEHIND = 1_000
"""Versions; and producers that they moved, 100 bytes each."""
_MOST_MOVED = 20_000


class ProducerLook:
    """Looks at one table. For one thread at a time."""

    def __init__(
        self, spec: TableSpec, identity: TableIdentity, disk: LogDisk, memory: LogMemory, clock: Clock
    ) -> None:
        """Touches nothing yet."""
        self._spec = spec
        self._disk = disk
        self._memory = memory
        # Of its own: a look must not wait behind a commit that hangs.
        self._handle = DeltaHandle(spec, identity, clock)
        self._table: DeltaTable | None = None
        self._since = -1
        self._moved: dict[str, int] = {}

    def watermarks(self, producers: Sequence[str]) -> dict[str, Watermark]:
        """Where each of them stands.

        Raises:
            WriterTableError: the table cannot be opened, is damaged, gone, or another.
        """
        version = self._newest()
        if version != self._since:
            try:
                return self._read(producers, version)
            except BaseException as error:
                if not is_foreign(error):
                    raise
                # The checkpoint that the handle reads from may be tidied away, since there is a newer one.
                version = self._renewed()
        return self._read(producers, version)

    def _read(self, producers: Sequence[str], version: int) -> dict[str, Watermark]:
        table = self._table
        if table is None:
            return {producer: Watermark(None, -1) for producer in producers}
        with reported_by_delta("read the log of", self._spec):
            self._disk.settle(version)
            found = {
                producer: self._moved[producer] if producer in self._moved else table.transaction_version(producer)
                for producer in producers
            }
            marks = self._memory.looked(version, found, table.history)
        return {producer: Watermark(found[producer], version, marks[producer]) for producer in producers}

    def _newest(self) -> int:
        """The newest version; the handle may be behind it by what is in `_moved`."""
        found = self._handle.newest(self._passed)
        if found is None:
            return self._renewed()
        table, version = found
        if table is not self._table or table.version() != self._since:
            self._know(table)  # brought up to date: what was passed until then is in it
        behind = version - self._since
        if behind and (behind > _MOST_BEHIND or len(self._moved) > _MOST_MOVED or self._memory.missing_marks(version)):
            return self._renewed()
        return version

    def _passed(self, version: int, moves: Moves) -> None:
        self._moved.update(moves.sequences)
        self._memory.passed(version, moves)

    def _renewed(self) -> int:
        self._know(self._handle.fresh())
        return self._since

    def _know(self, table: DeltaTable | None) -> None:
        self._moved.clear()
        self._table, self._since = table, -1 if table is None else int(table.version())
