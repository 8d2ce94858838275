"""A configuration's rules, and which rows break them.

Receives: rules as users write them, and rows in the log table's types.
Produces: for each rule that is broken, the rows that break it.
Guarantees: one vectorised pass over the rows; a rule that gives null has failed, as for a Delta CHECK constraint.
Never does: decide what happens to a row that breaks one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from sfwriter.arrays import array_of, constant
from sfwriter.column import Column
from sfwriter.dictionaries import plain_table
from sfwriter.quality.builtin import Breach
from sfwriter.quality.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

_TAKEN_TIME = "logged_at"
"""Stamped after the rules: they see the time at which they look."""


class RulesError(ValueError):
    """Rules that are none.

    Attributes:
        problems: a sentence for each.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        """Keep the problems."""
        self.problems = list(problems)
        super().__init__("; ".join(self.problems))


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of one column.

    Attributes:
        column: what the user filed it under.
        text: as results show it.
        expression: pyarrow's, None for others.
        spark: Spark's column, None for others.
    """

    column: str
    text: str
    expression: pc.Expression | None = None
    spark: Any = None


class ColumnRules(Protocol):
    """Works out rules that are Spark columns."""

    def problem(self, column: Any, empty: pa.Table) -> str | None:
        """What is wrong with a rule: a phrase that continues its text; None where it is one."""

    def kept(self, columns: Sequence[Any], rows: pa.Table) -> list[Any]:
        """For each column what it says of each row, in the rows' order."""


@dataclass(frozen=True, slots=True)
class Broken:
    """A rule, and the positions (int64, rising) of the rows that break it."""

    rule: Rule
    rows: pa.Array


class RuleSet:
    """Rules that were checked against the columns that they name. Thread-safe."""

    def __init__(
        self,
        given: Mapping[str, Sequence[Any]],
        schema: pa.Schema,
        now: Callable[[], datetime],
        by_spark: ColumnRules | None = None,
    ) -> None:
        """Check the rules.

        Args:
            given: column to rules: SQL text, `Column`, pyarrow expressions, or Spark's columns.
            schema: all columns that rows may have.
            now: tells what `logged_at` is.
            by_spark: works Spark's columns out; None where there is no Spark.

        Raises:
            RulesError: some do not parse, are not boolean, or name unknown columns; it tells all of them.
        """
        self._empty = schema.empty_table()
        self._now = now
        self._by_spark = by_spark
        self._sandbox = Sandbox()
        self._used: set[str] = set()
        self.rules = tuple(_rule(column, one) for column, listed in given.items() for one in listed)
        problems = [
            f"validation_rules[{rule.column!r}]: {rule.text!r} {problem}"
            for rule in self.rules
            if (problem := self._problem(rule)) is not None
        ]
        if problems:
            raise RulesError(problems)
        self._sql = tuple(rule for rule in self.rules if rule.expression is None and rule.spark is None)
        self._expressions = tuple(rule for rule in self.rules if rule.expression is not None)
        self._spark = tuple(rule for rule in self.rules if rule.spark is not None)

    @property
    def texts(self) -> list[str]:
        """Every rule's text, with its column."""
        return [rule.text for rule in self.rules]

    def broken(self, rows: pa.Table) -> list[Broken]:
        """The rules that are broken, in their order.

        Args:
            rows: in the log table's types, texts of few values encoded or not; columns that they lack are null.

        Raises:
            WriterValidationError: the rules could not be worked out in time.
        """
        if not rows.num_rows or not self.rules:
            return []
        completed = self._completed(rows)
        by_sql = self._sandbox.kept([rule.text for rule in self._sql], completed).columns if self._sql else []
        expressions = [rule.expression for rule in self._expressions]
        columns = [rule.spark for rule in self._spark]
        if expressions or columns:
            completed = plain_table(completed)  # DuckDB reads both, and encoded texts faster
        by_arrow = _projected(completed, expressions).columns if expressions else []
        by_spark = self._by_spark.kept(columns, completed) if columns and self._by_spark is not None else []
        sql, arrow, spark = iter(by_sql), iter(by_arrow), iter(by_spark)
        kept = [(rule, next(spark if rule.spark is not None else arrow if rule.expression is not None else sql))
                for rule in self.rules]  # fmt: skip
        return [Broken(rule, _failing(column)) for rule, column in kept if not _all_true(column)]

    def _problem(self, rule: Rule) -> str | None:
        """What is wrong with a rule: a phrase that continues its text."""
        known = {name.lower() for name in self._empty.column_names}
        if rule.column.lower() not in known:
            return f"is filed under {rule.column!r}, which is no column; there are {', '.join(sorted(known))}"
        try:
            if rule.expression is not None:
                kind = _projected(self._empty, [rule.expression]).schema.field(0).type
                self._used |= known
                return None if pa.types.is_boolean(kind) else f"gives {kind}, and a rule is true or false"
            if rule.spark is not None:
                self._used |= known
                if self._by_spark is None:
                    return "is a Spark column, which needs the Spark engine; write it as SQL text"
                return self._by_spark.problem(rule.spark, self._empty)
            names = {name.lower() for name in self._sandbox.columns(rule.text)}
            if names - known:
                return f"names {', '.join(sorted(names - known))}; the columns are {', '.join(sorted(known))}"
            self._sandbox.check(rule.text, self._empty)
            self._used |= names
        except (ValueError, pa.ArrowException) as error:
            return str(error).splitlines()[0]
        return None

    def _completed(self, rows: pa.Table) -> pa.Table:
        """The rows with the columns that rules name and they lack."""
        had = {name.lower() for name in rows.column_names}
        for field in self._empty.schema:
            if field.name.lower() in had or field.name.lower() not in self._used:
                continue
            if field.name == _TAKEN_TIME:
                micros = int(self._now().timestamp() * 1_000_000)
                column: Any = pa.repeat(array_of([micros], pa.int64()).cast(field.type)[0], rows.num_rows)
            else:
                column = pa.nulls(rows.num_rows, field.type)
            rows = rows.append_column(field, column)
        return rows


def breaches_of(broken: Iterable[Broken]) -> Iterator[Breach]:
    """The same, row by row, as the gate sets rows aside by."""
    for one in broken:
        rule = one.rule
        for row in one.rows.to_pylist():
            yield Breach(row, rule.column, f"{rule.column} fails the rule {rule.text}", rule.text)


def _rule(column: str, given: Any) -> Rule:
    if isinstance(given, (str, Column)):
        return Rule(column, str(given).strip())
    if isinstance(given, pc.Expression):
        return Rule(column, str(given), given)
    return Rule(column, spark_text(given), spark=given)


def spark_text(given: Any) -> str:
    """A Spark column as results show it: as Spark prints it, without the `Column<'…'>` around."""
    text = str(given)
    return text[len("Column<'") : -len("'>")] if text.startswith("Column<'") and text.endswith("'>") else text


def _projected(rows: pa.Table, expressions: Sequence[Any]) -> pa.Table:
    from pyarrow import acero  # needed by few

    source = acero.Declaration("table_source", acero.TableSourceNodeOptions(rows))
    names = [f"r{place}" for place in range(len(expressions))]
    project = acero.Declaration("project", acero.ProjectNodeOptions(list(expressions), names))
    # One thread: the order of the rows is what ties the answers to them.
    return acero.Declaration.from_sequence([source, project]).to_table(use_threads=False)


def _all_true(column: Any) -> bool:
    return column.null_count == 0 and pc.all(column).as_py() is True


def _failing(column: Any) -> pa.Array:
    failed = pc.invert(pc.fill_null(column, constant(value=False, kind=pa.bool_())))
    whole = failed.combine_chunks() if isinstance(failed, pa.ChunkedArray) else failed
    return pc.indices_nonzero(whole).cast(pa.int64())
