"""The reference engine: the seam's promises in memory, and nothing else.

Receives: what every engine receives.
Produces: what every engine produces; no Parquet, no log files.
Guarantees: the same outcomes as the others for the same calls, as the contract suite shows. Engines that
    share a `MemoryWarehouse` see the same tables, as processes that share a disk do.
Never does: write a file; survive its process.
"""

from __future__ import annotations

import math
import threading
import uuid
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from sfwriter.clock import SystemClock
from sfwriter.dictionaries import plain_table
from sfwriter.exceptions import WriterTableError
from sfwriter.storage.columns import adopted_schema, check_writable, chosen, columns_to_add, with_null_marks
from sfwriter.storage.engine import (
    AddColumns,
    Checkpoint,
    CommitConflict,
    CommitReceipt,
    Compact,
    History,
    Mark,
    Partition,
    Sort,
    StagedBatch,
    StagedFile,
    StagedFilesLost,
    Survey,
    TableStats,
    Vacuum,
    Version,
    Watermark,
)
from sfwriter.storage.faults import unknown_action
from sfwriter.storage.predicates import parse_predicate
from sfwriter.storage.staging import joined_rows, partitioned, rows_of_file, staged_schema

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sfwriter.clock import Clock
    from sfwriter.storage.engine import BatchToStage, CommitGroup, TableSpec

_DEFAULT_CLOCK = SystemClock()
_MARKS_PER_PRODUCER = 256


@dataclass(slots=True)
class _Txn:
    version: int
    updated_ms: int | None


@dataclass(slots=True)
class _Stored:
    """One table as it stands."""

    table_id: str
    schema: pa.Schema
    partition_columns: tuple[str, ...]
    retention_ms: float
    changed_ms: int
    version: int = 0
    files: list[str] = field(default_factory=list)
    history: list[Version] = field(default_factory=list)
    txns: dict[str, _Txn] = field(default_factory=dict)
    marks: dict[str, dict[int, tuple[Mark, int]]] = field(default_factory=dict)


@dataclass(slots=True)
class MemoryWarehouse:
    """What several engines share: tables and files by location. Thread-safe through its lock."""

    tables: dict[str, _Stored] = field(default_factory=dict)
    files: dict[str, pa.Table] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def remove(self, location: str) -> None:
        """Take a table away, as somebody who deletes its folder does."""
        with self.lock:
            self.tables.pop(location, None)
            for path in [path for path in self.files if path.startswith(f"{location}/")]:
                del self.files[path]


class MemoryEngine:
    """Opens tables of a warehouse in memory."""

    name = "memory"

    def __init__(self, warehouse: MemoryWarehouse | None = None, clock: Clock = _DEFAULT_CLOCK) -> None:
        """Without a warehouse it has one of its own; `clock` is for stamps and producers that expire."""
        self.warehouse = MemoryWarehouse() if warehouse is None else warehouse
        self._clock = clock

    def open(self, spec: TableSpec) -> MemoryTable:
        """A handle on the table that the spec names. Touches nothing yet."""
        return MemoryTable(spec, self.warehouse, self._clock)


class MemoryTable:
    """One table. All calls are atomic."""

    def __init__(self, spec: TableSpec, warehouse: MemoryWarehouse, clock: Clock = _DEFAULT_CLOCK) -> None:
        """Touches nothing yet."""
        self._spec = spec
        self._warehouse = warehouse
        self._clock = clock
        self._table_id: str | None = None

    @property
    def spec(self) -> TableSpec:
        """What it was opened with; after `ensure()` with the table's own partition columns."""
        return self._spec

    def stage(self, batches: Sequence[BatchToStage]) -> StagedBatch:
        """Keep the rows under names that no commit knows yet; a new one every `max_file_bytes` of Arrow."""
        table = plain_table(joined_rows(self._spec, batches, self._clock))
        check_writable(table.schema, self._spec)
        now_ms = self._now_ms()
        with self._warehouse.lock:
            self._existing()
            files = []
            for values, rows in partitioned(self._spec, table) if table.num_rows else ():
                step = max(1, int(self._spec.max_file_bytes / max(1.0, rows.nbytes / rows.num_rows)))
                step = min(step, rows_of_file(self._spec, rows.num_rows))
                for start in range(0, rows.num_rows, step):
                    part = rows.slice(start, step)
                    path = f"part-{uuid.uuid4()}.memory"
                    for name, value in values.items():
                        kind = table.schema.field(name).type
                        part = part.append_column(name, pa.repeat(pa.scalar(value), part.num_rows).cast(kind))
                    self._warehouse.files[f"{self._spec.location}/{path}"] = part
                    statistics = f'{{"numRecords":{part.num_rows}}}'
                    files.append(StagedFile(path, part.nbytes, part.num_rows, statistics, values, now_ms))
        return StagedBatch(tuple(files), with_null_marks(table).serialize().to_pybytes())

    def discard(self, staged: StagedBatch) -> None:
        """Forget staged files. Missing ones are no error."""
        with self._warehouse.lock:
            for file in staged.files:
                self._warehouse.files.pop(f"{self._spec.location}/{file.path}", None)

    def commit(self, group: CommitGroup) -> CommitReceipt:
        """Compare and swap under one lock."""
        with self._warehouse.lock:
            stored = self._existing()
            schemas = {place: staged_schema(staged) for place, staged in enumerate(group.staged) if staged.files}
            new = columns_to_add(stored.schema, schemas, self._spec)
            for advance in group.advances:
                found = self._sequence(stored, advance.producer_id)
                if found != advance.after:
                    raise CommitConflict(
                        f"Producer {advance.producer_id!r} stands at {found} in version {stored.version},"
                        f" and the plan is built on {advance.after}."
                    )
            self._check_files(group)
            self._land(stored, group, new)
            return CommitReceipt(stored.version)

    def last_sequence(self, producers: Sequence[str]) -> dict[str, Watermark]:
        """Where each of these producers stands."""
        with self._warehouse.lock:
            stored = self._found()
            if stored is None:
                return {producer: Watermark(None, -1) for producer in producers}
            return {
                producer: Watermark(
                    self._sequence(stored, producer), stored.version, dict(stored.marks.get(producer, {}))
                )
                for producer in producers
            }

    def scan(self, columns: Sequence[str] | None = None, predicate: str | None = None) -> pa.RecordBatchReader:
        """The rows as they stand. A predicate may use what `sfwriter.storage.predicates` knows."""
        with self._warehouse.lock:
            stored = self._existing()
            parts = [self._warehouse.files[f"{self._spec.location}/{path}"] for path in stored.files]
        schema = stored.schema
        wanted = chosen(schema, columns, self._spec)
        whole = pa.concat_tables([_conformed(part, schema) for part in parts]) if parts else schema.empty_table()
        if predicate:
            whole = whole.filter(parse_predicate(predicate))
        return whole.select(wanted.names).to_reader()

    def stats(self) -> TableStats:
        """What is there."""
        with self._warehouse.lock:
            stored = self._found()
            if stored is None:
                return TableStats(exists=False)
            parts = [self._warehouse.files[f"{self._spec.location}/{path}"] for path in stored.files]
            hours = max(1, math.ceil(self._spec.producer_retention_days * 24))
            return TableStats(
                exists=True,
                version=stored.version,
                rows=sum(part.num_rows for part in parts),
                files=len(parts),
                size_bytes=sum(part.nbytes for part in parts),
                schema=stored.schema,
                partition_columns=stored.partition_columns,
                last_modified_ms=stored.changed_ms,
                properties={"delta.setTransactionRetentionDuration": f"interval {hours} hours"},
            )

    def ensure(self) -> TableStats:
        """Create the table where there is none, and say what is there."""
        with self._warehouse.lock:
            stored = self._found()
            if stored is None:
                check_writable(self._spec.schema, self._spec)
                stored = _Stored(
                    table_id=str(uuid.uuid4()),
                    schema=self._spec.schema,
                    partition_columns=self._spec.partition_columns,
                    retention_ms=self._spec.producer_retention_days * 86_400_000,
                    changed_ms=self._now_ms(),
                )
                self._warehouse.tables[self._spec.location] = stored
                self._table_id = stored.table_id
                self._next_version(stored, "CREATE TABLE", {})
            if self._spec.partition_columns and self._spec.partition_columns != stored.partition_columns:
                raise WriterTableError(
                    f"{self._spec.name} is partitioned by {', '.join(stored.partition_columns) or 'nothing'}, and was"
                    f" to be written partitioned by {', '.join(self._spec.partition_columns)}.",
                    context={"table": self._spec.name},
                    suggestions=["Set `partition_columns` to the table's own, or leave it empty."],
                    code="partition_clash",
                )
            self._spec = replace(self._spec, schema=adopted_schema(self._spec.schema, stored.schema))
            filled = pa.schema([entry.with_nullable(False) for entry in self._spec.schema])
            columns_to_add(stored.schema, {0: filled}, self._spec)
            self._spec = replace(self._spec, partition_columns=stored.partition_columns)
            return self.stats()

    def run(self, action: Any) -> Mapping[str, Any]:
        """Carry out an action. There is nothing to delete here: VACUUM finds no file that is old."""
        with self._warehouse.lock:
            stored = self._existing()
            if isinstance(action, AddColumns):
                return self._add_columns(stored, action)
            if isinstance(action, Survey):
                return self._survey(stored, action.ranges_of)
            if isinstance(action, History):
                return {"versions": [*stored.history[: -action.limit - 1 : -1]]}
            if isinstance(action, (Compact, Sort)):
                return self._rewritten(stored, action)
            if isinstance(action, Vacuum):
                return {"files_deleted": [], "version": stored.version}
            if isinstance(action, Checkpoint):
                return {"version": stored.version}
        raise unknown_action(action, self._spec)

    def _add_columns(self, stored: _Stored, action: AddColumns) -> Mapping[str, Any]:
        known = {name.lower() for name in stored.schema.names}
        new = [column for column in action.columns if column.name.lower() not in known]
        if new and not action.dry_run:
            stored.schema = pa.schema([*stored.schema, *(column.with_nullable(True) for column in new)])
            self._next_version(stored, "ADD COLUMN", {})
        return {"refused": [], "added": [column.name for column in new], "version": stored.version}

    def _survey(self, stored: _Stored, ranges_of: str | None) -> Mapping[str, Any]:
        groups: dict[tuple[tuple[str, str, str], ...], list[pa.Table]] = {}
        for path in stored.files:
            part = self._warehouse.files[f"{self._spec.location}/{path}"]
            groups.setdefault(self._filters_of(part, stored), []).append(part)
        return {
            "partitions": {
                "/".join(f"{name}={value}" for name, _, value in filters): Partition(
                    filters,
                    tuple(part.nbytes for part in parts),
                    sum(part.num_rows for part in parts),
                    frozenset(),
                    () if ranges_of is None else tuple(_range(part, ranges_of) for part in parts),
                )
                for filters, parts in groups.items()
            },
            "retention_hours": 168.0,
            "safe_retention_hours": 0.0,
            "log_entries": None,
            "without_statistics": 0,
        }

    def _filters_of(self, part: pa.Table, stored: _Stored) -> tuple[tuple[str, str, str], ...]:
        values = ((name, part.column(name)[0].as_py()) for name in stored.partition_columns)
        return tuple((name, "=", "" if value is None else str(value)) for name, value in values)

    def _rewritten(self, stored: _Stored, action: Compact | Sort) -> Mapping[str, Any]:
        """The partition's files as one; sorted by the columns in their order, which is sorted enough here."""
        files = self._warehouse.files
        chosen = [
            path
            for path in stored.files
            if self._filters_of(files[f"{self._spec.location}/{path}"], stored) == action.filters
        ]
        if len(chosen) < 2 and isinstance(action, Compact):
            return {"files_added": 0, "files_removed": 0, "bytes_rewritten": 0, "version": stored.version}
        parts = [files[f"{self._spec.location}/{path}"] for path in chosen]
        whole = pa.concat_tables([_conformed(part, stored.schema) for part in parts])
        if isinstance(action, Sort):
            whole = whole.sort_by([(name, "ascending") for name in action.columns])
        path = f"part-{uuid.uuid4()}.memory"
        files[f"{self._spec.location}/{path}"] = whole
        stored.files[:] = [name for name in stored.files if name not in chosen] + [path]
        self._next_version(stored, "OPTIMIZE", {})
        return {
            "files_added": 1,
            "files_removed": len(chosen),
            "bytes_rewritten": sum(part.nbytes for part in parts),
            "version": stored.version,
        }

    def _next_version(self, stored: _Stored, operation: str, notes: Mapping[str, Any]) -> None:
        stored.version += operation != "CREATE TABLE"
        stored.changed_ms = self._now_ms()
        parts = [self._warehouse.files[f"{self._spec.location}/{path}"] for path in stored.files]
        rows, size = sum(part.num_rows for part in parts), sum(part.nbytes for part in parts)
        entry = Version(stored.version, stored.changed_ms, operation, rows, size, notes)
        stored.history.append(entry)

    # ------------------------------------------------------------ parts

    def _found(self) -> _Stored | None:
        stored = self._warehouse.tables.get(self._spec.location)
        found = None if stored is None else stored.table_id
        if self._table_id is None:
            self._table_id = found
        elif found != self._table_id:
            raise WriterTableError(
                f"Table {self._spec.name} is gone, or was replaced by another, since it was opened.",
                context={"table": self._spec.name, "location": self._spec.location},
                suggestions=["See who removed it; nothing is made anew until a new writer is opened."],
                code="table_gone",
            )
        return stored

    def _existing(self) -> _Stored:
        stored = self._found()
        if stored is None:
            raise WriterTableError(
                f"There is no table {self._spec.name}.",
                context={"table": self._spec.name, "location": self._spec.location},
                suggestions=["Open it with a writer first: it makes it."],
                code="table_missing",
            )
        return stored

    def _sequence(self, stored: _Stored, producer: str) -> int | None:
        found = stored.txns.get(producer)
        if found is None:
            return None
        expired = found.updated_ms is not None and self._now_ms() - found.updated_ms > stored.retention_ms
        return None if expired else found.version

    def _check_files(self, group: CommitGroup) -> None:
        lost = []
        for position, staged in enumerate(group.staged):
            if not all(self._is_there(file) for file in staged.files):
                lost.append(position)
        if lost:
            raise StagedFilesLost(f"Staged files of {self._spec.name} are missing or changed.", tuple(lost))

    def _is_there(self, file: StagedFile) -> bool:
        part = self._warehouse.files.get(f"{self._spec.location}/{file.path}")
        return part is not None and part.nbytes == file.size_bytes

    def _land(self, stored: _Stored, group: CommitGroup, new: Sequence[pa.Field]) -> None:
        for entry in new:
            stored.schema = stored.schema.append(entry)
        if group.replaces:
            stored.files.clear()
        stored.files.extend(file.path for staged in group.staged for file in staged.files)
        self._next_version(stored, "WRITE", {"sfwriter": {"group": group.group_id}})
        for advance in group.advances:
            stored.txns[advance.producer_id] = _Txn(advance.upto, stored.changed_ms if advance.expires else None)
            known = stored.marks.setdefault(advance.producer_id, {})
            known.update({number: (mark, stored.version) for number, mark in advance.marks.items()})
            for number in sorted(known)[:-_MARKS_PER_PRODUCER]:
                del known[number]

    def _now_ms(self) -> int:
        return int(self._clock.now().timestamp() * 1000)


def _range(part: pa.Table, column: str) -> tuple[Any, Any] | None:
    if column not in part.schema.names:
        return None
    ends = pc.min_max(part.column(column)).as_py()
    return None if ends["min"] is None else (ends["min"], ends["max"])


def _conformed(part: pa.Table, schema: pa.Schema) -> pa.Table:
    return pa.table(
        [
            part.column(entry.name) if entry.name in part.schema.names else pa.nulls(part.num_rows, entry.type)
            for entry in schema
        ],
        schema=schema,
    )
