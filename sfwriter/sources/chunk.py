"""What a reader hands on: the rows of one number.

Receives: rows as a reader made them.
Produces: `SourceChunk`.
Guarantees: position `i` of `rows` is the row that `place_of(i)` names.
Never does: change rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa

    from sfwriter.sources.cuts import Position


@dataclass(frozen=True, slots=True)
class SourceChunk:
    """Rows that are written under one number.

    Attributes:
        start: where it begins; `start.sequence` is its number.
        end: where it ends.
        rows: an Arrow table; a list of dicts where some value must be judged by itself, with an
            `Unreadable` for each record that is no row.
        lines: line number of each row, from 1; None in Parquet.
        faults: position to reason, for the `Unreadable` ones.
        progress: share of the file that is read behind it, 0 to 1.
    """

    start: Position
    end: Position
    rows: pa.Table | list[Any]
    lines: Sequence[int] | None = None
    faults: Mapping[int, str] = field(default_factory=dict)
    progress: float = 1.0

    @property
    def sequence(self) -> int:
        """Its number."""
        return self.start.sequence

    @property
    def count(self) -> int:
        """Rows in it, the unreadable ones too."""
        return self.end.row - self.start.row

    def place_of(self, position: int) -> str:
        """`row 7`, counted from 1 in the file, with the line where that is another number."""
        row = self.start.row + position + 1
        line = self.lines[position] if self.lines is not None and position < len(self.lines) else row
        return f"row {row}" if line == row else f"row {row} (line {line})"
