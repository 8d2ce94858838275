"""Parquet files, to chunks.

Receives: a source and the row to begin at.
Produces: Arrow tables of so many rows each, whatever the row groups are.
Guarantees: chunk `k` is the rows from `k` times the limit on. Types are the file's own; texts of few values
    come dictionary encoded.
Never does: convert; hold more than a chunk and the pages under it; map the file into memory (one that is
    truncated meanwhile would kill the process).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from sfwriter.exceptions import WriterValidationError
from sfwriter.sources.chunk import SourceChunk
from sfwriter.sources.cuts import Limits, Position
from sfwriter.sources.streams import BLOCK_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sfwriter.sources.discover import Source

CHUNK_BYTES = 11 << 20
"""Six chunks are in memory beside the writer's budget: read, read ahead, two at the gate, one handed over, and what
decoding holds. With 8 MiB a backfill takes a twentieth more of the processor, with 16 it needs 50 MiB more."""
LARGE_CHUNK_BYTES, CHUNK_SHARE = 32 << 20, 64
"""Where the budget is large, chunks are a share of it: at 32 MiB a backfill takes a tenth less than at 11."""
MAX_ROWS = 131_072
MIN_ROWS = 1_024
_SAMPLE_ROWS = 2_048
_FEW_BYTES = 1.5
"""A row's, decompressed, the dictionary's share included: numbers of up to ten bits."""


def file_digest(source: Source, check: Callable[[], None]) -> str:
    """XXH3 (128 bits) of the file's bytes."""
    whole = xxhash.xxh3_128()
    with source.path.open("rb", buffering=0) as file:
        while block := file.read(BLOCK_BYTES):
            check()
            whole.update(block)
    return str(whole.hexdigest())


def count_rows(source: Source) -> int:
    """Rows as the footer says."""
    with _opened(source) as file:
        return int(file.metadata.num_rows)


def limits_of(source: Source, budget_bytes: int = 0) -> Limits:
    """Rows of a chunk, so that it takes some 11 to 32 MiB of Arrow: judged by the rows in three places of the file.

    The footer does not tell: a text that is repeated is in a dictionary once.

    Args:
        source: the file.
        budget_bytes: memory that its writer may hold in flight.
    """
    nbytes = min(max(budget_bytes // CHUNK_SHARE, CHUNK_BYTES), LARGE_CHUNK_BYTES)
    with _opened(source) as file:
        groups = [group for group in range(file.metadata.num_row_groups) if file.metadata.row_group(group).num_rows]
        widest = 1.0
        for group in sorted({groups[0], groups[len(groups) // 2], groups[-1]}) if groups else ():
            for batch in _batches(source, file, _SAMPLE_ROWS, [group]):
                widest = max(widest, batch.nbytes / max(batch.num_rows, 1))
                break
    rows = int(nbytes / widest)
    return Limits(rows=min(max(rows, MIN_ROWS), MAX_ROWS), nbytes=nbytes)


def read_chunks(source: Source, start: Position, limits: Limits) -> Iterator[SourceChunk]:
    """The chunks from `start` on; row groups before it are not read."""
    with _opened(source, encoded=True) as file:
        total = int(file.metadata.num_rows)
        group, before = _group_of(file.metadata, start.row)
        groups = range(group, file.metadata.num_row_groups)
        pending: list[pa.RecordBatch] = []
        held, drop, begin = 0, start.row - before, start
        for found in _batches(source, file, limits.rows, groups):
            batch = found.slice(drop)
            drop = max(drop - found.num_rows, 0)
            while batch.num_rows:
                part = batch.slice(0, limits.rows - held)
                batch = batch.slice(part.num_rows)
                pending.append(part)
                held += part.num_rows
                if held == limits.rows or begin.row + held == total:
                    chunk = _chunk(pending, begin, held, total)
                    pending, held, begin = [], 0, chunk.end
                    yield chunk
        if begin.row != total:
            raise _broken(source, f"has {begin.row + held:,} rows where its footer says {total:,}")


def _chunk(pending: list[pa.RecordBatch], begin: Position, held: int, total: int) -> SourceChunk:
    row = begin.row + held
    return SourceChunk(
        begin, Position(begin.sequence + 1, row, row, row), pa.Table.from_batches(pending), progress=row / total
    )


def _group_of(metadata: Any, row: int) -> tuple[int, int]:
    """The row group that holds a row, and the rows before that group."""
    before = 0
    for group in range(metadata.num_row_groups):
        size = metadata.row_group(group).num_rows
        if row < before + size:
            return group, before
        before += size
    return metadata.num_row_groups, before


def _opened(source: Source, *, encoded: bool = False) -> Any:
    try:
        # With a buffer, pages are read as they are needed; without, a whole row group is.
        metadata = pq.read_metadata(source.path)
        few = _few_texts(metadata) if encoded else None
        return pq.ParquetFile(source.path, metadata=metadata, read_dictionary=few, buffer_size=BLOCK_BYTES)
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise _broken(source, f"is no readable Parquet file: {_first_line(error)}") from error


def _batches(source: Source, file: Any, rows: int, groups: Sequence[int]) -> Iterator[pa.RecordBatch]:
    # Group by group: over all of them at once Arrow held 271 MB where this holds 48 (25 groups of 131,072 rows).
    for group in groups:
        batches = file.iter_batches(batch_size=rows, row_groups=[group], use_threads=False)
        while (batch := _next(source, batches)) is not None:
            yield batch


def _next(source: Source, batches: Iterator[pa.RecordBatch]) -> pa.RecordBatch | None:
    try:
        return next(batches, None)
    except (pa.ArrowException, OSError) as error:
        raise _broken(source, f"cannot be read to its end: {_first_line(error)}") from error


def _few_texts(metadata: Any) -> list[str]:
    """Text columns that take next to nothing in every row group: they have few values, and stay encoded as they are."""
    names = []
    for index in range(metadata.num_columns):
        column = metadata.schema.column(index)
        if column.physical_type != "BYTE_ARRAY" or column.max_repetition_level or "." in column.path:
            continue
        parts = [metadata.row_group(group).column(index) for group in range(metadata.num_row_groups)]
        if all(part.total_uncompressed_size <= _FEW_BYTES * part.num_values for part in parts):
            names.append(column.path)
    return names


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _broken(source: Source, what: str) -> WriterValidationError:
    return WriterValidationError(
        f"{source} {what}",
        context={"source": str(source)},
        suggestions=["make the file anew, then run the same command again"],
        code="source_broken",
    )
