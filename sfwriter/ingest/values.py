"""One value at a time: what a column takes, what it takes after a conversion, and what it does not.

Receives: any Python value that a row may hold.
Produces: the value in the form that its column keeps, or a `Misfit` that says why there is none.
Guarantees: no conversion loses anything; `exact` takes only what `strict` takes.
Never does: raise; decide what happens to a misfit.

This is the meaning of every column. `columns` and `arrow_columns` are fast roads to the same answers and
fall back to this module for whatever they do not recognise.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any
from uuid import UUID

import pyarrow as pa

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
NAIVE_EPOCH = EPOCH.replace(tzinfo=None)
EPOCH_DATE = date(1970, 1, 1)
MICROSECOND = timedelta(microseconds=1)

MIN_MICROS = (datetime(1, 1, 1, tzinfo=timezone.utc) - EPOCH) // MICROSECOND
MAX_MICROS = (datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=timezone.utc) - EPOCH) // MICROSECOND
"""Years 1 to 9999 in UTC: what Python, Spark and Delta's readers can all show."""

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1

_BUILTIN = frozenset(
    {type(None), bool, int, float, str, datetime, date, time, dict, list, tuple, bytes, Decimal, UUID, set, frozenset}
)
_NUMBER = re.compile(r"\s*([+-]?(?:\d{1,400}(?:\.\d{0,400})?|\.\d{1,400})(?:[eE][+-]?\d{1,4})?)\s*", re.ASCII)
_MOMENT = re.compile(
    r"\s*(\d{4})-(\d\d)-(\d\d)"
    r"(?:[Tt ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?\s*(?:([Zz])|([+-])(\d\d):?(\d\d)?)?)?\s*",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Misfit:
    """A value that a column cannot keep, and why."""

    reason: str


def plain(value: Any) -> Any:
    """The builtin value behind an enum member, a subclass, a numpy, pandas or Arrow scalar.

    Markers for a missing value (`pandas.NaT`, `pandas.NA`, an Arrow null) become None. A value that
    has no builtin form without loss, such as a timestamp with nanoseconds, comes back as it is.
    """
    kind = type(value)
    if kind in _BUILTIN:
        return value
    if isinstance(value, Enum):
        return plain(value.value)
    if kind.__name__ in {"NaTType", "NAType"} and kind.__module__.startswith("pandas."):
        return None
    if kind.__module__ == "numpy":
        return _plain_numpy(value)
    if isinstance(value, pa.Scalar):
        return _plain_arrow(value)
    return _plain_subclass(value)


def _plain_subclass(value: Any) -> Any:
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, datetime):
        if getattr(value, "nanosecond", 0):
            return value
        moment = datetime(value.year, value.month, value.day, value.hour, value.minute, value.second,
                          value.microsecond, tzinfo=value.tzinfo)  # fmt: skip
        return moment.replace(fold=value.fold)
    if isinstance(value, date):
        return date(value.year, value.month, value.day)
    if isinstance(value, Mapping):
        return dict(value)
    return value


def _plain_numpy(value: Any) -> Any:
    if type(value).__name__ == "ndarray":
        return value.tolist()
    if type(value).__name__ == "datetime64":
        return _plain_moment(value)
    found = value.item() if hasattr(value, "item") else value
    return value if type(found).__module__ == "numpy" else found


def _plain_moment(value: Any) -> Any:
    if str(value) == "NaT":
        return None
    found = value.item()
    if isinstance(found, date):
        return found
    # A number: nanoseconds, of which Arrow keeps the unit, or what no date of Python reaches.
    try:
        return _plain_arrow(pa.array([value])[0])
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return value


def _plain_arrow(value: Any) -> Any:
    if not value.is_valid:
        return None
    if pa.types.is_timestamp(value.type) and value.type.unit == "ns":
        if value.value % 1000:
            return value
        moment = EPOCH + (value.value // 1000) * MICROSECOND
        return moment if value.type.tz else moment.replace(tzinfo=None)
    try:
        return plain(value.as_py())
    except (ValueError, OverflowError):
        return value


def broken_text(text: str) -> Misfit | None:
    """A misfit where the text has half of a surrogate pair, which no Unicode encoding can keep."""
    if text.isascii():
        return None
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return Misfit(f"has a lone surrogate (U+{ord(text[error.start]):04X}), which is no Unicode text")
    return None


def to_text(value: Any, exact: bool) -> str | Misfit:
    """Text as it is. Without `exact` also numbers, ids, dates and paths by their usual text; never a bool."""
    if type(value) is str:
        return broken_text(value) or value
    if exact or isinstance(value, bool):
        return Misfit("is not text")
    if isinstance(value, (int, Decimal, UUID, PurePath)) or (isinstance(value, float) and math.isfinite(value)):
        return str(value)
    if isinstance(value, (date, time)):
        return value.isoformat()
    return Misfit("is not text")


def to_int(value: Any, exact: bool) -> int | Misfit:
    """A 64-bit integer. Without `exact` also whole floats and decimals, and text of a whole number."""
    if type(value) is int:
        return value if INT64_MIN <= value <= INT64_MAX else Misfit("is beyond 64 bits")
    if exact or isinstance(value, bool):
        return Misfit("is not an integer")
    if isinstance(value, float):
        return to_int(int(value), exact=True) if value.is_integer() else Misfit("is not a whole number")
    number = _number(value)
    if number is None:
        return Misfit("is not an integer")
    # Compared before it is made an int: `1e9999` has ten thousand digits.
    if not INT64_MIN <= number <= INT64_MAX:
        return Misfit("is beyond 64 bits")
    return int(number) if number == number.to_integral_value() else Misfit("is not a whole number")


def to_float(value: Any, exact: bool) -> float | Misfit:
    """A double. An int that a double keeps exactly is taken always; without `exact` also decimals and text.

    A text or decimal fits where the shortest text of the double is the same number, so `0.1` does.
    """
    if type(value) is float:
        return value
    if isinstance(value, bool):
        return Misfit("is not a number")
    if isinstance(value, int):
        # Arrow's limit: up to 2**53 every integer is a double, above it only some are.
        return float(value) if abs(value) <= 2**53 else Misfit("is an integer that a double does not keep exactly")
    number = None if exact else _number(value)
    if number is None:
        return Misfit("is not a number")
    near = float(number)
    if math.isinf(near) or Decimal(repr(near)) != number:
        return Misfit("is a number that a double does not keep exactly")
    return near


def _number(value: Any) -> Decimal | None:
    if isinstance(value, Decimal):
        return value if value.is_finite() else None
    match = _NUMBER.fullmatch(value) if isinstance(value, str) else None
    return Decimal(match[1]) if match else None


def to_bool(value: Any, exact: bool) -> bool | Misfit:
    """A bool; without `exact` also the texts `true` and `false` in any case."""
    if isinstance(value, bool):
        return value
    if not exact and isinstance(value, str) and value.strip().lower() in {"true", "false"}:
        return value.strip().lower() == "true"
    return Misfit("is not a bool")


def to_micros(value: Any, exact: bool) -> int | Misfit:
    """Microseconds since 1970 in UTC; a naive datetime is taken as UTC.

    Without `exact` also a date (its midnight) and ISO 8601 text.
    """
    if isinstance(value, str) and not exact:
        value = moment_from_text(value)
    if isinstance(value, date) and not isinstance(value, datetime) and not exact:
        value = datetime(value.year, value.month, value.day, tzinfo=timezone.utc)
    if type(value) is not datetime:
        fine = isinstance(value, datetime) or _is_nanos(value)
        return Misfit("has nanoseconds, which microseconds do not keep" if fine else "is not a timestamp")
    try:
        naive = value.utcoffset() is None
        micros = ((value.replace(tzinfo=None) - NAIVE_EPOCH) if naive else (value - EPOCH)) // MICROSECOND
    except Exception as error:  # noqa: BLE001  a foreign time zone may raise anything
        return Misfit(f"has a time zone that cannot be computed ({type(error).__name__})")
    return micros if MIN_MICROS <= micros <= MAX_MICROS else Misfit("is outside the years 1 to 9999 in UTC")


def _is_nanos(value: Any) -> bool:
    return isinstance(value, pa.Scalar) and pa.types.is_timestamp(value.type)


def moment_from_text(text: str) -> datetime | None:
    """The moment that an ISO 8601 text names, None where it names none that microseconds keep."""
    match = _MOMENT.fullmatch(text)
    if match is None:
        return None
    year, month, day, hour, minute, second, fraction, zulu, sign, off_hours, off_minutes = match.groups()
    fraction = (fraction or "").ljust(9, "0")
    if fraction[6:] != "000":
        return None
    zone: timezone | None = timezone.utc if zulu else None
    try:
        if sign:
            offset = timedelta(hours=int(off_hours), minutes=int(off_minutes or 0))
            zone = timezone(-offset if sign == "-" else offset)
        return datetime(int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0),
                        int(fraction[:6]), tzinfo=zone)  # fmt: skip
    except ValueError:
        return None


def to_days(value: Any, exact: bool) -> int | Misfit:
    """Days since 1970; without `exact` also the text `2024-01-31` and a naive or UTC midnight."""
    if not exact and isinstance(value, str):
        value = moment_from_text(value)
    if isinstance(value, datetime):
        midnight = value.time() == time() and value.utcoffset() in {None, timedelta(0)}
        return (value.date() - EPOCH_DATE).days if midnight and not exact else Misfit("is not a date")
    return (value - EPOCH_DATE).days if isinstance(value, date) else Misfit("is not a date")
