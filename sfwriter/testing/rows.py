"""Log rows as pipelines write them, in any number, the same ones for the same seed.

For tests, benchmarks and trials. A run has seven steps (two bronze, three silver, two gold) of one of 40
pipelines; about one step in fifty fails and has a message and no counts of its output.
"""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from sfwriter.schema import LOG_SCHEMA, LOG_STAMPS, TIMESTAMP

if TYPE_CHECKING:
    from collections.abc import Iterator

STEPS = (
    ("bronze", "extract_orders", "extraction"),
    ("bronze", "extract_customers", "extraction"),
    ("silver", "clean_orders", "transformation"),
    ("silver", "clean_customers", "transformation"),
    ("silver", "join_orders_customers", "transformation"),
    ("gold", "daily_revenue", "aggregation"),
    ("gold", "customer_value", "aggregation"),
)
PIPELINES = 40
WORKERS = 200
MESSAGES = (
    "AnalysisException: column `amount` not found",
    "TimeoutError: no answer from the warehouse in 300 s",
    "ValueError: 1,204 rows without a customer",
)
_MOMENTS = ("run_started_at", "run_ended_at", "start_time", "end_time")
_FIRST_RUN_MICROS = int(datetime(2024, 1, 1, tzinfo=timezone.utc).timestamp()) * 1_000_000
_REFERENCE_KEYS = tuple(name for name in LOG_SCHEMA.names[:20])


def log_table(n: int, seed: int = 0, *, first: int = 0) -> pa.Table:
    """Rows `first` to `first + n` of the endless log of a seed, with every column that a row may fill.

    Random numbers begin anew at `first`, so rows depend on where a call
    begins; ids and times do not.
    """
    one = pa.repeat(pa.scalar(1, pa.int64()), n)
    index = pc.add(pc.cumulative_sum(one), first - 1)
    run = pc.divide(index, len(STEPS))
    step = pc.subtract(index, pc.multiply(run, len(STEPS)))
    pipeline = pc.subtract(run, pc.multiply(pc.divide(run, PIPELINES), PIPELINES))
    chance = [pc.random(n, initializer=seed * 1_000_003 + first * 31 + stream) for stream in range(5)]
    success = pc.greater(chance[0], 0.02)

    run_start = pc.add(pc.multiply(run, 60_000_000), _FIRST_RUN_MICROS)
    span = pc.add(pc.multiply(pc.ln(pc.subtract(1.0, chance[1])), -4_000_000.0), 50_000.0)
    start = pc.add(run_start, pc.multiply(step, 8_000_000))
    end = pc.add(start, _whole(span))
    processed = _whole(pc.exp(pc.multiply(chance[2], 14.0)))
    invalid = _whole(pc.multiply(processed.cast(pa.float64()), pc.multiply(chance[3], 0.03)))
    valid = pc.subtract(processed, invalid)
    share = pc.divide(
        pc.multiply(valid.cast(pa.float64()), 100.0), pc.max_element_wise(processed, 1).cast(pa.float64())
    )
    names = pc.binary_join_element_wise(_named("pipeline_", pipeline), _picked(step, 1), "_")
    columns: dict[str, Any] = {
        "run_id": _named(f"run-{seed}-", run),
        "run_mode": pc.if_else(pc.equal(pipeline, 0), "full_refresh", "incremental"),
        "run_started_at": run_start.cast(TIMESTAMP),
        "run_ended_at": pc.add(run_start, 59_000_000 + 200_000_000).cast(TIMESTAMP),
        "execution_id": _named(f"exec-{seed}-", run),
        "pipeline_id": _named("pipeline_", pipeline),
        "schema": pa.repeat("analytics", n),
        "phase": _picked(step, 0),
        "step_name": _picked(step, 1),
        "step_type": _picked(step, 2),
        "start_time": start.cast(TIMESTAMP),
        "end_time": end.cast(TIMESTAMP),
        "duration_secs": pc.divide(pc.subtract(end, start).cast(pa.float64()), 1e6),
        "table_fqn": pc.binary_join_element_wise("analytics.", names, ""),
        "rows_processed": processed,
        "rows_written": pc.if_else(success, valid, 0),
        "validation_rate": share,
        "success": success,
        "error_message": pc.if_else(
            success, None, pa.array(MESSAGES).take(_whole(pc.multiply(chance[4], len(MESSAGES))))
        ),
        "metadata": _metadata(run, processed),
        "write_mode": pa.repeat("append", n),
        "input_rows": processed,
        "output_rows": pc.if_else(success, valid, None),
        "valid_rows": valid,
        "invalid_rows": invalid,
    }
    fields = [field for field in LOG_SCHEMA if field.name not in LOG_STAMPS]
    return pa.table([columns[field.name] for field in fields], schema=pa.schema(fields))


def log_tables(total: int, chunk: int = 100_000, seed: int = 0) -> Iterator[pa.Table]:
    """The first `total` rows of a seed's log, in tables of `chunk` rows: for backfills of any length."""
    for first in range(0, total, chunk):
        yield log_table(min(chunk, total - first), seed, first=first)


def log_rows(n: int, seed: int = 0) -> list[dict[str, Any]]:
    """The same rows as dicts with the 20 keys of the reference's `LogRow`, `metadata` as a dict."""
    rows: list[dict[str, Any]] = log_table(n, seed).select(_REFERENCE_KEYS).to_pylist()
    for row in rows:
        row["metadata"] = json.loads(row["metadata"])
        for name in _MOMENTS:
            row[name] = row[name].replace(tzinfo=timezone.utc)
    return rows


def _whole(numbers: Any) -> Any:
    return pc.floor(numbers).cast(pa.int64())


def _named(prefix: str, numbers: Any) -> Any:
    """Texts of numbers that lie close together: each number of the range is written once."""
    if len(numbers) == 0:
        return pa.array([], pa.string())
    limits = pc.min_max(numbers)
    low, high = limits["min"].as_py(), limits["max"].as_py()
    texts = pa.array([f"{prefix}{number}" for number in range(low, high + 1)])
    return texts.take(pc.subtract(numbers, low))


def _picked(step: Any, part: int) -> Any:
    return pa.array([entry[part] for entry in STEPS]).take(step)


def _metadata(run: Any, processed: Any) -> Any:
    worker = pc.subtract(run, pc.multiply(pc.divide(run, WORKERS), WORKERS))
    attempt = pc.if_else(pc.equal(worker, 7), '"attempt":2', '"attempt":1')
    return pc.binary_join_element_wise(
        "{",
        attempt,
        ',"host":"',
        _named("worker-", worker),
        '","read_bytes":',
        pc.multiply(processed, 93).cast(pa.string()),
        "}",
        "",
    )
