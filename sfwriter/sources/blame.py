"""From the row of a batch to the row of a file: errors as a person who backfills needs them.

Receives: an error that refused a chunk.
Produces: the same error, naming the file and its rows, and what to do with the command line at hand.
Guarantees: rows are counted from 1 as in the file; entries keep their other keys.
Never does: change the class of an error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sfwriter.exceptions import WriterError, WriterSchemaError, WriterValidationError

if TYPE_CHECKING:
    from sfwriter.sources.chunk import SourceChunk
    from sfwriter.sources.discover import Source

SHOWN = 3
"""Bad rows that a message spells out."""

_OTHER_CONTENT = {"content_mismatch", "number_taken", "gap"}
"""The flow's words for: somebody else wrote this number."""


def blamed(error: WriterError, source: Source, chunk: SourceChunk) -> WriterError:
    """Name the source in the error, and its rows where some are at fault."""
    error.context.update({"source": str(source), "first_row": chunk.start.row + 1, "last_row": chunk.end.row})
    if isinstance(error, (WriterSchemaError, WriterValidationError)) and any(
        "row" in e for e in error.validation_errors
    ):
        _name_rows(error, source, chunk)
    elif error.context.get("reason") in _OTHER_CONTENT:
        error.message = (
            f"{source}: rows {chunk.start.row + 1} to {chunk.end.row} are not written, because another backfill of this"
            f" file has written its part {chunk.sequence} in the meantime ({error.message})"
        )
        error.suggestions = ["run the same command again: it goes on after what is there, or says what does not fit"]
    else:
        error.message = f"{source}, rows {chunk.start.row + 1} to {chunk.end.row}: {error.message}"
    return error


def _name_rows(error: WriterSchemaError | WriterValidationError, source: Source, chunk: SourceChunk) -> None:
    shown: dict[str, str] = {}
    for entry in error.validation_errors:
        position = entry.get("row")
        if not isinstance(position, int) or not 0 <= position < chunk.count:
            continue
        place = chunk.place_of(position)
        if position in chunk.faults:
            entry["reason"] = chunk.faults[position]
            entry["reasons"] = [chunk.faults[position]]
        entry["source"] = str(source)
        entry["row"] = chunk.start.row + position + 1
        entry["place"] = place
        shown[place] = f"{shown[place]}; {_reason(entry)}" if place in shown else _reason(entry)
    sentences = [f"{place} {reason}" for place, reason in list(shown.items())[:SHOWN]]
    rest = len(shown) - SHOWN
    more = f"; and {rest} more row{'s' * (rest > 1)}" if rest > 0 else ""
    error.message = f"{source} {'; '.join(sentences)}{more}"
    error.context["row"] = error.validation_errors[0].get("row")
    advice = [text for text in error.suggestions if "lenient" not in text and "validation_errors" not in text]
    error.suggestions = [
        "finish with --mode lenient: such rows go to quarantine, and the others are written",
        *advice,
    ]
    if chunk.sequence == 0:
        error.suggestions.append("or mend the file and run the same command again: nothing of it is written yet")


def _reason(entry: dict[str, Any]) -> str:
    reasons = entry.get("reasons")
    text = "; ".join(map(str, reasons)) if reasons else str(entry.get("reason", "is refused"))
    return text.rstrip(".")
