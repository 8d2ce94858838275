"""Table names out of patterns. Pure text: no clock, no files.

Receives: patterns, the values of their variables.
Produces: `schema.table` names that are safe as catalog names and as folders.
Guarantees: a name that comes out has two parts of ASCII letters, digits, `_` and `-`, at most
`MAX_NAME_LENGTH` each. Nothing is ever cleaned or made up to get there.
Never does: format specs, attribute access, conversions.
"""

from __future__ import annotations

import re
import string
from datetime import datetime, timezone
from difflib import get_close_matches
from enum import Enum
from typing import TYPE_CHECKING

from sfwriter.exceptions import WriterValidationError

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_PATTERN = "{schema}.{table_name}"

VARIABLES = ("schema", "table_name", "pipeline_id", "run_mode", "date", "timestamp")

MAX_NAME_LENGTH = 120
"""Leaves room for `_quarantine` and the like within the 128 that catalogs take."""

NAME_RULE = f"1 to {MAX_NAME_LENGTH} ASCII letters, digits, '_' and '-'"

_NAME = re.compile(rf"[A-Za-z0-9_-]{{1,{MAX_NAME_LENGTH}}}")
_ISO = re.compile(
    r"(\d{4}-\d{2}-\d{2})(?:[T ](\d{2}:\d{2})(:\d{2})?(?:\.(\d{1,9}))?(?:([Zz])|([+-]\d{2}):?(\d{2}))?)?", re.ASCII
)
_COMPACT = re.compile(r"(\d{4})(\d{2})(\d{2})(?:[_T]?(\d{2})(\d{2})(\d{2}))?", re.ASCII)


def is_name(text: str) -> bool:
    """Whether the text can be one part of a table's name."""
    return _NAME.fullmatch(text) is not None


def variables_of(pattern: str) -> tuple[str, ...]:
    """The variables that a pattern needs, each once, in their order. The pattern must be a good one."""
    return tuple(dict.fromkeys(name for _, name, _, _ in string.Formatter().parse(pattern) if name is not None))


def pattern_problems(pattern: str, *, suffix: bool = False) -> list[str]:
    """What is wrong with a pattern, as sentences without a subject; none for a good one.

    A name's pattern has exactly one dot, between schema and table; a suffix has none.
    """
    try:
        parts = list(string.Formatter().parse(pattern))
    except ValueError as error:
        return [f"is not a pattern: {error}"]
    problems = []
    literal = "".join(text for text, _, _, _ in parts)
    for _, name, spec, conversion in parts:
        if name is None:
            continue
        if name not in VARIABLES:
            problems.append(_unknown_variable(name))
        if spec or conversion:
            problems.append(f"formats {{{name}}}; only the bare variable is allowed")
    stray = sorted(set(re.sub(r"[A-Za-z0-9_.-]", "", literal)))
    if stray:
        problems.append(f"has {' '.join(map(repr, stray))}; names have only ASCII letters, digits, '_' and '-'")
    dots = literal.count(".")
    if suffix and dots:
        problems.append("has a dot; a suffix is added to the table's part of the name")
    if not suffix and dots != 1:
        problems.append(f"has {dots} dots; it needs exactly one, between schema and table")
    return problems


def render(pattern: str, suffix: str, values: Mapping[str, str | None]) -> str:
    """The name that pattern and suffix give with these values.

    Both are rendered, then joined; where the suffix begins with what the name already ends with, that
    part is not repeated (longest overlap, by character).

    Raises:
        WriterValidationError: a variable has no value, or the name is not a legal one.
    """
    missing = [name for name in variables_of(pattern + suffix) if not (values.get(name) or "").strip()]
    if missing:
        raise WriterValidationError(
            f"the table's name needs {' and '.join(missing)}, and nothing was given for it",
            context={"pattern": pattern, "suffix": suffix, "missing": missing},
            suggestions=[f"give {' and '.join(missing)} in the row or the call, or leave it out of the pattern"],
            code="table_name_variable_missing",
        )
    return _checked(joined(pattern.format_map(dict(values)), suffix.format_map(dict(values))), pattern, suffix)


def joined(name: str, suffix: str) -> str:
    """The name with the suffix behind it, without the beginning of the suffix that the name ends with."""
    overlap = next(length for length in range(len(suffix), -1, -1) if name.endswith(suffix[:length]))
    return name + suffix[overlap:]


def split_name(table_fqn: str) -> tuple[str, str]:
    """Schema and table of a `schema.table` name.

    Raises:
        WriterValidationError: it is not two legal parts.
    """
    parts = table_fqn.split(".")
    if len(parts) != 2 or not all(map(is_name, parts)):
        raise WriterValidationError(
            f"{_short(table_fqn)} is no table name: it takes two parts, schema.table, each of {NAME_RULE}",
            context={"table_fqn": table_fqn},
            suggestions=["use names like analytics.pipeline_logs"],
            code="table_name_illegal",
        )
    return parts[0], parts[1]


def text_of(variable: str, value: object) -> str | None:
    """A variable's value as the text that goes into a name; None and blanks are no value.

    Raises:
        WriterValidationError: it is neither text nor an enum of text.
    """
    if isinstance(value, Enum):
        value = value.value
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if not isinstance(value, str):
        raise WriterValidationError(
            f"{variable} is {_short(value)}, but a table's name takes text",
            context={variable: repr(value)},
            suggestions=[f"give {variable} as text"],
            code="table_name_variable_type",
        )
    return value


def moment(value: datetime | str) -> datetime:
    """A timestamp as UTC; a naive one is taken as UTC.

    Text may be `20240101_120000`, `20240101` (midnight) or ISO 8601.

    Raises:
        WriterValidationError: the text is none of these.
    """
    if isinstance(value, str):
        value = _parsed(value)
    if not isinstance(value, datetime):
        raise _no_timestamp(value)
    if value.tzinfo is None:
        return value.replace(tzinfo=timezone.utc)
    try:
        return value.astimezone(timezone.utc)
    except OverflowError as error:  # within hours of year 1 or 9999
        raise _no_timestamp(value) from error


def time_values(at: datetime) -> dict[str, str]:
    """The variables `date` and `timestamp` of a moment: `20240101` and `20240101_120000`."""
    # By hand: strftime does not pad years before 1000 everywhere.
    date = f"{at.year:04d}{at.month:02d}{at.day:02d}"
    return {"date": date, "timestamp": f"{date}_{at.hour:02d}{at.minute:02d}{at.second:02d}"}


def _parsed(text: str) -> datetime:
    compact, iso = _COMPACT.fullmatch(text), _ISO.fullmatch(text)
    try:
        if compact:
            return datetime(*(int(part or 0) for part in compact.groups()), tzinfo=timezone.utc)  # type: ignore[misc,arg-type]
        if iso:
            # Rewritten in the one form that all Pythons read alike.
            day, minute, second, fraction, _, hours, minutes = iso.groups()
            micros = (fraction or "0").ljust(6, "0")[:6]
            return datetime.fromisoformat(
                f"{day}T{minute or '00:00'}{second or ':00'}.{micros}{hours or '+00'}:{minutes or '00'}"
            )
    except ValueError as error:
        raise _no_timestamp(text) from error
    raise _no_timestamp(text)


def _no_timestamp(value: object) -> WriterValidationError:
    return WriterValidationError(
        f"timestamp is {_short(value)}, which is no point in time",
        context={"timestamp": repr(value)},
        suggestions=["give a datetime, or text like 20240101_120000 or 2024-01-01T12:00:00Z"],
        code="timestamp_illegal",
    )


def _checked(name: str, pattern: str, suffix: str) -> str:
    try:
        split_name(name)
    except WriterValidationError as error:
        error.context |= {"pattern": pattern, "suffix": suffix}
        error.suggestions = ["use values of letters, digits, '_' and '-' only; names are refused, never cleaned"]
        raise
    return name


def _unknown_variable(name: str) -> str:
    close = get_close_matches(name, VARIABLES, n=1)
    hint = f"; did you mean {{{close[0]}}}?" if close else f"; known are {', '.join(VARIABLES)}"
    return f"has the variable {{{name}}}, which does not exist{hint}"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
