"""Rows of a table in DuckDB, for questions that group and sort.

Receives: a stream of rows from a table of any engine.
Produces: a DuckDB connection with the rows as the view `log`, to be read once.
Guarantees: columns that a table lacks are null; memory is bounded by `MEMORY`, beyond which DuckDB spills into
    a folder that goes with the connection.
Never does: take a user's text into a query.
"""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from sfwriter.exceptions import WriterError, WriterTableError
from sfwriter.schema import LOG_SCHEMA

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import TypeVar

    Answer = TypeVar("Answer")

MEMORY = "700MB"
TIMES = ("start_time", "run_started_at", "logged_at")
"""When a row happened: the first of these that it has."""


@contextmanager
def rows_of(reader: pa.RecordBatchReader, columns: Sequence[str]) -> Iterator[Any]:
    """A connection whose view `log` has these columns of the reader; those it lacks are null."""
    import duckdb  # loaded where a report is asked for

    failed: list[WriterError] = []
    given = pa.RecordBatchReader.from_batches(reader.schema, _watched(reader, failed))
    with tempfile.TemporaryDirectory(prefix="sfwriter-") as folder:
        connection = duckdb.connect(":memory:", config={"memory_limit": MEMORY, "temp_directory": folder})
        try:
            connection.execute("SET TimeZone = 'UTC'")
            connection.register("given", given)
            known = set(reader.schema.names)
            shown = ", ".join(
                quoted(name) if name in known else f"NULL::{_SQL_TYPES[LOG_SCHEMA.field(name).type]} AS {quoted(name)}"
                for name in columns
            )
            connection.execute(f"CREATE TEMP VIEW log AS SELECT {shown} FROM given")  # noqa: S608  names of columns
            yield connection
        except duckdb.Error:
            if failed:
                raise failed[0] from None  # what went wrong below, and not that DuckDB could not go on
            raise
        finally:
            connection.close()


def _watched(reader: pa.RecordBatchReader, failed: list[WriterError]) -> Iterator[pa.RecordBatch]:
    try:
        yield from reader
    except WriterError as error:
        failed.append(error)
        raise


def quoted(name: str) -> str:
    """A name as SQL's identifier."""
    return '"' + name.replace('"', '""') + '"'


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
