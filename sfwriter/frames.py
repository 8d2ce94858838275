"""What a writer does with a Spark DataFrame: the part of `LogWriter` that knows of frames.

Receives: frames, from the writer's calls.
Produces: what the gate gives for other rows, or a verdict.
Guarantees: a frame is worked out once for each call, on its own session's executors.
Never does: import Spark; write.
"""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sfwriter.anomaly.watch import COLUMNS
from sfwriter.exceptions import WriterPerformanceError, WriterValidationError
from sfwriter.quality.rules import RuleSet
from sfwriter.runtime.examining import known_columns
from sfwriter.runtime.frame_job import (
    FrameGated,
    check_frame,
    gathered,
    quality_gathered,
    reports_of,
    watched_gathered,
)
from sfwriter.runtime.frame_rules import FrameColumns, with_rule_columns
from sfwriter.runtime.frame_task import FrameTask, library_version
from sfwriter.storage.staging import discard_files

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa

    from sfwriter.clock import Clock
    from sfwriter.config import WriterConfig
    from sfwriter.quality.verdict import Thresholds
    from sfwriter.results import QualityResult
    from sfwriter.storage.engine import Table

MOST_WATCHED = 100_000
"""Rows of a frame in which anomalies are looked for: each becomes a Python object on the driver."""


class Frames:
    """Frames of one writer. Thread-safe."""

    def __init__(self, config: WriterConfig, table: Table, clock: Clock, max_bytes: int) -> None:
        """Prepare.

        Args:
            config: of the writer.
            table: of the log.
            clock: for what rules see as the time.
            max_bytes: that the rows set aside may take on the driver.
        """
        self._config = config
        self._table = table
        self._clock = clock
        self._max_bytes = max_bytes

    def admit(
        self, frame: Any, run_id: str | None, made_run_id: str | None, thresholds: Thresholds | None
    ) -> FrameGated | None:
        """Gate and stage a frame on the executors; None for one without rows, of a table that is not there yet.

        Raises:
            WriterError: it is refused, or could not be worked out; nothing of it is left.
        """
        if self._config.is_routed:
            raise WriterValidationError(
                "A Spark DataFrame is staged for one table, and table_name_pattern sends its rows to several.",
                suggestions=["Write each table's rows by a writer of its own, or without table_name_pattern."],
                code="routed_frame",
            )
        check_frame(frame)
        if not self._table.stats().exists and frame.isEmpty():
            return None
        stats = self._table.ensure()  # executors stage into a table that is there
        # None where no file of the table can be opened beside the engine: then the rows come here, in bounds.
        spec = getattr(self._table, "staging_spec", None)
        task = self._task(frame, stats.schema, self._config.validation_rules)
        watch = COLUMNS if self._config.enable_anomaly_detection else ()
        frame, task = with_rule_columns(frame, task)
        task = replace(
            task,
            spec=spec,
            carry_bytes=self._max_bytes if spec is None else None,
            run_id=run_id,
            made_run_id=made_run_id or str(uuid.uuid4()),
            thresholds=thresholds,
            watch=watch,
        )
        return gathered(task, reports_of(frame, task))

    def judge(self, frame: Any, rules: Mapping[str, Any] | None, thresholds: Thresholds) -> QualityResult:
        """The quality of a frame, worked out on the executors."""
        check_frame(frame)
        frame, task = with_rule_columns(frame, self._task(frame, self._table.stats().schema, rules))
        task = replace(task, thresholds=thresholds)
        reports = reports_of(frame, task)
        gathered(task, reports)  # raises what a task could not do
        found = quality_gathered(task, reports)
        if found is None:
            raise ValueError("the quality was not asked for")
        return found

    def check_rules(self, frame: Any, rules: Mapping[str, Any]) -> None:
        """Raise `RulesError` for rules that do not go with a frame's columns."""
        check_frame(frame)
        known = _with_frames(known_columns(self._table.stats().schema), frame)
        RuleSet(rules, known, self._clock.now, FrameColumns(frame, known))

    def watched(self, frame: Any) -> pa.Table:
        """The columns of a frame that anomalies are looked for in.

        Raises:
            WriterPerformanceError: it has more than `MOST_WATCHED` rows.
        """
        check_frame(frame)
        task = replace(self._task(frame, self._table.stats().schema, None), watch=COLUMNS)
        reports = reports_of(frame, task)
        gathered(task, reports)  # raises what a task could not do
        found = watched_gathered(task, reports)
        if found is None:
            raise WriterPerformanceError(
                f"The frame has more than {MOST_WATCHED:,} rows; anomalies are looked for in so many at most.",
                context={"most": MOST_WATCHED},
                suggestions=["Filter it, e.g. by start_time or pipeline_id, and look at each part."],
            )
        return found

    def discard(self, gated: FrameGated) -> None:
        """Delete the files of a frame that was never sent on its way."""
        spec = getattr(self._table, "staging_spec", None)
        if spec is not None and gated.staged is not None:
            discard_files(spec, gated.staged)

    def _task(self, frame: Any, columns: pa.Schema | None, rules: Mapping[str, Any] | None) -> FrameTask:
        config = self._config
        now = self._clock.now()
        return FrameTask(
            version=library_version(),
            spec=None,
            carry_bytes=None,
            mode=config.schema_validation_mode,
            evolution=config.enable_schema_evolution,
            columns=columns,
            rules=rules or None,
            rule_columns=_with_frames(known_columns(columns), frame) if rules else known_columns(columns),
            now=now,
            thresholds=None,
            run_id=None,
            made_run_id="",
            watch=(),
            watched=MOST_WATCHED,
            max_aside_bytes=self._max_bytes,
        )


def _with_frames(known: pa.Schema, frame: Any) -> pa.Schema:
    """The columns, and those that only the frame has, as the gate would keep them."""
    import pyarrow as pa
    from pyspark.sql.pandas.types import to_arrow_schema

    from sfwriter.ingest.arrow_columns import kind_of_type

    extras = []
    for field in to_arrow_schema(frame.schema, timezone="UTC"):
        kind = None if field.name in known.names else kind_of_type(field.type)
        if kind is not None:
            extras.append(pa.field(field.name, kind.type))
    return pa.schema([*known, *extras])
