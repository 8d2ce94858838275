"""A Spark DataFrame as the rows of one call: staged on the executors, put together here.

Receives: a frame, classic or of Spark Connect, and a `FrameTask`.
Produces: a `FrameGated`: what the gate would give, with the accepted rows in files that are staged already.
Guarantees: the driver never holds more of a frame than the rows set aside, a few columns for those who look for
    anomalies, and a report of some hundred bytes for each 262,144 rows. A frame that is refused leaves nothing
    behind; where Spark itself gives up, files of tasks that had ended are left to VACUUM.
Never does: change the frame's session; commit.
"""

from __future__ import annotations

import pickle
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from sfwriter.batch import EncodedBatch
from sfwriter.dictionaries import plain_table
from sfwriter.exceptions import WriterError, WriterSchemaError, WriterValidationError
from sfwriter.ingest.encoded import check_size
from sfwriter.ingest.gate import Gated
from sfwriter.ingest.kinds import LOG_KINDS
from sfwriter.ingest.unordered import digest_text
from sfwriter.quality.builtin import BUILTIN_RULES
from sfwriter.quality.verdict import SAMPLE_ROWS, Judged
from sfwriter.runtime.frame_task import MOST_ENTRIES, REPORT, discard_reported, run_task
from sfwriter.storage.staging import merged_batches

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sfwriter.results import QualityResult
    from sfwriter.runtime.frame_task import FrameReport, FrameTask
    from sfwriter.storage.engine import StagedBatch

MAX_COLUMNS = 2_000
"""Of a frame. Each new one goes into the table's log, and every reader carries it from then on."""

_ROWS = pa.schema([(name, kind.type) for name, kind in LOG_KINDS.items()])


def _no_rows() -> pa.Table:
    """Not made when the module is loaded: Arrow looks for pandas then."""
    return _ROWS.empty_table()


@dataclass(frozen=True, slots=True)
class FrameGated(Gated):
    """What came through the gate on the executors.

    `judged.rows` is empty, and so is `batch.rows` where the accepted rows are in `staged`.

    Attributes:
        staged: files of the accepted rows; None where there are none.
        staged_rows: how many those are.
        valid: of these, rows that keep the built-in rules.
        quality: of all rows given, where it was asked for.
        watched: the columns that anomalies are looked for in, of the accepted rows; None where they were too many.
    """

    staged: StagedBatch | None = None
    staged_rows: int = 0
    valid: int = 0
    quality: QualityResult | None = None
    watched: pa.Table | None = None


def is_frame(thing: Any) -> bool:
    """Whether it is a Spark DataFrame of either kind; loads nothing."""
    return any(
        kind.__name__ == "DataFrame" and kind.__module__.partition(".")[0] == "pyspark" for kind in type(thing).__mro__
    )


def check_frame(frame: Any) -> None:
    """Refuse a frame whose columns no table could take, before anything of it is worked out.

    Raises:
        WriterSchemaError: columns that have one name, types that Arrow does not know, too many columns.
        WriterValidationError: it is a stream.
    """
    if frame.isStreaming:
        raise WriterValidationError(
            "Rows are expected, but a streaming DataFrame was given.",
            suggestions=["Write each of its batches: stream.writeStream.foreachBatch(lambda frame, n: …)."],
        )
    from pyspark.errors import PySparkException
    from pyspark.sql.pandas.types import to_arrow_type

    fields = list(frame.schema.fields)
    types = {field.name: field.dataType.simpleString() for field in fields}
    if len(fields) > MAX_COLUMNS:
        raise WriterSchemaError(
            f"The frame has {len(fields):,} columns, and {MAX_COLUMNS:,} are the most that are taken.",
            context={"columns": len(fields), "most": MAX_COLUMNS},
            suggestions=["Select those that belong into the log, or put the others into one map for `metadata`."],
            code="too_many_columns",
        )
    lowered = Counter(field.name.lower() for field in fields)
    twice = list(dict.fromkeys(field.name for field in fields if lowered[field.name.lower()] > 1))
    if twice:
        raise WriterSchemaError(
            f"The frame has these columns twice (upper and lower case count as one): {', '.join(map(repr, twice))}.",
            actual_schema=types,
            context={"column": twice[0]},
            suggestions=["Rename or drop one of each, e.g. after a join: frame.drop(other.run_id)."],
            code="duplicate_columns",
        )
    for field in fields:
        try:
            to_arrow_type(field.dataType, timezone="UTC")
        except PySparkException as error:  # noqa: PERF203  a frame has few
            raise WriterSchemaError(
                f"Column {field.name!r} of the frame is {field.dataType.simpleString()}, which Arrow does not know.",
                actual_schema=types,
                context={"column": field.name},
                suggestions=[f"Cast it first: frame.withColumn({field.name!r}, frame[{field.name!r}].cast('string'))."],
                code="unwritable_column",
            ) from error


def reports_of(frame: Any, task: FrameTask) -> list[FrameReport]:
    """Have the executors work, and give what they report, partition by partition.

    Raises:
        WriterError: Spark gave up; what it says, and what to do.
    """

    def work(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        return run_task(task, batches)

    try:
        rows = frame.mapInArrow(work, f"{REPORT} BINARY").collect()
    except Exception as error:
        raise _given_up(error) from error
    # Of this library's own making, on the executors of the caller's own Spark.
    reports: list[FrameReport] = [pickle.loads(bytes(row[0])) for row in rows]  # noqa: S301
    reports.sort(key=lambda report: report.partition)
    return reports


def gathered(task: FrameTask, reports: list[FrameReport]) -> FrameGated:
    """The whole frame behind the gate, or its refusal.

    Raises:
        WriterError: a task refused its rows; everything that was staged is deleted again.
    """
    try:
        _raise_refusals(reports)
        parts = [report.staged for report in reports if report.staged is not None]
        staged = merged_batches(parts, task.spec) if parts else None
        carried = _carried(task, reports)
    except BaseException:
        if task.spec is not None:
            discard_reported(task.spec, reports)
        raise
    asides = [report.aside for report in reports if report.aside is not None]
    named = [report.run_id for report in reports if report.run_id is not None]
    return FrameGated(
        batch=EncodedBatch(
            rows=carried,
            quarantined=pa.concat_tables(asides) if asides else None,
            digest=digest_text(sum(report.digest for report in reports)),
            run_id=task.run_id or (named[0] if named else task.made_run_id),
        ),
        given=sum(report.given for report in reports),
        judged=Judged(_no_rows()),
        notes=tuple(dict.fromkeys(note for report in reports for note in report.notes)),
        staged=staged,
        staged_rows=sum(report.accepted for report in reports),
        valid=sum(report.valid for report in reports),
        quality=quality_gathered(task, reports),
        watched=watched_gathered(task, reports),
    )


def _carried(task: FrameTask, reports: list[FrameReport]) -> pa.Table:
    """The accepted rows that tasks sent along; none where they were staged."""
    tables = [report.rows for report in reports if report.rows is not None]
    check_size(sum(table.nbytes for table in tables), task.carry_bytes)
    return pa.concat_tables([plain_table(one) for one in tables], promote_options="default") if tables else _no_rows()


def quality_gathered(task: FrameTask, reports: list[FrameReport]) -> QualityResult | None:
    """The quality of all rows; None where it was not asked for."""
    if task.thresholds is None:
        return None
    parts = [report.quality for report in reports if report.quality is not None]
    total = sum(part["total_rows"] for part in parts)
    invalid = sum(part["invalid_rows"] for part in parts)
    issues: dict[tuple[str, str], Any] = {}
    for part in parts:
        for issue in part["issues"]:
            known = issues.setdefault((issue["rule"], issue["column"]), {**issue, "failed_rows": 0, "sample": []})
            known["failed_rows"] += issue["failed_rows"]
            known["sample"] = [*known["sample"], *issue["sample"]][:SAMPLE_ROWS]
    rate = 100.0 if total == 0 else 100.0 * (total - invalid) / total
    met = rate >= task.thresholds.min_validation_rate
    rules = [str(rule) for listed in task.rules.values() for rule in listed] if task.rules else list(BUILTIN_RULES)
    return {
        "quality_passed": met and 100.0 - rate <= task.thresholds.max_invalid_rows_percent,
        "validation_rate": rate,
        "threshold_met": met,
        "total_rows": total,
        "valid_rows": total - invalid,
        "invalid_rows": invalid,
        "validation_rules_applied": rules,
        "issues": list(issues.values()),
    }


def watched_gathered(task: FrameTask, reports: list[FrameReport]) -> pa.Table | None:
    """What anomalies are looked for in; None where some task had too many rows, or all of them together."""
    found = [report.watched for report in reports]
    if not task.watch or any(table is None for table in found):
        return None
    tables = [table for table in found if table is not None and table.num_rows]
    if not tables:
        return _no_rows()
    whole = pa.concat_tables(tables, promote_options="permissive")
    return whole if whole.num_rows <= task.watched else None


def _raise_refusals(reports: list[FrameReport]) -> None:
    """Raise one error for all that the tasks refused; values that do not fit come first, as in the gate."""
    refused = [report for report in reports if report.error is not None]
    refused.sort(key=lambda report: not isinstance(report.error, WriterSchemaError))
    first = refused[0].error if refused else None
    if first is None:
        return
    entries = [entry for report in refused if type(report.error) is type(first) for entry in report.entries]
    bad = sum(report.bad for report in refused)
    if isinstance(first, (WriterSchemaError, WriterValidationError)) and entries:
        first.validation_errors = entries[:MOST_ENTRIES]
        first.context["bad_rows"] = bad
        first.message += f" In the whole frame {bad:,} are refused; rows are counted within partitions."
    raise first


_NO_MODULE = "No module named"


def _given_up(error: Exception) -> WriterError:
    text = str(error)
    if _NO_MODULE in text:
        missing = text.partition(_NO_MODULE)[2].strip().splitlines()[0].strip("'\" .")
        return WriterError(
            f"The executors have no module {missing!r}, so that they cannot work on the frame. Nothing was written.",
            suggestions=[
                "On one machine: take sfwriter.spark.session(), or set PYSPARK_PYTHON before the session starts.",
                "On a cluster: install sfwriter on every node, or send it along in spark.archives.",
                "Or send the rows through the driver in parts: write_batches(part for part in …).",
            ],
            code="executors_without_sfwriter",
        )
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    said = next((line for line in reversed(lines) if "Error" in line or "Exception" in line), lines[0] if lines else "")
    return WriterError(
        f"Spark could not work the frame out, and nothing was written: {said[:500]}",
        suggestions=["Try it without this library: frame.count(). The whole of Spark's message is the error's cause."],
        code="frame_failed",
    )
