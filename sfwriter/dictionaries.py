"""Text columns of few values, kept as a dictionary and a number for each row.

Receives: Arrow columns as others made them, or as the gate passed them.
Produces: the same values, dictionary encoded or plain.
Guarantees: what `few_texts` gives has the type `FEW_TEXTS`, valid UTF-8, no null and no unused bytes worth
    mentioning in its dictionaries, and numbers that point into them.
Never does: build a dictionary from plain texts, except to join them with encoded ones (`alike`).

Parquet keeps such columns so, and log rows are full of them: phases, steps, tables. Kept from the file that a
backfill reads to the file that staging writes they take 4 bytes a row instead of 10 to 40, and what would
look at every text looks at each one once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Sequence

FEW_TEXTS = pa.dictionary(pa.int32(), pa.string())

LEAST_ROWS = 4_096
"""Below it there is nothing to win, and dictionaries would be a large part of a batch."""

MOST_TEXTS = 1_024
MOST_BYTES = 64 << 10
"""Of one dictionary: a job joins some twenty, and beyond 1 MiB Parquet gives a dictionary up."""


def few_texts(column: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """A dictionary column as `FEW_TEXTS`; None where it is none, is small, has many values, or is broken."""
    kept = column.type
    if not pa.types.is_dictionary(kept) or len(column) < LEAST_ROWS or column.null_count == len(column):
        return None
    value = kept.value_type
    if not (pa.types.is_string(value) or pa.types.is_large_string(value) or pa.types.is_string_view(value)):
        return None
    dictionaries = [chunk.dictionary for chunk in column.chunks]
    if any(len(texts) > MOST_TEXTS or texts.nbytes > MOST_BYTES or texts.null_count for texts in dictionaries):
        return None
    # Chunks of a file's row group share a dictionary; many different ones are no saving.
    if sum(texts.nbytes for texts in dictionaries) > len(column):
        return None
    try:
        # Arrow takes over what others made without a look: texts that are no UTF-8, numbers beyond the dictionary.
        column.validate(full=True)
        return column if kept == FEW_TEXTS else column.cast(FEW_TEXTS)
    except (pa.ArrowException, IndexError):
        return None


def is_encoded(kept: pa.DataType) -> bool:
    """Whether a column of this type is one of `few_texts`."""
    return bool(kept == FEW_TEXTS)


def plain_type(kept: pa.DataType) -> pa.DataType:
    """The type of the values."""
    return kept.value_type if is_encoded(kept) else kept


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """The same fields with the types of their values."""
    return pa.schema([field.with_type(plain_type(field.type)) for field in schema], schema.metadata)


def plain_column(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The values themselves."""
    return column.cast(column.type.value_type) if is_encoded(column.type) else column


def plain_table(table: pa.Table) -> pa.Table:
    """The same rows with no column encoded."""
    schema = plain_schema(table.schema)
    return table if schema.equals(table.schema) else table.cast(schema)


def vocabulary(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Values among which are all that the column has: its dictionaries, or the column itself."""
    if not is_encoded(column.type):
        return column
    return pa.chunked_array([chunk.dictionary for chunk in column.chunks], column.type.value_type)


def alike(columns: Sequence[pa.ChunkedArray]) -> list[pa.ChunkedArray]:
    """Columns that become one: all of them encoded, as soon as one is.

    Decoding would take memory that nobody has accounted for.
    """
    if not any(is_encoded(column.type) for column in columns):
        return list(columns)
    return [column if is_encoded(column.type) else column.dictionary_encode().cast(FEW_TEXTS) for column in columns]
