"""How it develops: `analyze_performance_trends`.

`stddev` is that of a sample (n - 1), None for fewer than two values; `p50` and `p95` are exact, between two
values in proportion; `slope_per_day` is the least-squares slope of the duration over the row's time. Days are
UTC's. A row whose `success` is null did not succeed.
"""

from __future__ import annotations

from datetime import date
from math import isfinite
from typing import TYPE_CHECKING, Any

from sfwriter.ingest.values import EPOCH, MICROSECOND
from sfwriter.runtime.query import TIMES, figure, rows_since, twice

if TYPE_CHECKING:
    import pyarrow as pa

    from sfwriter.analytics.window import Window
    from sfwriter.results import TrendsResult
    from sfwriter.storage.engine import TableReader

_COLUMNS = (*TIMES, "success", "duration_secs", "validation_rate", "rows_processed", "rows_written")

_YEAR_1_US = 62_135_596_800_000_000
"""From the first day of year 1, which `date` counts from, to 1970."""

# One pass: the whole window and each of its days. In whole numbers: days as texts, and differences of times, took two
# thirds of the query's time.
_QUERY = f"""
    SELECT day,
           count(*) AS executions,
           100.0 * count(*) FILTER (success) / count(*) AS success_rate_percent,
           avg(duration_secs) AS mean,
           stddev_samp(duration_secs) AS stddev,
           min(duration_secs) AS least,
           max(duration_secs) AS most,
           quantile_cont(duration_secs, [0.5, 0.95]) FILTER (duration_secs IS NOT NULL) AS quantiles,
           regr_slope(duration_secs, days) AS slope,
           avg(validation_rate) AS validation_mean,
           stddev_samp(validation_rate) AS validation_stddev,
           coalesce(sum(rows_processed), 0)::HUGEINT AS processed,
           coalesce(sum(rows_written), 0)::HUGEINT AS written,
           grouping(day) AS whole
    FROM (
        SELECT *, (micros + {_YEAR_1_US}) // 86_400_000_000 + 1 AS day, (micros - $1) / 86_400e6 AS days
        FROM (SELECT *, epoch_us(coalesce({", ".join(TIMES)})) AS micros FROM log)
    )
    GROUP BY GROUPING SETS ((), (day)) ORDER BY whole DESC, day
"""  # noqa: S608  names of columns


def performance_trends(table: TableReader, window: Window) -> TrendsResult:
    """The trends of the window's rows; `trends_available` is False where there is no table.

    Raises:
        WriterTableError: the table cannot be read.
    """
    return twice(lambda: _trends(table, window))


def _trends(table: TableReader, window: Window) -> TrendsResult:
    stats = table.stats()
    if stats.schema is None:
        return _of(None, [], available=False)
    rows = _asked(table, window, stats.schema, as_kept=True)
    if any(_is_spoiled(row) for row in rows):
        rows = _asked(table, window, stats.schema, as_kept=False)
    rows = [{name: figure(value) for name, value in row.items()} for row in rows]
    whole = next((row for row in rows if row["whole"] and row["executions"]), None)
    return _of(whole, [row for row in rows if not row["whole"]], available=True)


def _asked(table: TableReader, window: Window, schema: pa.Schema, *, as_kept: bool) -> list[dict[str, Any]]:
    with rows_since(table, schema, _COLUMNS, (window.since, window.predicate), as_kept=as_kept) as log:
        return log.dicts(_QUERY, [(window.since - EPOCH) // MICROSECOND])


def _is_spoiled(row: dict[str, Any]) -> bool:
    """Whether NaN or infinity is among the numbers: nothing else makes such a mean."""
    return any(isinstance(row[name], float) and not isfinite(row[name]) for name in ("mean", "validation_mean"))


def _of(whole: dict[str, Any] | None, days: list[dict[str, Any]], *, available: bool) -> TrendsResult:
    row: dict[str, Any] = whole or {}
    half, most = row.get("quantiles") or (None, None)
    return {
        "trends_available": available,
        "duration_trend": {
            "mean": row.get("mean"),
            "stddev": row.get("stddev"),
            "min": row.get("least"),
            "max": row.get("most"),
            "p50": half,
            "p95": most,
            "slope_per_day": row.get("slope"),
        },
        "success_trend": {
            "success_rate_percent": row.get("success_rate_percent"),
            "total_executions": row.get("executions", 0),
        },
        "validation_trend": {"mean": row.get("validation_mean"), "stddev": row.get("validation_stddev")},
        "daily": [_day(day) for day in days],
    }


def _day(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "date": date.fromordinal(row["day"]).isoformat(),
        "total_executions": row["executions"],
        "success_rate_percent": row["success_rate_percent"],
        "average_duration_secs": row["mean"],
        "p50_duration_secs": (row["quantiles"] or (None,))[0],
        "average_validation_rate": row["validation_mean"],
        "rows_processed": int(row["processed"]),
        "rows_written": int(row["written"]),
    }
