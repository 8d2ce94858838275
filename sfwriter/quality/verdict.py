"""What a batch's quality is: from broken rules to the result that people read.

Receives: how many rows there were, and which broke what.
Produces: a `QualityResult`.
Guarantees: `validation_rate` is counted; a batch without rows has none that is invalid, so it passes.
Never does: evaluate a rule.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from sfwriter.arrays import array_of
from sfwriter.quality.builtin import BUILTIN_RULES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sfwriter.quality.builtin import Breach
    from sfwriter.quality.rules import Broken, RuleSet
    from sfwriter.results import QualityIssue, QualityResult

SAMPLE_ROWS = 5
"""Failing rows that an issue shows."""

_IDENTITY = ("run_id", "pipeline_id", "step_name")


@dataclass(frozen=True, slots=True)
class Thresholds:
    """When a batch passes: `min_validation_rate` and `max_invalid_rows_percent`, in percent."""

    min_validation_rate: float
    max_invalid_rows_percent: float


@dataclass(frozen=True, slots=True)
class Misfit:
    """A value that does not fit its column: where, the rule that this breaks, and the value as text."""

    row: int
    column: str
    rule: str
    value: str


@dataclass(frozen=True, slots=True)
class Judged:
    """What was found of some rows, before anything became of them.

    Attributes:
        rows: in the log table's types; a value that does not fit is null.
        misfits: values that do not fit their columns.
        breaches: of the built-in rules.
        broken: the custom rules that some row breaks; None where there are no custom rules.
    """

    rows: pa.Table
    misfits: tuple[Misfit, ...] = ()
    breaches: tuple[Breach, ...] = ()
    broken: tuple[Broken, ...] | None = None


def quality_of(judged: Judged, rules: RuleSet | None, thresholds: Thresholds) -> QualityResult:
    """The result for these rows.

    Args:
        judged: the rows and what they break.
        rules: the custom rules; None: the built-in ones.
        thresholds: of the configuration.
    """
    groups: dict[tuple[str, str], Any] = {}
    for misfit in judged.misfits:
        groups.setdefault((misfit.rule, misfit.column), []).append(misfit.row)
    for breach in judged.breaches:
        groups.setdefault((breach.rule, breach.column), []).append(breach.row)
    for one in judged.broken or ():
        groups[one.rule.text, one.rule.column] = one.rows
    given = {(misfit.row, misfit.column): misfit.value for misfit in judged.misfits}
    issues = [_issue(rule, column, found, judged.rows, given) for (rule, column), found in groups.items()]
    total = int(judged.rows.num_rows)
    invalid = _distinct(groups.values())
    rate = 100.0 if total == 0 else 100.0 * (total - invalid) / total
    threshold_met = rate >= thresholds.min_validation_rate
    return {
        "quality_passed": threshold_met and 100.0 - rate <= thresholds.max_invalid_rows_percent,
        "validation_rate": rate,
        "threshold_met": threshold_met,
        "total_rows": total,
        "valid_rows": total - invalid,
        "invalid_rows": invalid,
        "validation_rules_applied": list(BUILTIN_RULES) if rules is None else rules.texts,
        "issues": issues,
    }


def _distinct(groups: Iterable[Any]) -> int:
    """How many different rows the groups have together."""
    arrays = [group if isinstance(group, pa.Array) else array_of(group, pa.int64()) for group in groups]
    return len(pc.unique(pa.concat_arrays(arrays))) if arrays else 0


def _issue(
    rule: str, column: str, found: Sequence[int] | pa.Array, rows: pa.Table, given: Mapping[tuple[int, str], str]
) -> QualityIssue:
    places = found.to_pylist() if isinstance(found, pa.Array) else list(dict.fromkeys(found))
    shown = [name for name in dict.fromkeys((*_IDENTITY, column)) if name in rows.column_names]
    sample = rows.select(shown).take(array_of(places[:SAMPLE_ROWS], pa.int64())).to_pylist()
    return {
        "rule": rule,
        "column": column,
        "failed_rows": len(places),
        "sample": [
            {
                "row": place,
                "value": given.get((place, column), row.get(column)),
                **{name: row.get(name) for name in _IDENTITY},
            }
            for place, row in zip(places, sample, strict=False)
        ],
    }
