"""Arrow arrays and scalars from Python values, and the way back, without pandas.

Receives: plain Python values (None: null) of one type; columns.
Produces: pyarrow arrays and scalars; values.
Guarantees: the same values as `pa.array` gives, or its exceptions; the same as `to_pylist` gives.
Never does: import pandas for a few values (see `micros_of_spans`).

`pa.array`, `pa.scalar` and kernels that are given a Python value import pandas wherever it is installed,
to see whether the value is a Series: 0.4 s and 40 MiB in each process that writes. arro3, which deltalake
brings along, makes arrays without asking, and in half the time.
"""

from __future__ import annotations

import os
import sys
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import arro3.core as arro3
import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_TYPES = {
    pa.string(): arro3.DataType.utf8(),
    pa.int64(): arro3.DataType.int64(),
    pa.float64(): arro3.DataType.float64(),
    pa.bool_(): arro3.DataType.bool(),
}
_STRICT = frozenset({pa.string(), pa.bool_()})
_MOMENTS = frozenset({pa.timestamp("us"), pa.timestamp("us", "UTC")})
_MAX_TEXT = 1 << 28
"""Characters, each of at most four bytes: offsets of 32 bits reach as far as 2 GiB."""

_JOINED = 2_000
"""Texts whose lengths are added up at once."""

_SHARED_NULLS = 1 << 17
_EXACT = 2**53
"""Up to here every integer is a double; pyarrow refuses those above, and arro3 would round them."""

_PANDAS_PAYS_AT = 2_000_000
"""Spans that were turned without pandas: the 0.2 µs that each of them took longer have come to what importing
pandas takes. Renting until the rent has come to the price costs at most twice the best that one can do."""

_rented = 0


def is_unicode(texts: Iterable[str]) -> bool:
    """Whether a text, or each of several, is one that Arrow and a log can hold: none has half of a surrogate pair."""
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        return False
    return True


def types_of(values: Sequence[Any]) -> set[type]:
    """The types of the values. Most columns have one, and to count it is faster than to put each into a set."""
    types = list(map(type, values))
    return {types[0]} if types and types.count(types[0]) == len(types) else set(types)


def array_of(values: Sequence[Any], kind: pa.DataType, types: set[type] | None = None) -> Any:
    """The values as an array of the type, or as several chunks where text is beyond 2 GiB.

    Args:
        values: None for null.
        kind: the type.
        types: those of the values, where they are known.

    Raises:
        OverflowError, TypeError, ValueError, UnicodeEncodeError, pa.ArrowException: a value is not of the type.
    """
    known = _TYPES.get(kind)
    if known is None or not _is_safe(values, kind, types):
        return pa.array(values, kind)
    return pa.array(arro3.Array(values, known))


def strict_array(values: Sequence[Any], kind: pa.DataType) -> pa.Array | None:
    """The values as texts or bools where each of them is one or None; else, or for another type, None.

    arro3 takes nothing else for these two, so nobody has to look at the types first. (For numbers it takes
    bools.)
    """
    if kind not in _STRICT:
        return None
    try:
        if kind == pa.string() and not _is_short(values):
            return None
        return pa.array(arro3.Array(values, _TYPES[kind]))
    except (TypeError, UnicodeEncodeError):
        return None


def micros_of_spans(spans: Sequence[Any]) -> Any:
    """The `timedelta`s as 64-bit integers of microseconds.

    Arrow takes 0.03 µs for each, and asks for pandas first; Python takes 0.2 µs.
    """
    global _rented  # noqa: PLW0603  of the process, as the import is
    if _rented >= _PANDAS_PAYS_AT or "pandas" in sys.modules or not _has_pandas():
        return pa.array(spans, pa.duration("us")).view(pa.int64())
    _rented += len(spans)
    micros = [
        None if span is None else (span.days * 86_400 + span.seconds) * 1_000_000 + span.microseconds for span in spans
    ]
    return array_of(micros, pa.int64())


@lru_cache(maxsize=1)
def _has_pandas() -> bool:
    return find_spec("pandas") is not None


def values_of(column: pa.ChunkedArray) -> list[Any]:
    """As `column.to_pylist()`, which imports pandas for moments; those with a zone have UTC."""
    if column.type not in _MOMENTS:
        return list(column.to_pylist())
    epoch = datetime(1970, 1, 1, tzinfo=None if column.type.tz is None else timezone.utc)
    micros = column.cast(pa.int64()).to_pylist()
    return [None if value is None else epoch + timedelta(microseconds=value) for value in micros]


def scalar_of(value: Any, kind: pa.DataType) -> Any:
    """One value as a scalar of the type."""
    return array_of([value], kind)[0]


@lru_cache(maxsize=64)
def constant(value: str | float | bool, kind: pa.DataType) -> Any:
    """As `scalar_of`, made once: for the arguments of kernels that are always the same."""
    return scalar_of(value, kind)


def nulls(kept: pa.DataType, count: int) -> pa.Array:
    """So many nulls. Arrays do not change, so all tables show a part of the same one."""
    return _nulls(kept).slice(0, count) if count <= _SHARED_NULLS else pa.nulls(count, kept)


@lru_cache(maxsize=64)
def _nulls(kept: pa.DataType) -> pa.Array:
    return pa.nulls(_SHARED_NULLS, kept)


def _is_safe(values: Sequence[Any], kind: pa.DataType, types: set[type] | None) -> bool:
    if kind == pa.string():
        return _is_short(values)
    if kind == pa.float64():
        if int not in (types_of(values) if types is None else types):
            return True
        return all(-_EXACT <= number <= _EXACT for number in values if type(number) is int)
    return True


def _is_short(values: Sequence[Any]) -> bool:
    # Joining takes a quarter of the time of asking each for its length; in parts, so that it takes little memory.
    count = 0
    for start in range(0, len(values), _JOINED):
        part = values[start : start + _JOINED]
        try:
            count += len("".join(part))
        except TypeError:
            count += len("".join(filter(None, part)))
    return count <= _MAX_TEXT


def use_returning_memory() -> None:
    """Have Arrow give memory back that another thread took, in this whole process: for processes that are our own.

    3.2 million rows peaked at 329 MB instead of 409, and took a tenth less of the processor: fewer fresh pages.
    `ARROW_DEFAULT_MEMORY_POOL` wins.
    """
    if "ARROW_DEFAULT_MEMORY_POOL" not in os.environ and "jemalloc" in pa.supported_memory_backends():
        pa.set_memory_pool(pa.jemalloc_memory_pool())
