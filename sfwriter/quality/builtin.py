"""The rules that every log row is measured by, whatever the configuration says.

Receives: rows in the log table's types, as one Arrow table.
Produces: every breach of a rule: row, column, reason.
Guarantees: all reasons for all rows, ordered by row; on rows without a breach only whole-column kernels run.
Never does: decide what happens to a row that breaks one.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from sfwriter.arrays import array_of, constant
from sfwriter.dictionaries import plain_column, vocabulary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

PHASES = ("bronze", "silver", "gold", "pipeline")
"""`pipeline` is for the row of a whole run."""

RUN_MODES = ("initial", "incremental", "full_refresh", "validation_only")

REQUIRED = ("phase", "step_name")
"""What a row needs in every mode."""

COUNTS = ("rows_processed", "rows_written", "input_rows", "output_rows", "valid_rows", "invalid_rows")
SPANS = (("run_started_at", "run_ended_at"), ("start_time", "end_time"))

_FILLED = ("run_id", "step_name")
_ALLOWED = (("phase", PHASES), ("run_mode", RUN_MODES))
_FINITE = "numbers are finite"
_PHASES = frozenset(PHASES)
_RUN_MODES = frozenset({*RUN_MODES, None})
_NEVER_NEGATIVE = ("duration_secs", "validation_rate", *COUNTS)


def _required_rule(name: str) -> str:
    return f"{name} is not null"


def _filled_rule(name: str) -> str:
    return f"{name} is not blank"


def _allowed_rule(name: str, allowed: Sequence[str]) -> str:
    return f"{name} is one of {', '.join(allowed)}"


def _least_rule(name: str) -> str:
    return f"{name} >= 0"


def _span_rule(start: str, end: str) -> str:
    return f"{end} >= {start}"


_RATE_RULE = "validation_rate is from 0 to 100"

BUILTIN_RULES = (
    *map(_required_rule, REQUIRED),
    *map(_filled_rule, _FILLED),
    *(_allowed_rule(name, allowed) for name, allowed in _ALLOWED),
    *map(_least_rule, ("duration_secs", *COUNTS)),
    _RATE_RULE,
    _FINITE,
    *(_span_rule(start, end) for start, end in SPANS),
)
"""What every log row is measured by, as texts."""


@dataclass(frozen=True, slots=True)
class Breach:
    """One rule that one row breaks.

    Attributes:
        row: position among the rows that were looked at.
        column: whose value breaks it.
        reason: a sentence that names the column and shows the value.
        rule: the text of the rule, the same for every row.
        missing: the row lacks what every row needs (`REQUIRED`).
    """

    row: int
    column: str
    reason: str
    rule: str
    missing: bool = False


def breaches(rows: pa.Table) -> list[Breach]:
    """Every breach in the rows, ordered by row, then by rule."""
    found: list[Breach] = []
    for check in (_required, _texts, _numbers, _spans):
        found.extend(check(rows))
    found.sort(key=lambda breach: breach.row)
    return found


def surely_kept(values: Mapping[str, Sequence[Any]], floats: Iterable[Sequence[Any]]) -> bool:
    """Whether rows break no rule, by a look at their values; False says that `breaches` has to look.

    A shortcut of `breaches` for few rows, which gives no reasons.

    Args:
        values: column to plain values of the column's type (None: null), times in microseconds; a column
            that is left out is null.
        floats: the values of all columns of doubles.
    """
    if not all(name in values and None not in values[name] for name in REQUIRED):
        return False
    # Neighbouring rows have the same texts, mostly.
    texts = {text for name in _FILLED for text in values.get(name, ()) if text is not None}
    if "" in texts or any(map(str.isspace, texts)):
        return False
    if not _PHASES.issuperset(values["phase"]) or not _RUN_MODES.issuperset(values.get("run_mode", ())):
        return False
    # A sum of many may be infinite where none of them is: then somebody else looks.
    if not all(isfinite(sum(_known(numbers))) for numbers in floats):
        return False
    if any(min(_known(values[name]), default=0) < 0 for name in _NEVER_NEGATIVE if name in values):
        return False
    if max(_known(values.get("validation_rate", ())), default=0) > 100:
        return False
    return not any(
        None not in pair and pair[1] < pair[0]
        for start, end in SPANS
        if start in values and end in values
        for pair in zip(values[start], values[end], strict=True)
    )


def _known(numbers: Sequence[Any]) -> Sequence[Any]:
    return [number for number in numbers if number is not None] if None in numbers else numbers


def _places(mask: Any) -> list[int]:
    """Positions where a mask is true; null counts as false."""
    return [] if not pc.any(mask).as_py() else pc.indices_nonzero(mask).to_pylist()


def _required(rows: pa.Table) -> Iterator[Breach]:
    for name in REQUIRED:
        column = rows.column(name)
        if column.null_count:
            for place in _places(pc.is_null(column)):
                yield Breach(place, name, f"{name} is missing", _required_rule(name), missing=True)


def _blank(texts: Any) -> Any:
    return pc.or_(pc.equal(pc.binary_length(texts), constant(0, pa.int64())), pc.utf8_is_space(texts))


def all_among(column: pa.ChunkedArray, allowed: Sequence[str]) -> bool:
    """Whether the column has no text beside these; null is none."""
    return bool(pc.all(pc.is_in(vocabulary(column), array_of([*allowed, None], pa.string()))).as_py())


def _texts(rows: pa.Table) -> Iterator[Breach]:
    for name in _FILLED:
        column = rows.column(name)
        if not pc.any(_blank(vocabulary(column))).as_py():
            continue
        for place in _places(_blank(plain_column(column))):
            yield Breach(place, name, f"{name} is empty: {_shown(column, place)}", _filled_rule(name))
    for name, allowed in _ALLOWED:
        column = rows.column(name)
        if column.null_count == len(column) or all_among(column, allowed):
            continue
        column = plain_column(column)
        other = pc.and_(pc.is_valid(column), pc.invert(pc.is_in(column, array_of(allowed, pa.string()))))
        for place in _places(other):
            reason = f"{name} is {_shown(column, place)}, not one of {', '.join(allowed)}"
            yield Breach(place, name, reason, _allowed_rule(name, allowed))


def _numbers(rows: pa.Table) -> Iterator[Breach]:
    for field in rows.schema:
        if not pa.types.is_floating(field.type):
            continue
        column = rows.column(field.name)
        if column.null_count == len(column) or pc.all(pc.is_finite(column)).as_py():
            continue
        for place in _places(pc.invert(pc.is_finite(column))):
            reason = f"{field.name} is {column[place].as_py()}, not a finite number"
            yield Breach(place, field.name, reason, _FINITE)
    for name in ("duration_secs", *COUNTS):
        yield from _outside(
            rows,
            name,
            lambda column: pc.less(column, constant(0, pa.int64())),
            "negative",
            _least_rule(name),
            low=0,
            high=None,
        )
    yield from _outside(
        rows,
        "validation_rate",
        lambda column: pc.or_(pc.less(column, constant(0, pa.int64())), pc.greater(column, constant(100, pa.int64()))),
        "outside 0 to 100",
        _RATE_RULE,
        low=0,
        high=100,
    )


def _outside(
    rows: pa.Table, name: str, mask: Callable[[Any], Any], what: str, rule: str, *, low: float, high: float | None
) -> Iterator[Breach]:
    column = rows.column(name)
    # Minimum and maximum settle it for a column without a breach, and read it once.
    limits = pc.min_max(column)
    least, most = limits["min"].as_py(), limits["max"].as_py()
    if least is None or (least >= low and (high is None or most <= high)):
        return
    finite = pc.is_finite(column) if pa.types.is_floating(column.type) else pc.is_valid(column)
    for place in _places(pc.and_(mask(column), finite)):
        yield Breach(place, name, f"{name} is {what}: {column[place].as_py()}", rule)


def _spans(rows: pa.Table) -> Iterator[Breach]:
    for start, end in SPANS:
        began, ended = rows.column(start), rows.column(end)
        for place in _places(pc.less(ended, began)):
            moments = f"{end} {ended[place].as_py().isoformat()} is before {start} {began[place].as_py().isoformat()}"
            yield Breach(place, end, moments, _span_rule(start, end))


def _shown(column: Any, place: int) -> str:
    text = repr(column[place].as_py())
    return text if len(text) <= 80 else text[:79] + "…"
