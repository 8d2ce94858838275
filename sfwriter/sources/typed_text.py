"""Text, to the type of the column that it is for.

Receives: texts of a JSONL or CSV file, and the table's types.
Produces: values of those types.
Guarantees: the road for whole columns gives the same values as the one for single texts. What does not
    parse stays text, for the gate to judge.
Never does: round to a number that was not meant: integers are exact, floats are the nearest double.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from sfwriter.arrays import constant
from sfwriter.ingest import values
from sfwriter.ingest.values import Misfit
from sfwriter.schema import LOG_SCHEMA, TIMESTAMP

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Types = dict[str, pa.DataType]
"""Column to type, for the columns that text is parsed for."""

_PARSED = {"int64": pa.int64(), "double": pa.float64(), "bool": pa.bool_(), "timestamp[us, tz=UTC]": TIMESTAMP}

LOG_TYPES: Types = {field.name: field.type for field in LOG_SCHEMA}


def types_of(table_schema: Mapping[str, str]) -> Types:
    """The log's columns, and those that the table has beyond them, as `get_table_info` names their types."""
    extra = {name: _PARSED.get(kept, pa.string()) for name, kept in table_schema.items() if name not in LOG_TYPES}
    return LOG_TYPES | extra


def parse_column(column: pa.ChunkedArray, kept: pa.DataType) -> pa.ChunkedArray | None:
    """A column of texts as the type; None where a text has to be looked at by itself."""
    if column.null_count == len(column):
        return pa.chunked_array([pa.nulls(len(column), kept)])
    try:
        if kept == pa.int64():
            # Arrow would take `0x1A` for 26.
            return None if pc.any(pc.match_substring(column, "x", ignore_case=True)).as_py() else column.cast(kept)
        if kept == pa.float64():
            return column.cast(kept)
        if kept == pa.bool_():
            lowered = pc.utf8_lower(column)
            true, false = constant("true", pa.string()), constant("false", pa.string())
            known = pc.or_(pc.equal(lowered, true), pc.equal(lowered, false))
            return pc.equal(lowered, true) if pc.all(pc.or_(known, pc.is_null(column))).as_py() else None
        return _moments(column)
    except pa.ArrowInvalid:
        return None


def _moments(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """All with an offset, or all without one (UTC); a mixture raises as texts that are no timestamp do."""
    try:
        return column.cast(TIMESTAMP)
    except pa.ArrowInvalid:
        return column.cast(pa.timestamp("us")).cast(TIMESTAMP)


def parse_text(text: str, kept: pa.DataType) -> Any:
    """One text as the type; the text itself where it is none."""
    parse = _PARSERS.get(kept)
    if parse is None:
        return text
    found = parse(text)
    return text if found is None or isinstance(found, Misfit) else found


def _float(text: str) -> float | None:
    # Python would take `1_000`.
    try:
        return None if "_" in text else float(text)
    except ValueError:
        return None


_PARSERS: dict[pa.DataType, Callable[[str], Any]] = {
    pa.int64(): lambda text: values.to_int(text, exact=False),
    pa.float64(): _float,
    pa.bool_(): lambda text: values.to_bool(text, exact=False),
    TIMESTAMP: values.moment_from_text,
}
