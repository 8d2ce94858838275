"""What an executor does with its part of a Spark DataFrame: gate, stage, report.

Receives: the Arrow batches of one partition, and a `FrameTask` that says all that has to be known.
Produces: a `FrameReport` for each file that was staged, in a row of its own. Rows stay where they are, but for
    those set aside and, where anomalies are looked for, a few columns of the others.
Guarantees: rows pass the very gate and staging that they would pass on the driver. What goes wrong here is in a
    report: Spark would try a refusal four times, and forget which files there are. A task that runs twice stages
    twice, and only the reports of one of the two ever reach the driver; the other's files are nobody's.
Never does: commit; keep more than `CHUNK_ROWS` rows or `CHUNK_BYTES` bytes of Arrow at a time.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from sfwriter.batch import Token
from sfwriter.exceptions import WriterError, WriterSchemaError, WriterValidationError
from sfwriter.ingest.encoded import check_size
from sfwriter.ingest.gate import Gate
from sfwriter.ingest.unordered import unordered_digest
from sfwriter.quality.rules import RuleSet
from sfwriter.quality.verdict import Thresholds, quality_of
from sfwriter.runtime.frame_rules import WorkedOut
from sfwriter.storage.engine import BatchToStage
from sfwriter.storage.staging import discard_files, stage_batches

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from sfwriter.ingest.gate import Gated, Mode
    from sfwriter.quality.verdict import Judged
    from sfwriter.results import QualityResult
    from sfwriter.storage.engine import StagedBatch, TableSpec

CHUNK_ROWS = 262_144
CHUNK_BYTES = 128 << 20

MOST_ENTRIES = 1_000
"""Bad rows that one task lists; all of them are counted."""

REPORT = "report"
REPORT_SCHEMA = pa.schema([(REPORT, pa.binary())])


@dataclass(frozen=True, slots=True)
class FrameTask:
    """Everything that an executor has to know.

    Attributes:
        version: of this library on the driver.
        spec: of the log table; None where nothing is to be staged here.
        carry_bytes: of the accepted rows that one task may send to the driver, where they cannot be staged here;
            None: none are asked for, and without `spec` the rows are only judged.
        mode: of the gate.
        evolution: of the gate.
        columns: that the table has; None where there is no table.
        rules: of the gate, or those to judge by; None for none.
        rule_columns: what `columns` and the frame have together, for the rules.
        now: what rules see as the time.
        thresholds: where the quality of the rows is asked for.
        run_id: of the call.
        made_run_id: for rows that have none.
        watch: columns that are to be reported to those who look for anomalies; none: nothing is.
        watched: of how many rows, in all.
        max_aside_bytes: of the rows that one task may set aside.
    """

    version: str
    spec: TableSpec | None
    carry_bytes: int | None
    mode: Mode
    evolution: bool
    columns: pa.Schema | None
    rules: Mapping[str, Any] | None
    rule_columns: pa.Schema
    now: datetime
    thresholds: Thresholds | None
    run_id: str | None
    made_run_id: str
    watch: tuple[str, ...]
    watched: int
    max_aside_bytes: int


@dataclass(slots=True)
class FrameReport:
    """What became of some rows of one partition.

    Attributes:
        partition: which one.
        given: rows.
        staged: files of those that passed; None where there are none.
        rows: those that passed themselves, where they are carried.
        accepted: rows in them.
        valid: of these, those that keep the built-in rules.
        aside: rows set aside, in the quarantine table's types.
        digest: sum over rows (modulo 2^64).
        run_id: of the first row.
        unnamed: whether rows had no run id of their own.
        quality: of the rows given.
        watched: the columns that anomalies are looked for in; None where there were too many rows.
        notes: of the gate.
        error: refused; nothing of the whole frame is to be written.
        entries: bad rows, at most `MOST_ENTRIES` a task.
        bad: how many there are.
    """

    partition: int
    given: int = 0
    staged: StagedBatch | None = None
    rows: pa.Table | None = None
    accepted: int = 0
    valid: int = 0
    aside: pa.Table | None = None
    digest: int = 0
    run_id: str | None = None
    unnamed: bool = False
    quality: QualityResult | None = None
    watched: pa.Table | None = None
    notes: tuple[str, ...] = ()
    error: WriterError | None = None
    entries: list[dict[str, Any]] = field(default_factory=list)
    bad: int = 0


def library_version() -> str:
    """Of this library, where it is asked."""
    return version("sfwriter")


def run_task(task: FrameTask, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The reports on one partition, as rows of `REPORT_SCHEMA`."""
    from pyspark import TaskContext

    context = TaskContext.get()
    partition = 0 if context is None else context.partitionId()
    for report in _Partition(task, partition).reports(batches):
        yield pa.RecordBatch.from_pydict({REPORT: [pickle.dumps(report)]}, REPORT_SCHEMA)


class _Partition:
    """One partition on its way through the gate."""

    def __init__(self, task: FrameTask, partition: int) -> None:
        self._task = task
        self._partition = partition
        self._start = 0
        self._refused = False
        self._watched = task.watched
        self._aside_bytes = 0
        self._carried_bytes = 0
        self._entries = MOST_ENTRIES
        self._worked_out = WorkedOut()

    def reports(self, batches: Iterator[pa.RecordBatch]) -> Iterator[FrameReport]:
        if library_version() != self._task.version:
            error = WriterError(
                f"an executor has sfwriter {library_version()}, and the driver has {self._task.version}",
                suggestions=["Install the same version on all nodes."],
            )
            yield FrameReport(self._partition, error=error)
            return
        gate, rules = self._gate()
        for table in _chunks(batches):
            report = FrameReport(self._partition, given=table.num_rows)
            try:
                self._pass(report, self._worked_out.taken_from(table), gate, rules)
            except WriterError as error:
                self._refuse(report, error)
            self._start += table.num_rows
            yield report

    def _gate(self) -> tuple[Gate, RuleSet | None]:
        task = self._task
        rules = None
        if task.rules:
            rules = RuleSet(task.rules, task.rule_columns, lambda: task.now, self._worked_out)
        gate = Gate(task.mode, evolution=task.evolution, extra_fields=task.columns, rules=rules)
        return gate, rules

    def _pass(self, report: FrameReport, table: pa.Table, gate: Gate, rules: RuleSet | None) -> None:
        task = self._task
        if task.spec is None and task.carry_bytes is None:
            judged = gate.judge(table, rules)
            self._look(report, judged, judged.rows, rules)
            return
        digests: list[int] = []

        def digest(rows: pa.Table, faults: Any) -> str:
            digests.append(unordered_digest(rows, faults))
            report.unnamed = rows.column("run_id").null_count > 0
            return ""

        gated = gate.admit(table, task.run_id, made_run_id=task.made_run_id, digest_by=digest)
        report.digest = digests[0]
        report.notes = gated.notes
        report.run_id = gated.batch.run_id
        self._look(report, gated.judged, gated.batch.rows, rules)
        if self._refused:
            return  # nothing of the frame will be written: the rest is only looked through
        self._set_aside(report, gated)
        report.valid = gated.accepted - len({breach.row for breach in gated.breaches})
        report.accepted = gated.accepted
        if not gated.accepted:
            return
        if task.spec is not None:
            report.staged = stage_batches(task.spec, [BatchToStage(Token("", 0), gated.batch.rows)])
        else:
            report.rows = self._carried(gated.batch.rows)

    def _carried(self, rows: pa.Table) -> pa.Table:
        self._carried_bytes += rows.nbytes
        check_size(self._carried_bytes, self._task.carry_bytes)
        return rows

    def _look(self, report: FrameReport, judged: Judged, rows: pa.Table, rules: RuleSet | None) -> None:
        if self._task.thresholds is not None:
            report.quality = quality_of(judged, rules, self._task.thresholds)
            for issue in report.quality["issues"]:
                for sample in issue["sample"]:
                    sample["row"] += self._start
        if self._task.watch and self._watched >= rows.num_rows:
            self._watched -= rows.num_rows
            report.watched = rows.select([name for name in self._task.watch if name in rows.column_names])

    def _set_aside(self, report: FrameReport, gated: Gated) -> None:
        aside = gated.batch.quarantined
        if aside is None:
            return
        self._aside_bytes += aside.nbytes
        if self._aside_bytes > self._task.max_aside_bytes:
            raise WriterValidationError(
                f"more than {self._task.max_aside_bytes:,} bytes of rows would be set aside: the frame is not one of"
                " log rows",
                suggestions=["Look at it with validate_log_data_quality(frame) first."],
                code="too_much_quarantine",
            )
        report.aside = aside

    def _refuse(self, report: FrameReport, error: WriterError) -> None:
        self._refused = True
        report.staged, report.rows, report.accepted = None, None, 0
        entries = error.validation_errors if isinstance(error, (WriterSchemaError, WriterValidationError)) else []
        report.bad = len(entries)
        kept = entries[: self._entries]
        self._entries -= len(kept)
        report.entries = [{**entry, **self._place(entry)} for entry in kept]
        if isinstance(error, (WriterSchemaError, WriterValidationError)):
            error.validation_errors = []
        report.error = error

    def _place(self, entry: dict[str, Any]) -> dict[str, Any]:
        """Rows are counted within their partition: a frame has no order."""
        return {"row": entry["row"] + self._start, "partition": self._partition} if "row" in entry else {}


def _chunks(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
    held: list[pa.RecordBatch] = []
    rows = nbytes = 0
    for batch in batches:
        if not batch.num_rows:
            continue
        held.append(batch)
        rows += batch.num_rows
        nbytes += batch.nbytes
        if rows >= CHUNK_ROWS or nbytes >= CHUNK_BYTES:
            yield pa.Table.from_batches(held)
            held, rows, nbytes = [], 0, 0
    if held:
        yield pa.Table.from_batches(held)


def discard_reported(spec: TableSpec, reports: list[FrameReport]) -> None:
    """Delete what was staged for a frame that is not to be written."""
    for report in reports:
        if report.staged is not None:
            discard_files(spec, report.staged)
