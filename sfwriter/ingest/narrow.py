"""Columns of the log that a table keeps in narrower numbers than this library would make them.

Receives: encoded rows, and the narrow types (tables that SparkForge made have INT and FLOAT).
Produces: the same rows without the numbers that do not fit, and a fault for each of those.
Guarantees: what passes can be staged for the table: whole numbers exactly, others rounded to a FLOAT.
Never does: convert. That is staging's, so that a batch and its digest are the same for every table.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from sfwriter.arrays import scalar_of
from sfwriter.ingest.encoded import Encoded, Fault

if TYPE_CHECKING:
    from collections.abc import Mapping

_FLOAT_MAX = 3.4028234663852886e38


def is_narrow_number(kept: pa.DataType) -> bool:
    """Whether a number of 64 bits may not fit in the type."""
    return bool((pa.types.is_signed_integer(kept) and kept != pa.int64()) or kept == pa.float32())


def without_what_is_beyond(encoded: Encoded, narrow: Mapping[str, pa.DataType]) -> Encoded:
    """The rows with null for each number that its column cannot keep, and faults for them."""
    faults: list[Fault] = []
    table = encoded.rows
    for name, kept in narrow.items():
        column = table.column(name)
        beyond = _beyond(column, kept)
        if beyond is None:
            continue
        reason = f"does not fit in {kept}"
        expected = f"{kept}, as the table keeps it"
        faults += [
            Fault(row, name, column[row].as_py(), reason, expected) for row in pc.indices_nonzero(beyond).to_pylist()
        ]
        position = table.column_names.index(name)
        table = table.set_column(position, table.schema.field(name), pc.if_else(beyond, None, column))
    if not faults:
        return encoded
    return replace(encoded, rows=table, faults=sorted([*encoded.faults, *faults], key=lambda fault: fault.row))


def is_kept(table: pa.Table, narrow: Mapping[str, pa.DataType]) -> bool:
    """Whether every number fits."""
    return all(_beyond(table.column(name), kept) is None for name, kept in narrow.items())


def _beyond(column: pa.ChunkedArray, kept: pa.DataType) -> Any:
    """Which values are beyond the type, null counting as none; None where there is no such value."""
    if pa.types.is_floating(kept):
        low, high = -_FLOAT_MAX, _FLOAT_MAX
        finite: Any = pc.is_finite(column)
    else:
        high = 2 ** (kept.bit_width - 1) - 1
        low = -high - 1
        finite = True
    kind = column.type
    outside = pc.or_(pc.less(column, scalar_of(low, kind)), pc.greater(column, scalar_of(high, kind)))
    beyond = pc.fill_null(outside if finite is True else pc.and_(outside, finite), False)
    return beyond if pc.any(beyond).as_py() else None
