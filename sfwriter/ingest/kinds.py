"""What a column is: its Arrow type, and how values become it.

Receives: the table's columns.
Produces: a `Kind` for each, which converts single values and builds arrays of converted ones.
Guarantees: a fixed kind for every column of `LOG_SCHEMA`.
Never does: look at rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import PurePath
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pyarrow as pa

from sfwriter.arrays import array_of, scalar_of
from sfwriter.ingest import jsontext, values
from sfwriter.ingest.values import Misfit
from sfwriter.schema import LOG_SCHEMA, LOG_STAMPS, TIMESTAMP

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class Kind:
    """One way of keeping values.

    Attributes:
        name: short and unique; part of a digest, so it never changes.
        type: the Arrow type of the table's column.
        expected: what a person is told that the column takes.
        native: Python types that `pa.array` turns into the type as they are, without a look at each.
        convert: a plain value and whether exactness is asked, to the value of `stored`, or a `Misfit`.
        stored: the Arrow type of converted values, where it is not `type`.
    """

    name: str
    type: pa.DataType
    expected: str
    native: frozenset[type]
    convert: Callable[[Any, bool], Any]
    stored: pa.DataType

    def array(self, converted: list[Any]) -> pa.Array:
        """Converted values (None: null) as the column's type."""
        made = array_of(converted, self.stored)
        return made if self.stored == self.type else made.cast(self.type)


_TEXTS = frozenset({str})

TEXT = Kind("text", pa.string(), "text", _TEXTS, values.to_text, pa.string())
INT = Kind("int", pa.int64(), "64-bit integer", frozenset({int}), values.to_int, pa.int64())
FLOAT = Kind("float", pa.float64(), "number (double)", frozenset({float, int}), values.to_float, pa.float64())
BOOL = Kind("bool", pa.bool_(), "bool", frozenset({bool}), values.to_bool, pa.bool_())
MOMENT = Kind("moment", TIMESTAMP, "timestamp (datetime)", frozenset({datetime}), values.to_micros, pa.int64())
DAY = Kind("day", pa.date32(), "date", frozenset(), values.to_days, pa.int32())
OBJECT = Kind(
    "object", pa.string(), "dict, or the text of a JSON object", frozenset({dict}), jsontext.to_object_text, pa.string()
)
OPEN_TEXT = Kind("text", pa.string(), "text, or nested values", _TEXTS, jsontext.to_open_text, pa.string())

_OF_TYPE = {
    pa.string(): OPEN_TEXT, pa.large_string(): OPEN_TEXT, pa.int64(): INT, pa.float64(): FLOAT, pa.bool_(): BOOL,
    TIMESTAMP: MOMENT, pa.date32(): DAY,
}  # fmt: skip

LOG_KINDS: dict[str, Kind] = {
    field.name: OBJECT if field.name == "metadata" else TEXT if field.type == pa.string() else _OF_TYPE[field.type]
    for field in LOG_SCHEMA
    if field.name not in LOG_STAMPS
}
"""The columns that a row may fill, in the table's order."""


def kind_of_field(kept: pa.DataType) -> Kind:
    """The kind of an additional column that the table has, whoever made it.

    Narrow integers take what they hold exactly, FLOAT what it can round. A type that this library never writes
    (lists, structs, binary, decimals) takes nothing: its kind turns every value down.
    """
    if kept in _OF_TYPE:
        return replace(_OF_TYPE[kept], type=pa.string() if kept == pa.large_string() else kept)
    if pa.types.is_integer(kept):
        return _narrow(INT, kept, f"integer ({kept})")
    if pa.types.is_floating(kept):
        return _narrow(FLOAT, kept, f"number ({kept})")
    if pa.types.is_timestamp(kept) and kept.unit == "us":
        return replace(MOMENT, type=kept)
    return Kind(
        f"other:{kept}", kept, f"nothing: this library does not write {kept}", frozenset(), _nothing(kept), kept
    )


def _narrow(kind: Kind, kept: pa.DataType, expected: str) -> Kind:
    """A kind whose values are looked at one by one: Arrow makes infinities of what is beyond a narrow float."""
    return replace(kind, type=kept, expected=expected, native=frozenset(), convert=_narrowed(kind.convert, kept))


def _narrowed(convert: Callable[[Any, bool], Any], kept: pa.DataType) -> Callable[[Any, bool], Any]:
    def narrowed(value: Any, exact: bool) -> Any:
        found = convert(value, exact)
        if isinstance(found, Misfit):
            return found
        try:
            same = pa.types.is_floating(kept) and math.isfinite(found) == math.isfinite(scalar_of(found, kept).as_py())
            same = same or scalar_of(found, kept).as_py() == found
        except (pa.ArrowException, OverflowError):
            same = False
        return found if same else Misfit(f"does not fit in {kept}")

    return narrowed


def _nothing(kept: pa.DataType) -> Callable[[Any, bool], Any]:
    def turned_down(value: Any, exact: bool) -> Misfit:  # noqa: ARG001  one signature for all converters
        return Misfit(f"is for a column of type {kept}, which this library does not write")

    return turned_down


def kind_of_values(given: list[Any]) -> Kind | None:
    """The kind of a new column that holds these values (None among them: missing); None where all are missing.

    The first value decides, except that integers and floats together are floats. A value that no new
    column can hold (bytes, sets, foreign objects) decides nothing.
    """
    types = set(map(type, given))
    types.discard(type(None))
    if len(types) == 1 and (only := _KNOWN_TYPES.get(next(iter(types)))) is not None:
        return only
    found: set[str] = set()
    first: Kind | None = None
    for kind in map(_kind_of_value, _one_of_each_type(given)):
        if kind is not None:
            first = first or kind
            found.add(kind.name)
    if first is not None and "float" in found and first is INT:
        return FLOAT
    return first


def _one_of_each_type(given: list[Any]) -> list[Any]:
    """The first value of each type, in order: what the others are follows from it, but for odd types."""
    seen: dict[type, Any] = {}
    odd: list[Any] = []
    for value in given:
        kind = type(value)
        if kind in _KNOWN_TYPES:
            if kind not in seen:
                seen[kind] = value
                odd.append(value)
        elif value is not None:
            odd.append(values.plain(value))
    return odd


_KNOWN_TYPES: dict[type, Kind] = {
    bool: BOOL, int: INT, float: FLOAT, str: OPEN_TEXT, datetime: MOMENT, date: DAY, dict: OPEN_TEXT, list: OPEN_TEXT,
    tuple: OPEN_TEXT, UUID: OPEN_TEXT, Decimal: OPEN_TEXT, time: OPEN_TEXT,
}  # fmt: skip


def _kind_of_value(value: Any) -> Kind | None:
    kind = _KNOWN_TYPES.get(type(value))
    if kind is None and isinstance(value, (list, tuple, PurePath)):
        return OPEN_TEXT
    return kind
