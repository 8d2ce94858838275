"""JSON texts: of `metadata`, of nested values, and of rows that go to quarantine.

Receives: Python values of any kind.
Produces: JSON text that Arrow can keep (valid Unicode), or a `Misfit`.
Guarantees: a value of a table column is never changed on its way into JSON (no NaN that turns null, no key
    that turns text); a quarantined row always gets a text, the same one in every process.
Never does: raise for a value that it cannot write.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import PurePath
from typing import Any
from uuid import UUID

import orjson
import pyarrow as pa

from sfwriter.ingest.values import Misfit, broken_text, plain

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def _also(value: Any) -> Any:
    """What orjson asks for values that it does not know."""
    if isinstance(value, (Decimal, PurePath, UUID)):
        return str(value)
    if isinstance(value, (date, time)):
        return value.isoformat()
    found = _unfolded(value)
    if found is value or isinstance(found, (bytes, set, frozenset)):
        raise TypeError(type(value).__name__)
    return found


def _unfolded(value: Any) -> Any:
    """`plain`, and the parts of dataclasses and named tuples."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return list(value) if isinstance(value, tuple) else plain(value)


def json_text(value: Any) -> str | Misfit:
    """The compact JSON of a dict, list or tuple, or why it has none.

    Takes what JSON has, and by their text datetimes, dates, times, UUIDs, enum members, decimals and
    paths. NaN, infinity, keys that are not text, lone surrogates, bytes and sets are misfits.
    """
    try:
        text = orjson.dumps(value, default=_also, option=orjson.OPT_PASSTHROUGH_DATACLASS)
    except TypeError as error:
        return _json_of_odd(value, error)
    # orjson writes NaN and infinity as null: only a text with a null in it can hide one.
    if b"null" in text:
        trouble = _trouble(value)
        if trouble is not None:
            return trouble
    return text.decode()


def _json_of_odd(value: Any, error: TypeError) -> str | Misfit:
    trouble = _trouble(value)
    if trouble is not None:
        return trouble
    try:
        # JSON has integers of any size, orjson has 64 bits.
        return json.dumps(value, default=_also, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError):
        return Misfit(f"cannot be written as JSON ({error})")


def _trouble(value: Any, depth: int = 0) -> Misfit | None:
    """The first thing in a nested value that JSON cannot keep."""
    if depth > 250:
        return Misfit("is nested deeper than 250 levels")
    value = _unfolded(value)
    if isinstance(value, float):
        return None if math.isfinite(value) else Misfit(f"holds {value}, which JSON does not have")
    if isinstance(value, str):
        return broken_text(value)
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                return Misfit(f"has the key {bounded(key)}, which is not text")
        parts: Any = (part for pair in value.items() for part in pair)
    elif isinstance(value, (list, tuple)):
        parts = value
    else:
        return None
    return next((found for part in parts if (found := _trouble(part, depth + 1)) is not None), None)


def to_object_text(value: Any, exact: bool) -> str | Misfit:  # noqa: ARG001  one signature for all converters
    """The text of a JSON object, from a dict or from such a text, which is kept as it is."""
    if isinstance(value, dict):
        return json_text(value)
    if not isinstance(value, str):
        return Misfit("is neither a dict nor the text of a JSON object")
    broken = broken_text(value)
    if broken is not None:
        return broken
    try:
        return value if type(orjson.loads(value)) is dict else Misfit("is JSON, but not of an object")
    except orjson.JSONDecodeError as error:
        return Misfit(f"is not the text of a JSON object ({error})")


def to_open_text(value: Any, exact: bool) -> str | Misfit:
    """What an additional text column keeps: text, nested values as JSON, ids, decimals, times and paths."""
    if isinstance(value, (dict, list, tuple)):
        return json_text(value)
    if isinstance(value, (UUID, Decimal, PurePath)):
        return str(value)
    if isinstance(value, time):
        return value.isoformat()
    if type(value) is str:
        return broken_text(value) or value
    if exact or isinstance(value, bool):
        return Misfit("is not text")
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return str(value)
    return value.isoformat() if isinstance(value, date) else Misfit("is not text")


def jsonable(value: Any, depth: int = 0) -> Any:
    """The nearest thing that JSON can say of any value at all: for people, and for mending it later.

    Datetimes become ISO text, enum members their value, NaN and infinity their name, bytes, sets and
    foreign objects their `repr` without addresses.
    """
    value = plain(value)
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, (UUID, Decimal, PurePath)):
        return str(value)
    if depth < 100 and isinstance(value, dict):
        names = (key if isinstance(key, str) else stable_repr(key) for key in value)
        return dict(zip(names, (jsonable(part, depth + 1) for part in value.values()), strict=True))
    if depth < 100 and isinstance(value, (list, tuple)):
        return [jsonable(part, depth + 1) for part in value]
    return stable_repr(value)


def row_text(row: Any) -> str:
    """JSON of a row as it was given; read it back with `parse_row`."""
    return valid_json(jsonable(row))


def valid_json(value: Any) -> str:
    """Compact JSON of what `jsonable` gives; lone surrogates are escaped, so that the text is Unicode."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text if broken_text(text) is None else json.dumps(value, allow_nan=False, separators=(",", ":"))


def parse_row(text: str) -> Any:
    """What `row_text` wrote. The standard library's reader: integers keep every digit."""
    return json.loads(text)


def original_text(value: Any) -> str:
    """The text of one value that could not be kept: itself where it is text, else JSON or its `repr`."""
    found = jsonable(value)
    text = found if isinstance(found, str) else valid_json(found)
    return text if broken_text(text) is None else text.encode("utf-8", "backslashreplace").decode()


def stable_repr(value: Any) -> str:
    """`repr` that is the same in every process: sets sorted, memory addresses left out."""
    if isinstance(value, (set, frozenset)):
        return "{" + ", ".join(sorted(stable_repr(part) for part in value)) + "}"
    try:
        if isinstance(value, pa.Scalar):
            # Only those that Python cannot show come here: nanoseconds, times outside its years.
            return str(value.cast(pa.string()).as_py())
        return _ADDRESS.sub("", repr(value))
    except Exception:  # noqa: BLE001  a foreign `__repr__` may raise anything
        return f"<{type(value).__name__}>"


def bounded(value: Any, limit: int = 80) -> str:
    """A value for an error message: its `repr`, cut, and its type."""
    text = stable_repr(value)
    shown = text if len(text) <= limit else text[: limit - 1] + "…"
    shown = shown.encode("utf-8", "backslashreplace").decode()
    return f"{shown} ({type(value).__name__})"


def is_nested(value: Any) -> bool:
    """Whether a value is kept as JSON text in a column of its own."""
    return isinstance(value, (Mapping, list, tuple))
