"""What can be seen of a Delta table through delta-rs: its rows, and what its log says of them.

Receives: handles that have the list of data files.
Produces: Arrow, and `TableStats`.
Guarantees: every visible row once, in the types of the table; counts are exact.
Never does: call `to_pyarrow_table`, `to_pyarrow_dataset` or `to_pandas`, which lose rows or abort the
    interpreter; change anything.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import QueryBuilder

from sfwriter.storage.columns import chosen
from sfwriter.storage.delta_features import check_readable_table, unreadable_features
from sfwriter.storage.delta_log import open_table
from sfwriter.storage.engine import TableStats
from sfwriter.storage.faults import reported_by_delta
from sfwriter.storage.place import local_root, place_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from deltalake import DeltaTable

    from sfwriter.storage.engine import TableSpec


_PATTERN = re.compile(r"[*?\[]|://")
"""What DuckDB takes for more than one file, or for one elsewhere."""


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


def files_since(table: DeltaTable, spec: TableSpec, times: Sequence[str], since: datetime) -> list[str] | None:
    """Data files on this machine's disk that may have rows whose time is `since` or later.

    By the log's statistics, as far as there are any.

    Args:
        table: a handle with the list of files.
        spec: of the table.
        times: columns; a row's own time is the first of them that it has.
        since: UTC.

    Returns:
        None where the rows are not simply those of such files: an object store, features that say so (deletion
        vectors, names of columns), partition values, files elsewhere, times that are none.
    """
    root = local_root(spec.location)
    if root is None or _PATTERN.search(str(root)) or unreadable_features(table) or table.metadata().partition_columns:
        return None
    actions = pa.RecordBatchReader.from_stream(table.get_add_actions(flatten=True)).read_all()
    paths = [unquote(path) for path in actions.column("path").to_pylist()]
    if any(_PATTERN.search(path) or path.startswith("/") for path in paths):
        return None
    counts = _statistic(actions, "num_records")
    kept, silent = [False] * len(paths), [True] * len(paths)
    # Statistics are cut to milliseconds.
    limit = since - timedelta(milliseconds=1)
    for name in [name for name in times if name in arrow_schema(table).names]:
        latest, nulls = _statistic(actions, f"max.{name}"), _statistic(actions, f"null_count.{name}")
        if not all(value is None or isinstance(value, datetime) for value in latest):
            return None
        for place, value in enumerate(latest):
            # The first time that a row has is its own: the others count where rows lack it.
            has_none = nulls[place] is not None and nulls[place] == counts[place]
            kept[place] |= silent[place] and not has_none and (value is None or _utc(value) >= limit)
            silent[place] = silent[place] and nulls[place] != 0
    return [str(root / path) for path, is_kept in zip(paths, kept, strict=True) if is_kept]


def _statistic(actions: pa.Table, name: str) -> list[Any]:
    """One for each file; None where it has none."""
    return list(actions.column(name).to_pylist()) if name in actions.column_names else [None] * actions.num_rows


def _utc(value: datetime) -> datetime:
    return value if value.tzinfo is not None else value.replace(tzinfo=timezone.utc)


def _rows_of(spec: TableSpec, path: str) -> int:
    with place_of(spec).open(path) as source:
        return int(pq.read_metadata(source).num_rows)
