"""Delta's statistics of one data file, from its Parquet footer.

Receives: the footer of a file that was just written.
Produces: the `stats` JSON of its AddAction.
Guarantees: a minimum is never above, a maximum never below any value of the column. Where that cannot
    be said in Delta's format, it is left out.
Never does: read a value of the data.
"""

from __future__ import annotations

import json
from datetime import date, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

STRING_PREFIX = 32
"""Characters of a text that go into the log: what Delta's own writers keep."""

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_LAST_CODE_POINT = 0x10FFFF
_SURROGATES = range(0xD800, 0xE000)


def delta_statistics(footer: Any, schema: pa.Schema, columns: Collection[str], with_nan: Collection[str]) -> str:
    """The `stats` JSON.

    Args:
        footer: `pyarrow.parquet.FileMetaData`.
        schema: of the file; its top-level columns are looked at, nested ones have no statistics.
        columns: which of them.
        with_nan: those that hold a NaN: min and max are left out, since readers order NaN differently.
    """
    lows: dict[str, Any] = {}
    highs: dict[str, Any] = {}
    nulls: dict[str, int] = {}
    for name, found in _column_statistics(footer, set(columns)).items():
        if any(part is None or not part.has_null_count for part in found):
            continue
        nulls[name] = sum(part.null_count for part in found)
        if name in with_nan or nulls[name] == footer.num_rows:
            continue
        # A row group of nulls alone has no min and max; one that has values and none is not to be trusted.
        told = [part for part in found if part.num_values > 0]
        if not all(part.has_min_max for part in told):
            continue
        kind = schema.field(name).type
        low = _low(min(_value(part, "min", kind) for part in told), kind)
        high = _high(max(_value(part, "max", kind) for part in told), kind)
        if low is not None:
            lows[name] = low
        if high is not None:
            highs[name] = high
    stats = {"numRecords": footer.num_rows, "minValues": lows, "maxValues": highs, "nullCount": nulls}
    return json.dumps(stats, separators=(",", ":"))


def _column_statistics(footer: Any, wanted: set[str]) -> dict[str, list[Any]]:
    names = [footer.schema.column(index).path for index in range(footer.num_columns)]
    return {
        name: [footer.row_group(group).column(index).statistics for group in range(footer.num_row_groups)]
        for index, name in enumerate(names)
        if name in wanted
    }


def _value(part: Any, which: str, kind: pa.DataType) -> Any:
    # As integers, timestamps beyond Python's years can be compared and then left out.
    return getattr(part, f"{which}_raw" if pa.types.is_timestamp(kind) else which)


def _low(value: Any, kind: pa.DataType) -> Any:
    if pa.types.is_timestamp(kind):
        return _timestamp(value // 1000, kind)
    if isinstance(value, str):
        return value[:STRING_PREFIX]
    return _simple(value)


def _high(value: Any, kind: pa.DataType) -> Any:
    if pa.types.is_timestamp(kind):
        return _timestamp(-(-value // 1000), kind)
    if isinstance(value, str):
        return value if len(value) <= STRING_PREFIX else rounded_up(value[:STRING_PREFIX])
    return _simple(value)


def _simple(value: Any) -> Any:
    if isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if abs(value) != float("inf") else None
    return value.isoformat() if isinstance(value, date) else None


def _timestamp(milliseconds: int, kind: pa.DataType) -> str | None:
    """ISO text, in UTC where the column has a zone; None outside the years that it can tell."""
    try:
        moment = _EPOCH + timedelta(milliseconds=milliseconds)
    except OverflowError:
        return None
    return f"{moment.replace(tzinfo=None).isoformat(timespec='milliseconds')}{'Z' if kind.tz else ''}"


def rounded_up(prefix: str) -> str | None:
    """The least text of at most this length above every text that begins with `prefix`, None where none is."""
    for end in range(len(prefix), 0, -1):
        following = ord(prefix[end - 1]) + 1
        if following in _SURROGATES:
            following = _SURROGATES.stop
        if following <= _LAST_CODE_POINT:
            return prefix[: end - 1] + chr(following)
    return None


def columns_with_nan(tables: Iterable[pa.Table], columns: Collection[str]) -> frozenset[str]:
    """Those of the columns that hold a NaN somewhere: the footer does not tell."""
    import pyarrow.compute as pc  # 30 ms at import, and the log table's statistics have no floats

    return frozenset(
        name
        for table in tables
        for name in columns
        if name in table.schema.names
        and pa.types.is_floating(table.schema.field(name).type)
        and pc.any(pc.is_nan(table.column(name))).as_py()
    )
