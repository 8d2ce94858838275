"""Calls on tables as events: where an engine's outcome becomes one that the machine knows."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from sfwriter.exceptions import WriterError
from sfwriter.flow.vocabulary import (
    CommitConflicted,
    CommitInDoubt,
    CommitLanded,
    CommitRefused,
    Fault,
    StagedLost,
    StagingFailed,
    WatermarksFailed,
    WatermarksRead,
)
from sfwriter.runtime.blueprint import further_table_spec
from sfwriter.storage.engine import CommitConflict, CommitUnknown, StagedFilesLost

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from sfwriter.config import WriterConfig
    from sfwriter.flow.vocabulary import Event
    from sfwriter.storage.engine import CommitGroup, Engine, StagedBatch, Table

log = logging.getLogger(__name__)

TRIED_AGAIN = (StagingFailed, CommitConflicted, CommitInDoubt, CommitRefused, WatermarksFailed)
"""Events that a retry follows, or a refusal."""


def fault_of(error: BaseException) -> Fault:
    """A fault that knows whether a retry may mend it; what is not this library's own is not retried."""
    return Fault(error, retriable=isinstance(error, WriterError) and error.retriable)


class TableCalls:
    """The committer's calls on one table. One thread at a time."""

    def __init__(self, table: Table) -> None:
        """Wrap a table that was opened and not yet touched."""
        self.table = table
        self._ensured = False

    def prepare(self) -> None:
        """Create the table where it is missing; staging needs it.

        Raises:
            WriterError: it cannot be had.
        """
        if not self._ensured:
            self.table.ensure()
            self._ensured = True

    def commit(self, group: CommitGroup) -> Event:
        """Commit. Never raises."""
        name = self.table.spec.name
        try:
            receipt = self.table.commit(group)
        except CommitConflict as conflict:
            log.debug("commit to %s met a conflict: %s", name, conflict)
            return CommitConflicted(group.group_id)
        except StagedFilesLost as lost:
            log.warning("staged files of %s are lost and made anew: %s", name, lost)
            return StagedLost(group.group_id, lost.positions)
        except CommitUnknown as unknown:
            log.warning("commit to %s ended unknown, the table is looked at: %s", name, unknown)
            return CommitInDoubt(group.group_id, Fault(unknown.__cause__ or unknown, retriable=True))
        except WriterError as error:
            # Where the engine knows which files are at fault, only their batches are.
            positions = tuple(error.context.pop("positions", ()))
            return CommitRefused(group.group_id, fault_of(error), positions)
        except Exception as error:
            log.warning("commit to %s ended unknown, the table is looked at", name, exc_info=True)
            return CommitInDoubt(group.group_id, Fault(error, retriable=True))
        return CommitLanded(group.group_id, receipt.version)

    def read(self, producers: Sequence[str]) -> Event:
        """Look at the table afresh, creating it first where it is not there yet. Never raises.

        This is the first thing that the machine wants of a table, before anything is staged for it.
        """
        name = self.table.spec.name
        try:
            self.prepare()
            return WatermarksRead(name, self.table.last_sequence(producers))
        except Exception as error:  # noqa: BLE001  every fault is the machine's to judge
            return WatermarksFailed(name, tuple(producers), fault_of(error))

    def discard(self, staged: StagedBatch) -> None:
        """Delete files that nobody named. What stays behind is VACUUM's."""
        try:
            self.table.discard(staged)
        except Exception:
            log.info("staged files of %s could not be deleted", self.table.spec.name, exc_info=True)


class OpenTables:
    """The tables of a channel by name, opened when they are first named. Thread-safe."""

    def __init__(self, tables: Iterable[Table], open_table: Callable[[str], Table]) -> None:
        """Begin with tables that are open; `open_table` opens others."""
        self._calls = {table.spec.name: TableCalls(table) for table in tables}
        self._open_table = open_table
        self._lock = threading.Lock()

    def of(self, name: str) -> TableCalls:
        """The calls on the table of this name."""
        calls = self._calls.get(name)
        if calls is None:
            with self._lock:
                calls = self._calls.get(name)
                if calls is None:
                    calls = self._calls[name] = TableCalls(self._open_table(name))
        return calls

    def __iter__(self) -> Iterator[TableCalls]:
        """Those that are open."""
        return iter(list(self._calls.values()))


def table_opener(engine: Engine, config: WriterConfig, log_table: Table) -> Callable[[str], Table]:
    """Opens the tables of a configuration by their names; the log table is the one that is open already."""
    return lambda name: log_table if name == config.table_fqn else engine.open(further_table_spec(config, name))
