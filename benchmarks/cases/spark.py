"""The Spark engine beside Spark's own append, in one warm session.

Both sides write the same rows; what they left is counted by a reader that is neither of them.
"""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.case import Case, Figures, Peer, Scale, Setting, Verdict, expect
from benchmarks.cases.acks import distinct_rows
from benchmarks.cases.data import TABLE, rows_for
from benchmarks.child import in_child
from benchmarks.live import count_rows

if TYPE_CHECKING:
    from collections.abc import Mapping

SAMPLE = 10
"""Writes of which the median is taken."""

FRAMES = 3
"""Appends of a frame, the first of which warms the executors up."""


def prepare(_folder: Path, scale: Scale) -> Mapping[str, Any]:
    """How old the table gets, and how large the load is."""
    return {
        "late": rows_for(scale, full=1_000, quick=100, tiny=12),
        "bulk": rows_for(scale, full=1_000_000, quick=200_000, tiny=2_000),
        "sample": rows_for(scale, full=SAMPLE, quick=SAMPLE, tiny=2),
    }


def run_all(setting: Setting) -> Figures:
    """Everything in one process: a JVM that warms up twice would be the larger part of it."""
    late, bulk, sample = (setting.given[name] for name in ("late", "bulk", "sample"))
    figures = in_child("spark:measured", folder=str(setting.folder), late=late, bulk=bulk, sample=sample)
    small = 7 * (late + 2 * sample)
    for name, wanted in (
        (TABLE, small),
        ("theirs", 7 * (sample + 2)),
        ("bulk/" + TABLE, bulk * 2),
        ("spark-bulk", bulk * 2),
        ("frames/" + TABLE, bulk * FRAMES),
        ("spark-frames", bulk * FRAMES),
    ):
        found = count_rows(setting.folder / name)
        expect(found == wanted, f"{name}: {found:,} rows, {wanted:,} were written")
    return figures


# ---------------------------------------------------------------- in the child


def measured(folder: str, late: int, bulk: int, sample: int) -> Figures:
    """Milliseconds and seconds of both sides, by turns."""
    import sfwriter

    session = sfwriter.spark.session("sfwriter-benchmark")
    try:
        return {
            **_small(session, Path(folder), late, sample),
            **_bulk(session, Path(folder), bulk),
            **_frame(session, Path(folder), bulk),
        }
    finally:
        session.stop()


def _small(session: Any, folder: Path, late: int, sample: int) -> Figures:
    from sfwriter import LogWriter, WriterConfig

    config = WriterConfig(warehouse=str(folder), enable_optimization=False)
    theirs = str(folder / "theirs")
    took: list[float] = []
    with LogWriter(session, config) as writer:
        for call in range(late + sample):
            rows = distinct_rows(0, call)
            began = time.perf_counter()
            writer.write_log_rows(rows)
            took.append(1000 * (time.perf_counter() - began))
    began = time.perf_counter()
    with LogWriter(session, config) as writer:
        opened = time.perf_counter() - began
        ours, appends = [], []
        for call in range(sample + 2):
            rows = distinct_rows(1, call)
            if call < sample:
                began = time.perf_counter()
                writer.write_log_rows(rows)
                ours.append(1000 * (time.perf_counter() - began))
            began = time.perf_counter()
            _append(session, _arrow(rows), theirs, files=1)
            appends.append(1000 * (time.perf_counter() - began))
    early = min(10, late // 2)
    return {
        "write_p50_ms": statistics.median(ours),
        "append_p50_ms": statistics.median(appends[2:]),
        "early_p50_ms": statistics.median(took[early : early + sample]),
        "late_p50_ms": statistics.median(took[late:]),
        "open_s": opened,
    }


def _bulk(session: Any, folder: Path, rows: int) -> Figures:
    from sfwriter import LogWriter, WriterConfig

    table = _arrow([row for call in range(-(-rows // 7)) for row in distinct_rows(2, call)]).slice(0, rows)
    ours, theirs = [], []
    with LogWriter(session, WriterConfig(warehouse=str(folder / "bulk"), enable_optimization=False)) as writer:
        for _ in range(2):
            began = time.perf_counter()
            writer.write_batches(table.to_batches(max_chunksize=100_000))
            ours.append(time.perf_counter() - began)
            began = time.perf_counter()
            _append(session, table, str(folder / "spark-bulk"), files=2)
            theirs.append(time.perf_counter() - began)
    return {"bulk_s": min(ours), "bulk_append_s": min(theirs)}


def _frame(session: Any, folder: Path, rows: int) -> Figures:
    """A DataFrame over two Parquet files, gate and all, beside its own append."""
    import pyarrow.parquet as pq

    from sfwriter import LogWriter, WriterConfig
    from sfwriter.testing.rows import log_table

    source = folder / "source"
    source.mkdir()
    half = rows // 2
    for number, (first, count) in enumerate(((0, half), (half, rows - half))):
        pq.write_table(log_table(count, first=first), source / f"{number}.parquet")
    frame = session.read.parquet(str(source))
    ours, theirs = [], []
    with LogWriter(session, WriterConfig(warehouse=str(folder / "frames"), enable_optimization=False)) as writer:
        for _ in range(FRAMES):
            began = time.perf_counter()
            writer.write_log_rows(frame)
            ours.append(time.perf_counter() - began)
            began = time.perf_counter()
            frame.write.format("delta").mode("append").save(str(folder / "spark-frames"))
            theirs.append(time.perf_counter() - began)
    return {"frame_s": min(ours[1:]), "frame_append_s": min(theirs[1:])}


def _append(session: Any, table: Any, path: str, *, files: int) -> None:
    """Spark's own way, at the settings that are best for it: through Arrow, in few files."""
    frame = session.createDataFrame(table).coalesce(files)
    frame.write.format("delta").mode("append").save(path)


def _arrow(rows: list[dict[str, Any]]) -> Any:
    import pyarrow as pa

    return pa.Table.from_pylist([{**row, "metadata": json.dumps(row["metadata"])} for row in rows])


CASE = Case(
    "spark",
    "on one warm session: 7-row writes, 1M rows and a frame beside Spark's own append, version 1,000 and 10, opening",
    (Peer("session", run_all),),
    (
        Verdict("append of 7 rows / write", ("session", "append_p50_ms"), ("session", "write_p50_ms"), target=8.0),
        Verdict("append of 1M rows / write", ("session", "bulk_append_s"), ("session", "bulk_s"), target=4.0),
        Verdict("append of a frame / write", ("session", "frame_append_s"), ("session", "frame_s"), target=0.9),
        Verdict(
            "version 1,000 / version 10", ("session", "late_p50_ms"), ("session", "early_p50_ms"), target=2.0,
            at_least=False,
        ),
        Verdict("opening", ("session", "open_s"), how="value", target=2.0, at_least=False, unit="s"),
    ),
    prepare,
    rounds=1,
)  # fmt: skip
