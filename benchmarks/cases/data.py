"""What is written: generated log rows, as Parquet sources that every peer reads."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from benchmarks.case import Scale, expect
from benchmarks.live import count_rows, query
from sfwriter.testing.rows import log_table

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

TABLE = "analytics/pipeline_logs"
"""Of a writer with the default names, below its warehouse."""

CHUNK_ROWS = 100_000


def make_sources(folder: Path, rows: int, files: int = 4) -> Mapping[str, Any]:
    """Write `rows` log rows as Parquet files of pyarrow's own making, all of them in the page cache afterwards."""
    folder = folder / "sources"
    folder.mkdir()
    share = -(-rows // files)
    for number in range(files):
        first, last = number * share, min(rows, (number + 1) * share)
        with pq.ParquetWriter(folder / f"logs-{number}.parquet", log_table(1).schema, compression="snappy") as file:
            for start in range(first, last, CHUNK_ROWS):
                file.write_table(log_table(min(CHUNK_ROWS, last - start), first=start))
    os.sync()
    return {"sources": str(folder), "rows": rows, "arrow_bytes_per_row": log_table(10_000).nbytes / 10_000}


def rows_for(scale: Scale, *, full: int, quick: int, tiny: int) -> int:
    """How many rows a scale stands for."""
    return {Scale.FULL: full, Scale.QUICK: quick, Scale.TINY: tiny}[scale]


def check_table(table: Path, rows: int) -> None:
    """The table has exactly these rows, each once: counted in the footers, and row by row by DuckDB."""
    found = count_rows(table)
    expect(found == rows, f"{table.name} has {found:,} rows by its files' footers, {rows:,} were written")
    read, distinct = query(table, "count(*), count(DISTINCT (execution_id, step_name)) FROM logs")[0]
    expect(read == rows, f"{table.name} has {read:,} rows by DuckDB, {rows:,} were written")
    expect(distinct == rows, f"of {read:,} rows in {table.name} only {distinct:,} are different ones")
