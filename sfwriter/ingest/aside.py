"""What happens to what does not fit: rows for the quarantine table, values for `metadata`.

Receives: the encoded rows of a call, their faults, and the rules that they break.
Produces: the accepted rows and the rows set aside (`lenient`), or all rows with what was nulled kept in
    their metadata (`ignore`).
Guarantees: every row comes out once; a quarantined row has all its reasons; nothing that the caller gave is lost.
Never does: raise for a row.
"""

from __future__ import annotations

import json
import uuid
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from sfwriter.arrays import array_of
from sfwriter.ingest.jsontext import jsonable, original_text, row_text, valid_json
from sfwriter.schema import QUARANTINE_SCHEMA, QUARANTINE_STAMPS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sfwriter.ingest.encoded import Encoded, Fault
    from sfwriter.quality.builtin import Breach

UNCONVERTED = "_unconverted"
UNKNOWN = "_unknown"

ASIDE_SCHEMA = pa.schema([field for field in QUARANTINE_SCHEMA if field.name not in QUARANTINE_STAMPS])
"""The quarantine table's columns without those that staging stamps."""


def reasons_by_row(faults: Iterable[Fault], found: Iterable[Breach]) -> dict[int, list[str]]:
    """All reasons of every bad row, rows in order."""
    reasons: dict[int, list[str]] = {}
    for fault in faults:
        reasons.setdefault(fault.row, []).append(fault.sentence())
    for breach in found:
        reasons.setdefault(breach.row, []).append(breach.reason)
    return dict(sorted(reasons.items()))


def quarantine(encoded: Encoded, table: pa.Table, found: list[Breach]) -> tuple[pa.Table, pa.Table]:
    """The rows that passed, and those set aside; `table` has the same rows as `encoded`, with run ids."""
    reasons = reasons_by_row(encoded.faults, found)
    bad = array_of(list(reasons), pa.int64())
    texts = array_of([reason for listed in reasons.values() for reason in listed], pa.string())
    ends = array_of([0, *accumulate(map(len, reasons.values()))], pa.int64()).cast(pa.int32())
    aside = pa.table(
        [
            array_of([uuid.uuid4().hex for _ in reasons], pa.string()),
            array_of([row_text(encoded.original(row)) for row in reasons], pa.string()),
            pa.ListArray.from_arrays(ends, texts),
            table.column("run_id").take(bad),
        ],
        schema=ASIDE_SCHEMA,
    )
    keep = [True] * table.num_rows
    for row in reasons:
        keep[row] = False
    return table.filter(array_of(keep, pa.bool_())).combine_chunks(), aside


def with_unconverted(table: pa.Table, faults: Iterable[Fault]) -> pa.Table:
    """The rows with every value that they could not take in their `metadata`.

    A value of a column goes by its text under `_unconverted`; a key that is no column goes with its JSON
    value under `_unknown`.
    """
    kept: dict[int, dict[str, dict[Any, Any]]] = {}
    for fault in faults:
        parts = kept.setdefault(fault.row, {})
        if fault.expected:
            parts.setdefault(UNCONVERTED, {})[fault.column] = original_text(fault.value)
        else:
            parts.setdefault(UNKNOWN, {})[fault.column] = jsonable(fault.value)
    texts = table.column("metadata").to_pylist()
    for row, parts in kept.items():
        texts[row] = valid_json(_merged(texts[row], parts))
    return table.set_column(table.column_names.index("metadata"), "metadata", array_of(texts, pa.string()))


def _merged(text: str | None, parts: dict[str, dict[Any, Any]]) -> dict[str, Any]:
    # The standard library's reader keeps integers of any size.
    metadata: dict[str, Any] = json.loads(text) if text else {}
    for name, entries in parts.items():
        before = metadata.get(name, {})
        # Rows that came out of a log table may carry the key from an earlier passage.
        metadata[name] = {**(before if isinstance(before, dict) else {name: before}), **entries}
    return metadata
