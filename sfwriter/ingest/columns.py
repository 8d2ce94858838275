"""Python values of one column, to one Arrow array.

Receives: the values of a column in some rows (None: missing).
Produces: an array as long as the values, and what did not fit (null in the array).
Guarantees: the same answer as `Kind.convert` on each value; the fast roads only leave out the look at each.
Never does: raise for a value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from sfwriter.arrays import array_of, micros_of_spans, strict_array, types_of
from sfwriter.ingest.kinds import MOMENT, OBJECT
from sfwriter.ingest.values import EPOCH, MAX_MICROS, MIN_MICROS, NAIVE_EPOCH, Misfit, plain

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sfwriter.ingest.kinds import Kind

Misfits = list[tuple[int, Misfit]]
"""Position among the values, and why it does not fit."""

_NONE = type(None)
_AS_GIVEN = orjson.OPT_PASSTHROUGH_DATACLASS
_BETWEEN: Any = orjson.Fragment(b"\0")
_UTC_KEYS = frozenset({"UTC", "Etc/UTC"})
"""Names under which `zoneinfo` has UTC; Arrow and polars give their datetimes such a zone."""


def build_column(given: Sequence[Any], kind: Kind, *, exact: bool) -> tuple[pa.Array, Misfits]:
    """The values as the kind's type, and the misfits in order."""
    if kind is not OBJECT and (strict := strict_array(given, kind.type)) is not None:
        return strict, []
    types = types_of(given)
    missing = _NONE in types
    types.discard(_NONE)
    if not types:
        return pa.nulls(len(given), kind.type), []
    if types <= kind.native:
        try:
            fast = _fast(given, kind, types, missing=missing)
        except (pa.ArrowException, OverflowError, UnicodeEncodeError, TypeError):
            fast = None
        if fast is not None:
            return fast, []
    return _one_by_one(given, kind, exact=exact)


def _one_by_one(given: Sequence[Any], kind: Kind, *, exact: bool) -> tuple[pa.Array, Misfits]:
    misfits: Misfits = []
    converted: list[Any] = []
    for position, value in enumerate(given):
        found = plain(value)
        if found is not None:
            found = kind.convert(found, exact)
            if type(found) is Misfit:
                misfits.append((position, found))
                found = None
        converted.append(found)
    return kind.array(converted), misfits


def _fast(given: Sequence[Any], kind: Kind, types: set[type], *, missing: bool) -> pa.Array | None:
    """All values at once, or None (or an error of `build_column`'s list) where each has to be looked at."""
    if kind.stored == MOMENT.stored and pa.types.is_timestamp(kind.type):
        return _moments(given, kind.type, missing=missing)
    if kind is OBJECT:
        return _objects(given, missing=missing)
    made = array_of(given, kind.type, types)
    # Beyond 2 GiB of text Arrow answers with several chunks.
    return made if isinstance(made, pa.Array) else pa.concat_arrays(made.chunks)


def _moments(given: Sequence[Any], kept: pa.DataType, *, missing: bool) -> pa.Array | None:
    # 4 million a second, and 12 where pandas costs nothing; handing the datetimes to Arrow does 1.4.
    epoch = _epoch_beside(next(value for value in given if value is not None))
    spans = [None if value is None else value - epoch for value in given] if missing else [v - epoch for v in given]
    micros = micros_of_spans(spans)
    limits = pc.min_max(micros)
    if limits["min"].as_py() < MIN_MICROS or limits["max"].as_py() > MAX_MICROS:
        return None
    # A view costs 1 µs a column and chunk, a cast 20.
    return micros.view(kept)


def _epoch_beside(value: datetime) -> datetime:
    """1970 in the zone of the value where that is UTC by another name, else in UTC or naive.

    Two datetimes with the same zone object are subtracted eight times as fast as others, but by their wall
    clocks: right only where the zone has one offset for ever.
    """
    zone = value.tzinfo
    if zone is None:
        return NAIVE_EPOCH
    return EPOCH.replace(tzinfo=zone) if getattr(zone, "key", None) in _UTC_KEYS else EPOCH


def _objects(given: Sequence[Any], *, missing: bool) -> pa.Array | None:
    # All in one text, apart by what JSON cannot have in it: a call for each dict takes half as long again.
    parts = [_BETWEEN] * (2 * len(given) - 1)
    parts[::2] = [{} if value is None else value for value in given] if missing else given
    text = orjson.dumps(parts, None, _AS_GIVEN)
    # A null may be what orjson made of NaN: then each is looked at.
    if b"null" in text:
        return None
    made = pc.split_pattern(array_of([text[1:-1].decode()], pa.string()), ",\0,").values
    if len(made) != len(given):
        return None
    if not missing:
        return made
    return pc.if_else(array_of([value is not None for value in given], pa.bool_()), made, pa.NULL)
