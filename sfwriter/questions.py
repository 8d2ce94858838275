"""What a writer is asked, and the care that it takes of its table: every call that writes no row.

Receives: the calls of users, on any thread.
Produces: result dicts.
Guarantees: readers take turns on the table's handle; none of them waits for a write.
Never does: work anything out: that is `analytics`, `maintenance` and `report`.
"""

from __future__ import annotations

import os
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from sfwriter.analytics.export import Export, export_rows, make_folder
from sfwriter.analytics.summary import summary_report
from sfwriter.analytics.trends import performance_trends
from sfwriter.analytics.window import Window
from sfwriter.exceptions import WriterError, WriterValidationError
from sfwriter.ingest.jsontext import parse_row
from sfwriter.limits import process_memory, usable_memory_bytes
from sfwriter.metrics import MIB
from sfwriter.report.newest import newest_rows, show_rows
from sfwriter.runtime.blueprint import retention_days, warehouse_url
from sfwriter.runtime.replay import replayed
from sfwriter.storage.place import local_root

if TYPE_CHECKING:
    import threading
    from collections.abc import Mapping
    from pathlib import Path

    from sfwriter.clock import Clock
    from sfwriter.config import WriterConfig
    from sfwriter.maintenance.maintainer import Maintainer
    from sfwriter.metrics import WriterMetrics
    from sfwriter.results import (
        ExportResult,
        HistoryResult,
        MaintainResult,
        MemoryUsage,
        OptimizeResult,
        QuarantinedRow,
        SummaryReport,
        TableInfo,
        TrendsResult,
        WriterMetricsResult,
    )
    from sfwriter.runtime.channel import Channel
    from sfwriter.storage.engine import Engine, Table, TableStats


class Questions:
    """The part of `LogWriter` that looks. It shares the writer's handles."""

    config: WriterConfig
    _channel: Channel
    _clock: Clock
    _engine: Engine
    _log_table: Table
    _maintainer: Maintainer
    _metrics: WriterMetrics
    _process: int
    _quarantine_table: Table
    _reading: threading.Lock
    _retries_before: int

    def get_table_info(self) -> TableInfo:
        """What the log says of the table: no data file is read."""
        self._check_process()
        stats = self._stats()
        schema = stats.schema
        spec = self._log_table.spec
        modified = stats.last_modified_ms
        return {
            "exists": stats.exists,
            "row_count": stats.rows,
            "columns": [] if schema is None else list(schema.names),
            "schema": {} if schema is None else {field.name: str(field.type) for field in schema},
            "table_fqn": spec.name,
            "location": spec.location,
            "version": stats.version if stats.exists else None,
            "num_files": stats.files,
            "size_mb": stats.size_bytes / MIB,
            "partition_columns": list(stats.partition_columns),
            "last_modified": None if modified is None else datetime.fromtimestamp(modified / 1000, timezone.utc),
            "engine": self._engine.name,
            "engine_road": stats.road,
            "engine_road_reason": stats.road_reason,
            "idempotency_retention_days": retention_days(stats, self.config),
        }

    def show_logs(self, limit: int = 20) -> None:
        """Print the newest rows, newest first."""
        check_limit(limit)
        self._check_process()
        name = self._log_table.spec.name
        if not self._stats().exists:
            show_rows([], f"{name} (not created yet)")
            return
        with self._reading:
            rows = newest_rows(self._log_table, None, "logged_at", limit).to_pylist()
        show_rows(rows, f"{name}: newest {len(rows)}")

    def quarantined(self, limit: int = 100) -> list[QuarantinedRow]:
        """The newest rows in quarantine: `row`, `reasons`, `quarantine_id`, `quarantined_at`; not those replayed."""
        check_limit(limit)
        self._check_process()
        with self._reading:
            if not self._quarantine_table.stats().exists:
                return []
            columns = ["row", "reasons", "quarantine_id", "quarantined_at"]
            asked, rows = limit, []
            while True:
                found = newest_rows(self._quarantine_table, columns, "quarantined_at", asked).to_pylist()
                gone = replayed(self._log_table, [row["quarantine_id"] for row in found])
                rows = [row for row in found if row["quarantine_id"] not in gone][:limit]
                if len(rows) == limit or len(found) < asked:
                    break
                asked *= 2  # rows that were replayed since are in the table all the same
        return [
            {
                "row": parse_row(row["row"]),
                "reasons": row["reasons"],
                "quarantine_id": row["quarantine_id"],
                "quarantined_at": row["quarantined_at"].astimezone(timezone.utc),
            }
            for row in rows
        ]

    # ------------------------------------------------------------ maintenance

    def optimize_table(self, **options: bool) -> OptimizeResult:
        """Rewrite the table's files so that queries and commits are faster; what gains nothing is not done.

        Without options everything is looked at; with some, only what they switch on.

        Args:
            **options: `enable_partitioning` joins the small files of each partition up to
                `max_file_size_mb`; `enable_compression` rewrites partitions with files of another codec than
                `compression`; `enable_zordering` sorts partitions larger than one file by time;
                `enable_vacuum` deletes files that were replaced more than a week ago.

        Raises:
            WriterValidationError: an option is unknown, or not True or False.
            WriterTableError: the table cannot be read or written, or others maintain it.
        """
        self._check_process()
        return self._maintainer.optimize(options)

    def maintain_table(self, maintenance_options: Mapping[str, Any] | None = None) -> MaintainResult:
        """Carry out operations of maintenance; all of them where none is named.

        Args:
            maintenance_options: operation to True or False: `optimize` (joins small files, evens out codecs),
                `vacuum` (a full one: also files that no version knows), `analyze` (figures of files and
                log), `validate_schema`, `checkpoint`, `cleanup_log`; and `retention_hours` for `vacuum`.

        Raises:
            WriterValidationError: an operation is unknown; or `retention_hours` is shorter than staged files
                may wait for their commit.
            WriterTableError: the table cannot be read or written, or others maintain it.
        """
        self._check_process()
        return self._maintainer.maintain(maintenance_options)

    def get_table_history(self, limit: int = 10) -> HistoryResult:
        """The latest versions, newest first; figures are None where the log no longer tells."""
        check_limit(limit)
        self._check_process()
        return self._maintainer.history(limit)

    # ------------------------------------------------------------ reports

    def generate_summary_report(self, days: float = 7) -> SummaryReport:
        """Figures of the last days: see `sfwriter.analytics.summary`.

        Args:
            days: back from now, by a row's `start_time`, else `run_started_at`, else `logged_at`.

        Raises:
            WriterValidationError: `days` is no number above 0.
            WriterTableError: the table cannot be read.
        """
        window = Window.of(days, self._clock.now())
        self._check_process()
        with self._reading:
            return summary_report(self._log_table, window)

    def analyze_performance_trends(self, days: float = 30) -> TrendsResult:
        """How durations, success and validation rates develop: see `sfwriter.analytics.trends`.

        Args:
            days: as for `generate_summary_report`.

        Raises:
            WriterValidationError: `days` is no number above 0.
            WriterTableError: the table cannot be read.
        """
        window = Window.of(days, self._clock.now())
        self._check_process()
        with self._reading:
            return performance_trends(self._log_table, window)

    def export_analytics_data(
        self,
        format: str = "json",  # noqa: A002  the reference's name
        limit: int | None = 1000,
        filters: Mapping[str, Any] | None = None,
        *,
        path: str | os.PathLike[str] | None = None,
    ) -> ExportResult:
        """Write rows to a file, newest first, in bounded memory.

        Args:
            format: `json` (one array), `jsonl`, `csv` or `parquet`.
            limit: rows at most; None for all.
            filters: column to a value or a list of values; None means null.
            path: the file, which is replaced whole where it is there; None for a new one in the folder
                `exports` of the warehouse.

        Raises:
            WriterValidationError: an argument is wrong.
            WriterTableError: the table cannot be read, or the file not be written.
        """
        self._check_process()
        folder = self._exports_folder() if path is None else None
        wanted = Export.of(format, limit, filters, path, folder, self._export_name())
        with self._reading:
            if folder is not None and self._log_table.stats().exists:
                make_folder(folder)
            return export_rows(self._log_table, wanted)

    def _exports_folder(self) -> Path | None:
        folder = local_root(warehouse_url(self.config))
        return None if folder is None else folder / "exports"

    def _export_name(self) -> str:
        return f"{self.config.table_fqn}-{self._clock.now():%Y%m%dT%H%M%SZ}"

    def get_metrics(self) -> WriterMetricsResult:
        """Counts, durations and memory since this writer began or was reset."""
        return self._metrics.read(retries=self._channel.usage().retries - self._retries_before)

    def reset_metrics(self) -> None:
        """Set all metrics to zero."""
        self._retries_before = self._channel.usage().retries
        self._metrics.reset()

    def get_memory_usage(self) -> MemoryUsage:
        """This process's memory, and what of the budget is in flight. MB are 2**20 bytes."""
        memory, usable, usage = process_memory(), usable_memory_bytes(), self._channel.usage()
        return {
            "rss_mb": memory.rss / MIB,
            "vms_mb": memory.vms / MIB,
            "percent": 100.0 * memory.rss / usable,
            "available_mb": memory.available / MIB,
            "total_mb": usable / MIB,
            "budget_mb": usage.budget_bytes / MIB,
            "in_flight_mb": usage.in_flight_bytes / MIB,
        }

    # ------------------------------------------------------------ what all of them need

    def _stats(self) -> TableStats:
        with self._reading:
            return self._log_table.stats()

    def _check_process(self) -> None:
        if os.getpid() != self._process:
            raise WriterError(
                "this writer was opened in another process; its threads did not come along with the fork",
                suggestions=["open a LogWriter in each process"],
            )


def check_limit(limit: int) -> None:
    """Raise `WriterValidationError` where it is no whole number from 1 on."""
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise WriterValidationError(
            f"limit is {limit!r}, expected a whole number from 1 on", suggestions=["e.g. limit=20"]
        )
