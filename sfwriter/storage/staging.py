"""Batches become Parquet files that nobody can see yet, ready for either engine to commit.

Receives: batches in Arrow, and the spec of their table.
Produces: a `StagedBatch`: data files with everything that a Delta AddAction says of them.
Guarantees: what it returns is written whole, flushed where the spec asks for it, and named; after any
    error or interrupt nothing of the job is left behind. Files end at `max_file_bytes`.
Never does: open the table, or create its folder: a writer without a Delta handle can run it anywhere,
    and a table that vanished is not made anew by rows that were on their way.
"""

from __future__ import annotations

import re
import uuid
from contextlib import ExitStack, suppress
from datetime import date, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from sfwriter.arrays import array_of, scalar_of
from sfwriter.clock import SystemClock
from sfwriter.dictionaries import alike, is_encoded, plain_column, plain_schema, plain_type
from sfwriter.exceptions import WriterSchemaError, WriterValidationError
from sfwriter.ingest.partitions import NULL_PARTITION, names_folder
from sfwriter.storage.columns import check_writable, in_kept_type, is_narrower, with_null_marks
from sfwriter.storage.engine import StagedBatch, StagedFile
from sfwriter.storage.faults import reported
from sfwriter.storage.place import Place, place_of
from sfwriter.storage.statistics import columns_with_nan, delta_statistics

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sfwriter.clock import Clock
    from sfwriter.storage.engine import BatchToStage, TableSpec

ROW_GROUP_ROWS = 131_072
"""Measured: the fastest for log rows, and small enough to skip by."""

_LEAST_GROUP_ROWS = 4_096
"""Row groups below it cost more in headers and lost compression than an overshoot of the file size."""

_SMALL_ROWS = 2_048
"""Batches below it, on the average, are copied into one before they are written."""

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MICROSECOND = timedelta(microseconds=1)
_SAFE = re.compile(r"[A-Za-z0-9_-]+")
_DEFAULT_CLOCK = SystemClock()


def stage_batches(spec: TableSpec, batches: Sequence[BatchToStage], clock: Clock = _DEFAULT_CLOCK) -> StagedBatch:
    """Write the batches' rows, in their order, as data files under the table's location.

    Blocks; the GIL is free while Parquet is encoded. Needs about the size of one row group beside the
    rows themselves.

    Args:
        spec: of the table; its location must exist (`ensure` makes it).
        batches: rows in any mixture of columns; what the spec has and they lack becomes null. Batches
            without rows leave no trace.
        clock: for the columns stamped with `time`.

    Raises:
        WriterSchemaError: a column has two types, or one that Delta cannot hold.
        WriterValidationError: a partition value that no folder can safely be named by.
        WriterTableError: the files cannot be written.
    """
    with reported("stage rows for", spec):
        table = joined_rows(spec, batches, clock)
        check_writable(table.schema, spec)
        parts = list(partitioned(spec, table))
        files = _write_all(spec, parts) if table.num_rows else ()
    return StagedBatch(files, with_null_marks(table).serialize().to_pybytes())


def discard_files(spec: TableSpec, staged: StagedBatch) -> None:
    """Delete staged files that no commit has named. Missing ones are no error. Raises `WriterTableError`."""
    place = place_of(spec)
    with reported("discard staged files of", spec):
        for file in staged.files:
            place.remove(file.path)


def merged_batches(parts: Sequence[StagedBatch], spec: TableSpec | None = None) -> StagedBatch:
    """Files of several stagings as those of one, in their order. There is at least one.

    Raises:
        WriterSchemaError: a column has another type in one of them than in those before.
    """
    if len(parts) < 2:
        return parts[0]
    schemas = [staged_schema(part) for part in parts]
    fields: dict[str, pa.Field] = {}
    for schema in schemas:
        for column in schema:
            known = fields.setdefault(column.name, column)
            if known.type != column.type:
                raise WriterSchemaError(
                    f"Column {column.name!r} is {known.type} in some of the files, and {column.type} in others.",
                    context={"table": None if spec is None else spec.name, "column": column.name},
                    suggestions=[f"Give {column.name!r} one type in every row."],
                    code="type_clash",
                )
    whole = pa.schema(
        [
            column.with_nullable(any(_may_be_null(schema, column.name) for schema in schemas))
            for column in fields.values()
        ]
    )
    return StagedBatch(tuple(file for part in parts for file in part.files), whole.serialize().to_pybytes())


def _may_be_null(schema: pa.Schema, name: str) -> bool:
    return name not in schema.names or bool(schema.field(name).nullable)


# ---------------------------------------------------------------- columns


def joined_rows(spec: TableSpec, batches: Sequence[BatchToStage], clock: Clock) -> pa.Table:
    """All rows as one table: the spec's columns in its order, then the others in the order they came.

    A text column is dictionary encoded where one of the batches has it so.
    """
    filled = [batch for batch in batches if batch.rows.num_rows]
    runs = _runs(filled)
    schema = _schema_of(spec, [run.batches[0] for run in runs])
    now = scalar_of((clock.now() - _EPOCH) // _MICROSECOND, pa.int64()).cast(pa.timestamp("us", "UTC"))
    if not filled:
        return schema.empty_table()
    columns = {column.name: _joined([_part(spec, run, column, now) for run in runs]) for column in schema}
    # Parquet gives a dictionary up that changes within a row group.
    return pa.table(columns).unify_dictionaries()


class _Run(NamedTuple):
    """Neighbouring batches with the same columns, and the rows of all of them."""

    batches: list[BatchToStage]
    rows: pa.Table


def _runs(batches: Sequence[BatchToStage]) -> list[_Run]:
    """Batches as few tables: what is done for each column of each of many small ones takes longer than their rows."""
    same: list[list[BatchToStage]] = []
    for batch in batches:
        if same and same[-1][0].rows.schema.equals(batch.rows.schema):
            same[-1].append(batch)
        else:
            same.append([batch])
    return [_Run(run, _rows_of(run)) for run in same]


def _rows_of(run: list[BatchToStage]) -> pa.Table:
    if len(run) == 1:
        return run[0].rows
    rows = pa.concat_tables([batch.rows for batch in run])
    # Copied where they are small: Parquet's writer has a price for each chunk, too.
    small = rows.num_rows < _SMALL_ROWS * len(run) and not any(is_encoded(column.type) for column in rows.schema)
    return rows.combine_chunks() if small else rows


def _part(spec: TableSpec, run: _Run, column: pa.Field, now: Any) -> pa.ChunkedArray:
    """What a run of batches has of a column."""
    count = run.rows.num_rows
    stamp = spec.stamps.get(column.name)
    if stamp == "time":
        return pa.chunked_array([pa.repeat(now.cast(column.type), count)])
    if stamp is not None:
        texts = array_of([_stamp(stamp, batch) for batch in run.batches], pa.string())
        parts = [pa.repeat(text, batch.rows.num_rows) for text, batch in zip(texts, run.batches, strict=True)]
        return pa.chunked_array([pa.concat_arrays(parts).cast(column.type)])
    position = run.rows.schema.get_field_index(column.name)
    if position < 0 or pa.types.is_null(run.rows.schema.field(position).type):
        return pa.chunked_array([pa.nulls(count, column.type)])
    found = run.rows.column(position)
    if not is_narrower(column.type, plain_type(found.type)):
        return found
    kept = [_kept(spec, batch, column, batch.rows.column(position)) for batch in run.batches]
    return pa.chunked_array([chunk for part in kept for chunk in part.chunks], column.type)


def _kept(spec: TableSpec, batch: BatchToStage, column: pa.Field, found: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column in the narrower type that a table keeps it in which others made."""
    try:
        return in_kept_type(found, column.type)
    except pa.ArrowInvalid as error:
        raise WriterSchemaError(
            f"Column {column.name!r} of {spec.name} is {column.type}, and batch {batch.token} brings values beyond it.",
            expected_schema={column.name: str(column.type)},
            actual_schema={column.name: str(found.type)},
            context={"table": spec.name, "column": column.name, "batch_id": str(batch.token)},
            suggestions=[f"Send values that fit in {column.type}, or write to a table of wider types."],
            code="out_of_range",
        ) from error


def _joined(parts: Sequence[pa.ChunkedArray]) -> pa.ChunkedArray:
    parts = alike(parts)
    return pa.chunked_array([chunk for part in parts for chunk in part.chunks], parts[0].type)


def _stamp(stamp: str, batch: BatchToStage) -> str:
    return {"producer": batch.token.producer_id, "batch": str(batch.token)}[stamp]


def _schema_of(spec: TableSpec, batches: Sequence[BatchToStage]) -> pa.Schema:
    kinds: dict[str, pa.DataType] = {column.name: column.type for column in spec.schema}
    for batch in batches:
        names = batch.rows.schema.names
        if len(set(names)) != len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise WriterSchemaError(f"Rows for {spec.name} have these columns twice: {', '.join(twice)}.",
                                    suggestions=["Rename one of each."])  # fmt: skip
        for column in batch.rows.schema:
            # A column of nulls alone says nothing of its type, and a table without it reads null anyway.
            if column.name in spec.stamps or pa.types.is_null(column.type):
                continue
            kept = plain_type(column.type)
            known = kinds.setdefault(column.name, kept)
            if not known.equals(kept) and not is_narrower(known, kept):
                raise WriterSchemaError(
                    f"Column {column.name!r} of {spec.name} is {known}, and batch {batch.token} brings {kept}.",
                    expected_schema={name: str(kind) for name, kind in kinds.items()},
                    actual_schema={entry.name: str(entry.type) for entry in plain_schema(batch.rows.schema)},
                    context={"table": spec.name, "column": column.name, "batch_id": str(batch.token)},
                    suggestions=[f"Give {column.name!r} the type {known} in every row."],
                    code="type_clash",
                )
    return pa.schema(list(kinds.items()))


# ---------------------------------------------------------------- partitions


def partitioned(spec: TableSpec, table: pa.Table) -> Iterator[tuple[dict[str, str | None], pa.Table]]:
    """Partition values and their rows (without the partition columns); order within each is kept."""
    names = list(spec.partition_columns)
    if not names or not table.num_rows:
        yield {}, table
        return
    missing = [name for name in names if name not in table.schema.names]
    if missing:
        raise WriterSchemaError(
            f"{spec.name} is partitioned by {', '.join(names)}, and there is no column {', '.join(missing)}.",
            context={"table": spec.name, "partition_columns": names},
            suggestions=["Partition by columns that the table has."],
        )
    keyed = pa.table(
        {**{name: plain_column(table.column(name)) for name in names}, "": array_of(range(table.num_rows), pa.int64())}
    )
    # One row for each combination, with the positions of its rows.
    groups = keyed.group_by(names, use_threads=False).aggregate([("", "list")])
    folders = [
        {name: _partition_text(spec, name, row[name]) for name in names} for row in groups.select(names).to_pylist()
    ]
    data = table.drop_columns(names)
    for values, positions in zip(folders, groups.column("_list").combine_chunks(), strict=True):
        yield values, data.take(positions.values)


def _partition_text(spec: TableSpec, column: str, value: object) -> str | None:
    """The value as Delta writes it; a value that a folder cannot safely be named by would kill the table."""
    if not _SAFE.fullmatch(column):
        raise WriterValidationError(
            f"{spec.name} cannot be partitioned by {column!r}: the name may have letters, digits, _ and - only.",
            context={"table": spec.name, "column": column},
            suggestions=["Partition by another column."],
        )
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value)
    # A datetime is a date to Python: the type itself decides.
    if type(value) in (str, int, date) and names_folder(column, text):
        return text
    raise WriterValidationError(
        f"Value {text[:100]!r} of partition column {column!r} of {spec.name} cannot name a folder.",
        context={"table": spec.name, "column": column, "value": text[:100]},
        suggestions=["Partition by a date, a bool, a whole number, or a text of ASCII letters, digits, _ and - only."],
        code="unsafe_partition_value",
    )


# ---------------------------------------------------------------- files


def _write_all(spec: TableSpec, parts: Sequence[tuple[dict[str, str | None], pa.Table]]) -> tuple[StagedFile, ...]:
    place = place_of(spec)
    with ExitStack() as undo:
        files = []
        for values, rows in parts:
            folder = "".join(f"{name}={NULL_PARTITION if value is None else value}/" for name, value in values.items())
            writer = _PartWriter(spec, place, folder, values)
            start, most = 0, rows_of_file(spec, rows.num_rows)
            while start < rows.num_rows:
                file, start = writer.write(rows.slice(0, start + most), start)
                undo.callback(_remove_quietly, place, file.path)
                files.append(file)
        place.settle(file.path for file in files)
        undo.pop_all()
    return tuple(files)


def rows_of_file(spec: TableSpec, count: int) -> int:
    """The most rows of one file, of so many in a partition."""
    return -(-count // spec.spread_files) if count and count >= spec.spread_from_rows else max(count, 1)


def _remove_quietly(place: Place, path: str) -> None:
    with suppress(OSError):  # the error that led here is the one to tell; VACUUM removes what no commit knows
        place.remove(path)


class _PartWriter:
    """Writes the files of one partition."""

    def __init__(self, spec: TableSpec, place: Place, folder: str, values: dict[str, str | None]) -> None:
        self._spec = spec
        self._place = place
        self._folder = folder
        self._values = values

    def write(self, rows: pa.Table, start: int) -> tuple[StagedFile, int]:
        """One file with the rows from `start` on, and where the next file begins."""
        spec = self._spec
        path = f"{self._folder}part-{uuid.uuid4()}.{spec.compression}.parquet"
        new = self._place.create(path)
        try:
            footer, end = self._encode(rows, start, new.sink)
            facts = new.keep()
        except BaseException:  # interrupts too: nothing may be left behind
            new.drop()
            raise
        written = rows.slice(start, end - start)
        with_nan = columns_with_nan([written], spec.statistics_columns)
        statistics = delta_statistics(footer, rows.schema, spec.statistics_columns, with_nan)
        staged = StagedFile(path, facts.size_bytes, end - start, statistics, self._values, facts.modified_ms)
        return staged, end

    def _encode(self, rows: pa.Table, start: int, sink: Any) -> tuple[Any, int]:
        footers: list[Any] = []
        limit = self._spec.max_file_bytes
        # Arrow's bytes are more than Parquet's: the first group cannot pass the limit, and tells the real rate. A file
        # of few rows is one group whatever they take, and `nbytes` takes 41 µs to say that.
        few = rows.num_rows <= _LEAST_GROUP_ROWS
        bytes_per_row = 1.0 if few else rows.nbytes / rows.num_rows
        options = parquet_options(self._spec, rows.schema)
        writer = pq.ParquetWriter(sink, rows.schema, metadata_collector=footers, **options)
        try:
            end = start
            while end < rows.num_rows and sink.tell() < limit:
                room = max(_LEAST_GROUP_ROWS, int((limit - sink.tell()) / bytes_per_row))
                count = min(ROW_GROUP_ROWS, room, rows.num_rows - end)
                writer.write_table(rows.slice(end, count), row_group_size=count)
                end += count
                bytes_per_row = max(sink.tell() / (end - start), 1e-3)
        except BaseException:
            # Closing what is broken raises a RuntimeError that would hide the error that tells why.
            with suppress(Exception):
                writer.close()
            raise
        writer.close()
        return footers[0], end


def parquet_options(spec: TableSpec, schema: pa.Schema) -> dict[str, Any]:
    """Arguments of `pyarrow.parquet.ParquetWriter` for these columns.

    Measured on log rows: 959,000 rows/s and 70 bytes a row, where pyarrow's defaults give 565,000 and
    126. BYTE_STREAM_SPLIT would suit floats, and Spark cannot read it.
    """
    dictionary = [name for name in spec.dictionary_columns if name in schema.names]
    packed = {
        column.name: "DELTA_BINARY_PACKED"
        for column in schema
        if column.name not in dictionary and _is_packable(column.type)
    }
    return {
        "compression": spec.compression,
        "compression_level": 1 if spec.compression == "zstd" else None,
        "use_dictionary": dictionary or False,
        "column_encoding": packed or None,
        # Readers take types from the Delta log; Arrow's own copy would add 1 KB to every small file.
        "store_schema": False,
    }


def _is_packable(kind: pa.DataType) -> bool:
    return bool(pa.types.is_signed_integer(kind) or pa.types.is_timestamp(kind) or pa.types.is_date32(kind))


def staged_schema(staged: StagedBatch) -> pa.Schema:
    """The columns that the files have; one is marked non-nullable where no row has a null in it."""
    return pa.ipc.read_schema(pa.py_buffer(staged.schema_ipc))
