"""Joining small files, beside delta-rs's own `compact` at the same target."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

from benchmarks.case import Case, Figures, Peer, Scale, Setting, Verdict, expect
from benchmarks.cases.backfill import Stopwatch
from benchmarks.cases.data import TABLE, check_table, rows_for
from benchmarks.child import in_child
from sfwriter.testing.rows import log_table

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

ROWS_PER_FILE = 500


def prepare(folder: Path, scale: Scale) -> Mapping[str, Any]:
    """A table of 1,000 small files, of one commit each."""
    from sfwriter import LogWriter, WriterConfig

    files = rows_for(scale, full=1_000, quick=200, tiny=5)
    with LogWriter(config=WriterConfig(warehouse=str(folder), enable_optimization=False)) as writer:
        for number in range(files):
            writer.write_log_rows(log_table(ROWS_PER_FILE, first=number * ROWS_PER_FILE))
    return {"table": str(folder / TABLE), "rows": files * ROWS_PER_FILE}


def run_sfwriter(setting: Setting) -> Figures:
    """`optimize_table`."""
    return _run(setting, "care:with_sfwriter")


def run_delta_rs(setting: Setting) -> Figures:
    """`compact` with its defaults and the same target."""
    return _run(setting, "care:with_delta_rs")


def _run(setting: Setting, name: str) -> Figures:
    shutil.copytree(setting.given["table"], setting.folder / TABLE)
    figures = in_child(name, warehouse=str(setting.folder))
    check_table(setting.folder / TABLE, setting.given["rows"])
    expect(figures["files"] <= 2, f"{figures['files']:.0f} files are left")
    return figures


# ---------------------------------------------------------------- in the child


def with_sfwriter(warehouse: str) -> Figures:
    """The library's call, plan and flushing included."""
    from sfwriter import LogWriter, WriterConfig

    with LogWriter(config=WriterConfig(warehouse=warehouse)) as writer:
        watch = Stopwatch()
        result = writer.optimize_table(enable_partitioning=True)
        return {**watch.read(), "files": float(result["metrics"]["files_after"])}


def with_delta_rs(warehouse: str) -> Figures:
    """The library below."""
    from deltalake import DeltaTable

    table = DeltaTable(f"{warehouse}/{TABLE}")
    watch = Stopwatch()
    table.optimize.compact(target_size=128 << 20)
    return {**watch.read(), "files": float(len(table.file_uris()))}


CASE = Case(
    "compaction",
    "1,000 small files joined, beside delta-rs's own compact at the same target",
    (Peer("sfwriter", run_sfwriter), Peer("delta_rs", run_delta_rs)),
    (
        Verdict("time, sfwriter / delta_rs", ("sfwriter", "secs"), ("delta_rs", "secs"), target=1.2, at_least=False),
        Verdict(
            "peak memory, sfwriter / delta_rs", ("sfwriter", "peak_bytes"), ("delta_rs", "peak_bytes"), target=1.0,
            at_least=False,
        ),
    ),
    prepare,
)  # fmt: skip
