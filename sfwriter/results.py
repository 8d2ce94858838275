"""The dicts that calls answer with. MB are 2**20 bytes, durations seconds, rates percent, times UTC."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, TypedDict


class _Optional(TypedDict, total=False):
    tables: dict[str, TablePart]


class TablePart(TypedDict):
    """What a call put into one of several tables; no version where an earlier call had brought the rows."""

    rows: int
    version: int | None


class WriteResult(_Optional):
    """What every write call answers.

    `table_fqn` and `version` are None, and `tables` is there, where the rows of one call went to
    several tables. Without rows nothing is committed: `version` and `batch_id` are None then.
    `quality_results` and `anomalies` are None where the config does not ask for them.
    """

    success: bool
    rows_written: int
    run_id: str
    batch_id: str | None
    table_fqn: str | None
    version: int | None
    duration_secs: float
    quarantined_rows: int
    quality_results: QualityResult | None
    anomalies: AnomalyResult | None
    already_written: bool


class BatchesResult(TypedDict):
    """What `write_batches` answers.

    `already_written` counts batches that were there before; `versions` is the first and the last one of
    this call, None where nothing was committed.
    """

    success: bool
    batches: int
    rows_written: int
    already_written: int
    quarantined_rows: int
    versions: tuple[int, int] | None
    duration_secs: float


class FailedExecution(TypedDict):
    """One execution that was not written: its position, and why."""

    index: int
    error: str


class ExecutionBatchResult(TypedDict):
    """What `write_execution_result_batch` answers."""

    total_executions: int
    successful_writes: int
    failed_writes: int
    rows_written: int
    failed_executions: list[FailedExecution]
    batch_duration_secs: float


class QuarantinedRow(TypedDict):
    """One row that was set aside: as it was given, and every reason."""

    row: dict[str, Any]
    reasons: list[str]
    quarantine_id: str
    quarantined_at: datetime


class ReplayResult(TypedDict):
    """What `replay_quarantine` answers, in rows."""

    replayed: int
    still_invalid: int
    already_replayed: int


class TableInfo(TypedDict):
    """What `get_table_info` answers. `schema` is column to type; `version` and `last_modified` None without a table.

    `engine_road`: `in_place` where staged files are committed as they are, `dataframe` where Spark writes the rows;
    `engine_road_reason` says why.
    """

    exists: bool
    row_count: int
    columns: list[str]
    schema: dict[str, str]
    table_fqn: str
    location: str
    version: int | None
    num_files: int
    size_mb: float
    partition_columns: list[str]
    last_modified: datetime | None
    engine: str
    engine_road: str
    engine_road_reason: str
    idempotency_retention_days: float | None


class TakeOverResult(TypedDict):
    """What `take_over` did, or with `dry_run` would do.

    `columns_added` and `narrower_columns` are column to type; `other_columns` stay and are null in new rows.
    `changed` is whether the table was changed; `open_with` the options of `WriterConfig` that open it, None where
    the embedded engine has none for its place.
    """

    table_fqn: str
    location: str
    dry_run: bool
    changed: bool
    version: int
    row_count: int
    columns_added: dict[str, str]
    narrower_columns: dict[str, str]
    other_columns: list[str]
    notes: list[str]
    open_with: dict[str, str] | None


class WriterMetricsResult(TypedDict):
    """What `get_metrics` answers. A refused call is a failed write."""

    total_writes: int
    successful_writes: int
    failed_writes: int
    success_rate_percent: float
    total_rows_written: int
    total_duration_secs: float
    average_duration_secs: float
    average_validation_rate: float
    memory_usage_peak_mb: float
    retries: int
    quarantined_rows: int
    latency_p50_secs: float
    latency_p95_secs: float
    latency_p99_secs: float


class MemoryUsage(TypedDict):
    """What `get_memory_usage` answers; `percent` and `total_mb` are of what the process may use."""

    rss_mb: float
    vms_mb: float
    percent: float
    available_mb: float
    total_mb: float
    budget_mb: float
    in_flight_mb: float


class QualityIssue(TypedDict):
    """One rule that rows broke."""

    rule: str
    column: str
    failed_rows: int
    sample: list[dict[str, Any]]


class QualityResult(TypedDict):
    """What `validate_log_data_quality` answers."""

    quality_passed: bool
    validation_rate: float
    threshold_met: bool
    total_rows: int
    valid_rows: int
    invalid_rows: int
    validation_rules_applied: list[str]
    issues: list[QualityIssue]


class Anomaly(TypedDict):
    """One row, or one missing step, that is unlike its history."""

    type: Literal["duration", "rows_processed", "validation_rate", "failure_streak", "missing_step"]
    description: str
    severity: str
    value: float | None
    expected: float | None
    threshold: float | None
    run_id: str | None
    pipeline_id: str | None
    step_name: str | None


class AnomalyResult(TypedDict):
    """What `detect_anomalies` answers.

    `history_too_short` has a dict (`pipeline_id`, `step_name`, `run_mode`, `earlier_runs`) for each step that
    could not be judged.
    """

    anomalies_detected: bool
    anomaly_count: int
    anomalies: list[Anomaly]
    history_too_short: list[dict[str, Any]]


class OptimizeResult(TypedDict):
    """What `optimize_table` answers; `reason` says why nothing was done."""

    optimized: bool
    optimizations_applied: list[str]
    optimization_duration_secs: float
    metrics: dict[str, Any]
    reason: str | None


class MaintainResult(TypedDict):
    """What `maintain_table` answers; `results` is operation to its figures."""

    maintained: bool
    maintenance_operations: list[str]
    maintenance_duration_secs: float
    results: dict[str, Any]


class HistoryVersion(TypedDict):
    """One version of a table."""

    version: int
    timestamp: datetime | None
    operation: str
    row_count: int | None
    size_mb: float | None
    user_metadata: dict[str, Any]


class HistoryResult(TypedDict):
    """What `get_table_history` answers, the latest version first."""

    history_available: bool
    table_fqn: str
    total_versions: int
    versions: list[HistoryVersion]


class SummaryReport(TypedDict):
    """What `generate_summary_report` answers. An execution is a row; runs are counted apart."""

    report_available: bool
    total_executions: int
    success_rate_percent: float | None
    average_duration_secs: float | None
    total_rows_processed: int
    total_rows_written: int
    phase_distribution: dict[str, int]
    total_runs: int
    run_success_rate_percent: float | None
    slowest_steps: list[dict[str, Any]]
    most_failing_steps: list[dict[str, Any]]


class DurationTrend(TypedDict):
    """Durations of the steps that ran; None without any."""

    mean: float | None
    stddev: float | None
    min: float | None
    max: float | None
    p50: float | None
    p95: float | None
    slope_per_day: float | None


class SuccessTrend(TypedDict):
    """How often steps succeeded."""

    success_rate_percent: float | None
    total_executions: int


class ValidationTrend(TypedDict):
    """Validation rates of the steps that had one."""

    mean: float | None
    stddev: float | None


class TrendsResult(TypedDict):
    """What `analyze_performance_trends` answers; `daily` has a dict with `date` for each day."""

    trends_available: bool
    duration_trend: DurationTrend
    success_trend: SuccessTrend
    validation_trend: ValidationTrend
    daily: list[dict[str, Any]]


class ExportResult(TypedDict):
    """What `export_analytics_data` answers."""

    export_successful: bool
    records_exported: int
    export_size_mb: float
    export_path: str
    format: str
