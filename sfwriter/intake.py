"""How rows come in: through the gate, to the tables that they are named for, or only before a judge.

Receives: rows of any accepted kind, on any thread.
Produces: what came through the gate; results of quality and anomalies.
Guarantees: dicts take turns, and rows that the gate does not know the columns of are looked at once more after a look
    at the table.
Never does: write a row.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from sfwriter.exceptions import WriterSchemaError, WriterValidationError
from sfwriter.ingest.gate import check_run_id
from sfwriter.ingest.inputs import opened
from sfwriter.ingest.partitions import rules_with_partitions
from sfwriter.ingest.refusals import of_misfits
from sfwriter.options import Rules
from sfwriter.quality.rules import RulesError, RuleSet
from sfwriter.questions import Questions
from sfwriter.runtime.examining import known_columns
from sfwriter.runtime.frame_job import is_frame
from sfwriter.runtime.reading import read_rows
from sfwriter.runtime.routing import by_table, routed

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Mapping

    from sfwriter.anomaly.watches import Watches
    from sfwriter.frames import Frames
    from sfwriter.ingest.gate import Gate, Gated, Mode
    from sfwriter.ingest.partitions import MoreRules
    from sfwriter.ingest.routes import Router
    from sfwriter.results import AnomalyResult, QualityResult
    from sfwriter.runtime.examining import Examiner
    from sfwriter.runtime.telling import Teller
    from sfwriter.storage.engine import TableStats


class Intake(Questions):
    """The part of `LogWriter` that takes rows in and judges them."""

    _columns: pa.Schema | None
    _max_bytes: int
    _budget_bytes: int
    _by_spark: Any
    _examiner: Examiner
    _frames: Frames
    _gate: Gate
    _gating: threading.Lock
    _log: Teller
    _partition_columns: tuple[str, ...]
    _router: Router | None
    _rules: RuleSet | None
    _watches: Watches

    _takes_frames = True
    """Whether Spark DataFrames can be staged beside this writer's channel; the service's client cannot."""

    def validate_log_data_quality(
        self, log_rows: Any, validation_rules: Mapping[str, Any] | None = None
    ) -> QualityResult:
        """Measure rows by rules, and write nothing.

        A row is invalid where it breaks a rule or has a value that does not fit its column. Without rows the
        rate is 100: none is invalid.

        Args:
            log_rows: as `write_log_rows` takes them.
            validation_rules: column to a rule or a list of rules (SQL text, `Column`, pyarrow expressions);
                None for those of the configuration, or the built-in ones where it has none.

        Raises:
            WriterValidationError: rules that do not parse, are not boolean, or name unknown columns; or
                `log_rows` is nothing that holds rows.
            WriterDataQualityError: `fail_fast` is on and the rows do not pass.
        """
        self._check_process()
        if is_frame(log_rows):
            return self._quality_of_frame(log_rows, validation_rules)
        read = self._read(log_rows)
        rules = self._rules
        if validation_rules is not None:
            rules = self._given_rules(validation_rules, read)
        with self._gating:
            judged = self._gate.judge(read, rules, max_bytes=self._max_bytes)
        return self._examiner.quality(judged, rules)

    def _quality_of_frame(self, frame: Any, validation_rules: Mapping[str, Any] | None) -> QualityResult:
        self._check_frames()
        given: Mapping[str, Any] = self.config.validation_rules
        if validation_rules is not None:
            given = _checked_rules(validation_rules, lambda rules: self._frames.check_rules(frame, rules))
        return self._examiner.passed(self._frames.judge(frame, given, self._examiner.thresholds))

    def _given_rules(self, given: Mapping[str, Any], rows: Any) -> RuleSet | None:
        """Rules of a call; columns that only its rows have are known to them."""
        made: list[RuleSet] = []
        checked = _checked_rules(
            given, lambda rules: made.append(RuleSet(rules, self._columns_with(rows), self._clock.now, self._by_spark))
        )
        return made[0] if checked else None

    def _columns_with(self, rows: Any) -> pa.Schema:
        known = known_columns(self._columns)
        if not self.config.enable_schema_evolution:
            return known
        with self._gating:
            given = self._gate.judge(rows, None, max_bytes=self._max_bytes).rows.schema
        return pa.schema([*known, *(entry for entry in given if entry.name not in known.names)])

    def detect_anomalies(self, log_rows: Any) -> AnomalyResult:
        """Compare rows with the history of their steps, and write nothing: see `sfwriter.anomaly`.

        Each row is judged by the earlier runs of the same pipeline, step and run mode, of which it takes
        eight; where there is no table yet, by the other rows given.

        Args:
            log_rows: as `write_log_rows` takes them.

        Raises:
            WriterValidationError: it is nothing that holds rows, or one of them is no mapping.
            WriterSchemaError: a value does not fit its column, in the schema mode `strict`; in the others it counts as
                missing, as it does where such rows are written.
            WriterTableError: the table cannot be read.
        """
        self._check_process()
        if is_frame(log_rows):
            self._check_frames()
            return self._watches.check({self.config.table_fqn: self._frames.watched(log_rows)}, newest=True)
        read = self._read(log_rows)
        with self._gating:
            judged = self._gate.judge(read, None, max_bytes=self._max_bytes)
        refusal = of_misfits(judged.misfits, strict=self._gate.mode == "strict")
        if refusal is not None:
            raise refusal
        return self._watches.check(by_table(self.config, judged.rows, self._router), newest=True)

    # ------------------------------------------------------------ the way in

    def _encode(self, rows: Any, run_id: str | None, made_run_id: str | None = None) -> Gated:
        """Pass rows through the gate; where they do not fit the columns known, look at the table once more."""
        if is_frame(rows):
            return self._encode_frame(rows, run_id, made_run_id)
        rows = self._read(rows)
        started = self._clock.monotonic()
        try:
            gated = self._admit(rows, run_id, made_run_id)
        except WriterSchemaError:
            if not self._know_columns(self._stats()):
                raise
            gated = self._admit(rows, run_id, made_run_id)
        else:
            if gated.new_columns and self._know_columns(self._stats()):
                gated = self._admit(rows, run_id, made_run_id)
        for note in gated.notes:
            self._log.warning(note)
        return replace(self._addressed(gated), secs=self._clock.monotonic() - started)

    def _encode_frame(self, frame: Any, run_id: str | None, made_run_id: str | None = None) -> Gated:
        """As `_encode`, on the executors of a Spark DataFrame."""
        self._check_frames()
        check_run_id(run_id)
        gated = self._frames.admit(frame, run_id, made_run_id, self._examiner.asked)
        if gated is None:
            return self._admit([], run_id, made_run_id)
        for note in gated.notes:
            self._log.warning(note)
        return gated

    def _check_frames(self) -> None:
        if not self._takes_frames:
            raise WriterValidationError(
                "Rows are expected, but a Spark DataFrame was given, which cannot be sent through the service.",
                suggestions=[
                    "Give it to LogWriter(spark, config), or send it in parts: write_batches(…) of Arrow batches."
                ],
            )

    def _read(self, rows: Any) -> Any:
        """The rows, no longer in an iterator."""
        if isinstance(rows, (list, tuple)):
            return rows
        rows = opened(rows, self._max_bytes)
        # Read before the gate is asked: whoever yields the rows may take long, or write a few itself.
        return rows if isinstance(rows, pa.Table) else read_rows(rows, self._budget_bytes)

    def _addressed(self, gated: Gated) -> Gated:
        """The batch's rows at their tables."""
        if self._router is None:
            return gated
        return replace(gated, batch=routed(self.config, gated.batch, self._router))

    def _admit(self, rows: Any, run_id: str | None, made_run_id: str | None) -> Gated:
        if isinstance(rows, pa.Table):
            return self._gate.admit(rows, run_id, made_run_id=made_run_id, max_bytes=self._max_bytes)
        # Dicts need the interpreter's lock all the way, but let go of it for moments in each Arrow call. Threads that
        # fight for it at each of them wait 5 ms at a time: 64 of them did 110 calls a second. So they take turns.
        with self._gating:
            return self._gate.admit(rows, run_id, made_run_id=made_run_id, max_bytes=self._max_bytes)

    def _know_columns(self, stats: TableStats) -> bool:
        """Teach the gate the table's columns; False where it knew them."""
        if stats.schema is None or stats.schema == self._columns:
            return False
        self._columns = stats.schema
        self._gate = self._gate.with_schema(stats.schema)
        return True

    def _more_rules(self, mode: Mode) -> MoreRules | None:
        """What rows must have beside the built-in rules: a table to go to, a folder to lie in."""
        named = None if self._router is None else self._router.breaches
        return rules_with_partitions(named, self._partition_columns, mode)


def _checked_rules(given: Mapping[str, Any], check: Callable[[Mapping[str, Any]], object]) -> Mapping[str, Any]:
    """Rules of a call, after a check that may raise `RulesError`."""
    try:
        checked = Rules().check(given)
        if checked:
            check(checked)
    except ValueError as error:
        text = str(error) if isinstance(error, RulesError) else f"validation_rules {error}"
        raise WriterValidationError(
            text,
            context={"field": "validation_rules", "problems": getattr(error, "problems", [text])},
            suggestions=["a rule is a boolean SQL expression over a row's columns, e.g. 'duration_secs >= 0'"],
        ) from None
    return checked
