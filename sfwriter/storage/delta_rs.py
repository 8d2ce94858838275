"""The embedded engine: Delta Lake through delta-rs, without a JVM.

Receives: batches to stage, groups to commit, questions about one table.
Produces: data files, log entries, receipts, Arrow.
Guarantees: each producer's numbers are compared and swapped: a commit lands only on the watermarks that
    it was planned on, however long it was frozen in between. A receipt means: on the disk, and visible.
    An outcome that is not certain is looked up in the log, and where the look-up fails, said to be unknown.
Never does: trust an exception to mean "not committed"; call `to_pyarrow_table`, `to_pyarrow_dataset` or
    `to_pandas`, which lose rows or abort the interpreter; start threads of its own.
"""

from __future__ import annotations

import logging
import math
import re
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, Field, PostCommitHookProperties, QueryBuilder, Schema, Transaction
from deltalake.exceptions import CommitFailedError
from deltalake.transaction import AddAction

from sfwriter.clock import SystemClock
from sfwriter.exceptions import WriterError, WriterSchemaError, WriterTableError
from sfwriter.storage.columns import columns_to_add
from sfwriter.storage.commit_notes import FIELD, CommitNote, CommitNotes
from sfwriter.storage.creation import create_table
from sfwriter.storage.delta_features import check_readable_table, check_writable_table
from sfwriter.storage.delta_log import (
    COMMITS_PER_HANDLE,
    DeltaHandle,
    LogDisk,
    TableIdentity,
    open_table,
)
from sfwriter.storage.engine import (
    Checkpoint,
    CommitConflict,
    CommitReceipt,
    CommitUnknown,
    StagedFilesLost,
    TableStats,
    Watermark,
)
from sfwriter.storage.faults import error_number, first_words, is_foreign, log_error, reported, reported_by_delta
from sfwriter.storage.place import local_root, place_of
from sfwriter.storage.staging import discard_files, stage_batches, staged_schema

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sfwriter.clock import Clock
    from sfwriter.storage.engine import BatchToStage, CommitGroup, StagedBatch, StagedFile, TableSpec

_log = logging.getLogger(__name__)
_DEFAULT_CLOCK = SystemClock()

_COMMITS_PER_TIDYING = 1_000
"""Dropping expired log entries lists the whole log: up to 50 ms."""

_RETENTION_SHARE = 0.5
"""A staged file older than this share of the deleted-file retention is not committed: VACUUM may be at it."""

_NO_HOOKS = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)
"""A checkpoint that fails as a hook raises out of a commit that has landed."""


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
    """One table. `stage`, `discard`, `last_sequence`, `scan` and `stats` may run beside `commit`."""

    def __init__(self, spec: TableSpec, clock: Clock = _DEFAULT_CLOCK) -> None:
        """Touches nothing yet."""
        self._spec = spec
        self._clock = clock
        self._place = place_of(spec)
        self._identity = TableIdentity(spec)
        self._disk = LogDisk(spec)
        # Two handles: a look-up must not wait behind a commit that hangs.
        self._committer = DeltaHandle(spec, self._identity, clock)
        self._looker = DeltaHandle(spec, self._identity, clock)
        self._commit_lock = threading.Lock()
        self._look_lock = threading.Lock()
        self._notes_lock = threading.Lock()
        self._notes = CommitNotes()
        self._commits = 0
        self._commits_at_checkpoint = 0

    @property
    def spec(self) -> TableSpec:
        """What it was opened with; after `ensure()` with the table's own partition columns."""
        return self._spec

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
            table = self._evolved(group)
            self._compare(table, group)
            actions = self._actions(table, group)
            before = table.version()
            try:
                table.create_write_transaction(
                    actions,
                    "append",
                    table.schema(),
                    partition_by=list(table.metadata().partition_columns),
                    commit_properties=self._properties(group),
                    post_commithook_properties=_NO_HOOKS,
                )
                version = self._version_of(table, group, before)
            except BaseException as error:
                if not is_foreign(error):
                    raise
                version = self._looked_up(group, before, error)
            try:
                self._disk.settle(version)
            except OSError as error:
                raise CommitUnknown(f"Visible as version {version}, and perhaps not on the disk: {error}") from error
            with self._notes_lock:
                self._notes.add_own(CommitNote.of(group), version)
            self._commits += 1
            if self._commits - self._commits_at_checkpoint >= COMMITS_PER_HANDLE:
                self._commits_at_checkpoint = self._commits
                self._checkpoint_quietly(table)
            return CommitReceipt(version)

    def last_sequence(self, producers: Sequence[str]) -> dict[str, Watermark]:
        """One fresh look at the log for all of them."""
        with self._look_lock:
            table = self._looker.fresh()
            if table is None:
                return {producer: Watermark(None, -1) for producer in producers}
            version = table.version()
            with reported_by_delta("read the log of", self._spec):
                self._disk.settle(version)
                with self._notes_lock:
                    missing = self._notes.missing(version)
                    if missing:
                        self._notes.learn(table.history(missing), version)
                    marks = {producer: self._notes.marks(producer) for producer in producers}
                return {
                    producer: Watermark(table.transaction_version(producer), version, marks[producer])
                    for producer in producers
                }

    # ------------------------------------------------------------ the steps of a commit

    def _fresh(self) -> DeltaTable:
        table = self._committer.fresh()
        if table is None:
            raise WriterTableError(
                f"There is no table {self._spec.name} at {self._spec.location} to commit to.",
                context={"table": self._spec.name, "location": self._spec.location},
                suggestions=["Open the table with a writer first: it makes it."],
                code="table_missing",
            )
        return table

    def _evolved(self, group: CommitGroup) -> DeltaTable:
        """The table at its newest version, with every column that the group's files have."""
        schemas = [staged_schema(staged) for staged in group.staged if staged.files]
        table = self._fresh()
        check_writable_table(table, self._spec)
        new = columns_to_add(_arrow_schema(table), schemas, self._spec) if schemas else []
        if not new:
            return table
        try:
            fields = Schema.from_arrow(pa.schema(new)).fields
            table.alter.add_columns([Field(field.name, field.type, nullable=True) for field in fields],
                                    post_commithook_properties=_NO_HOOKS)  # fmt: skip
        except BaseException as error:
            if not is_foreign(error):
                raise
            # Nothing of the group itself has landed, whatever became of the columns.
            self._committer.forget()
            if isinstance(error, CommitFailedError) and error_number(error) is None:
                raise CommitConflict(f"Columns could not be added: {first_words(error)}") from error
            raise log_error(error, "add columns to", self._spec) from error
        self._committer.forget()
        table = self._fresh()
        if columns_to_add(_arrow_schema(table), schemas, self._spec):
            raise CommitConflict("Columns that were just added are gone again.")
        return table

    def _compare(self, table: DeltaTable, group: CommitGroup) -> None:
        """delta-rs does not compare versions of a producer; it only notices rivals since the snapshot."""
        for advance in group.advances:
            found = table.transaction_version(advance.producer_id)
            if found != advance.after:
                raise CommitConflict(
                    f"Producer {advance.producer_id!r} stands at {found} in version {table.version()},"
                    f" and the plan is built on {advance.after}."
                )

    def _actions(self, table: DeltaTable, group: CommitGroup) -> list[AddAction]:
        partitions = set(table.metadata().partition_columns)
        oldest_ms = self._oldest_ms(table)
        lost = []
        actions = []
        for position, staged in enumerate(group.staged):
            for file in staged.files:
                if set(file.partition_values) != partitions:
                    raise _partition_clash(self._spec, sorted(file.partition_values), sorted(partitions))
                with reported("look at staged files of", self._spec):
                    facts = self._place.facts(file.path)
                if facts is None or facts.size_bytes != file.size_bytes or facts.modified_ms < oldest_ms:
                    lost.append(position)
                    break
                actions.append(_add_action(file))
        if lost:
            raise StagedFilesLost(f"Staged files of {self._spec.name} are missing, changed or too old.", tuple(lost))
        return actions

    def _oldest_ms(self, table: DeltaTable) -> float:
        retention_ms = _retention_ms(table.metadata().configuration.get("delta.deletedFileRetentionDuration"))
        return self._now_ms() - retention_ms * _RETENTION_SHARE

    def _properties(self, group: CommitGroup) -> CommitProperties:
        now_ms = self._now_ms()
        return CommitProperties(
            custom_metadata={FIELD: CommitNote.of(group).to_text()},
            app_transactions=[
                Transaction(advance.producer_id, advance.upto, now_ms if advance.expires else None)
                for advance in group.advances
            ],
        )

    def _version_of(self, table: DeltaTable, group: CommitGroup, before: int) -> int:
        """The version that the group's commit, which has just landed, became. Brings the handle up to date."""
        table.update_incremental()
        if table.version() == before + 1:
            return before + 1
        version = _find(table, group, before)
        if version is None:
            raise LookupError(f"Group {group.group_id} is not among the versions after {before}")
        return version

    def _looked_up(self, group: CommitGroup, before: int, error: BaseException) -> int:
        """The version where the commit landed for all that it raised; else the outcome, as an exception."""
        self._committer.forget()
        try:
            version = _find(self._fresh(), group, before)
        except BaseException as second:
            if not is_foreign(second):
                raise
            raise CommitUnknown(f"{first_words(error)}; and then: {first_words(second)}") from error
        if version is not None:
            _log.warning("Commit %s of %s landed, and raised all the same: %s", version, self._spec.name, error)
            return version
        if isinstance(error, CommitFailedError) and error_number(error) is None:
            # delta-rs met a rival's commit at every version that it tried, so nothing of this one is under way.
            raise CommitConflict(first_words(error)) from error
        if local_root(self._spec.location) is None or not isinstance(error, Exception):
            raise CommitUnknown(first_words(error)) from error
        # On a local disk the calls that failed have ended: what is not there now will not come.
        raise log_error(error, "commit to", self._spec) from error

    def _checkpoint_quietly(self, table: DeltaTable) -> None:
        """The commit has landed: nothing that fails here may turn it into an error."""
        try:
            self._checkpoint(table, tidy=self._commits % _COMMITS_PER_TIDYING == 0)
        except BaseException as error:
            if not is_foreign(error):
                raise
            _log.warning("Checkpoint of %s failed; its log is only slower to open: %s", self._spec.name, error)
        self._committer.forget()

    def _checkpoint(self, table: DeltaTable, *, tidy: bool) -> None:
        table.create_checkpoint()
        # On the disk before any entry that it replaces is dropped.
        self._disk.settle_checkpoint(table.version())
        if tidy:
            table.cleanup_metadata()

    def _now_ms(self) -> int:
        return int(self._clock.now().timestamp() * 1000)

    # ------------------------------------------------------------ reader

    def scan(self, columns: Sequence[str] | None = None, predicate: str | None = None) -> pa.RecordBatchReader:
        """Stream the visible rows, in no particular order, in the table's types, through DataFusion."""
        table = open_table(self._spec, with_files=True)
        self._identity.check(table)
        if table is None:
            raise WriterTableError(
                f"There is no table {self._spec.name} at {self._spec.location} to read.",
                context={"table": self._spec.name, "location": self._spec.location},
                suggestions=["Write to it first, or correct the name."],
                code="table_missing",
            )
        check_readable_table(table, self._spec)
        schema = _arrow_schema(table)
        wanted = list(schema.names) if columns is None else list(columns)
        unknown = [name for name in wanted if name not in schema.names]
        if unknown:
            raise WriterSchemaError(
                f"{self._spec.name} has no column {', '.join(map(repr, unknown))}.",
                expected_schema={field.name: str(field.type) for field in schema},
                suggestions=["Ask for columns that it has."],
            )
        target = pa.schema([schema.field(name) for name in wanted])
        listed = ", ".join('"' + name.replace('"', '""') + '"' for name in wanted)
        query = f"SELECT {listed} FROM log" + (f" WHERE {predicate}" if predicate else "")  # noqa: S608  never a user's text
        with reported_by_delta("read", self._spec):
            found = pa.RecordBatchReader.from_stream(QueryBuilder().register("log", table).execute(query))
        return pa.RecordBatchReader.from_batches(target, self._streamed(found, target))

    def _streamed(self, found: pa.RecordBatchReader, target: pa.Schema) -> Iterator[pa.RecordBatch]:
        while True:
            with reported_by_delta("read", self._spec):
                try:
                    batch = found.read_next_batch()
                except StopIteration:
                    return
            # DataFusion answers in views and dictionaries; the table's types are what was promised.
            yield batch if batch.schema.equals(target) else batch.cast(target)

    def stats(self) -> TableStats:
        """From the log alone; a data file's footer is read only where a foreign writer gave no row count."""
        table = open_table(self._spec, with_files=True)
        self._identity.check(table)
        return TableStats(exists=False) if table is None else self._stats_of(table)

    def _stats_of(self, table: DeltaTable) -> TableStats:
        with reported_by_delta("read the log of", self._spec):
            check_readable_table(table, self._spec)
            files = pa.table(table.get_add_actions(flatten=True))
            rows = files.column("num_records").to_pylist() if "num_records" in files.column_names else None
            if rows is None or None in rows:
                rows = [self._rows_of(path) for path in files.column("path").to_pylist()]
            newest = table.history(1)
            return TableStats(
                exists=True,
                version=table.version(),
                rows=sum(rows),
                files=files.num_rows,
                size_bytes=sum(files.column("size_bytes").to_pylist()),
                schema=_arrow_schema(table),
                partition_columns=tuple(table.metadata().partition_columns),
                last_modified_ms=int(newest[0]["timestamp"]) if newest and "timestamp" in newest[0] else None,
                properties=dict(table.metadata().configuration),
            )

    def _rows_of(self, path: str) -> int:
        with self._place.open(path) as source:
            return int(pq.read_metadata(source).num_rows)

    # ------------------------------------------------------------ maintainer

    def ensure(self) -> TableStats:
        """Create the table where there is none, and say what is there."""
        with self._commit_lock:
            table = open_table(self._spec, with_files=True)
            self._identity.check(table)
            if table is None:
                table = create_table(self._spec, self._disk)
                self._identity.check(table)
            check_writable_table(table, self._spec)
            self._adopt_partitions(tuple(table.metadata().partition_columns))
            columns_to_add(_arrow_schema(table), [_filled(self._spec.schema)], self._spec)
            return self._stats_of(table)

    def _adopt_partitions(self, found: tuple[str, ...]) -> None:
        if self._spec.partition_columns and self._spec.partition_columns != found:
            raise _partition_clash(self._spec, list(self._spec.partition_columns), list(found))
        self._spec = replace(self._spec, partition_columns=found)

    def run(self, action: Any) -> Mapping[str, Any]:
        """Carry out `Checkpoint`; every other action is a `WriterTableError` for now."""
        if not isinstance(action, Checkpoint):
            raise WriterTableError(
                f"{type(action).__name__} is not available yet on the engine {DeltaRsEngine.name}.",
                context={"table": self._spec.name, "action": type(action).__name__},
                suggestions=["Only Checkpoint is there today."],
                code="not_available",
            )
        with self._commit_lock, reported_by_delta("checkpoint", self._spec):
            self._committer.forget()
            table = self._fresh()
            self._checkpoint(table, tidy=True)
            self._committer.forget()
            self._commits_at_checkpoint = self._commits
            return {"version": table.version()}


# ---------------------------------------------------------------- parts


def _find(table: DeltaTable, group: CommitGroup, before: int) -> int | None:
    """The version after `before` whose entry has the group's id."""
    newer = table.version() - before
    for entry in table.history(newer) if newer > 0 else []:
        note = CommitNote.from_entry(entry)
        if note is not None and note.group_id == group.group_id:
            return int(entry["version"])
    return None


def _add_action(file: StagedFile) -> AddAction:
    return AddAction(
        path=file.path,
        size=file.size_bytes,
        partition_values=dict(file.partition_values),
        modification_time=file.modified_ms,
        data_change=True,
        stats=file.statistics,
    )


def _arrow_schema(table: DeltaTable) -> pa.Schema:
    return pa.schema(table.schema().to_arrow())


def _filled(schema: pa.Schema) -> pa.Schema:
    """For a comparison of types alone: nothing is said yet of nulls."""
    return pa.schema([field.with_nullable(False) for field in schema])


def _partition_clash(spec: TableSpec, given: list[str], found: list[str]) -> WriterError:
    return WriterTableError(
        f"{spec.name} is partitioned by {', '.join(found) or 'nothing'}, and was to be written partitioned by"
        f" {', '.join(given) or 'nothing'}.",
        context={"table": spec.name, "location": spec.location, "expected": found, "given": given},
        suggestions=["Set `partition_columns` to the table's own, or leave it empty."],
        code="partition_clash",
    )


_INTERVAL = re.compile(r"^interval\s+(\d+(?:\.\d+)?)\s+(\w+?)s?$", re.IGNORECASE)
_UNIT_MS = {"millisecond": 1, "second": 1_000, "minute": 60_000, "hour": 3_600_000, "day": 86_400_000,
            "week": 604_800_000}  # fmt: skip
_WEEK_MS = 604_800_000


def _retention_ms(text: str | None) -> float:
    """A Delta interval in milliseconds; one week, Delta's default, where it is not given."""
    found = _INTERVAL.match(text.strip()) if text else None
    if found is None or found[2].lower() not in _UNIT_MS:
        return _WEEK_MS
    return float(found[1]) * _UNIT_MS[found[2].lower()] or math.inf
