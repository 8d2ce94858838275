"""Rows out of an iterator, and no more of them than memory allows."""

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


def read_rows(rows: Iterator[Any], max_bytes: int) -> list[Any]:
    """All rows of the iterator, of which some of each thousand are measured as Python objects.

    Raises:
        WriterPerformanceError: they take more than `max_bytes`.
    """
    read: list[Any] = []
    nbytes = 0.0
    while chunk := list(islice(rows, CHUNK_ROWS)):
        read += chunk
        nbytes += _bytes_of(chunk)
        if nbytes > max_bytes:
            raise WriterPerformanceError(
                f"the first {len(read)} rows of this call take more than {max_bytes} bytes, which is the whole memory "
                "budget; nothing of the call is written",
                context={"rows_read": len(read), "budget_bytes": max_bytes},
                suggestions=[
                    f"split it: give write_batches a generator of lists of {max(1, min(len(read) // 4, 50_000))} rows",
                    "or raise memory_fraction",
                ],
            )
    return read


def _bytes_of(chunk: list[Any]) -> float:
    sample = chunk[:: max(1, len(chunk) // MEASURED_ROWS)]
    return sum(map(_bytes_of_row, sample)) * len(chunk) / len(sample)


def _bytes_of_row(row: Any) -> int:
    held = row if isinstance(row, dict) else getattr(row, "__dict__", None)
    values = held.values() if isinstance(held, dict) else ()
    return sys.getsizeof(row) + sum(map(sys.getsizeof, values))
