"""What can be seen of a Delta table through delta-rs: its rows, and what its log says of them.

Receives: handles that have the list of data files.
Produces: Arrow, and `TableStats`.
Guarantees: every visible row once, in the types of the table; counts are exact.
Never does: call `to_pyarrow_table`, `to_pyarrow_dataset` or `to_pandas`, which lose rows or abort the
    interpreter; change anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import QueryBuilder

from sfwriter.storage.columns import chosen
from sfwriter.storage.delta_features import check_readable_table
from sfwriter.storage.delta_log import open_table
from sfwriter.storage.engine import TableStats
from sfwriter.storage.faults import reported_by_delta
from sfwriter.storage.place import place_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from deltalake import DeltaTable

    from sfwriter.storage.engine import TableSpec


def arrow_schema(table: DeltaTable) -> pa.Schema:
    """The table's columns in Arrow's types."""
    return pa.schema(table.schema().to_arrow())


def columns_of(spec: TableSpec) -> pa.Schema | None:
    """The columns of the table at a spec's location, whatever features it uses; None where there is none.

    Raises:
        WriterTableError: it cannot be read.
    """
    table = open_table(spec, with_files=False)
    return None if table is None else arrow_schema(table)


def scan_table(
    table: DeltaTable, spec: TableSpec, columns: Sequence[str] | None, predicate: str | None
) -> pa.RecordBatchReader:
    """Stream the rows, in no particular order, in the table's types, through DataFusion.

    Raises:
        WriterSchemaError: a column is not there.
        WriterTableError: the table cannot be read; while streaming, too.
    """
    check_readable_table(table, spec)
    schema = arrow_schema(table)
    target = chosen(schema, columns, spec)
    listed = ", ".join('"' + name.replace('"', '""') + '"' for name in target.names)
    query = f"SELECT {listed} FROM log" + (f" WHERE {predicate}" if predicate else "")  # noqa: S608  never a user's text
    with reported_by_delta("read", spec):
        found = pa.RecordBatchReader.from_stream(QueryBuilder().register("log", table).execute(query))
    return pa.RecordBatchReader.from_batches(target, _streamed(found, target, spec))


def _streamed(found: pa.RecordBatchReader, target: pa.Schema, spec: TableSpec) -> Iterator[pa.RecordBatch]:
    while True:
        with reported_by_delta("read", spec):
            try:
                batch = found.read_next_batch()
            except StopIteration:
                return
        # DataFusion answers in views and dictionaries; the table's types are what was promised.
        yield batch if batch.schema.equals(target) else batch.cast(target)


def stats_of(table: DeltaTable, spec: TableSpec) -> TableStats:
    """From the log alone; a data file's footer is read only where a foreign writer gave no row count."""
    with reported_by_delta("read the log of", spec):
        check_readable_table(table, spec)
        # Not `pa.table(…)`, which imports pandas to see whether this is a frame.
        files = pa.RecordBatchReader.from_stream(table.get_add_actions(flatten=True)).read_all()
        counts = files.column("num_records").to_pylist() if "num_records" in files.column_names else [None] * len(files)
        paths = files.column("path").to_pylist()
        rows = [_rows_of(spec, path) if count is None else count for path, count in zip(paths, counts, strict=True)]
        newest = table.history(1)
        return TableStats(
            exists=True,
            version=table.version(),
            rows=sum(rows),
            files=files.num_rows,
            size_bytes=sum(files.column("size_bytes").to_pylist()),
            schema=arrow_schema(table),
            partition_columns=tuple(table.metadata().partition_columns),
            last_modified_ms=int(newest[0]["timestamp"]) if newest and "timestamp" in newest[0] else None,
            properties=dict(table.metadata().configuration),
        )


def _rows_of(spec: TableSpec, path: str) -> int:
    with place_of(spec).open(path) as source:
        return int(pq.read_metadata(source).num_rows)
