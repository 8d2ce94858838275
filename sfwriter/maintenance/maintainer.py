"""The maintenance calls of a writer: options in, what was done out.

Receives: what users ask for, and one table.
Produces: the results of `optimize_table`, `maintain_table` and `get_table_history`.
Guarantees: whatever is asked for and would gain nothing is not done, and says why; a retention that commits
    are not safe with is refused.
Never does: change a row.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from sfwriter.exceptions import WriterValidationError
from sfwriter.maintenance.plan import SORT_COLUMN, compactions, overlap, recompressions, sortings
from sfwriter.schema import LOG_SCHEMA
from sfwriter.storage.columns import adopted_schema
from sfwriter.storage.engine import Checkpoint, History, Survey, Vacuum

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sfwriter.clock import Clock
    from sfwriter.maintenance.plan import Job
    from sfwriter.results import HistoryResult, MaintainResult, OptimizeResult
    from sfwriter.storage.engine import Table, TableStats

MIB = 2**20
NO_TABLE = "there is no table yet"
VACUUM_HOURS = 168.0
OPTIMIZE_OPTIONS = ("enable_partitioning", "enable_compression", "enable_zordering", "enable_vacuum")
OPERATIONS = ("optimize", "vacuum", "analyze", "validate_schema", "checkpoint", "cleanup_log")
MAX_HOURS = 24 * 36_500


class Maintainer:
    """Maintains one table. Thread-safe as far as the table's `run` is."""

    def __init__(
        self,
        table: Table,
        clock: Clock,
        *,
        evolution: bool,
        sorting: bool,
        tell: Callable[[str], object] = lambda _: None,
    ) -> None:
        """Prepare for a table.

        Args:
            table: it.
            clock: for durations.
            evolution: whether columns beside the log's are in order.
            sorting: whether columns to sort by are chosen (`auto_optimize_schema`).
            tell: told what is being done, as short texts.
        """
        self._tell = tell
        self._sorting = sorting
        self._table = table
        self._clock = clock
        self._evolution = evolution

    def optimize(self, options: Mapping[str, Any]) -> OptimizeResult:
        """See `LogWriter.optimize_table`."""
        started = self._clock.monotonic()
        asked = _flags(options, OPTIMIZE_OPTIONS, "optimize_table")
        wanted = {name.removeprefix("enable_"): asked.get(name, not asked) for name in OPTIMIZE_OPTIONS}
        applied: list[str] = []
        metrics: dict[str, Any] = {}
        reasons: list[str] = []
        before = self._table.stats()
        if not before.exists:
            reasons.append(NO_TABLE)
        else:
            for name in [name for name, is_wanted in wanted.items() if is_wanted]:
                self._tell(name)
                figures, reason = self._optimization(name)
                if reason is None:
                    applied.append(name)
                    metrics[name] = figures
                else:
                    reasons.append(f"{name}: {reason}")
            metrics |= _sizes(before, self._table.stats())
        return {
            "optimized": bool(applied),
            "optimizations_applied": applied,
            "optimization_duration_secs": self._clock.monotonic() - started,
            "metrics": metrics,
            "reason": "; ".join(reasons or ["nothing was asked for"]) if not applied else None,
        }

    def maintain(self, options: Mapping[str, Any] | None) -> MaintainResult:
        """See `LogWriter.maintain_table`."""
        started = self._clock.monotonic()
        given = dict.fromkeys(OPERATIONS, True) if options is None else _mapping(options)
        hours = given.pop("retention_hours", None)
        asked = _flags(given, OPERATIONS, "maintain_table", "retention_hours")
        retention = VACUUM_HOURS if hours is None else _hours(hours)
        results: dict[str, Any] = {}
        exists = self._table.stats().exists
        if exists and asked.get("vacuum"):
            self._check_retention(retention)
        calls: dict[str, Callable[[], dict[str, Any]]] = {
            "optimize": lambda: dict(self.optimize({"enable_partitioning": True, "enable_compression": True})),
            "vacuum": lambda: self._vacuumed(retention, full=True),
            "analyze": self._analyzed,
            "validate_schema": self._validated,
            "checkpoint": lambda: dict(self._table.run(Checkpoint())),
            "cleanup_log": self._tidied,
        }
        if exists:
            for name in [name for name in OPERATIONS if asked.get(name)]:
                self._tell(name)
                results[name] = calls[name]()
        elif asked:
            results = {name: {"reason": NO_TABLE} for name in OPERATIONS if asked.get(name)}
        return {
            "maintained": exists and bool(results),
            "maintenance_operations": list(results) if exists else [],
            "maintenance_duration_secs": self._clock.monotonic() - started,
            "results": results,
        }

    def history(self, limit: int) -> HistoryResult:
        """See `LogWriter.get_table_history`."""
        stats = self._table.stats()
        name = self._table.spec.name
        if not stats.exists:
            return {"history_available": False, "table_fqn": name, "total_versions": 0, "versions": []}
        versions = self._table.run(History(min(limit, stats.version + 1)))["versions"]
        return {
            "history_available": True,
            "table_fqn": name,
            "total_versions": stats.version + 1,
            "versions": [
                {
                    "version": entry.version,
                    "timestamp": None if entry.timestamp_ms is None else _moment(entry.timestamp_ms),
                    "operation": entry.operation,
                    "row_count": entry.rows,
                    "size_mb": None if entry.size_bytes is None else entry.size_bytes / MIB,
                    "user_metadata": dict(entry.user_metadata),
                }
                for entry in versions
            ],
        }

    # ------------------------------------------------------------ single operations

    def _optimization(self, name: str) -> tuple[dict[str, Any], str | None]:
        """Figures of what was done, or the reason why it was not."""
        if name == "vacuum":
            survey = self._table.run(Survey())
            found = self._vacuumed(max(VACUUM_HOURS, survey["safe_retention_hours"]), full=False)
            return found, None if found["files_deleted"] else f"no file was replaced more than {VACUUM_HOURS:g} h ago"
        survey, spec = self._table.run(Survey(SORT_COLUMN)), self._table.spec
        partitions, target = survey["partitions"], spec.max_file_bytes
        if name == "partitioning":
            jobs, reason = compactions(partitions, target), "no neighbouring files of a partition fit into one"
        elif name == "compression":
            jobs = recompressions(partitions, spec.compression, target)
            reason = f"every file is compressed by {spec.compression}"
        elif not self._sorting:
            return {}, "auto_optimize_schema is off, which chooses the column to sort by"
        else:
            jobs = sortings(partitions, target)
            reason = "no partition is larger than one file and has times that overlap: sorted, a query reads the same"
        figures = self._rewritten(jobs)
        return (figures, None) if figures["files_removed"] else ({}, reason)

    def _rewritten(self, jobs: list[Job]) -> dict[str, Any]:
        done = []
        for number, job in enumerate(jobs, 1):
            self._tell(f"rewriting {job.files_before} files: partition {number} of {len(jobs)}")
            figures = self._table.run(job.action)
            if figures["files_removed"]:
                done.append(figures)
        return {
            "partitions": len(done),
            "files_removed": sum(figures["files_removed"] for figures in done),
            "files_added": sum(figures["files_added"] for figures in done),
            "rewritten_mb": sum(figures["bytes_rewritten"] for figures in done) / MIB,
        }

    def _vacuumed(self, hours: float, *, full: bool) -> dict[str, Any]:
        deleted = self._table.run(Vacuum(hours, full=full, dry_run=True))["files_deleted"]
        if deleted:
            deleted = self._table.run(Vacuum(hours, full=full))["files_deleted"]
        return {"files_deleted": deleted, "num_files_deleted": len(deleted), "retention_hours": hours, "full": full}

    def _check_retention(self, hours: float) -> None:
        least = self._table.run(Survey())["safe_retention_hours"]
        if hours < least:
            raise WriterValidationError(
                f"retention_hours is {hours:g}, and at least {least:g} are needed: files that writers have staged may"
                " be committed until they are that old, and VACUUM would take them away before",
                context={"field": "retention_hours", "value": hours, "least": least},
                suggestions=[f"give retention_hours={least:g} or more"],
            )

    def _analyzed(self) -> dict[str, Any]:
        stats, survey = self._table.stats(), self._table.run(Survey(SORT_COLUMN))
        partitions, target = survey["partitions"], self._table.spec.max_file_bytes
        sizes = [size for partition in partitions.values() for size in partition.sizes]
        return {
            "row_count": stats.rows,
            "num_files": stats.files,
            "size_mb": stats.size_bytes / MIB,
            "small_files": sum(job.files_before for job in compactions(partitions, target)),
            "smallest_file_mb": min(sizes, default=0) / MIB,
            "largest_file_mb": max(sizes, default=0) / MIB,
            "rows_per_file": stats.rows / stats.files if stats.files else None,
            "bytes_per_row": stats.size_bytes / stats.rows if stats.rows else None,
            "partitions": len(partitions),
            "codecs": sorted({codec for partition in partitions.values() for codec in partition.codecs}),
            "files_without_statistics": survey["without_statistics"],
            "log_entries": survey["log_entries"],
            "overlap": max(map(overlap, partitions.values()), default=None),
            "sort_column": SORT_COLUMN,
        }

    def _validated(self) -> dict[str, Any]:
        fields = list(self._table.stats().schema or ())
        found = {field.name: str(field.type) for field in fields}
        # What a table that was taken over keeps in narrower types is in order.
        expected = {field.name: str(field.type) for field in adopted_schema(LOG_SCHEMA, fields)}
        differences = [
            {"column": name, "found": found.get(name), "expected": expected.get(name)}
            for name in dict.fromkeys((*expected, *found))
            if found.get(name) != expected.get(name) and (name in expected or not self._evolution)
        ]
        return {"valid": not differences, "differences": differences}

    def _tidied(self) -> dict[str, Any]:
        before = self._table.run(Survey())["log_entries"]
        version = self._table.run(Checkpoint())["version"]
        after = self._table.run(Survey())["log_entries"]
        dropped = None if before is None or after is None else max(0, before - after)
        return {"version": version, "log_entries_dropped": dropped, "log_entries": after}


def _sizes(before: TableStats, after: TableStats) -> dict[str, Any]:
    return {
        "files_before": before.files,
        "files_after": after.files,
        "size_mb_before": before.size_bytes / MIB,
        "size_mb_after": after.size_bytes / MIB,
    }


def _moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, timezone.utc)


def _mapping(options: Any) -> dict[str, Any]:
    if not hasattr(options, "items"):
        raise WriterValidationError(
            f"maintenance_options is {options!r:.80}, expected a dict of operation to True or False",
            context={"field": "maintenance_options"},
            suggestions=[f"operations are {', '.join(OPERATIONS)}"],
        )
    return dict(options.items())


def _flags(options: Mapping[str, Any], known: tuple[str, ...], call: str, *more: str) -> dict[str, bool]:
    unknown = [name for name in options if name not in known]
    if unknown:
        raise WriterValidationError(
            f"{call} has no option {', '.join(map(repr, unknown))}",
            context={"field": call, "unknown": [str(name) for name in unknown]},
            suggestions=[f"options are {', '.join((*known, *more))}"],
        )
    for name, value in options.items():
        if not isinstance(value, bool):
            raise WriterValidationError(
                f"{name} of {call} is {value!r:.80}, expected True or False",
                context={"field": name, "value": f"{value!r:.80}"},
                suggestions=[f"e.g. {name}=True"],
            )
    return dict(options)


def _hours(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= MAX_HOURS:
        raise WriterValidationError(
            f"retention_hours is {value!r:.80}, expected a number from 0 to {MAX_HOURS}",
            context={"field": "retention_hours", "value": f"{value!r:.80}"},
            suggestions=["e.g. retention_hours=168"],
        )
    return float(value)
