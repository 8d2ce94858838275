"""A digest of rows that have no order: those of a Spark DataFrame.

Receives: rows in the table's types, and what did not fit.
Produces: a sum over the rows, modulo 2^64; sums of parts add up to that of the whole.
Guarantees: the same rows give the same sum, however they are divided, ordered, and typed within a column: numbers
    of columns that the log lacks count as doubles. It never is that of the same rows with an order.
Never does: see a made-up run id, or `logged_at`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import xxhash

from sfwriter.dictionaries import plain_table
from sfwriter.ingest.jsontext import original_text
from sfwriter.schema import LOG_SCHEMA

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sfwriter.ingest.encoded import Fault

MODULUS = 2**64
_LOG_COLUMNS = frozenset(LOG_SCHEMA.names)


def unordered_digest(rows: pa.Table, faults: Iterable[Fault]) -> int:
    """The sum for these rows."""
    total: int = sum(_of_text(f"{fault.column}\0{original_text(fault.value)}") for fault in faults)
    parts = [_hashed(name, rows.schema.field(name).type) for name in rows.column_names if _has_values(rows, name)]
    if parts and rows.num_rows:
        import duckdb  # hashes whole columns at once

        with duckdb.connect(":memory:", config={"threads": 1}) as connection:
            connection.register("given", plain_table(rows))
            # A null adds nothing, so that a column that is not there and one without a value are the same.
            query = f"SELECT sum(hash({' + '.join(parts)})::HUGEINT) FROM given"  # noqa: S608  names of columns
            total += int(connection.execute(query).fetchall()[0][0])
    return int((total + rows.num_rows * _of_text("row")) % MODULUS)


def digest_text(total: int) -> str:
    """16 hex digits, as every digest is."""
    return str(xxhash.xxh3_64(f"frame:{total % MODULUS}".encode()).hexdigest())


def _has_values(rows: pa.Table, name: str) -> bool:
    column = rows.column(name)
    return bool(column.null_count < len(column))


def _hashed(name: str, kind: pa.DataType) -> str:
    quoted = '"' + name.replace('"', '""') + '"'
    text = "'" + name.replace("'", "''") + "'"
    number = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    value = f"{quoted}::DOUBLE" if number and name not in _LOG_COLUMNS else quoted
    return f"CASE WHEN {quoted} IS NULL THEN 0::HUGEINT ELSE hash({text}, {value})::HUGEINT END"


def _of_text(text: str) -> int:
    return int(xxhash.xxh3_64(text.encode("utf-8", "surrogatepass")).intdigest())
