"""The errors that refuse a call, with every bad row in them.

Receives: faults and broken rules.
Produces: an error whose message shows the first few and whose `validation_errors` has all.
Guarantees: values in it are bounded texts, so it can be shown, logged and pickled.
Never does: raise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sfwriter.exceptions import WriterError, WriterSchemaError, WriterValidationError
from sfwriter.ingest.aside import reasons_by_row
from sfwriter.quality.builtin import REQUIRED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sfwriter.ingest.encoded import Encoded, Fault
    from sfwriter.ingest.names import TableColumns
    from sfwriter.quality.builtin import Breach
    from sfwriter.quality.verdict import Misfit

SHOWN = 5
"""Bad rows that a message spells out."""

_SET_ASIDE = 'With `schema_validation_mode="lenient"` such rows go to quarantine and the others are written.'


def of_strict(
    encoded: Encoded, found: Sequence[Breach], columns: TableColumns
) -> WriterSchemaError | WriterValidationError:
    """What refuses a call in `strict`: values and keys that do not fit come first."""
    faults = [fault for fault in encoded.faults if fault.column is not None]
    if not faults:
        return _of_rows(encoded, encoded.faults, found)
    entries = _entries(encoded.faults, found)
    misfit = {fault.row for fault in faults}
    # What gives the error its class comes first; what the rows break besides is not to be found out one by one.
    first = sorted(entries, key=lambda entry: entry["row"] not in misfit)[:SHOWN]
    sentences = [f"Row {entry['row']}: {'; '.join(entry['reasons'])}." for entry in first]
    suggestions = [_SET_ASIDE]
    if any(not fault.expected for fault in faults):
        allow = "" if columns.evolution else ", or allow new columns with `enable_schema_evolution=True`"
        suggestions.insert(0, f"Rename the key{allow}.")
    return WriterSchemaError(
        _joined(sentences, len(entries), "row", "rows"),
        expected_schema=columns.expected(),
        actual_schema=encoded.actual(),
        validation_errors=entries,
        context={
            "row": faults[0].row,
            "column": faults[0].column,
            "bad_values": len(faults),
            "bad_rows": len(entries),
            "rows": encoded.rows.num_rows,
        },
        suggestions=suggestions,
    )


def _entries(faults: Sequence[Fault], found: Sequence[Breach]) -> list[dict[str, Any]]:
    """One for each bad row, rows in order: its first problem, all its reasons, and each value that does not fit."""
    values: dict[int, list[dict[str, Any]]] = {}
    for fault in faults:
        values.setdefault(fault.row, []).append(fault.entry())
    broken = {breach.row: breach for breach in reversed(found)}
    entries = []
    for row, reasons in reasons_by_row(faults, found).items():
        listed = values.get(row, [])
        if listed:
            entry = dict(listed[0])
        else:
            breach = broken[row]
            entry = {"row": row, "column": breach.column, "value": None, "expected": breach.rule, "reason": reasons[0]}
        entries.append(entry | {"reasons": reasons, "values": listed})
    return entries


def of_ignore(encoded: Encoded, found: Sequence[Breach]) -> WriterValidationError:
    """What refuses a call in `ignore`: rows without phase or step_name, and rows that are none."""
    faults = [fault for fault in encoded.faults if fault.column in {None, *REQUIRED}]
    return _of_rows(encoded, faults, found)


def _of_rows(encoded: Encoded, faults: Sequence[Fault], found: Sequence[Breach]) -> WriterValidationError:
    reasons = reasons_by_row(faults, found)
    entries: list[dict[str, Any]] = [{"row": row, "reasons": listed} for row, listed in reasons.items()]
    sentences = [f"Row {entry['row']}: {'; '.join(entry['reasons'])}." for entry in entries[:SHOWN]]
    return WriterValidationError(
        _joined(sentences, len(entries), "row", "rows"),
        validation_errors=entries,
        context={"row": entries[0]["row"], "bad_rows": len(entries), "rows": encoded.rows.num_rows},
        suggestions=["Mend the rows named in `validation_errors`.", _SET_ASIDE],
    )


def of_misfits(misfits: Sequence[Misfit], *, strict: bool) -> WriterError | None:
    """What refuses rows of which only questions are asked; None where nothing is in the way of an answer.

    A row that is no mapping always is, a value that does not fit where it is `strict`.
    """
    none = [misfit for misfit in misfits if not misfit.column]
    if none:
        more = f", and {len(none) - 1} more" if len(none) > 1 else ""
        return WriterValidationError(
            f"Row {none[0].row} is {none[0].value}, not a mapping{more}.",
            validation_errors=[{"row": misfit.row, "reasons": [f"{misfit.value} is not a mapping"]} for misfit in none],
            context={"row": none[0].row, "bad_rows": len(none)},
            suggestions=["Give each row as a dict of column names to values."],
        )
    if not misfits or not strict:
        return None
    first = misfits[0]
    more = f" And {len(misfits) - 1} more." if len(misfits) > 1 else ""
    return WriterSchemaError(
        f"Row {first.row}: {first.column} = {first.value}, and {first.rule}.{more}",
        validation_errors=[
            {
                "row": misfit.row,
                "column": misfit.column,
                "reasons": [f"{misfit.column} = {misfit.value}: {misfit.rule}"],
            }
            for misfit in misfits
        ],
        context={"row": first.row, "column": first.column, "bad_values": len(misfits)},
        suggestions=["Mend the values named in `validation_errors`; they would count as missing."],
    )


def _joined(sentences: list[str], count: int, one: str, many: str) -> str:
    more = f" And {count - len(sentences)} more." if count > len(sentences) else ""
    return f"Nothing was written: {count} {one if count == 1 else many} refused. {' '.join(sentences)}{more}"
