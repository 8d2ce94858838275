"""A file's own types, to those that the columns keep, where nothing is lost.

Receives: a table as Parquet has it, and the table's types.
Produces: the table with days as timestamps, and decimals as numbers, in the columns that keep those.
Guarantees: every value comes back the same from what it was made to.
Never does: look at texts; touch a column that the table does not have.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from sfwriter.schema import TIMESTAMP

if TYPE_CHECKING:
    from sfwriter.sources.typed_text import Types

_DIGITS_OF_INT64 = 18
_DIGITS_OF_DOUBLE = 15
"""Every decimal of so many digits has a double of its own (IEEE 754, DBL_DIG)."""


def widened(table: pa.Table, types: Types) -> pa.Table:
    """The table in which such columns are cast.

    The gate takes neither in `strict`, since a caller who gives a `date` or a `Decimal` may have meant something else.
    A file has the types that its writer could write: databases export counts as decimals, and days for midnights.
    """
    for index, field in enumerate(table.schema):
        kept = types.get(field.name)
        if kept == TIMESTAMP and pa.types.is_date(field.type):
            found = table.column(index).cast(pa.timestamp("s", "UTC"))
        elif pa.types.is_decimal(field.type) and field.type.precision <= _most_digits(kept, field.type.scale):
            found = table.column(index).cast(kept)
        else:
            continue
        table = table.set_column(index, field.name, found)
    return table


def _most_digits(kept: pa.DataType | None, scale: int) -> int:
    """Digits up to which every decimal of the scale is kept: as an integer, or as a double that gives it back."""
    if kept == pa.float64():
        return _DIGITS_OF_DOUBLE
    return _DIGITS_OF_INT64 if kept == pa.int64() and scale == 0 else 0
