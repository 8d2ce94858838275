"""The rows that a report looks at, streamed out of a table into DuckDB.

Receives: a table of any engine, the columns that a report needs, and its window.
Produces: a DuckDB connection with the rows as the view `log`, to be read once.
Guarantees: rows outside the window's files are not read; columns that a table lacks are null; memory is
    bounded by `MEMORY`, beyond which DuckDB spills into a folder that goes with the connection.
Never does: take a user's text into a query.
"""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from sfwriter.exceptions import WriterError, WriterTableError, WriterValidationError
from sfwriter.schema import LOG_SCHEMA

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime
    from typing import TypeVar

    Answer = TypeVar("Answer")

MEMORY = "700MB"
TIMES = ("start_time", "run_started_at", "logged_at")
"""When a row happened: the first of these that it has."""

MAX_DAYS = 36_500


@dataclass(frozen=True, slots=True)
class Window:
    """The rows since some days before now.

    Attributes:
        since: the earliest moment in it, UTC.
    """

    since: datetime

    @classmethod
    def of(cls, days: Any, now: datetime) -> Window:
        """The last `days` days; `WriterValidationError` where they are no number from 0 (left out) to 36,500."""
        if isinstance(days, bool) or not isinstance(days, (int, float)) or not 0 < days <= MAX_DAYS:
            raise WriterValidationError(
                f"days is {days!r}, expected a number above 0, at most {MAX_DAYS}",
                context={"field": "days", "value": repr(days)},
                suggestions=["e.g. days=7"],
            )
        return cls(now - timedelta(days=days))

    def predicate(self, known: Sequence[str]) -> str:
        """The rows in it, for `TableReader.scan`: of the columns that are there the first that is not null counts."""
        limit = f"TIMESTAMP '{self.since.isoformat()}'"
        found = "FALSE"
        for name in reversed([name for name in TIMES if name in known]):
            later = f'"{name}" >= {limit}'
            found = later if found == "FALSE" else f'({later} OR ("{name}" IS NULL AND {found}))'
        return found


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
