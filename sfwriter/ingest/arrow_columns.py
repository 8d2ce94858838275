"""Arrow columns of any type, to the types of the table.

Receives: a column (chunked) and the kind that it is to become.
Produces: a column of the kind's type, as long, and what did not fit (null in the column).
Guarantees: widening without loss in every mode; for everything else the same answer as `Kind.convert` on
    each value. Text is valid UTF-8, whoever made the column.
Never does: raise for a value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from sfwriter.arrays import constant
from sfwriter.ingest.columns import build_column
from sfwriter.ingest.kinds import BOOL, DAY, FLOAT, INT, MOMENT, OBJECT, OPEN_TEXT
from sfwriter.ingest.values import EPOCH, MAX_MICROS, MICROSECOND, MIN_MICROS, Misfit

if TYPE_CHECKING:
    from sfwriter.ingest.columns import Misfits
    from sfwriter.ingest.kinds import Kind

_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_LONGEST_CHUNK = 1 << 30
"""Bytes of text in one chunk: below the 2 GiB that 32-bit offsets reach."""

_STRING = r'"(?:[^"\\\x00-\x1f]|\\["\\/bfnrt])*"'
_SCALAR = rf"(?:{_STRING}|-?(?:0|[1-9][0-9]{{0,14}})(?:\.[0-9]{{1,20}})?(?:[eE][+-]?[0-9]{{1,2}})?|true|false|null)"
_MEMBER = rf"{_STRING}: ?{_SCALAR}"
FLAT_OBJECT = rf"\A\{{(?:{_MEMBER}(?:, ?{_MEMBER})*)?\}}\z"
"""JSON objects without nesting, as programs write them: what it matches needs no parser (7 M texts a second
against 2.5 M by orjson, and no GIL). It matches less than JSON, never more."""


def simplified(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The same values without dictionaries, run lengths, views, large offsets and extension types."""
    kept = column.type
    if isinstance(kept, pa.BaseExtensionType):
        column = pa.chunked_array([chunk.storage for chunk in column.chunks], kept.storage_type)
        return simplified(column)
    if pa.types.is_dictionary(kept):
        if pa.types.is_string_view(kept.value_type) or pa.types.is_binary_view(kept.value_type):
            # As polars gives its categories: Arrow decodes no dictionary of views.
            plain = pa.string() if pa.types.is_string_view(kept.value_type) else pa.binary()
            kept = pa.dictionary(kept.index_type, plain)
            column = column.cast(kept)
        return simplified(column.cast(kept.value_type))
    if pa.types.is_run_end_encoded(kept):
        decoded = [pc.run_end_decode(chunk) for chunk in column.chunks]
        return simplified(pa.chunked_array(decoded, kept.value_type))
    if pa.types.is_large_string(kept) or pa.types.is_string_view(kept):
        return pa.chunked_array([part for chunk in column.chunks for part in _as_strings(chunk)], pa.string())
    return column


def _as_strings(chunk: pa.Array) -> list[pa.Array]:
    if chunk.nbytes <= _LONGEST_CHUNK or len(chunk) < 2:
        return [chunk.cast(pa.string())]
    half = len(chunk) // 2
    return [*_as_strings(chunk.slice(0, half)), *_as_strings(chunk.slice(half))]


def kind_of_type(kept: pa.DataType) -> Kind | None:
    """The kind of a new column that holds a (simplified) Arrow type; None where no new column can."""
    if pa.types.is_integer(kept):
        return INT
    if pa.types.is_floating(kept):
        return FLOAT
    if pa.types.is_boolean(kept):
        return BOOL
    if pa.types.is_timestamp(kept):
        return MOMENT
    if pa.types.is_date(kept):
        return DAY
    text = pa.types.is_string(kept) or pa.types.is_nested(kept) or pa.types.is_decimal(kept) or pa.types.is_time(kept)
    return OPEN_TEXT if text else None


def convert_column(column: pa.ChunkedArray, kind: Kind, *, exact: bool) -> tuple[pa.ChunkedArray, Misfits]:
    """A simplified column as the kind's type, and the misfits in order."""
    if column.null_count == len(column):
        return pa.chunked_array([pa.nulls(len(column), kind.type)]), []
    try:
        fast = _widened(column, kind)
    except pa.ArrowException:
        fast = None
    return fast if fast is not None else _one_by_one(column, kind, exact=exact)


def _widened(column: pa.ChunkedArray, kind: Kind) -> tuple[pa.ChunkedArray, Misfits] | None:
    """The column by whole-column kernels; None (or an Arrow error) where each value has to be looked at."""
    given, kept = column.type, kind.type
    if pa.types.is_string(given) and pa.types.is_string(kept):
        check_unicode(column)
        return (column, []) if kind is not OBJECT or _all_objects(column) else None
    if pa.types.is_boolean(given) and pa.types.is_boolean(kept):
        return column, []
    if pa.types.is_timestamp(given) and pa.types.is_timestamp(kept):
        return _moments(column, kept)
    if pa.types.is_integer(given) and (pa.types.is_integer(kept) or kept == FLOAT.type):
        return column.cast(kept), []
    if pa.types.is_floating(given) and kept == FLOAT.type:
        return column.cast(kept), []
    if pa.types.is_date(given) and kept == DAY.type:
        return column.cast(kept), []
    return None


_FEW_TEXTS = 1_024
"""Up to here each text is looked at in 4 µs; the kernels that look at all bytes at once take 22."""


def check_unicode(column: pa.ChunkedArray) -> None:
    """Raise `pa.ArrowInvalid` where a text is no UTF-8: Arrow takes over what others made without a look."""
    for chunk in column.chunks:
        if len(chunk) <= _FEW_TEXTS:
            chunk.validate(full=True)
            continue
        chunk.validate()
        if not is_plain_ascii(chunk):
            chunk.validate(full=True)


def is_plain_ascii(chunk: pa.Array) -> bool:
    """Whether offsets rise and all bytes are ASCII, so that no text can be broken: 2,500 M texts a second against 170.

    Args:
        chunk: texts whose buffers are as long as they have to be (`validate` says so).
    """
    _, offsets, data = chunk.buffers()
    if data is None or not len(chunk):
        return False
    # Without the nulls: what stands behind them counts for `validate`, too.
    lengths = pc.binary_length(pa.Array.from_buffers(pa.string(), len(chunk), [None, offsets, data], 0, chunk.offset))
    if pc.min(lengths).as_py() < 0:
        return False
    places = memoryview(offsets).cast("i")
    first, last = places[chunk.offset], places[chunk.offset + len(chunk)]
    if first < 0 or last > data.size:
        return False
    # As signed bytes those of other letters are negative.
    letters = pa.Array.from_buffers(pa.int8(), last - first, [None, data], 0, first)
    return bool(first == last or pc.min(letters).as_py() >= 0)


def _all_objects(column: pa.ChunkedArray) -> bool:
    """Whether each text is a JSON object, without parsing those that a look suffices for."""
    flat = pc.match_substring_regex(column, FLAT_OBJECT)
    if pc.all(flat).as_py():
        return True
    loads = orjson.loads
    try:
        return all(type(loads(text)) is dict for text in column.filter(pc.invert(flat)).to_pylist())
    except orjson.JSONDecodeError:
        return False


def _moments(column: pa.ChunkedArray, kept: pa.DataType) -> tuple[pa.ChunkedArray, Misfits]:
    """Timestamps of any unit and zone: Arrow keeps UTC inside, and a column without a zone is taken as UTC."""
    per_second = _PER_SECOND[column.type.unit]
    ticks = pa.chunked_array([chunk.view(pa.int64()) for chunk in column.chunks], pa.int64())
    if per_second > 1_000_000:
        micros = pc.divide(ticks, _whole(1_000))
        fits = pc.equal(pc.multiply(micros, _whole(1_000)), ticks)
    else:
        factor = 1_000_000 // per_second
        lowest, highest = -(-MIN_MICROS // factor), MAX_MICROS // factor
        limits = pc.min_max(ticks)
        if lowest <= limits["min"].as_py() and limits["max"].as_py() <= highest:
            micros = ticks if factor == 1 else pc.multiply(ticks, _whole(factor))
            return pa.chunked_array([chunk.view(kept) for chunk in micros.chunks], kept), []
        fits = pc.and_(pc.greater_equal(ticks, _whole(lowest)), pc.less_equal(ticks, _whole(highest)))
        micros = pc.multiply(pc.if_else(fits, ticks, pa.NA), _whole(factor))
    misfits: Misfits = []
    if not pc.all(fits).as_py():
        reason = Misfit(
            "has nanoseconds, which microseconds do not keep"
            if per_second > 1_000_000
            else "is outside the years 1 to 9999 in UTC"
        )
        wrong = pc.indices_nonzero(pc.invert(fits)).to_pylist()
        misfits = [(position, reason) for position in wrong]
        micros = pc.if_else(fits, micros, pa.NA)
    return pa.chunked_array([chunk.view(kept) for chunk in micros.chunks], kept), misfits


def _whole(number: int) -> Any:
    """An integer for a kernel, which would import pandas for Python's own."""
    return constant(number, pa.int64())


def _one_by_one(column: pa.ChunkedArray, kind: Kind, *, exact: bool) -> tuple[pa.ChunkedArray, Misfits]:
    """Value by value, chunks kept."""
    made: list[pa.Array] = []
    misfits: Misfits = []
    start = 0
    for chunk in column.chunks:
        values = python_values(chunk)
        array, found = build_column(values, kind, exact=exact)
        made.append(array)
        misfits.extend((start + position, misfit) for position, misfit in found)
        start += len(chunk)
    return pa.chunked_array(made, kind.type), misfits


def python_values(array: pa.Array) -> list[Any]:
    """The values as Python sees them; those that it cannot show stay Arrow scalars or become their text.

    Null fields of structs are left out (a struct cannot tell a field that is null from one that is not
    there), and those of maps with them.
    """
    values: list[Any]
    try:
        values = [] if _is_odd(array.type) else array.to_pylist(maps_as_pydicts="strict")
    except (ValueError, OverflowError, KeyError):
        values = []
    if not values:
        values = [python_value(array[place]) for place in range(len(array))]
    return [_without_nulls(value) for value in values] if pa.types.is_nested(array.type) else values


def _is_odd(kept: pa.DataType) -> bool:
    # With nanoseconds Python would get pandas' Timestamp, or an error where there is no pandas.
    return bool(pa.types.is_timestamp(kept) and kept.unit == "ns")


def python_value(scalar: Any) -> Any:
    """One Arrow scalar as a Python value; a text with broken bytes comes back with escapes."""
    if not scalar.is_valid:
        return None
    if _is_odd(scalar.type):
        if scalar.value % 1000:
            return scalar
        moment = EPOCH + (scalar.value // 1000) * MICROSECOND
        return moment if scalar.type.tz else moment.replace(tzinfo=None)
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        # Broken bytes become lone surrogates, which are turned down with their reason.
        return scalar.as_buffer().to_pybytes().decode("utf-8", "surrogateescape")
    except (ValueError, OverflowError):
        return scalar


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(part) for name, part in value.items() if part is not None}
    if isinstance(value, list):
        return [_without_nulls(part) for part in value]
    return value
