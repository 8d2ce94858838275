"""Rows of a table in DuckDB, for questions that group and sort.

Receives: a stream of rows from a table of any engine, or the table.
Produces: answers of DuckDB, with the rows as the view `log`, to be read once.
Guarantees: columns that a table lacks are null; memory is bounded by `MEMORY`, beyond which DuckDB spills into
    a folder that goes with the connection; an error of DuckDB is a `WriterTableError`.
Never does: take a user's text into a query.
"""

from __future__ import annotations

import math
import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import pyarrow as pa

from sfwriter.exceptions import WriterError, WriterSchemaError, WriterTableError
from sfwriter.interrupts import stoppable
from sfwriter.schema import LOG_SCHEMA

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime
    from typing import TypeVar

    from sfwriter.storage.engine import TableReader

    Answer = TypeVar("Answer")

MEMORY = "700MB"
TIMES = ("start_time", "run_started_at", "logged_at")
"""When a row happened: the first of these that it has."""


def readable(schema: pa.Schema, columns: Sequence[str]) -> list[str]:
    """Those of the log's columns that the table has; where it has none, another one, for the rows to be counted.

    Raises:
        WriterSchemaError: one of them is of another kind than the log keeps, as in somebody else's table.
    """
    found = [name for name in columns if name in schema.names]
    for name in found:
        expected, actual = LOG_SCHEMA.field(name).type, schema.field(name).type
        if not _reads_as(actual, expected):
            raise WriterSchemaError(
                f"Column {name!r} is {actual} in the table, and a log keeps {expected}: no answer.",
                expected_schema={name: str(expected)},
                actual_schema={name: str(actual)},
                context={"column": name, "expected": str(expected), "actual": str(actual)},
                suggestions=[
                    'maintain_table({"validate_schema": True}) lists every column that differs',
                    "keep logs in a table of their own (table_schema, table_name)",
                ],
                code="type_clash",
            )
    return found or schema.names[:1]


def _reads_as(actual: pa.DataType, expected: pa.DataType) -> bool:
    if pa.types.is_timestamp(expected):
        return bool(pa.types.is_timestamp(actual))
    if pa.types.is_string(expected):
        return bool(pa.types.is_string(actual) or pa.types.is_large_string(actual) or pa.types.is_string_view(actual))
    if pa.types.is_boolean(expected):
        return bool(pa.types.is_boolean(actual))
    return bool(pa.types.is_integer(actual) or pa.types.is_floating(actual) or pa.types.is_decimal(actual))


class Log:
    """Rows that can be asked for. Ctrl-C stops a query at once."""

    def __init__(self, connection: Any) -> None:
        """Ask this connection."""
        self._connection = connection

    def tuples(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of an answer."""
        return self._asked(query, values)[1]

    def dicts(self, query: str, values: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """All rows of an answer, by the names of its columns."""
        names, rows = self._asked(query, values)
        return [dict(zip(names, row, strict=True)) for row in rows]

    def _asked(self, query: str, values: Sequence[Any]) -> tuple[list[str], list[tuple[Any, ...]]]:
        def ask() -> tuple[list[str], list[tuple[Any, ...]]]:
            found = self._connection.execute(query, list(values))
            return [column[0] for column in found.description], found.fetchall()

        return stoppable(self._connection, ask)


@contextmanager
def rows_of(reader: pa.RecordBatchReader, columns: Sequence[str], *, as_kept: bool = False) -> Iterator[Log]:
    """What answers queries of a view `log` with these columns of the reader; those it lacks are null.

    Args:
        reader: the rows.
        columns: of the view.
        as_kept: whether NaN and infinity, which `ignore` writes, are shown; else they are null, too: one of
            them would leave nothing of an average.
    """
    failed: list[WriterError] = []
    given = pa.RecordBatchReader.from_batches(reader.schema, _watched(reader, failed))
    with _connected(failed) as connection:
        connection.register("given", given)
        shown = _listed(reader.schema, reader.schema.names, columns, as_kept=as_kept)
        connection.execute(f"CREATE TEMP VIEW log AS SELECT {shown} FROM given")  # noqa: S608  names of columns
        yield Log(connection)


@contextmanager
def rows_since(
    table: TableReader,
    schema: pa.Schema,
    columns: Sequence[str],
    window: tuple[datetime, Callable[[Sequence[str]], str]],
    *,
    as_kept: bool,
) -> Iterator[Log]:
    """As `rows_of`, of a table's rows in a window of time.

    DuckDB reads the files itself where the rows are simply theirs, in half the time.

    Args:
        table: whose rows.
        schema: the table's.
        columns: of the view.
        window: its begin, and its rows as SQL, given the columns that there are.
        as_kept: see `rows_of`.
    """
    since, predicate = window
    wanted = readable(schema, columns)
    files = table.files(TIMES, since) if isinstance(table, HasFiles) else None
    if not files:
        reader = table.scan(wanted, predicate(schema.names))
        with rows_of(reader, columns, as_kept=as_kept) as log:
            yield log
        return
    paths = ", ".join("'" + path.replace("'", "''") + "'" for path in files)
    source = f"read_parquet([{paths}], union_by_name = true)"
    with _connected([]) as connection:
        found = [row[0] for row in connection.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()]  # noqa: S608  paths
        known = [name for name in schema.names if name in found]
        shown = _listed(schema, known, columns, as_kept=as_kept)
        query = f"SELECT {shown} FROM {source} WHERE {predicate(known)}"  # noqa: S608  names of columns, and a time
        connection.execute(f"CREATE TEMP VIEW log AS {query}")
        yield Log(connection)


@runtime_checkable
class HasFiles(Protocol):
    """A table whose rows may be those of Parquet files on this machine."""

    def files(self, times: Sequence[str], since: datetime) -> list[str] | None:
        """Those that may have rows at `since` or later; None where the rows are not simply those of such files.

        A row's time is the first of `times` that it has.
        """


@contextmanager
def _connected(failed: Sequence[WriterError]) -> Iterator[Any]:
    """A connection for one question. Where `failed` has an error, that is why DuckDB could not go on."""
    import duckdb  # loaded where a report is asked for

    with tempfile.TemporaryDirectory(prefix="sfwriter-") as folder:
        connection = duckdb.connect(":memory:", config={"memory_limit": MEMORY, "temp_directory": folder})
        try:
            connection.execute("SET TimeZone = 'UTC'")
            yield connection
        except duckdb.Error as error:
            if failed:
                raise failed[0] from None
            raise WriterTableError(
                f"The rows were read, but the question could not be answered: {str(error).splitlines()[0]}",
                context={"error": type(error).__name__},
                suggestions=["see the cause below: memory, space for temporary files, or columns of other types"],
                code="query_failed",
            ) from error
        finally:
            connection.close()


def _listed(schema: pa.Schema, known: Sequence[str], columns: Sequence[str], *, as_kept: bool) -> str:
    """The columns of the view as SQL; those that are not known are null."""
    return ", ".join(_shown(schema, name, as_kept=as_kept) if name in known else _null(name) for name in columns)


def _shown(schema: pa.Schema, name: str, *, as_kept: bool) -> str:
    column = quoted(name)
    if as_kept or not pa.types.is_floating(schema.field(name).type):
        return column
    return f"CASE WHEN isfinite({column}) THEN {column} END AS {column}"


def _null(name: str) -> str:
    return f"NULL::{_SQL_TYPES[LOG_SCHEMA.field(name).type]} AS {quoted(name)}"


def _watched(reader: pa.RecordBatchReader, failed: list[WriterError]) -> Iterator[pa.RecordBatch]:
    try:
        yield from reader
    except WriterError as error:
        failed.append(error)
        raise


def quoted(name: str) -> str:
    """A name as SQL's identifier."""
    return '"' + name.replace('"', '""') + '"'


def figure(value: Any) -> Any:
    """A number as a result shows it: None for what is none (the slope of one point) or beyond a double."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def twice(ask: Callable[[], Answer]) -> Answer:
    """Ask once more where the table changed under the first reading: a file that VACUUM took, most likely."""
    try:
        return ask()
    except WriterTableError:
        return ask()


_SQL_TYPES = {
    pa.string(): "VARCHAR",
    pa.int64(): "BIGINT",
    pa.float64(): "DOUBLE",
    pa.bool_(): "BOOLEAN",
    pa.timestamp("us", "UTC"): "TIMESTAMPTZ",
}
