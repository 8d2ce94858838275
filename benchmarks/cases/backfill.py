"""A backfill from Parquet in process, beside pyarrow alone and beside `write_deltalake`."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.case import Case, Figures, Peer, Scale, Setting, Verdict, expect
from benchmarks.cases.data import CHUNK_ROWS, TABLE, check_table, make_sources, rows_for
from benchmarks.child import in_child

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import pyarrow as pa

THREADS = 2


def prepare(folder: Path, scale: Scale) -> Mapping[str, Any]:
    """Sources of 3 million rows."""
    return make_sources(folder, rows_for(scale, full=3_000_000, quick=400_000, tiny=20_000))


def run_sfwriter(setting: Setting) -> Figures:
    """The command line's own path, in process."""
    figures = in_child("backfill:with_sfwriter", sources=setting.given["sources"], warehouse=str(setting.folder))
    check_table(setting.folder / TABLE, setting.given["rows"])
    return _rated(figures, setting)


def run_pyarrow(setting: Setting) -> Figures:
    """Pyarrow reads the same files and writes Parquet, on two threads."""
    import pyarrow.parquet as pq

    figures = in_child("backfill:with_pyarrow", sources=setting.given["sources"], target=str(setting.folder))
    found = sum(pq.read_metadata(file).num_rows for file in setting.folder.glob("*.parquet"))
    expect(found == setting.given["rows"], f"pyarrow wrote {found:,} of {setting.given['rows']:,} rows")
    return _rated(figures, setting)


def run_write_deltalake(setting: Setting) -> Figures:
    """delta-rs's own writer gets the same rows as a stream."""
    figures = in_child(
        "backfill:with_write_deltalake", sources=setting.given["sources"], target=str(setting.folder / "table")
    )
    check_table(setting.folder / "table", setting.given["rows"])
    return _rated(figures, setting)


def _rated(figures: Figures, setting: Setting) -> Figures:
    return {
        "rows_per_s": setting.given["rows"] / figures["secs"],
        "secs": figures["secs"],
        "written_bytes": float(sum(file.stat().st_size for file in setting.folder.rglob("*.parquet"))),
        "cpu_secs": figures["cpu_secs"],
        "peak_bytes": figures["peak_bytes"],
    }


# ---------------------------------------------------------------- in the child


class Stopwatch:
    """Time that passes, and processor time of all threads of this process, which other load disturbs least."""

    def __init__(self) -> None:
        """Begin."""
        self._began, self._used = time.perf_counter(), time.process_time()

    def read(self) -> Figures:
        """Both, in seconds."""
        return {"secs": time.perf_counter() - self._began, "cpu_secs": time.process_time() - self._used}


def with_sfwriter(sources: str, warehouse: str, options: dict[str, Any] | None = None) -> Figures:
    """Backfill the sources into a new table. The writer's opening and closing count."""
    from sfwriter import LogWriter, WriterConfig
    from sfwriter.arrays import use_returning_memory
    from sfwriter.backfill import backfill
    from sfwriter.sources import discover
    from sfwriter.storage import delta_rs  # noqa: F401  the writer loads it when it opens; the peers have theirs loaded

    use_returning_memory()  # as the command line does
    config = WriterConfig(warehouse=warehouse, parallel_write_threads=THREADS, **(options or {}))
    watch = Stopwatch()
    with LogWriter(config=config) as writer:
        result = backfill(writer, discover([sources]).sources)
    return {**watch.read(), "rows": float(result["rows_written"])}


def with_pyarrow(sources: str, target: str) -> Figures:
    """Each of two threads reads its share of the files and writes it with the options that the engine stages with."""
    import pyarrow.parquet as pq

    from sfwriter import WriterConfig
    from sfwriter.runtime.blueprint import log_table_spec
    from sfwriter.storage.staging import ROW_GROUP_ROWS, parquet_options

    spec = log_table_spec(WriterConfig())

    def copy(source: Path) -> None:
        file = pq.ParquetFile(source)
        options = parquet_options(spec, file.schema_arrow)
        with pq.ParquetWriter(Path(target) / source.name, file.schema_arrow, **options) as writer:
            # Measured as its fastest way to read: batches across row groups cost it up to three times as much.
            for group in range(file.num_row_groups):
                rows = file.read_row_group(group, use_threads=False)
                writer.write_table(rows, row_group_size=ROW_GROUP_ROWS)

    watch = Stopwatch()
    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(copy, _files(sources)))
    return watch.read()


def with_write_deltalake(sources: str, target: str) -> Figures:
    """One call of `write_deltalake` with a reader over all files, at its defaults."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from deltalake import write_deltalake

    def batches() -> Iterator[pa.RecordBatch]:
        for source in _files(sources):
            yield from pq.ParquetFile(source).iter_batches(batch_size=CHUNK_ROWS)

    schema = pq.read_schema(_files(sources)[0])
    watch = Stopwatch()
    write_deltalake(target, pa.RecordBatchReader.from_batches(schema, batches()))
    return watch.read()


def _files(sources: str) -> list[Path]:
    return sorted(Path(sources).glob("*.parquet"))


CASE = Case(
    "backfill",
    "backfill from Parquet in process, beside pyarrow writing alone on two threads and write_deltalake",
    (
        Peer("sfwriter", run_sfwriter),
        Peer("pyarrow", run_pyarrow),
        Peer("write_deltalake", run_write_deltalake),
    ),
    (
        Verdict("sfwriter / pyarrow", ("sfwriter", "rows_per_s"), ("pyarrow", "rows_per_s"), target=0.6),
        Verdict(
            "sfwriter / write_deltalake", ("sfwriter", "rows_per_s"), ("write_deltalake", "rows_per_s"), target=1.5
        ),
        Verdict("processor time, pyarrow / sfwriter", ("pyarrow", "cpu_secs"), ("sfwriter", "cpu_secs")),
        Verdict(
            "processor time, write_deltalake / sfwriter", ("write_deltalake", "cpu_secs"), ("sfwriter", "cpu_secs")
        ),
    ),
    prepare,
)
