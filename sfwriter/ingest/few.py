"""A few clean rows, to the same table and digest that the general road gives, without Arrow's kernels.

Receives: a short list of dicts, and what is known of the table.
Produces: a `Few`, or None where something has to be looked at closely: then the general road decides.
Guarantees: what it gives is what `encode`, `digest` and `builtin.breaches` give for the same rows
    (`tests/ingest/test_few.py` holds them together); None says nothing.
Never does: report a fault or a breach; raise for a row.

Most calls bring the seven rows of one run. Each Arrow kernel costs 5 to 25 µs whatever the number of rows,
and lets go of the interpreter's lock, for which other threads wait 5 ms; the general road takes 150 of them.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import xxhash

from sfwriter.arrays import nulls
from sfwriter.ingest import digest
from sfwriter.ingest.kinds import BOOL, FLOAT, INT, LOG_KINDS, MOMENT, OBJECT, OPEN_TEXT, TEXT, Kind, kind_of_values
from sfwriter.ingest.names import CallNames, Fate
from sfwriter.ingest.values import EPOCH, MICROSECOND, Misfit, plain
from sfwriter.quality.builtin import surely_kept

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sfwriter.ingest.names import TableColumns

FEW = 256
"""Rows up to which this road is tried; at 256 it takes as long as the general one."""

_NONE = type(None)
_UTC = EPOCH.tzinfo
_LOG_SCHEMA = pa.schema([(name, kind.type) for name, kind in LOG_KINDS.items()])


@dataclass(frozen=True, slots=True)
class Few:
    """Rows that passed.

    Attributes:
        table: as `Encoded.rows`, with run ids and success filled in.
        digest: see `sfwriter.ingest.digest`.
        run_id: the one that the result names.
        extras: the table's columns beside those of the log.
        stamped: rows brought a value for a column that writing fills.
        nbytes: of the table, four more for each column of texts than Arrow says, which leaves out an offset.
    """

    table: pa.Table
    digest: str
    run_id: str
    extras: list[str]
    stamped: bool
    nbytes: int


@dataclass(slots=True)
class _Column:
    """A column with a value in it: as the rules see it, as Arrow keeps it (and its bytes), as the digest hashes it."""

    kind: Kind
    values: Sequence[Any]
    array: pa.Array
    nbytes: int
    places: Any
    content: Any


class _CloserLookError(Exception):
    """Something here is for the general road."""


def clean_few(
    rows: list[Any],
    columns: TableColumns,
    *,
    exact: bool,
    run_id: str | None,
    new_run_id: Callable[[], str],
    max_bytes: int | None,
) -> Few | None:
    """The rows where each is a dict of fitting values that keep all rules, else None."""
    if not rows or len(rows) > FEW or set(map(type, rows)) != {dict}:
        return None
    count = len(rows)
    try:
        fitting, stamped = _fitting(rows, columns, exact)
        _default_success(fitting, count)
        if run_id is not None:
            _fill_run_ids(fitting, count, run_id)
        hashed = _digest(fitting, count)
        # A made-up id leaves no trace in the digest.
        named = _fill_run_ids(fitting, count, None, new_run_id) if run_id is None else run_id
    # What odd values raise here is the general road's to judge.
    except (_CloserLookError, OverflowError, UnicodeEncodeError, TypeError, ValueError, pa.ArrowException):
        return None
    floats = [column.values for column in fitting.values() if column.kind.convert is FLOAT.convert]
    if not surely_kept({name: column.values for name, column in fitting.items() if name in LOG_KINDS}, floats):
        return None
    extras = [name for name in fitting if name not in LOG_KINDS]
    table, nbytes = _table(fitting, count, extras)
    if max_bytes is not None and nbytes > max_bytes:
        return None
    return Few(table, hashed, named, extras, stamped, nbytes)


# ---------------------------------------------------------------- columns


def _fitting(rows: list[dict[Any, Any]], columns: TableColumns, exact: bool) -> tuple[dict[str, _Column], bool]:
    """The columns that have a value, by first appearance, and whether a stamp was given."""
    names: CallNames | None = None
    fitting: dict[str, _Column] = {}
    stamped = False
    for key, values in _by_column(rows):
        if type(key) is not str:
            raise _CloserLookError
        types = set(map(type, values))
        types.discard(_NONE)
        fate: Kind | Misfit | Fate | None = columns.kind(key)
        if fate is None:
            # Made for unknown keys only: it folds every name of the table.
            names = names or CallNames(columns)
            fate = names.resolve(key)
        if not types:
            continue
        if fate is Fate.NEW:
            fate = kind_of_values(list(values)) or OPEN_TEXT
        if isinstance(fate, Kind):
            fitting[key] = _column(values, types, fate, exact)
        elif fate is Fate.STAMPED:
            stamped = True
        else:
            raise _CloserLookError
    return fitting, stamped


def _by_column(rows: list[dict[Any, Any]]) -> Iterable[tuple[Any, Sequence[Any]]]:
    """Every key with its values, by first appearance."""
    keys = tuple(rows[0])
    if all(map(keys.__eq__, map(tuple, rows))):
        return zip(keys, zip(*map(dict.values, rows), strict=True), strict=True)
    every = dict.fromkeys(key for row in rows for key in row)
    return [(key, [row.get(key) for row in rows]) for key in every]


def _column(values: Sequence[Any], types: set[type], kind: Kind, exact: bool) -> _Column:
    known = _MAKERS.get(kind.convert)
    if known is None:
        # Narrow types, dates, and types that this library never writes.
        raise _CloserLookError
    make, as_it_is = known
    if types == as_it_is:
        return make(values, kind)
    if kind.convert is MOMENT.convert and all(
        value is None or (type(value) is type(EPOCH) and value.tzinfo is _UTC) for value in values
    ):
        return make([None if value is None else (value - EPOCH) // MICROSECOND for value in values], kind)
    converted = [None if found is None else kind.convert(found, exact) for found in map(plain, values)]
    if any(type(value) is Misfit for value in converted) or converted.count(None) == len(converted):
        raise _CloserLookError
    return make(converted, kind)


def _texts(values: Sequence[Any], kind: Kind) -> _Column:
    validity, missing, _ = _validity(values)
    known = [value for value in values if value is not None] if missing else values
    joined = "".join(known)
    content = joined.encode()
    is_ascii = len(content) == len(joined)
    lengths = array("i", map(len, known if is_ascii else map(str.encode, known)))
    places = lengths
    if missing:
        own = iter(lengths)
        places = array("i", [-1 if value is None else next(own) for value in values])
        lengths = array("i", [max(0, length) for length in places])
    offsets = array("i", accumulate(lengths, initial=0))
    return _column_of(kind, values, (validity, offsets, content), missing, places, content)


def _fixed(values: Sequence[Any], kind: Kind, code: str) -> _Column:
    validity, missing, places = _validity(values)
    whole = array(code, [0 if value is None else value for value in values] if missing else values)
    content = array(code, [value for value in values if value is not None]) if missing else whole
    return _column_of(kind, values, (validity, whole), missing, places, content)


def _integers(values: Sequence[Any], kind: Kind) -> _Column:
    return _fixed(values, kind, "q")


def _doubles(values: Sequence[Any], kind: Kind) -> _Column:
    return _fixed(values, kind, "d")


def _bools(values: Sequence[Any], kind: Kind) -> _Column:
    validity, missing, places = _validity(values)
    content = bytes([value for value in values if value is not None])
    return _column_of(kind, values, (validity, _bitmap(values)), missing, places, content)


def _validity(values: Sequence[Any]) -> tuple[bytes | None, int, bytes]:
    """Arrow's validity bits, the number of nulls, and a byte for each value; nothing where none is null."""
    missing = values.count(None)
    if not missing:
        return None, 0, b""
    valid = [value is not None for value in values]
    return _bitmap(valid), missing, bytes(valid)


def _bitmap(flags: Sequence[bool | None]) -> bytes:
    return sum([1 << place for place, flag in enumerate(flags) if flag]).to_bytes((len(flags) + 7) // 8, "little")


def _column_of(kind: Kind, values: Sequence[Any], buffers: tuple[Any, ...], missing: int, *hashed: Any) -> _Column:
    """A column of Arrow's buffers, and of what the digest hashes: places, content."""
    own = [None if buffer is None else pa.py_buffer(buffer) for buffer in buffers]
    made = pa.Array.from_buffers(kind.type, len(values), own, missing)
    return _Column(kind, values, made, sum([buffer.size for buffer in own if buffer is not None]), *hashed)


_NEVER: set[type] = set()
_MAKERS: dict[Any, tuple[Callable[[Sequence[Any], Kind], _Column], set[type]]] = {
    TEXT.convert: (_texts, {str}),
    OPEN_TEXT.convert: (_texts, {str}),
    OBJECT.convert: (_texts, _NEVER),
    INT.convert: (_integers, {int}),
    FLOAT.convert: (_doubles, {float}),
    BOOL.convert: (_bools, {bool}),
    MOMENT.convert: (_integers, _NEVER),
}
"""Converter to what makes the column, and the type of values that need no converter: half a surrogate pair
and an integer beyond 64 bits raise where the bytes are made."""


# ---------------------------------------------------------------- defaults, digest, table


def _given(fitting: dict[str, _Column], name: str, count: int) -> Sequence[Any]:
    return fitting[name].values if name in fitting else [None] * count


def _default_success(fitting: dict[str, _Column], count: int) -> None:
    given = _given(fitting, "success", count)
    if None in given:
        errors = _given(fitting, "error_message", count)
        pairs = zip(given, errors, strict=True)
        fitting["success"] = _bools([error is None if told is None else told for told, error in pairs], BOOL)


def _fill_run_ids(
    fitting: dict[str, _Column], count: int, run_id: str | None, new_run_id: Callable[[], str] | None = None
) -> str:
    """No row without a run id; the one that the result names."""
    given = _given(fitting, "run_id", count)
    if None not in given:
        return str(given[0])
    made = run_id if new_run_id is None else new_run_id()
    fitting["run_id"] = _texts([made if value is None else value for value in given], TEXT)
    return str(made)


def _digest(fitting: dict[str, _Column], count: int) -> str:
    """As `digest_of`."""
    parts = [digest.opening(count)]
    for name in sorted(fitting):
        column = fitting[name]
        head = _HEADS.get(name)
        if head is None:
            if column.kind.convert is FLOAT.convert:
                # Such columns hash as integers where they can.
                parts.append(digest.column_identity(name, pa.chunked_array([column.array])))
                continue
            head = digest.head(name, column.kind.type)
        parts += (head, xxhash.xxh3_64_digest(column.places), xxhash.xxh3_64_digest(column.content))
    return str(xxhash.xxh3_64_hexdigest(b"".join(parts)))


_HEADS = {name: digest.head(name, kind.type) for name, kind in LOG_KINDS.items()}


def _table(fitting: dict[str, _Column], count: int, extras: list[str]) -> tuple[pa.Table, int]:
    """The table, and its bytes."""
    arrays: list[pa.Array] = []
    nbytes = 0
    for name, (empty, size) in _empty_columns(count).items():
        column = fitting.get(name)
        arrays.append(empty if column is None else column.array)
        nbytes += size if column is None else column.nbytes
    schema = _LOG_SCHEMA
    for name in extras:
        arrays.append(fitting[name].array)
        nbytes += fitting[name].nbytes
        schema = schema.append(pa.field(name, fitting[name].kind.type))
    return pa.Table.from_arrays(arrays, schema=schema), nbytes


@lru_cache(maxsize=16)
def _empty_columns(count: int) -> dict[str, tuple[pa.Array, int]]:
    """Each column of the log without a value, and its bytes. Kept: they are more than half of a table's columns."""
    empty = {name: nulls(kind.type, count) for name, kind in LOG_KINDS.items()}
    return {name: (column, int(column.nbytes)) for name, column in empty.items()}
