"""What happened in the last days: `generate_summary_report`.

An execution is a row; a run is all rows of one `run_id`, and succeeds where all of them did. A row whose
`success` is null did not succeed. Averages leave nulls out. `slowest_steps` are ordered by their average
duration, `most_failing_steps` by their failures, both with ties by pipeline and step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sfwriter.runtime.query import figure, rows_since, twice

if TYPE_CHECKING:
    import pyarrow as pa

    from sfwriter.analytics.window import Window
    from sfwriter.results import SummaryReport
    from sfwriter.runtime.query import Log
    from sfwriter.storage.engine import TableReader

TOP = 10
"""Steps in each list."""

UNNAMED = "unknown"
"""Where rows of a foreign writer have no phase."""

_COLUMNS = (
    "run_id", "pipeline_id", "phase", "step_name", "success", "duration_secs", "rows_processed", "rows_written",
)  # fmt: skip

# One pass over the rows, in two groupings; everything else is worked out from the groups.
_GROUPS = """
    CREATE TEMP TABLE groups AS
    SELECT grouping(run_id) AS by_step, phase, pipeline_id, step_name,
           count(run_id) AS named,
           count(*) AS executions,
           count(*) FILTER (success) AS successes,
           count(duration_secs) AS timed,
           sum(duration_secs) AS duration,
           max(duration_secs) AS longest,
           sum(rows_processed) AS processed,
           sum(rows_written) AS written
    FROM log GROUP BY GROUPING SETS ((run_id), (phase, pipeline_id, step_name))
"""
_TOTALS = """
    SELECT coalesce(sum(executions), 0)::BIGINT, 100.0 * sum(successes) / sum(executions),
           sum(duration) / nullif(sum(timed), 0),
           coalesce(sum(processed), 0)::HUGEINT, coalesce(sum(written), 0)::HUGEINT
    FROM groups WHERE by_step = 1
"""
_RUNS = """
    SELECT count(*), 100.0 * count(*) FILTER (successes = executions) / nullif(count(*), 0)
    FROM groups WHERE by_step = 0 AND named > 0
"""
_SPOILED = "SELECT count(*) > 0 FROM groups WHERE by_step = 1 AND NOT isfinite(duration::DOUBLE)"
_PHASES = f"""
    SELECT coalesce(phase, '{UNNAMED}') AS phase, sum(executions)::BIGINT AS count
    FROM groups WHERE by_step = 1 GROUP BY 1 ORDER BY 2 DESC, 1
"""  # noqa: S608  a constant
_STEPS = """
    WITH steps AS (
        SELECT pipeline_id, step_name, sum(executions)::BIGINT AS executions, sum(successes)::BIGINT AS successes,
               sum(timed)::BIGINT AS timed, sum(duration) AS duration, max(longest) AS longest
        FROM groups WHERE by_step = 1 GROUP BY ALL
    )
"""
_SLOWEST = f"""{_STEPS}
    SELECT step_name, pipeline_id, executions AS count, duration / timed AS average_duration_secs,
           longest AS max_duration_secs
    FROM steps WHERE timed > 0 ORDER BY average_duration_secs DESC, pipeline_id, step_name LIMIT {TOP}
"""  # noqa: S608  constants
_FAILING = f"""{_STEPS}
    SELECT step_name, pipeline_id, executions AS count, executions - successes AS failures,
           100.0 * (executions - successes) / executions AS failure_rate_percent
    FROM steps WHERE executions > successes ORDER BY failures DESC, pipeline_id, step_name LIMIT {TOP}
"""  # noqa: S608  constants


def summary_report(table: TableReader, window: Window) -> SummaryReport:
    """The report on the rows of the window; `report_available` is False where there is no table.

    Raises:
        WriterTableError: the table cannot be read.
    """
    return twice(lambda: _report(table, window))


def _report(table: TableReader, window: Window) -> SummaryReport:
    stats = table.stats()
    if stats.schema is None:
        return _NOTHING | {"report_available": False}
    # A look at each number for NaN costs 8 %, and hardly a table has one: only where a sum says so.
    found = _asked(table, window, stats.schema, as_kept=True)
    return found or _asked(table, window, stats.schema, as_kept=False) or _NOTHING


def _asked(table: TableReader, window: Window, schema: pa.Schema, *, as_kept: bool) -> SummaryReport | None:
    """The report; None where a number that is not finite spoils it."""
    with rows_since(table, schema, _COLUMNS, (window.since, window.predicate), as_kept=as_kept) as log:
        log.tuples(_GROUPS)
        if as_kept and log.tuples(_SPOILED)[0][0]:
            return None
        executions, success, average, processed, written = log.tuples(_TOTALS)[0]
        runs, run_success = log.tuples(_RUNS)[0]
        return {
            "report_available": True,
            "total_executions": executions,
            "success_rate_percent": success,
            "average_duration_secs": figure(average),
            "total_rows_processed": int(processed),
            "total_rows_written": int(written),
            "phase_distribution": dict(log.tuples(_PHASES)),
            "total_runs": runs,
            "run_success_rate_percent": run_success,
            "slowest_steps": _dicts(log, _SLOWEST),
            "most_failing_steps": _dicts(log, _FAILING),
        }


def _dicts(log: Log, query: str) -> list[dict[str, Any]]:
    return [{name: figure(value) for name, value in row.items()} for row in log.dicts(query)]


_NOTHING: SummaryReport = {
    "report_available": True,
    "total_executions": 0,
    "success_rate_percent": None,
    "average_duration_secs": None,
    "total_rows_processed": 0,
    "total_rows_written": 0,
    "phase_distribution": {},
    "total_runs": 0,
    "run_success_rate_percent": None,
    "slowest_steps": [],
    "most_failing_steps": [],
}
