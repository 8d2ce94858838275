"""Rows from an iterator that can be read again, and no more of them than memory allows."""

from __future__ import annotations

import sys
from itertools import islice
from typing import TYPE_CHECKING, Any

from sfwriter.exceptions import WriterPerformanceError

if TYPE_CHECKING:
    from collections.abc import Iterator

CHUNK_ROWS = 1000
MEASURED_ROWS = 20
"""Of a chunk; measuring each row would take as long as encoding it."""


class Rereadable:
    """Reads an iterator once and gives its rows as often as asked."""

    def __init__(self, rows: Iterator[Any], max_bytes: int) -> None:
        """`max_bytes` of Python objects are kept at most, by an estimate from some rows of each thousand."""
        self._rest = rows
        self._max_bytes = max_bytes
        self._read: list[Any] = []
        self._nbytes = 0.0

    def __iter__(self) -> Iterator[Any]:
        """What was read before, then the rest.

        Raises:
            WriterPerformanceError: they take more memory than allowed.
        """
        place = 0
        while True:
            while place < len(self._read):
                yield self._read[place]
                place += 1
            chunk = list(islice(self._rest, CHUNK_ROWS))
            if not chunk:
                return
            self._nbytes += _bytes_of(chunk)
            if self._nbytes > self._max_bytes:
                self._refuse(len(self._read) + len(chunk))
            self._read += chunk

    def _refuse(self, rows: int) -> None:
        self._read.clear()
        raise WriterPerformanceError(
            f"the first {rows} rows of this call take more than {self._max_bytes} bytes, which is the whole memory "
            "budget; nothing of the call is written",
            context={"rows_read": rows, "budget_bytes": self._max_bytes},
            suggestions=[
                f"split it: give write_batches a generator of lists of {max(1, min(rows // 4, 50_000))} rows",
                "or raise memory_fraction",
            ],
        )


def _bytes_of(chunk: list[Any]) -> float:
    sample = chunk[:: max(1, len(chunk) // MEASURED_ROWS)]
    return sum(map(_bytes_of_row, sample)) * len(chunk) / len(sample)


def _bytes_of_row(row: Any) -> int:
    held = row if isinstance(row, dict) else getattr(row, "__dict__", None)
    values = held.values() if isinstance(held, dict) else ()
    return sys.getsizeof(row) + sum(map(sys.getsizeof, values))
