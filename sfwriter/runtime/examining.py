"""What is found out about a call's rows before they are sent on their way.

Receives: what came through the gate.
Produces: the findings for the call's result, and the rows of `<table>_quality`.
Guarantees: with `fail_fast` a batch that does not pass is refused before anything of it is written.
Never does: write.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa

from sfwriter.exceptions import WriterConfigurationError, WriterDataQualityError
from sfwriter.quality.rules import RulesError, RuleSet
from sfwriter.quality.verdict import Thresholds, quality_of
from sfwriter.schema import LOG_SCHEMA, QUALITY_SCHEMA, QUALITY_STAMPS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from sfwriter.config import WriterConfig
    from sfwriter.quality.rules import ColumnRules
    from sfwriter.quality.verdict import Judged
    from sfwriter.results import AnomalyResult, QualityResult

_ROW_SCHEMA = pa.schema([field for field in QUALITY_SCHEMA if field.name not in QUALITY_STAMPS])


@dataclass(frozen=True, slots=True)
class Findings:
    """What was found out about a call's rows; None where it was not asked for.

    Attributes:
        quality: for the result.
        anomalies: for the result.
        beside: table name to rows that are committed with the batch.
    """

    quality: QualityResult | None = None
    anomalies: AnomalyResult | None = None
    beside: Mapping[str, pa.Table] = field(default_factory=dict)


def rules_of(
    config: WriterConfig, schema: pa.Schema | None, now: Callable[[], datetime], by_spark: ColumnRules | None = None
) -> RuleSet | None:
    """The configuration's rules, checked against the columns; None where it has none.

    Args:
        config: the options.
        schema: of the table, None where there is no table yet.
        now: the time of a check.
        by_spark: works out rules that are Spark columns.

    Raises:
        WriterConfigurationError: rules that do not parse, are not boolean, or name unknown columns.
    """
    if not config.validation_rules:
        return None
    try:
        return RuleSet(config.validation_rules, known_columns(schema), now, by_spark)
    except RulesError as error:
        raise WriterConfigurationError(
            str(error),
            problems=error.problems,
            context={"option": "validation_rules"},
            suggestions=["a rule is a boolean SQL expression over a row's columns, e.g. 'duration_secs >= 0'"],
            code="configuration",
        ) from None


def known_columns(schema: pa.Schema | None) -> pa.Schema:
    """The log's columns, and those that the table has besides."""
    extras = [] if schema is None else [entry for entry in schema if entry.name not in LOG_SCHEMA.names]
    return pa.schema([*LOG_SCHEMA, *extras])


class Examiner:
    """Judges the batches of one configuration. Thread-safe."""

    def __init__(self, config: WriterConfig, rules: RuleSet | None) -> None:
        """`rules`: those that the gate measures by; None for the built-in ones."""
        self._config = config
        self._rules = rules
        self._table = f"{config.table_schema}.{config.quality_table_name}"
        self.thresholds = Thresholds(config.min_validation_rate, config.max_invalid_rows_percent)

    def quality(self, judged: Judged, rules: RuleSet | None) -> QualityResult:
        """The result for rows that were judged by these rules.

        Raises:
            WriterDataQualityError: `fail_fast` is on and they do not pass.
        """
        return self.passed(quality_of(judged, rules, self.thresholds))

    @property
    def asked(self) -> Thresholds | None:
        """What the quality of written rows is held against; None where the configuration does not ask for it."""
        return self.thresholds if self._config.log_data_quality_results or self._config.fail_fast else None

    def passed(self, found: QualityResult) -> QualityResult:
        """The quality itself.

        Raises:
            WriterDataQualityError: `fail_fast` is on and the rows do not pass.
        """
        if self._config.fail_fast and not found["quality_passed"]:
            raise WriterDataQualityError(
                f"{found['invalid_rows']} of {found['total_rows']} rows are invalid (validation rate "
                f"{found['validation_rate']:.2f} %); at least {self._config.min_validation_rate:g} % valid and at most "
                f"{self._config.max_invalid_rows_percent:g} % invalid are asked for",
                quality_issues=found["issues"],
                context={"validation_rate": found["validation_rate"], "table": self._config.table_fqn},
                suggestions=[
                    "correct the rows that quality_issues shows",
                    "or leave fail_fast off, and decide by quality_passed",
                ],
            )
        return found

    def findings(self, judged: Judged, run_id: str, known: QualityResult | None = None) -> Findings:
        """What the configuration asks to be found out about a batch that is to be written.

        Args:
            judged: its rows.
            run_id: that the result names.
            known: their quality, where it was worked out elsewhere.

        Raises:
            WriterDataQualityError: `fail_fast` is on and the rows do not pass.
        """
        kept = self._config.log_data_quality_results
        if not kept and not self._config.fail_fast:
            return Findings()
        found = self.quality(judged, self._rules) if known is None else self.passed(known)
        if not kept or not found["total_rows"]:
            return Findings(quality=found if kept else None)
        return Findings(quality=found, beside={self._table: self._row(found, run_id)})

    def _row(self, found: QualityResult, run_id: str) -> pa.Table:
        row: dict[str, Any] = {
            **found,
            "run_id": run_id,
            "min_validation_rate": float(self._config.min_validation_rate),
            "max_invalid_rows_percent": float(self._config.max_invalid_rows_percent),
            "issues": orjson.dumps(found["issues"], default=str, option=orjson.OPT_UTC_Z).decode(),
        }
        return pa.Table.from_pylist([{name: row[name] for name in _ROW_SCHEMA.names}], _ROW_SCHEMA)
