"""From a configuration to what it asks to be built: tables, limits, engine."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sfwriter.exceptions import WriterTableError
from sfwriter.flow.limits import FlowLimits, RetryPolicy
from sfwriter.limits import usable_memory_bytes
from sfwriter.naming import split_name
from sfwriter.schema import (
    LOG_SCHEMA,
    LOG_STAMPS,
    LOW_CARDINALITY,
    QUALITY_SCHEMA,
    QUALITY_STAMPS,
    QUARANTINE_SCHEMA,
    QUARANTINE_STAMPS,
    STATISTICS_COLUMNS,
)
from sfwriter.storage.engine import TableSpec

if TYPE_CHECKING:
    import pyarrow as pa

    from sfwriter.config import WriterConfig
    from sfwriter.storage.engine import TableStats

MIB = 2**20
RETENTION_PROPERTY = "delta.setTransactionRetentionDuration"
_UNIT_DAYS = {"week": 7.0, "day": 1.0, "hour": 1 / 24, "minute": 1 / 1440, "second": 1 / 86_400}

DELTA_STATISTICS_COLUMNS = 32
"""`delta.dataSkippingNumIndexedCols` by default."""

JOBS_PER_SLOT = 2
"""A job that is staged while the next one is collected, for each thread: what the budget must have room for."""


def warehouse_url(config: WriterConfig) -> str:
    """The warehouse as an absolute path or an object-store URL, without a slash at its end.

    Raises:
        WriterTableError: it begins with the home of nobody, or in a current folder that is gone.
    """
    warehouse = str(config.warehouse)
    if "://" in warehouse:
        return warehouse.rstrip("/")
    try:
        return str(Path(warehouse).expanduser().absolute())
    except (OSError, RuntimeError) as error:
        raise WriterTableError(
            f"The warehouse {warehouse!r} leads nowhere: {error}",
            context={"warehouse": warehouse},
            suggestions=["Give the warehouse as an absolute path."],
        ) from error


def log_table_spec(config: WriterConfig) -> TableSpec:
    """The log table."""
    return _spec(config, config.table_name, LOG_SCHEMA, LOG_STAMPS, tuple(config.partition_columns))


def quarantine_table_spec(config: WriterConfig) -> TableSpec:
    """The table of the rows that the gate set aside, beside the log table."""
    return _spec(config, config.quarantine_table_name, QUARANTINE_SCHEMA, QUARANTINE_STAMPS, ())


def quality_table_spec(config: WriterConfig) -> TableSpec:
    """The table of the batches' quality results, beside the log table."""
    return _spec(config, config.quality_table_name, QUALITY_SCHEMA, QUALITY_STAMPS, ())


def further_table_spec(config: WriterConfig, table_fqn: str) -> TableSpec:
    """Any other table that batches have rows for: the one of quality results, or one that the patterns name.

    Raises:
        WriterValidationError: it is no legal name.
    """
    quality = quality_table_spec(config)
    if table_fqn == quality.name:
        return quality
    schema, name = split_name(table_fqn)
    return replace(log_table_spec(config), name=table_fqn, location=f"{warehouse_url(config)}/{schema}/{name}")


def flow_limits(config: WriterConfig, *, slots: int | None = None) -> FlowLimits:
    """The bounds that the configuration and this process's memory give.

    Args:
        config: the options.
        slots: staging jobs at once, if not `parallel_write_threads`.
    """
    budget = max(1, int(config.memory_fraction * usable_memory_bytes()))
    threads = slots or config.parallel_write_threads
    # Of a budget that is small for the options a job takes its share, so that every thread can work.
    share = budget // (2 * JOBS_PER_SLOT * threads)
    return FlowLimits(
        budget_bytes=budget,
        stage_slots=threads,
        max_job_bytes=max(1, min(int(config.max_batch_mb * MIB), share)),
        linger_s=config.linger_ms / 1000,
        retry=RetryPolicy(
            max_retries=0 if config.fail_fast else config.max_retries,
            delay_s=config.retry_delay_secs,
            exponential=config.retry_exponential_backoff,
        ),
    )


def retention_days(stats: TableStats, config: WriterConfig) -> float | None:
    """Days that the table remembers producers that expire: its own property, or what it will be made with.

    None: for ever.
    """
    if not stats.exists:
        return float(config.idempotency_retention_days)
    found = re.fullmatch(r"interval (\d+) (\w+?)s?", stats.properties.get(RETENTION_PROPERTY, ""))
    # Without the property, or with one that this does not read, Delta forgets no producer.
    days = _UNIT_DAYS.get(found[2]) if found else None
    return None if found is None or days is None else int(found[1]) * days


def _spec(
    config: WriterConfig, name: str, schema: pa.Schema, stamps: dict[str, str], partition_columns: tuple[str, ...]
) -> TableSpec:
    # Without the choice: Delta's own default (statistics of the first 32 columns), and Parquet's (all text encoded).
    chosen = config.auto_optimize_schema
    counted = STATISTICS_COLUMNS if chosen else schema.names[:DELTA_STATISTICS_COLUMNS]
    encoded = LOW_CARDINALITY if chosen else [entry.name for entry in schema if entry.type == "string"]
    return TableSpec(
        name=f"{config.table_schema}.{name}",
        location=f"{warehouse_url(config)}/{config.table_schema}/{name}",
        schema=schema,
        partition_columns=partition_columns,
        stamps=stamps,
        statistics_columns=tuple(c for c in counted if c in schema.names),
        dictionary_columns=tuple(c for c in encoded if c in schema.names),
        compression=config.compression,
        max_file_bytes=int(config.max_file_size_mb * MIB),
        spread_files=config.partition_count or 1,
        spread_from_rows=config.batch_size,
        fsync=config.durability == "fsync",
        storage_options=config.storage_options,
        producer_retention_days=config.idempotency_retention_days,
    )
