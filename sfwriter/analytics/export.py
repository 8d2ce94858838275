"""The rows themselves, in a file: `export_analytics_data`.

Receives: a table, what is wanted of it, and where it is to go.
Produces: one file: `json` (one array), `jsonl` (an object a line), `csv`, or `parquet`; newest rows first.
Guarantees: the file appears whole or not at all, flushed to the disk; memory is bounded however many rows;
    filters are compared as values; a CSV cell that a spreadsheet would run as a formula begins with `'`.
Never does: leave a half-written file behind.
"""

from __future__ import annotations

import os
import uuid
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from sfwriter.exceptions import WriterTableError, WriterValidationError
from sfwriter.ingest.values import INT64_MAX, plain
from sfwriter.runtime.query import quoted, rows_of, twice
from sfwriter.schema import LOG_SCHEMA
from sfwriter.storage.place import fsync_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sfwriter.results import ExportResult
    from sfwriter.storage.engine import TableReader

FORMATS = ("json", "jsonl", "csv", "parquet")
_OPTIONS = {
    "json": "FORMAT json, ARRAY true",
    "jsonl": "FORMAT json, ARRAY false",
    "csv": "FORMAT csv, HEADER true",
    "parquet": "FORMAT parquet, COMPRESSION zstd",
}
_FORMULA = r"^(?:[\t\r\n]|\s*[=+\-@＝＋－＠])"
"""What makes a spreadsheet run a cell (OWASP, CSV injection): some trim blanks and take wide signs for narrow ones."""

MAX_NAME = 200
"""Characters of a file's name, with room for what is added within the 255 bytes of a file system."""

MIB = 2**20
_ORDER = ("logged_at", "start_time", "run_started_at")
_KINDS: dict[Any, tuple[tuple[type, ...], str]] = {
    pa.string(): ((str,), "a text"),
    pa.int64(): ((int,), "a whole number"),
    pa.float64(): ((int, float), "a number"),
    pa.bool_(): ((bool,), "True or False"),
    pa.timestamp("us", "UTC"): ((datetime,), "a datetime"),
}


@dataclass(frozen=True, slots=True)
class Export:
    """What is wanted, checked as far as that goes without the table.

    Attributes:
        format: one of `FORMATS`.
        limit: rows at most; None for all.
        filters: column to a value, or to a list of values; None means null.
        path: the file, not there or to be replaced.
    """

    format: str
    limit: int | None
    filters: Mapping[str, Any]
    path: Path

    @classmethod
    def of(cls, format: Any, limit: Any, filters: Any, path: Any, folder: Path | None, name: str) -> Export:  # noqa: A002, PLR0917
        """Check the arguments of a call.

        Args:
            format: see `FORMATS`.
            limit: see `Export`.
            filters: see `Export`.
            path: of the file; None for a new one in `folder`.
            folder: of files without a path, made where it is missing; None where there is none.
            name: what the new file's name begins with.

        Raises:
            WriterValidationError: one of them is wrong.
        """
        if format not in FORMATS:
            raise _refused("format", format, f"one of {', '.join(FORMATS)}", 'format="parquet"')
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 0):
            raise _refused("limit", limit, "a whole number from 0 on, or None for all rows", "limit=1000")
        if filters is not None and not hasattr(filters, "items"):
            raise _refused("filters", filters, "a dict of column to a value or a list of values", '{"phase": "gold"}')
        if path is not None:
            return cls(format, limit, dict(filters or {}), _checked_path(path))
        if folder is None:
            raise _refused("path", path, "a file on a local disk: the warehouse is in an object store", 'path="a.json"')
        return cls(format, limit, dict(filters or {}), folder / f"{name[-MAX_NAME:]}-{uuid.uuid4().hex[:8]}.{format}")


def export_rows(table: TableReader, wanted: Export) -> ExportResult:
    """Write the file; `export_successful` is False, and there is no file, where there is no table.

    Raises:
        WriterValidationError: a filter names no column, or has a value of another type.
        WriterTableError: the table cannot be read, or the file not be written.
    """
    schema = table.stats().schema
    # Where there is no table, filters are held against the columns that it would have.
    columns = LOG_SCHEMA if schema is None else schema
    sets = {name: _value_set(columns, name, value) for name, value in wanted.filters.items()}
    if schema is None:
        return _result(wanted, None, 0)
    hidden = wanted.path.with_name(f".{wanted.path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        count = twice(lambda: _written(table, wanted, sets, hidden))
        fsync_path(hidden)
        size = hidden.stat().st_size
        hidden.replace(wanted.path)
        fsync_path(wanted.path.parent)
    except OSError as error:
        raise WriterTableError(
            f"The export cannot be written to {wanted.path}: {error}",
            context={"path": str(wanted.path)},
            suggestions=["Choose a folder that can be written to, with enough space."],
            code="export_failed",
        ) from error
    finally:
        with suppress(OSError):
            hidden.unlink(missing_ok=True)
    return _result(wanted, size, count)


def make_folder(folder: Path) -> None:
    """Make the folder of exports; `WriterTableError` where that cannot be done."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriterTableError(
            f"The folder {folder} for exports cannot be made: {error}",
            context={"path": str(folder)},
            suggestions=["Give path=…, a file in a folder that can be written to."],
            code="export_failed",
        ) from error


def _written(table: TableReader, wanted: Export, sets: Mapping[str, Any], hidden: Path) -> int:
    import duckdb

    reader = table.scan()
    schema = reader.schema
    rows = reader if not sets else pa.RecordBatchReader.from_batches(schema, _filtered(reader, sets))
    shown = ", ".join(f"{_cell(field, wanted.format)} AS {quoted(field.name)}" for field in schema)
    order = ", ".join(f"{quoted(name)} DESC NULLS LAST" for name in _ORDER if name in schema.names)
    query = f"SELECT {shown} FROM log" + (f" ORDER BY {order}" if order else "")  # noqa: S608  names of columns
    if wanted.limit is not None:
        query += f" LIMIT {min(wanted.limit, INT64_MAX)}"
    target = str(hidden).replace("'", "''")
    with rows_of(rows, schema.names, as_kept=True) as log:
        try:
            return int(log.tuples(f"COPY ({query}) TO '{target}' ({_OPTIONS[wanted.format]})")[0][0])
        except duckdb.IOException as error:
            raise OSError(str(error).splitlines()[0]) from error


def _filtered(reader: pa.RecordBatchReader, sets: Mapping[str, Any]) -> Iterator[pa.RecordBatch]:
    for batch in reader:
        kept: Any = None
        for name, values in sets.items():
            found = pc.is_in(batch.column(name), value_set=values)
            kept = found if kept is None else pc.and_(kept, found)
        yield batch.filter(kept)


def _cell(field: pa.Field, form: str) -> str:
    """The SQL of a column as the format takes it."""
    name, kind = quoted(field.name), field.type
    if form == "parquet":
        return name
    if pa.types.is_timestamp(kind):
        return f"strftime({name}, '%Y-%m-%dT%H:%M:%S.%fZ')"
    if pa.types.is_floating(kind):
        return f"CASE WHEN isfinite({name}) THEN {name} END"
    if form != "csv":
        # Text that is no JSON (another writer's) stays text.
        return (
            f"CASE WHEN json_valid({name}) THEN {name}::JSON ELSE to_json({name}) END"
            if field.name == "metadata"
            else name
        )
    if pa.types.is_string(kind):
        return f"CASE WHEN regexp_matches({name}, '{_FORMULA}') THEN '''' || {name} ELSE {name} END"
    return name


def _value_set(schema: pa.Schema, name: Any, value: Any) -> pa.Array:
    if name not in schema.names:
        raise _refused("filters", name, f"a column: {', '.join(schema.names)}", '{"phase": "gold"}')
    kind = schema.field(name).type
    types, words = _KINDS.get(kind, ((object,), f"a value of {kind}"))
    values = list(value) if isinstance(value, (list, tuple, set, frozenset)) else [value]
    wanted = [plain(entry) for entry in values]
    for entry in wanted:
        is_flag = isinstance(entry, bool)
        if entry is not None and (not isinstance(entry, types) or (is_flag and bool not in types)):
            raise _refused(f"filters[{name!r}]", entry, f"{words}, or None", '{"phase": ["silver", "gold"]}')
    aware = [
        entry.replace(tzinfo=timezone.utc) if isinstance(entry, datetime) and entry.tzinfo is None else entry
        for entry in wanted
    ]
    try:
        return pa.array(aware, kind)
    except (pa.ArrowException, OverflowError, ValueError) as error:
        raise _refused(f"filters[{name!r}]", value, words, '{"phase": ["silver", "gold"]}') from error


def _checked_path(path: Any) -> Path:
    if not isinstance(path, (str, os.PathLike)) or not str(path) or "\0" in str(path) or "://" in str(path):
        raise _refused("path", path, "a file on a local disk", 'path="export.json"')
    try:
        found = Path(path).expanduser().absolute()
    except (OSError, RuntimeError) as error:  # the home of nobody, a current folder that is gone
        raise _refused("path", path, f"a file on a local disk ({error})", 'path="export.json"') from error
    if found.is_dir():
        raise _refused("path", path, "a file, and this is a folder", 'path="export.json"')
    if not found.parent.is_dir():
        raise _refused("path", path, "a file in a folder that exists", 'path="export.json"')
    return found


def _refused(field: str, value: Any, expected: str, example: str) -> WriterValidationError:
    return WriterValidationError(
        f"{field} is {value!r:.80}, expected {expected}",
        context={"field": field, "value": f"{value!r:.80}"},
        suggestions=[f"e.g. {example}"],
    )


def _result(wanted: Export, size: int | None, count: int) -> ExportResult:
    return {
        "export_successful": size is not None,
        "records_exported": count,
        "export_size_mb": (size or 0) / MIB,
        "export_path": str(wanted.path) if size is not None else "",
        "format": wanted.format,
    }
