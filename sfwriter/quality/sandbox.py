"""SQL rules on a batch, in a database that holds nothing but the batch.

Receives: rules as SQL text, and rows as Arrow tables.
Produces: for each rule a boolean column: true where the row keeps it; null and errors count as broken.
Guarantees: one pass over the rows for all rules; an end in `TIME_LIMIT_S`; the same rows give the same answer.
Never does: reach a file, the network, a setting or another table: DuckDB has them switched off, besides what
    `expressions` lets through.
"""

from __future__ import annotations

from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sfwriter.exceptions import WriterValidationError
from sfwriter.interrupts import stoppable
from sfwriter.quality.expressions import columns_named

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pyarrow as pa

TIME_LIMIT_S = 30.0
"""For all SQL rules on one batch: ten simple rules take about 0.3 s on a million rows."""

_MEMORY = "512MB"
_LOCKED: dict[str, str | bool | int | float | list[str]] = {
    "allow_community_extensions": False,
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "enable_external_access": False,
    "memory_limit": _MEMORY,
    "python_enable_replacements": False,
    "temp_directory": "",
    "threads": 1,
}


class Sandbox:
    """One closed database in memory. Thread-safe: batches are looked at side by side."""

    def __init__(self) -> None:
        """Open it, with everything off that is not needed."""
        import duckdb  # loaded where there are rules

        self._connection: Any = duckdb.connect(":memory:", config=_LOCKED)
        self._connection.execute("SET GLOBAL TimeZone = 'UTC'")
        self._connection.execute("SET lock_configuration = true")
        self._idle: deque[Any] = deque([self._connection])

    def columns(self, text: str) -> list[str]:
        """The columns that a rule names. Raises ValueError where it is no rule."""
        with self._one() as connection:
            return columns_named(connection, text)

    def check(self, text: str, empty: pa.Table) -> None:
        """Raise ValueError where the rule does not fit these columns, or is not boolean."""
        import duckdb

        with self._one() as connection:
            connection.register("batch", empty)
            try:
                found = connection.sql(f"SELECT {_kept(text)} FROM batch")  # noqa: S608  checked text
                kind = str(found.types[0])
            except duckdb.Error as error:
                raise ValueError(f"does not fit the columns: {str(error).splitlines()[0]}") from None
            finally:
                connection.unregister("batch")
        if kind != "BOOLEAN":
            raise ValueError(f"gives {kind}, and a rule is true or false")

    def kept(self, texts: Sequence[str], rows: pa.Table) -> pa.Table:
        """One boolean column for each rule, in the order of the rows.

        Raises:
            WriterValidationError: they took longer than `TIME_LIMIT_S`, or more memory than there is for them.
        """
        import duckdb

        asked = ", ".join(f"{_kept(text)} AS r{place}" for place, text in enumerate(texts))
        with self._one() as connection:
            connection.register("batch", rows)
            query = f"SELECT {asked} FROM batch"  # noqa: S608  checked text
            try:
                return stoppable(connection, lambda: _rows(connection, query), TIME_LIMIT_S)
            except duckdb.Error as error:
                late = isinstance(error, duckdb.InterruptException)
                why = f"took longer than {TIME_LIMIT_S:g} s" if late else f"failed ({str(error).splitlines()[0]})"
                raise WriterValidationError(
                    f"the validation rules {why} on {rows.num_rows} rows",
                    context={"rules": list(texts), "rows": rows.num_rows},
                    suggestions=["write simpler rules", "give fewer rows in one call"],
                ) from error
            finally:
                connection.unregister("batch")

    @contextmanager
    def _one(self) -> Iterator[Any]:
        """A connection for one thread; all of them share the database's memory and its locks."""
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._connection.cursor()
        try:
            yield connection
        finally:
            self._idle.append(connection)


def _rows(connection: Any, query: str) -> pa.Table:
    return connection.sql(query).to_arrow_table()


def _kept(text: str) -> str:
    # `TRY`: a value that the rule cannot be worked out for (a cast, an overflow) gives null, and null has failed.
    return f"TRY((\n{text}\n))"
