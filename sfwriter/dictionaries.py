"""Text columns of few values, kept as a dictionary and a number for each row.

Receives: Arrow columns as others made them, or as the gate passed them.
Produces: the same values, dictionary encoded or plain.
Guarantees: what `few_texts` gives depends on the values alone: encoded where they are few, with the type
    `FEW_TEXTS`, one dictionary, its texts in order, none twice, none unused and none null.
Never does: decide which columns are worth it (`encode` does).

Parquet keeps such columns so, and log rows are full of them: phases, steps, tables. Kept from the file that a
backfill reads to the file that staging writes they take 4 bytes a row instead of 10 to 40, and what would
look at every text looks at each one once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from sfwriter.arrays import array_of

if TYPE_CHECKING:
    from collections.abc import Sequence

FEW_TEXTS = pa.dictionary(pa.int32(), pa.string())

LEAST_ROWS = 4_096
"""Below it there is nothing to win, and dictionaries would be a large part of a batch."""

MOST_TEXTS = 1_024
MOST_BYTES = 64 << 10
"""Of one dictionary: a job joins some twenty, and beyond 1 MiB Parquet gives a dictionary up."""

MOST_GIVEN_BYTES = 1 << 20
"""Of the dictionaries that others made for a column, used and unused texts together."""


def taken_over(column: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """A dictionary column of texts as `FEW_TEXTS`; None where it is none, or is broken.

    Arrow takes over what others made without a look: texts that are no UTF-8, numbers beyond the dictionary.
    """
    kept = column.type
    if not pa.types.is_dictionary(kept) or len(column) < LEAST_ROWS or column.null_count == len(column):
        return None
    value = kept.value_type
    if not (pa.types.is_string(value) or pa.types.is_large_string(value) or pa.types.is_string_view(value)):
        return None
    dictionaries = [chunk.dictionary for chunk in column.chunks]
    if any(texts.null_count for texts in dictionaries):
        return None
    # Chunks of a file's row group share a dictionary; many long or different ones are no saving.
    if sum(texts.nbytes for texts in dictionaries) > min(len(column), MOST_GIVEN_BYTES):
        return None
    try:
        column.validate(full=True)
        return column if kept == FEW_TEXTS else column.cast(FEW_TEXTS)
    except (pa.ArrowException, IndexError):
        return None


def few_texts(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column of texts, plain or `FEW_TEXTS`, encoded where they are few and plain where they are not."""
    if len(column) < LEAST_ROWS or column.null_count == len(column):
        return plain_column(column)
    found = _ordered(column) if is_encoded(column.type) else None
    if found is None and not _surely_many(column):
        found = _ordered(plain_column(column).dictionary_encode().cast(FEW_TEXTS))
    return plain_column(column) if found is None else found


def _surely_many(column: pa.ChunkedArray) -> bool:
    return not is_encoded(column.type) and pc.count_distinct(column.slice(0, LEAST_ROWS)).as_py() > MOST_TEXTS


def _ordered(column: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """An encoded column with the one dictionary that its values ask for; None where they are many, or come twice."""
    column = column.unify_dictionaries()
    given = column.chunk(0).dictionary
    numbers = pa.chunked_array([chunk.indices for chunk in column.chunks], pa.int32())
    used = pc.drop_null(pc.unique(numbers))
    if len(used) > MOST_TEXTS:
        return None
    texts = given.take(used)
    if texts.nbytes > MOST_BYTES or pc.count_distinct(texts).as_py() < len(texts):
        return None
    return _renumbered([chunk.indices for chunk in column.chunks], texts, used.to_pylist(), len(given))


def numbered_texts(texts: Sequence[str | None], numbers: Sequence[pa.Array]) -> pa.ChunkedArray | None:
    """A column of `few_texts`, from its texts as they came first and the places of its rows among them.

    Args:
        texts: all different, each of them used; None among them stands for null.
        numbers: 32-bit places; null for null.

    Returns:
        None where the texts are many, or there is none.
    """
    used = [place for place, text in enumerate(texts) if text is not None]
    if not used or len(used) > MOST_TEXTS:
        return None
    known = array_of([text for text in texts if text is not None], pa.string())
    return None if known.nbytes > MOST_BYTES else _renumbered(numbers, known, used, len(texts))


def _renumbered(numbers: Sequence[pa.Array], texts: pa.Array, used: Sequence[int], given: int) -> pa.ChunkedArray:
    """The column whose dictionary has the texts in order.

    Args:
        numbers: of the rows: places, null for null.
        texts: all different.
        used: their places, in the same order.
        given: how many places there are.
    """
    order = pc.sort_indices(texts)
    place: list[int | None] = [None] * given
    for new, old in enumerate(order.to_pylist()):
        place[used[old]] = new
    texts = texts.take(order)
    if place != list(range(given)):
        moved = array_of(place, pa.int64()).cast(pa.int32())
        numbers = [pc.take(moved, chunk, boundscheck=False) for chunk in numbers]
    # Numbers that were looked at when they came need no second look: it takes twice the time.
    made = [pa.DictionaryArray.from_arrays(chunk, texts, safe=False) for chunk in numbers]
    return pa.chunked_array(made, FEW_TEXTS)


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
