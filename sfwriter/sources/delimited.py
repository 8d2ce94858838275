"""CSV records, to rows.

Receives: the header, and raw chunks of records.
Produces: an Arrow table where every cell parses to its column's type, else a list of dicts in which those
    that do not are text.
Guarantees: an empty cell is null, quoted or not. A record with more or fewer cells than the header, or
    with broken quotes, stays as an `Unreadable`.
Never does: guess a delimiter or a type: cells are divided by commas, and a column that the table does not
    have is text.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.csv as pacsv

from sfwriter.exceptions import WriterValidationError
from sfwriter.ingest.unreadable import Unreadable
from sfwriter.sources.records import MAX_RECORD_BYTES
from sfwriter.sources.typed_text import parse_column, parse_text

if TYPE_CHECKING:
    from sfwriter.sources.discover import Source
    from sfwriter.sources.typed_text import Types

_OTHER_DELIMITERS = set(";\t|")

csv.field_size_limit(MAX_RECORD_BYTES)


@dataclass(frozen=True, slots=True)
class Header:
    """The first record: names of the columns, and what it takes."""

    names: list[str]
    nbytes: int
    lines: int


def read_header(source: Source, stream: io.BufferedReader, nbytes: int, lines: int) -> Header | None:
    """Read the names; blank lines before them are passed over. None where there is no record.

    Args:
        source: for errors.
        stream: stands at `nbytes`, behind a byte order mark.
        nbytes: bytes before it.
        lines: line ends before it.

    Raises:
        WriterValidationError: it is no header: broken, a name missing or there twice.
    """
    parts: list[bytes] = []
    quotes = 0
    while part := stream.readline(MAX_RECORD_BYTES):
        nbytes += len(part)
        lines += 1
        if not parts and part.isspace():
            continue
        parts.append(part)
        quotes += part.count(b'"')
        if quotes % 2 == 0:
            break
    if not parts:
        return None
    cells, reason = _cells(b"".join(parts))
    names = [cell or "" for cell in cells]
    twice = sorted({name for name in names if names.count(name) > 1})
    if not reason and not all(names):
        reason = f"has no name for column {names.index('') + 1}"
    if not reason and len(names) == 1 and _OTHER_DELIMITERS & set(names[0]):
        reason = f"is one name, {names[0]!r}: its columns are not divided by commas"
    if not reason and twice:
        reason = f"names {', '.join(map(repr, twice))} more than once"
    if reason:
        raise WriterValidationError(
            f"{source} line {lines - len(parts) + 1}: the header {reason}",
            context={"source": str(source), "line": lines - len(parts) + 1},
            suggestions=["give the file a first line with the names of its columns, divided by commas"],
            code="source_broken",
        )
    return Header(names, nbytes, lines)


def rows_of_records(
    records: list[bytes], names: list[str], types: Types
) -> tuple[pa.Table | list[Any], dict[int, str]]:
    """The rows of a chunk's records, and what is wrong with those that are none (position to reason)."""
    # A record ends outside quotes, but for the last of a file. Arrow would take the rest of the file for one cell.
    table = None if records and records[-1].count(b'"') & 1 else _texts(records, names)
    if table is None:
        return _dicts(records, names, types)
    unparsed: list[str] = []
    columns: dict[str, pa.ChunkedArray] = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        kept = types.get(name, pa.string())
        parsed = column if kept == pa.string() else parse_column(column, kept)
        if parsed is None:
            unparsed.append(name)
        columns[name] = column if parsed is None else parsed
    typed = pa.table(columns)
    if not unparsed:
        return typed, {}
    rows = typed.to_pylist()
    for name in unparsed:
        kept = types[name]
        for row in rows:
            if row[name] is not None:
                row[name] = parse_text(row[name], kept)
    return rows, {}


def _texts(records: list[bytes], names: list[str]) -> pa.Table | None:
    """All cells as text; None where some record is not as the header says."""
    data = b"".join(records)
    try:
        table = pacsv.read_csv(
            pa.BufferReader(data),
            # One block: a record must not lie across two.
            read_options=pacsv.ReadOptions(column_names=names, use_threads=False, block_size=len(data) + 1),
            parse_options=pacsv.ParseOptions(newlines_in_values=True),
            convert_options=pacsv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()), null_values=[""], strings_can_be_null=True
            ),
        )
    except pa.ArrowInvalid:
        return None
    return table if table.num_rows == len(records) else None


def _dicts(records: list[bytes], names: list[str], types: Types) -> tuple[list[Any], dict[int, str]]:
    rows: list[Any] = []
    faults: dict[int, str] = {}
    for position, record in enumerate(records):
        cells, reason = _cells(record)
        if not reason and len(cells) != len(names):
            reason = f"has {len(cells)} cells where the header has {len(names)}"
        if reason:
            faults[position] = reason
            rows.append(Unreadable(record.decode("utf-8", "backslashreplace").rstrip("\r\n"), reason))
            continue
        rows.append(
            {
                name: parse_text(cell, types[name]) if cell is not None and name in types else cell
                for name, cell in zip(names, cells, strict=True)
            }
        )
    return rows, faults


def _cells(record: bytes) -> tuple[list[str | None], str]:
    """The cells of one record, and what is wrong where it is none."""
    try:
        text = record.decode()
        found = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except UnicodeDecodeError as error:
        return [], f"is not UTF-8 (byte {error.start + 1} of the row)"
    except csv.Error as error:
        if record.count(b'"') & 1:
            return [], "opens a quote that is never closed"
        return [], f"is no valid CSV ({error})"
    if len(found) != 1:
        return [], "is no valid CSV (its quotes do not match)"
    return [cell or None for cell in found[0]], ""
