"""Lines of JSON, to rows.

Receives: raw chunks of lines.
Produces: an Arrow table where every value is of its column's type (or text that parses to it), else a
    list of dicts with values as JSON has them.
Guarantees: integers of any size, floats, NaN, infinities and texts stay what they are. Text for a column
    of another type is parsed; a line that is no JSON object stays as an `Unreadable`.
Never does: guess a type from some of the rows; hold more than a few thousand lines as dicts at once where
    a table is possible.
"""

from __future__ import annotations

import json
import re
from itertools import islice
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from sfwriter.arrays import array_of
from sfwriter.ingest.unreadable import Unreadable
from sfwriter.sources.typed_text import parse_column, parse_text

if TYPE_CHECKING:
    from sfwriter.sources.typed_text import Types

PART_ROWS = 2_000
"""Dicts of so many rows still lie in the processor's cache when their columns are collected (measured)."""

_LONG_NUMBER = re.compile(rb"[0-9]{19}")
_HUGE = 2.0**63
_HUGE_IN_TEXT = r"[0-9]e\+?[0-9]"

_NATIVE: dict[pa.DataType, frozenset[type]] = {
    pa.string(): frozenset({str}),
    pa.int64(): frozenset({int}),
    pa.float64(): frozenset({float, int}),
    pa.bool_(): frozenset({bool}),
}
_NEW: dict[type, pa.DataType] = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}


class _NoTable(Exception):  # noqa: N818  an outcome, not a failure
    """Some value has to be looked at by itself."""


def rows_of_lines(lines: list[bytes], types: Types) -> tuple[pa.Table | list[Any], dict[int, str]]:
    """The rows of a chunk's lines, and what is wrong with those that are none (position to reason)."""
    try:
        return _table(lines, types), {}
    except (_NoTable, orjson.JSONDecodeError, orjson.JSONEncodeError, pa.ArrowException, OverflowError, UnicodeError):
        return _dicts(lines, types)


# ---------------------------------------------------------------- all at once


def _table(lines: list[bytes], types: Types) -> pa.Table:
    pieces: dict[str, list[pa.Array | None]] = {}
    sizes: list[int] = []
    rest = iter(lines)
    while part := list(map(orjson.loads, islice(rest, PART_ROWS))):
        if set(map(type, part)) != {dict}:
            raise _NoTable
        for name in _keys(part):
            column = pieces.setdefault(name, [None] * len(sizes))
            column.append(_piece([row.get(name) for row in part], types.get(name), metadata=name == "metadata"))
        sizes.append(len(part))
        for column in pieces.values():
            if len(column) < len(sizes):
                column.append(None)
    return pa.table({name: _column(column, sizes, types.get(name)) for name, column in pieces.items()})


def _keys(rows: list[dict[str, Any]]) -> dict[str, None]:
    """The keys of all rows, in the order in which they come."""
    found: dict[str, None] = {}
    last: Any = None
    for row in rows:
        keys = row.keys()
        if keys != last:
            last = keys
            found.update(dict.fromkeys(keys))
    return found


def _piece(given: list[Any], kept: pa.DataType | None, *, metadata: bool) -> pa.Array | None:
    """The values in the column's type or as text; None where all are missing."""
    kinds = set(map(type, given))
    kinds.discard(type(None))
    if not kinds:
        return None
    if kinds == {str}:
        return array_of(given, pa.string())
    if metadata and kinds == {dict}:
        made = array_of([None if value is None else orjson.dumps(value).decode() for value in given], pa.string())
        # orjson reads an integer beyond 64 bits as a float, and writes that with an exponent.
        if pc.any(pc.match_substring_regex(made, _HUGE_IN_TEXT)).as_py():
            raise _NoTable
        return made
    if kept is None:
        kept = _NEW.get(kinds.pop()) if len(kinds) == 1 else None
    elif not kinds <= _NATIVE.get(kept, frozenset()):
        raise _NoTable
    if kept is None:
        raise _NoTable
    made = array_of(given, kept)
    if kept == pa.float64() and (pc.max(pc.abs(made)).as_py() or 0.0) >= _HUGE:
        raise _NoTable
    return made


def _column(pieces: list[pa.Array | None], sizes: list[int], kept: pa.DataType | None) -> pa.ChunkedArray:
    found = {piece.type for piece in pieces if piece is not None}
    if len(found) > 1:
        raise _NoTable
    given = found.pop() if found else kept or pa.null()
    column = pa.chunked_array(
        [pa.nulls(size, given) if piece is None else piece for piece, size in zip(pieces, sizes, strict=True)], given
    )
    if kept is None or given == kept:
        return column
    parsed = parse_column(column, kept)
    if parsed is None:
        raise _NoTable
    return parsed


# ---------------------------------------------------------------- one by one


def _dicts(lines: list[bytes], types: Types) -> tuple[list[Any], dict[int, str]]:
    rows: list[Any] = []
    faults: dict[int, str] = {}
    for position, line in enumerate(lines):
        row, reason = _parsed(line)
        if isinstance(row, dict):
            rows.append({name: parse_text(value, types[name]) if type(value) is str and name in types else value
                         for name, value in row.items()})  # fmt: skip
            continue
        faults[position] = reason or f"is {_name_of(row)} and no JSON object"
        rows.append(Unreadable(line.decode("utf-8", "backslashreplace").rstrip("\r\n"), faults[position]))
    return rows, faults


def _parsed(line: bytes) -> tuple[Any, str]:
    """The line's value, and what is wrong where there is none."""
    try:
        # orjson is exact below 64 bits. It knows no NaN and no half surrogates; json hands them on to be judged.
        if not _LONG_NUMBER.search(line):
            return orjson.loads(line), ""
    except ValueError:
        pass
    try:
        return json.loads(line), ""
    except UnicodeDecodeError as error:
        return None, f"is not UTF-8 (byte {error.start + 1} of the line)"
    except RecursionError:
        return None, "is nested too deeply"
    except json.JSONDecodeError as error:
        detail = f"{error.msg.removesuffix(' at')} at column {error.colno}"
        if line.strip() in {b"{", b"["}:
            return None, f"is no complete JSON object ({detail}): each line must hold one"
        return None, f"is no valid JSON ({detail})"
    except ValueError as error:
        return None, f"is no JSON that can be read ({error})"


def _name_of(value: Any) -> str:
    names = {list: "an array", str: "a text", bool: "a bool", type(None): "null"}
    return names.get(type(value), "a number")
