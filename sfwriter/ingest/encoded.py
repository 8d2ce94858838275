"""What encoding makes: the rows of a call as one table, and what the table could not take.

Receives: arrays of columns, piece by piece.
Produces: `Encoded` and its `Fault`s.
Guarantees: columns of the log first, in the table's order; as many rows as were counted.
Never does: convert a value.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from sfwriter.arrays import nulls
from sfwriter.exceptions import WriterPerformanceError
from sfwriter.ingest.jsontext import bounded, original_text
from sfwriter.ingest.kinds import LOG_KINDS, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


@dataclass(frozen=True, slots=True)
class Fault:
    """A value that the table could not take, or a row that is none.

    Attributes:
        row: position among the rows given.
        column: the key; None where the whole row is no mapping.
        value: as given.
        reason: continues a sentence that begins with the column or its value.
        expected: what the column takes, empty where there is no such column.
    """

    row: int
    column: str | None
    value: Any
    reason: str
    expected: str = ""

    def sentence(self) -> str:
        """Column, value, reason and what was expected."""
        if self.column is None:
            return f"row {self.reason}"
        if not self.expected:
            return f"{bounded_name(self.column)} {self.reason}"
        return f"{self.column} = {bounded(self.value)} {self.reason}; expected {self.expected}"

    def entry(self) -> dict[str, Any]:
        """What errors list."""
        return {
            "row": self.row,
            "column": self.column,
            "value": bounded(self.value),
            "expected": self.expected or ("a mapping" if self.column is None else "no such column"),
            "reason": self.sentence(),
        }

    def rule(self) -> str:
        """What it breaks, the same text for every row."""
        if self.column is None:
            return "a row is a mapping"
        return f"{self.column} is {self.expected or 'a column of the table'}"

    def identity(self) -> str:
        """What a digest sees of it."""
        return f"{self.row}\0{'' if self.column is None else '=' + self.column}\0{original_text(self.value)}"


def bounded_name(name: str) -> str:
    """A key for a message, whatever its length."""
    shown = name if len(name) <= 130 else name[:129] + "…"
    return repr(shown.encode("utf-8", "backslashreplace").decode())


@dataclass(slots=True)
class Encoded:
    """All rows of a call.

    Attributes:
        rows: as the module says.
        faults: ordered by row.
        original: position to the row as it was given.
        actual: column to the types that were given, for errors.
        stamped: rows brought a value for a column that writing fills; it is not in `rows`.
    """

    rows: pa.Table
    faults: list[Fault]
    original: Callable[[int], Any]
    actual: Callable[[], dict[str, str]]
    stamped: bool


@dataclass
class GrowingColumns:
    """The columns while they grow: pieces of arrays, each with the row that it begins at."""

    pieces: dict[str, list[tuple[int, pa.Array | pa.ChunkedArray]]] = field(default_factory=dict)
    kinds: dict[str, Kind] = field(default_factory=dict)
    nbytes: int = 0

    def add(self, name: str, kind: Kind, start: int, piece: pa.Array | pa.ChunkedArray) -> None:
        """Put a piece of a column where the row `start` begins; pieces of one column come in order."""
        self.kinds[name] = kind
        self.pieces.setdefault(name, []).append((start, piece))
        self.nbytes += piece.nbytes

    def table(self, count: int, extras: Iterable[str]) -> pa.Table:
        """One chunk a column (more only beyond 2 GiB of text); extras without a value are left out."""
        columns = {name: self._column(name, kind, count) for name, kind in LOG_KINDS.items()}
        for name in extras:
            column = self._column(name, self.kinds[name], count)
            if column.null_count < count:
                columns[name] = column
        return pa.table(columns).combine_chunks()

    def _column(self, name: str, kind: Kind, count: int) -> pa.ChunkedArray:
        chunks: list[pa.Array] = []
        reached = 0
        pieces = self.pieces.get(name, ())
        for start, piece in pieces:
            if start > reached:
                chunks.append(nulls(kind.type, start - reached))
            chunks.extend(piece.chunks if isinstance(piece, pa.ChunkedArray) else [piece])
            reached = start + len(piece)
        if reached < count:
            chunks.append(nulls(kind.type, count - reached))
        # One that stays dictionary encoded comes in one piece of all rows.
        return pa.chunked_array(chunks, pieces[0][1].type if pieces else kind.type)


def check_size(nbytes: int, max_bytes: int | None) -> None:
    """Refuse rows that are larger than the budget.

    Raises:
        WriterPerformanceError: they are.
    """
    if max_bytes is not None and nbytes > max_bytes:
        raise WriterPerformanceError(
            f"The rows of this call take more than {max_bytes:,} bytes, which is all that the memory budget allows.",
            context={"max_bytes": max_bytes},
            suggestions=["Split the rows, and give the parts to `write_batches`.", "Raise `memory_fraction`."],
        )
