"""The embedded engine: Delta Lake through delta-rs, without a JVM.

Receives: batches to stage, groups to commit, questions about one table.
Produces: data files, log entries, receipts, Arrow.
Guarantees: what `delta_commit`, `delta_read` and `staging` guarantee; a look never waits for a commit.
Never does: start processes, or threads but the one that now and then writes a checkpoint; anything else that a
    fork would break.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from sfwriter.clock import SystemClock
from sfwriter.exceptions import WriterTableError
from sfwriter.storage.adding import add_columns
from sfwriter.storage.columns import adopted_schema, columns_to_add
from sfwriter.storage.creation import create_table
from sfwriter.storage.delta_commit import Committer, partition_clash
from sfwriter.storage.delta_features import check_writable_table
from sfwriter.storage.delta_log import LogDisk, TableIdentity, open_table
from sfwriter.storage.delta_maintain import DeltaMaintainer
from sfwriter.storage.delta_read import arrow_schema, files_since, scan_table, stats_of
from sfwriter.storage.engine import AddColumns, Checkpoint, TableStats
from sfwriter.storage.log_memory import LogMemory
from sfwriter.storage.producer_look import ProducerLook
from sfwriter.storage.staging import discard_files, stage_batches

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from deltalake import DeltaTable

    from sfwriter.clock import Clock
    from sfwriter.storage.engine import BatchToStage, CommitGroup, CommitReceipt, StagedBatch, TableSpec, Watermark

_DEFAULT_CLOCK = SystemClock()


class DeltaRsEngine:
    """Opens tables through delta-rs."""

    name = "delta-rs"

    def __init__(self, clock: Clock = _DEFAULT_CLOCK) -> None:
        """`clock`: for stamps, for the age of staged files, and for producers that expire."""
        self._clock = clock

    def open(self, spec: TableSpec) -> DeltaRsTable:
        """A handle on the table that the spec names. Touches nothing yet."""
        return DeltaRsTable(spec, self._clock)


class DeltaRsTable:
    """One table. Every call but `commit`, `ensure` and `run` may go on beside a commit."""

    def __init__(self, spec: TableSpec, clock: Clock = _DEFAULT_CLOCK) -> None:
        """Touches nothing yet."""
        self._spec = spec
        self._clock = clock
        self._identity = TableIdentity(spec)
        self._disk = LogDisk(spec)
        self._memory = LogMemory()
        self._committer = self._make_committer()
        self._look = ProducerLook(spec, self._identity, self._disk, self._memory, clock)
        self._maintainer = self._make_maintainer()
        self._commit_lock = threading.Lock()
        self._look_lock = threading.Lock()

    def _make_committer(self) -> Committer:
        return Committer(self._spec, self._identity, self._disk, self._memory, self._clock)

    def _make_maintainer(self) -> DeltaMaintainer:
        return DeltaMaintainer(self._spec, self._identity, self._disk, self._clock)

    @property
    def spec(self) -> TableSpec:
        """What it was opened with; after `ensure()` with the table's own partition columns and narrower types."""
        return self._spec

    @property
    def staging_spec(self) -> TableSpec:
        """By which rows may be staged elsewhere, after `ensure()`."""
        return self._spec

    @property
    def identity(self) -> TableIdentity:
        """Which table this object has seen behind its spec."""
        return self._identity

    # ------------------------------------------------------------ writer

    def stage(self, batches: Sequence[BatchToStage]) -> StagedBatch:
        """See `sfwriter.storage.staging.stage_batches`."""
        return stage_batches(self._spec, batches, self._clock)

    def discard(self, staged: StagedBatch) -> None:
        """Delete files that were staged and that no commit has ever named."""
        discard_files(self._spec, staged)

    def commit(self, group: CommitGroup) -> CommitReceipt:
        """One Delta transaction, ending as `sfwriter.storage.engine` says."""
        with self._commit_lock:
            return self._committer.commit(group)

    def last_sequence(self, producers: Sequence[str]) -> dict[str, Watermark]:
        """One fresh look at the log for all of them."""
        with self._look_lock:
            return self._look.watermarks(producers)

    # ------------------------------------------------------------ reader

    def scan(self, columns: Sequence[str] | None = None, predicate: str | None = None) -> pa.RecordBatchReader:
        """Stream the visible rows, in no particular order, in the table's types."""
        return scan_table(self._readable(), self._spec, columns, predicate)

    def files(self, times: Sequence[str], since: datetime) -> list[str] | None:
        """See `sfwriter.storage.delta_read.files_since`."""
        return files_since(self._readable(), self._spec, times, since)

    def _readable(self) -> DeltaTable:
        table = self._opened()
        if table is None:
            raise WriterTableError(
                f"There is no table {self._spec.name} at {self._spec.location} to read.",
                context={"table": self._spec.name, "location": self._spec.location},
                suggestions=["Write to it first, or correct the name."],
                code="table_missing",
            )
        return table

    def stats(self) -> TableStats:
        """From the log alone."""
        table = self._opened()
        return TableStats(exists=False) if table is None else self._stats_of(table)

    def _opened(self) -> DeltaTable | None:
        table = open_table(self._spec, with_files=True)
        self._identity.check(table)
        return table

    # ------------------------------------------------------------ maintainer

    def ensure(self) -> TableStats:
        """Create the table where there is none, and say what is there."""
        with self._commit_lock:
            table = self._opened()
            if table is None:
                table = create_table(self._spec, self._disk)
                self._identity.check(table)
            self._check_writable(table)
            self._adopt_partitions(tuple(table.metadata().partition_columns))
            self._spec = replace(self._spec, schema=adopted_schema(self._spec.schema, arrow_schema(table)))
            # For a comparison of types alone: nothing is said yet of nulls.
            filled = pa.schema([field.with_nullable(False) for field in self._spec.schema])
            columns_to_add(arrow_schema(table), {0: filled}, self._spec)
            return self._stats_of(table)

    def _check_writable(self, table: DeltaTable) -> None:
        check_writable_table(table, self._spec)

    def _stats_of(self, table: DeltaTable) -> TableStats:
        return stats_of(table, self._spec)

    def _adopt_partitions(self, found: tuple[str, ...]) -> None:
        if self._spec.partition_columns and self._spec.partition_columns != found:
            raise partition_clash(self._spec, list(self._spec.partition_columns), list(found))
        self._spec = replace(self._spec, partition_columns=found)

    def run(self, action: Any) -> Mapping[str, Any]:
        """Carry out an action of `sfwriter.storage.engine`; writing goes on meanwhile."""
        if isinstance(action, Checkpoint):
            with self._commit_lock:
                return {"version": self._committer.checkpoint()}
        if isinstance(action, AddColumns):
            with self._commit_lock:
                return self._add_columns(action)
        return self._maintainer.run(action)

    def _add_columns(self, action: AddColumns) -> Mapping[str, Any]:
        return add_columns(self._spec, self._identity, self._disk, action)
