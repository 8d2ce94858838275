"""Calls of 7 rows in process: how many a second, how long each, and what that is over a bare commit."""

from __future__ import annotations

import json
import os
import statistics
import threading
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.case import Case, Figures, Peer, Scale, Setting, Verdict, expect
from benchmarks.cases.data import TABLE, check_table
from benchmarks.child import in_child
from benchmarks.live import count_rows

if TYPE_CHECKING:
    from collections.abc import Callable

ROWS = 7
SECONDS = {Scale.FULL: 6.0, Scale.QUICK: 2.0, Scale.TINY: 0.3}
COMMITS = {Scale.FULL: 60, Scale.QUICK: 20, Scale.TINY: 3}
COMMITS_PER_HANDLE = 20
"""As the engine does: a handle is the slower the more commits it has made."""


def run_threads(threads: int) -> Callable[[Setting], Figures]:
    """So many threads, each of which writes 7 rows and waits for its acknowledgement, again and again."""

    def run(setting: Setting) -> Figures:
        figures = in_child(
            "acks:by_threads", threads=threads, seconds=SECONDS[setting.scale], warehouse=str(setting.folder)
        )
        check_table(setting.folder / TABLE, ROWS * int(figures["calls"]))
        return {name: figures[name] for name in ("calls_per_s", "p50_ms", "p99_ms", "commits")}

    return run


def run_commit(setting: Setting) -> Figures:
    """`write_log_rows` and a bare commit by turns, in one process, on two new tables."""
    count = COMMITS[setting.scale]
    figures = in_child("acks:beside_a_bare_commit", count=count, folder=str(setting.folder))
    for table in (setting.folder / TABLE, setting.folder / "bare"):
        found = count_rows(table)
        expect(found == ROWS * (count + 1), f"{table.name} has {found} rows, {ROWS * (count + 1)} were written")
    return {name: figures[name] for name in ("write_log_rows_p50_ms", "bare_p50_ms", "ratio")}


# ---------------------------------------------------------------- in the child


def by_threads(threads: int, seconds: float, warehouse: str) -> Figures:
    """Write from so many threads for so many seconds. One call before counts as warm-up."""
    from sfwriter import LogWriter, WriterConfig

    with LogWriter(config=WriterConfig(warehouse=warehouse)) as writer:
        return measure_calls(writer.write_log_rows, threads, seconds)


def measure_calls(write: Callable[[list[dict[str, Any]]], Any], threads: int, seconds: float) -> Figures:
    """Calls a second and their latency; `calls` counts the warm-up, too."""
    first = write(distinct_rows(threads, 0))
    latencies: list[list[float]] = [[] for _ in range(threads)]
    versions = {first["version"]}
    gate = threading.Barrier(threads + 1)
    stop = threading.Event()
    errors: list[BaseException] = []

    def work(number: int) -> None:
        gate.wait()
        call = 0
        try:
            while not stop.is_set():
                rows = distinct_rows(number, call)
                began = time.perf_counter()
                versions.add(write(rows)["version"])
                latencies[number].append(time.perf_counter() - began)
                call += 1
        except BaseException as error:  # noqa: BLE001  told by the main thread
            errors.append(error)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    gate.wait()
    began = time.perf_counter()
    stop.wait(seconds)
    stop.set()
    for worker in workers:
        worker.join()
    took = time.perf_counter() - began
    if errors:
        raise errors[0]
    every = sorted(latency for own in latencies for latency in own)
    return {
        "calls": float(len(every) + 1),
        "calls_per_s": len(every) / took,
        "p50_ms": every[len(every) // 2] * 1000,
        "p99_ms": every[min(len(every) - 1, int(len(every) * 0.99))] * 1000,
        "commits": float(len(versions)),
    }


def distinct_rows(thread: int, call: int) -> list[dict[str, Any]]:
    """The seven rows of a small run; no other call has the same."""
    run = f"run-{thread}-{call}"
    return [
        {
            "run_id": run, "execution_id": run, "pipeline_id": f"pipeline_{thread}", "phase": "silver",
            "step_name": f"step_{step}", "duration_secs": 1.5, "rows_processed": 1000 * step, "validation_rate": 99.5,
            "success": True, "metadata": {"attempt": 1},
        }
        for step in range(ROWS)
    ]  # fmt: skip


def beside_a_bare_commit(count: int, folder: str) -> Figures:
    """Time both by turns; one call of each before is warm-up."""
    from sfwriter import LogWriter, WriterConfig

    ours: list[float] = []
    bare: list[float] = []
    commit = BareCommits(Path(folder) / "bare")
    with LogWriter(config=WriterConfig(warehouse=folder)) as writer:
        for turn in range(count + 1):
            rows = distinct_rows(0, turn)
            began = time.perf_counter()
            writer.write_log_rows(rows)
            ours.append(time.perf_counter() - began)
            arrow = commit.arrow_of(rows)
            began = time.perf_counter()
            commit.write(arrow)
            bare.append(time.perf_counter() - began)
            commit.reopen_now_and_then(turn)
    p50, bare_p50 = statistics.median(ours[1:]) * 1000, statistics.median(bare[1:]) * 1000
    return {"write_log_rows_p50_ms": p50, "bare_p50_ms": bare_p50, "ratio": p50 / bare_p50}


class BareCommits:
    """The least that makes 7 rows durable with delta-rs: one Parquet file, one transaction, four fsyncs.

    The rows come as Arrow, and the handle is opened anew every 20 commits outside of the measured time.
    """

    def __init__(self, folder: Path) -> None:
        """Create a table with the columns and options of ours."""
        from deltalake import DeltaTable, Schema

        from sfwriter import WriterConfig
        from sfwriter.runtime.blueprint import log_table_spec
        from sfwriter.storage.staging import parquet_options

        self._folder = folder
        spec = log_table_spec(WriterConfig())
        self._schema = spec.schema
        self._options = parquet_options(spec, spec.schema)
        DeltaTable.create(str(folder), Schema.from_arrow(spec.schema))
        self._table = DeltaTable(str(folder))

    def arrow_of(self, rows: list[dict[str, Any]]) -> Any:
        """The rows in the table's columns."""
        import pyarrow as pa

        return pa.Table.from_pylist(
            [{**row, "metadata": json.dumps(row["metadata"])} for row in rows], schema=self._schema
        )

    def write(self, rows: Any) -> None:
        """Write, fsync, commit, fsync."""
        import pyarrow.parquet as pq
        from deltalake import CommitProperties, PostCommitHookProperties, Transaction
        from deltalake.transaction import AddAction

        table = self._table
        name = f"part-{uuid.uuid4()}.parquet"
        path = self._folder / name
        pq.write_table(rows, path, **self._options)
        _fsync(path)
        _fsync(self._folder)
        table.update_incremental()
        version = table.version() + 1
        statistics_text = json.dumps({"numRecords": rows.num_rows})
        table.create_write_transaction(
            [AddAction(name, path.stat().st_size, {}, int(time.time() * 1000), True, statistics_text)],
            "append",
            table.schema(),
            commit_properties=CommitProperties(app_transactions=[Transaction("bare", version)]),
            post_commithook_properties=PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False),
        )
        _fsync(self._folder / "_delta_log" / f"{version:020}.json")
        _fsync(self._folder / "_delta_log")

    def reopen_now_and_then(self, turn: int) -> None:
        """Keep the handle as fast as a new one."""
        from deltalake import DeltaTable

        if turn % COMMITS_PER_HANDLE == COMMITS_PER_HANDLE - 1:
            self._table.update_incremental()
            self._table.create_checkpoint()
            self._table = DeltaTable(str(self._folder))


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


THREADS = Case(
    "acks",
    "calls of 7 rows in process, each waits for its acknowledgement: 1, 8 and 64 threads",
    tuple(Peer(f"{threads} threads", run_threads(threads)) for threads in (1, 8, 64)),
    (
        Verdict("8 threads / 1 thread", ("8 threads", "calls_per_s"), ("1 threads", "calls_per_s")),
        Verdict("64 threads / 1 thread", ("64 threads", "calls_per_s"), ("1 threads", "calls_per_s")),
    ),
)

COMMIT = Case(
    "commit",
    "one write_log_rows of 7 rows, beside a bare delta-rs commit with the same fsyncs",
    (Peer("by turns", run_commit),),
    (Verdict("write_log_rows / bare commit", ("by turns", "ratio"), how="value", target=1.5, at_least=False),),
)
