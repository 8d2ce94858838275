"""Reports and exports of a large table, beside DuckDB asked by hand over the same files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.case import Case, Figures, Peer, Scale, Setting, Verdict, expect
from benchmarks.cases.backfill import Stopwatch, with_sfwriter
from benchmarks.cases.data import make_sources, rows_for
from benchmarks.child import in_child

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

DAYS = 36_500

_SUMMARY = """
    SELECT count(*), count(*) FILTER (success), avg(duration_secs), sum(rows_processed), sum(rows_written),
           count(DISTINCT run_id), count(DISTINCT run_id) FILTER (NOT success)
    FROM read_parquet($files)
"""
_STEPS = """
    SELECT phase, pipeline_id, step_name, count(*), count(*) FILTER (success), avg(duration_secs), max(duration_secs)
    FROM read_parquet($files) GROUP BY ALL
"""
_TRENDS = """
    SELECT avg(duration_secs), stddev_samp(duration_secs), min(duration_secs), max(duration_secs),
           quantile_cont(duration_secs, [0.5, 0.95]), regr_slope(duration_secs, epoch(start_time) / 86400.0),
           count(*) FILTER (success), count(*), avg(validation_rate), stddev_samp(validation_rate)
    FROM read_parquet($files) GROUP BY GROUPING SETS ((), (start_time::DATE))
"""


def prepare(folder: Path, scale: Scale) -> Mapping[str, Any]:
    """A table of 10 million rows, written by a backfill."""
    given = make_sources(folder, rows_for(scale, full=10_000_000, quick=1_000_000, tiny=20_000))
    warehouse = str(folder / "warehouse")
    with_sfwriter(given["sources"], warehouse)
    return {**given, "warehouse": warehouse}


def run_reports(setting: Setting) -> Figures:
    """Both reports of the library."""
    figures = in_child("questions:reports", warehouse=setting.given["warehouse"])
    expect(figures["rows"] == setting.given["rows"], f"the reports saw {figures['rows']:,.0f} rows")
    return figures


def run_by_hand(setting: Setting) -> Figures:
    """The same figures by three queries."""
    figures = in_child("questions:by_hand", warehouse=setting.given["warehouse"])
    expect(figures["rows"] == setting.given["rows"], f"DuckDB saw {figures['rows']:,.0f} rows")
    return figures


def run_export(setting: Setting) -> Figures:
    """All rows as Parquet, newest first."""
    figures = in_child(
        "questions:export", warehouse=setting.given["warehouse"], path=str(setting.folder / "all.parquet")
    )
    expect(figures["rows"] == setting.given["rows"], f"the export has {figures['rows']:,.0f} rows")
    return figures


def run_copy(setting: Setting) -> Figures:
    """DuckDB's COPY of the same rows in the same order, within the same memory."""
    figures = in_child("questions:copy", warehouse=setting.given["warehouse"], path=str(setting.folder / "all.parquet"))
    expect(figures["rows"] == setting.given["rows"], f"DuckDB copied {figures['rows']:,.0f} rows")
    return figures


# ---------------------------------------------------------------- in the child


def reports(warehouse: str) -> Figures:
    """Summary and trends."""
    from sfwriter import LogWriter, WriterConfig

    with LogWriter(config=WriterConfig(warehouse=warehouse)) as writer:
        watch = Stopwatch()
        summary = writer.generate_summary_report(DAYS)
        trends = writer.analyze_performance_trends(DAYS)
        figures = watch.read()
    expect(trends["success_trend"]["total_executions"] == summary["total_executions"], "the reports disagree")
    return {**figures, "rows": float(summary["total_executions"])}


def by_hand(warehouse: str) -> Figures:
    """The queries that somebody would write for it, over the live files."""
    import duckdb

    files = _live_files(warehouse)
    watch = Stopwatch()
    (found,) = duckdb.execute(_SUMMARY, {"files": files}).fetchall()
    duckdb.execute(_STEPS, {"files": files}).fetchall()
    duckdb.execute(_TRENDS, {"files": files}).fetchall()
    return {**watch.read(), "rows": float(found[0])}


def export(warehouse: str, path: str) -> Figures:
    """The library's export."""
    from sfwriter import LogWriter, WriterConfig

    with LogWriter(config=WriterConfig(warehouse=warehouse)) as writer:
        watch = Stopwatch()
        result = writer.export_analytics_data("parquet", None, path=path)
        return {**watch.read(), "rows": float(result["records_exported"])}


def copy(warehouse: str, path: str) -> Figures:
    """DuckDB's own."""
    import duckdb

    from sfwriter.runtime.query import MEMORY

    files = _live_files(warehouse)
    connection = duckdb.connect(config={"memory_limit": MEMORY, "temp_directory": f"{path}.tmp"})
    watch = Stopwatch()
    (found,) = connection.execute(
        f"COPY (SELECT * FROM read_parquet($files) ORDER BY logged_at DESC, start_time DESC) TO '{path}'"
        " (FORMAT parquet, COMPRESSION zstd)",
        {"files": files},
    ).fetchall()
    return {**watch.read(), "rows": float(found[0])}


def _live_files(warehouse: str) -> list[str]:
    from deltalake import DeltaTable

    from benchmarks.cases.data import TABLE

    return [uri.removeprefix("file://") for uri in DeltaTable(f"{warehouse}/{TABLE}").file_uris()]


REPORTS = Case(
    "reports",
    "summary report and trends of 10 million rows, beside queries written by hand for DuckDB",
    (Peer("sfwriter", run_reports), Peer("duckdb", run_by_hand)),
    (
        Verdict("time, sfwriter / duckdb", ("sfwriter", "secs"), ("duckdb", "secs"), target=1.5, at_least=False),
        Verdict(
            "peak memory", ("sfwriter", "peak_bytes"), how="value", target=1024, at_least=False, unit="MiB",
            scale=1 / 2**20,
        ),
    ),
    prepare,
)  # fmt: skip
EXPORT = Case(
    "export",
    "export of 10 million rows to Parquet, newest first, beside DuckDB's COPY within the same memory",
    (Peer("sfwriter", run_export), Peer("duckdb", run_copy)),
    (
        Verdict("speed, sfwriter / duckdb", ("duckdb", "secs"), ("sfwriter", "secs"), target=0.5),
        Verdict("peak memory", ("sfwriter", "peak_bytes"), how="value", unit="MiB", scale=1 / 2**20),
    ),
    prepare,
    rounds=1,
)
