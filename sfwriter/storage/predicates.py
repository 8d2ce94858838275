"""The SQL predicates that the library itself writes, for an engine that has no SQL.

Known are comparisons of a quoted column with a literal (`"phase" = 'gold'`, `"rows_written" >= 10`,
`"start_time" < TIMESTAMP '2024-01-01T00:00:00Z'`), `IN (…)`, `IS [NOT] NULL`, `AND`, `OR`, `NOT` and
parentheses. As in SQL, a row of which the answer is NULL is not taken.
"""

from __future__ import annotations

import operator
import re
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from collections.abc import Callable

_TOKEN = re.compile(
    r"""\s*(?:(?P<column>"(?:[^"]|"")+")|(?P<text>'(?:[^']|'')*')|(?P<number>-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)"""
    r"""|(?P<sign><=|>=|<>|!=|=|<|>|\(|\)|,)|(?P<word>[A-Za-z_]\w*))"""
)
_COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq, "<>": operator.ne, "!=": operator.ne,
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
_CONSTANTS = {"TRUE": True, "FALSE": False}


def parse_predicate(text: str) -> pc.Expression:
    """The predicate as a pyarrow expression. Raises ValueError for what it does not know."""
    return _Parser(text).whole()


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens: list[tuple[str, str]] = []
        end = 0
        while text[end:].strip():
            found = _TOKEN.match(text, end)
            if found is None or found.lastgroup is None:
                raise ValueError(f"Not known in a predicate: {text[end:]!r}")
            value = found[found.lastgroup]
            self._tokens.append((found.lastgroup, value.upper() if found.lastgroup == "word" else value))
            end = found.end()
        self._at = 0

    def whole(self) -> pc.Expression:
        found = self._either()
        if self._at < len(self._tokens):
            raise self._unknown()
        return found

    def _either(self) -> pc.Expression:
        found = self._both()
        while self._take("OR"):
            found = found | self._both()
        return found

    def _both(self) -> pc.Expression:
        found = self._one()
        while self._take("AND"):
            found = found & self._one()
        return found

    def _one(self) -> pc.Expression:
        if self._take("NOT"):
            return ~self._one()
        if self._take("("):
            found = self._either()
            self._need(")")
            return found
        kind, name = self._next()
        if kind != "column":
            raise self._unknown()
        return self._about(pc.field(name[1:-1].replace('""', '"')))

    def _about(self, column: pc.Expression) -> pc.Expression:
        if self._take("IS"):
            negated = self._take("NOT")
            self._need("NULL")
            return column.is_valid() if negated else column.is_null()
        if self._take("IN"):
            self._need("(")
            values = [self._literal()]
            while self._take(","):
                values.append(self._literal())
            self._need(")")
            return column.isin(values)
        kind, sign = self._next()
        if kind == "word" or sign not in _COMPARISONS:
            # A boolean column by itself.
            self._at -= 1
            return column
        found: pc.Expression = _COMPARISONS[sign](column, self._literal())
        return found

    def _literal(self) -> pa.Scalar:
        kind, value = self._next()
        if kind == "text":
            return pa.scalar(value[1:-1].replace("''", "'"))
        if kind == "number":
            return pa.scalar(int(value) if value.lstrip("-").isdigit() else float(value))
        if kind == "word" and value in _CONSTANTS:
            return pa.scalar(_CONSTANTS[value])
        if kind == "word" and value == "TIMESTAMP":
            moment = datetime.fromisoformat(str(self._literal().as_py()).replace("Z", "+00:00"))
            aware = moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
            return pa.scalar(aware, pa.timestamp("us", "UTC"))
        raise self._unknown()

    def _next(self) -> tuple[str, str]:
        self._at += 1
        return self._tokens[self._at - 1] if self._at <= len(self._tokens) else ("end", "")

    def _take(self, value: str) -> bool:
        taken = self._at < len(self._tokens) and self._tokens[self._at][0] in ("word", "sign") and (
            self._tokens[self._at][1] == value
        )  # fmt: skip
        self._at += taken
        return taken

    def _need(self, value: str) -> None:
        if not self._take(value):
            raise self._unknown()

    def _unknown(self) -> ValueError:
        return ValueError(f"Not known in a predicate, near part {self._at}: {self._text!r}")


def in_spark_sql(text: str) -> str:
    """The predicate as Spark SQL says it: other quotes for columns, and no escape that a text could end by.

    Raises ValueError for what `parse_predicate` does not know either.
    """
    said = []
    end = 0
    while text[end:].strip():
        found = _TOKEN.match(text, end)
        if found is None or found.lastgroup is None:
            raise ValueError(f"Not known in a predicate: {text[end:]!r}")
        value = found[found.lastgroup]
        if found.lastgroup == "column":
            value = "`" + value[1:-1].replace('""', '"').replace("`", "``") + "`"
        elif found.lastgroup == "text":
            plain = value[1:-1].replace("''", "'")
            value = "'" + plain.replace("\\", "\\\\").replace("'", "\\'") + "'"
        said.append(value)
        end = found.end()
    return " ".join(said)
