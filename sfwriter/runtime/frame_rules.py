"""Rules that are Spark columns, for frames: worked out by Spark beside the rows, read where the gate is.

Receives: a frame, and a task whose rules have Spark columns among them.
Produces: the frame with a boolean column for each such rule, and a task that names those.
Guarantees: they are worked out under the frame's own settings: where those are ANSI, a division by zero ends the
    job, and `try_divide` is the way. The rules see the columns of the log that the frame lacks as null, and
    `success` as the gate fills it in. What they see of the others is the frame's own: a value that the gate would
    convert is not converted yet.
Never does: bring rows to the driver.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sfwriter.quality.rules import spark_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

    from sfwriter.runtime.frame_task import FrameTask

_PREFIX = "_sfwriter_rule_"


@dataclass(frozen=True, slots=True)
class RuleColumn:
    """Stands for a Spark column on an executor: the column of the rows that has its answers."""

    name: str
    text: str

    def __str__(self) -> str:
        """As results show the rule."""
        return self.text


class WorkedOut:
    """The answers that come with the rows of a chunk: a `ColumnRules` for executors."""

    def __init__(self) -> None:
        """No rows yet."""
        self._answers: dict[str, pa.ChunkedArray] = {}

    def taken_from(self, table: pa.Table) -> pa.Table:
        """The rows without the columns that rules brought."""
        self._answers = {name: table.column(name) for name in table.column_names if name.startswith(_PREFIX)}
        return table.drop_columns(list(self._answers)) if self._answers else table

    def problem(self, column: Any, empty: pa.Table) -> str | None:  # noqa: ARG002  the driver has looked
        """None: the driver has looked at them."""
        return None

    def kept(self, columns: Sequence[Any], rows: pa.Table) -> list[Any]:  # noqa: ARG002  the answers are there
        """The answers of these `RuleColumn`s."""
        return [self._answers[column.name] for column in columns]


class FrameColumns:
    """Looks whether Spark columns are rules for a frame: a `ColumnRules` for the driver."""

    def __init__(self, frame: Any, known: pa.Schema) -> None:
        """`known`: the columns of the log, of the table, and of the frame."""
        self._frame = _completed(frame, known)

    def problem(self, column: Any, empty: pa.Table) -> str | None:  # noqa: ARG002  the frame itself is asked
        """What is wrong with a rule: a phrase that continues its text; None where it is one."""
        if " OVER " in str(column).upper():
            return "looks at other rows, and a rule looks at the values of one row only"
        try:
            kind = self._frame.select("*", column).schema.fields[-1].dataType.simpleString()
        except Exception as error:  # noqa: BLE001  py4j and Spark raise many kinds
            return f"is none for Spark: {str(error).splitlines()[0]}"
        return None if kind == "boolean" else f"gives {kind}, and a rule is true or false"

    def kept(self, columns: Sequence[Any], rows: pa.Table) -> list[Any]:
        """Nothing is judged on the driver."""
        raise NotImplementedError


def with_rule_columns(frame: Any, task: FrameTask) -> tuple[Any, FrameTask]:
    """The frame with the answers of its rules, and the task that reads them; both as they are without such rules."""
    rules = task.rules or {}
    if not any(_is_spark(rule) for listed in rules.values() for rule in listed):
        return frame, task
    answers: dict[str, Any] = {}
    named: dict[str, list[Any]] = {}
    for column, listed in rules.items():
        for rule in listed:
            if _is_spark(rule):
                name = f"{_PREFIX}{len(answers)}"
                answers[name] = rule
                named.setdefault(column, []).append(RuleColumn(name, spark_text(rule)))
            else:
                named.setdefault(column, []).append(rule)
    whole = _completed(frame, task.rule_columns)
    asked = whole.select(*frame.columns, *[rule.alias(name) for name, rule in answers.items()])
    return asked, replace(task, rules=named)


def _completed(frame: Any, known: pa.Schema) -> Any:
    """The frame with every known column, and `success` as the gate would fill it in."""
    from pyspark.sql.pandas.types import from_arrow_type

    F = _functions(frame)  # noqa: N806  its usual name
    had = {name.lower() for name in frame.columns}
    missing = {
        entry.name: F.lit(None).cast(from_arrow_type(entry.type, prefer_timestamp_ntz=False))
        for entry in known
        if entry.name.lower() not in had
    }
    whole = frame.withColumns(missing) if missing else frame
    if dict(whole.dtypes).get("success") == "boolean":
        whole = whole.withColumn("success", F.coalesce(F.col("success"), F.col("error_message").isNull()))
    return whole


def _functions(frame: Any) -> Any:
    """Spark's functions for this kind of frame: in a process with both kinds of sessions the usual ones are classic."""
    if any(kind.__module__.startswith("pyspark.sql.connect") for kind in type(frame).__mro__):
        from pyspark.sql.connect import functions as remote

        return remote
    from pyspark.sql import functions

    return functions


def _is_spark(rule: Any) -> bool:
    return any(kind.__name__ == "Column" and kind.__module__.startswith("pyspark") for kind in type(rule).__mro__)
