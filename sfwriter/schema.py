"""The columns of the log table and of the tables beside it.

Types are Arrow's. Integers and floats have 64 bits, timestamps are UTC microseconds, `metadata` is a
JSON text. Every column is nullable in the table: what a row must have is the gate's business, and
tables that other writers made stay writable.
"""

from __future__ import annotations

import pyarrow as pa

TIMESTAMP = pa.timestamp("us", "UTC")

LOG_SCHEMA = pa.schema(
    [
        ("run_id", pa.string()),
        ("run_mode", pa.string()),
        ("run_started_at", TIMESTAMP),
        ("run_ended_at", TIMESTAMP),
        ("execution_id", pa.string()),
        ("pipeline_id", pa.string()),
        ("schema", pa.string()),
        ("phase", pa.string()),
        ("step_name", pa.string()),
        ("step_type", pa.string()),
        ("start_time", TIMESTAMP),
        ("end_time", TIMESTAMP),
        ("duration_secs", pa.float64()),
        ("table_fqn", pa.string()),
        ("rows_processed", pa.int64()),
        ("rows_written", pa.int64()),
        ("validation_rate", pa.float64()),
        ("success", pa.bool_()),
        ("error_message", pa.string()),
        ("metadata", pa.string()),
        ("write_mode", pa.string()),
        ("input_rows", pa.int64()),
        ("output_rows", pa.int64()),
        ("valid_rows", pa.int64()),
        ("invalid_rows", pa.int64()),
        ("logged_at", TIMESTAMP),
    ]
)
"""The 20 columns of `LogRow`, the five of `contract.md`, and `logged_at`, in the table's order."""

LOG_STAMPS = {"logged_at": "time"}
"""Columns that staging fills, and with what: see `sfwriter.storage.engine.TableSpec.stamps`."""

QUARANTINE_SCHEMA = pa.schema(
    [
        ("quarantine_id", pa.string()),
        ("row", pa.string()),
        ("reasons", pa.list_(pa.string())),
        ("run_id", pa.string()),
        ("producer_id", pa.string()),
        ("batch_id", pa.string()),
        ("quarantined_at", TIMESTAMP),
    ]
)
"""One row for each row that the gate set aside: the original as JSON, and every reason."""

QUARANTINE_STAMPS = {"producer_id": "producer", "batch_id": "batch", "quarantined_at": "time"}

QUALITY_SCHEMA = pa.schema(
    [
        ("run_id", pa.string()),
        ("quality_passed", pa.bool_()),
        ("validation_rate", pa.float64()),
        ("threshold_met", pa.bool_()),
        ("total_rows", pa.int64()),
        ("valid_rows", pa.int64()),
        ("invalid_rows", pa.int64()),
        ("min_validation_rate", pa.float64()),
        ("max_invalid_rows_percent", pa.float64()),
        ("validation_rules_applied", pa.list_(pa.string())),
        ("issues", pa.string()),
        ("producer_id", pa.string()),
        ("batch_id", pa.string()),
        ("checked_at", TIMESTAMP),
    ]
)
"""One row for each batch: its quality result, with `issues` as JSON, and what it was held against."""

QUALITY_STAMPS = {"producer_id": "producer", "batch_id": "batch", "checked_at": "time"}

LOW_CARDINALITY = (
    "run_id", "run_mode", "execution_id", "pipeline_id", "schema", "phase", "step_name", "step_type",
    "table_fqn", "write_mode", "error_message", "producer_id", "batch_id",
)  # fmt: skip
"""Text columns that repeat within a file: dictionary encoding pays for them."""

STATISTICS_COLUMNS = (
    "run_id", "pipeline_id", "phase", "step_name", "start_time", "run_started_at", "success", "logged_at",
)  # fmt: skip
"""Columns whose minimum and maximum go into the Delta log: what people filter by.

Few on purpose: with 5,000 active files a commit costs 74 ms where statistics cover 27 columns and
15 ms where they cover 4.
"""
