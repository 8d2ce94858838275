"""What SQL text may say as a rule: one boolean expression over the columns of a row, and nothing else.

Receives: the text of a rule.
Produces: the columns that it names, or the reason why it is no rule.
Guarantees: text that passes reads no file, table or setting, runs no statement, and looks at one row at a time.
Never does: run it.

The text is parsed by DuckDB, and its tree is held against a list of what is known to be harmless. A list of
what is forbidden would be one release of DuckDB behind.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from sfwriter.arrays import is_unicode

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_TEXT = 10_000
"""Characters of a rule."""

MOMENTS = frozenset({"current_timestamp", "current_date"})
"""Names without parentheses that are no columns."""

_KINDS = frozenset({
    "BETWEEN", "CASE", "CAST", "COLUMN_REF", "COMPARISON", "CONJUNCTION", "CONSTANT", "FUNCTION", "OPERATOR", "TYPE",
})  # fmt: skip

_SIGNS = "+ - * / // % ^ ** || & | << >> ~~ !~~ ~~* !~~* ~~~ -> ->>"
_NUMBERS = """abs ceil ceiling exp floor greatest isfinite isinf isnan least ln log log10 log2 mod pow power round
    sign sqrt trunc"""
_TEXTS = """char_length character_length concat contains ends_with ilike_escape instr lcase left len length like_escape
    lower ltrim not_ilike_escape not_like_escape position prefix regexp_extract regexp_full_match regexp_matches
    replace right rtrim split_part starts_with strlen strpos substr substring suffix trim ucase upper"""
_TIMES = """date_diff date_part date_sub date_trunc datediff datepart datetrunc day dayofweek epoch epoch_ms epoch_us
    hour isodow make_date make_timestamp minute month now quarter second to_days to_hours to_milliseconds to_minutes
    to_months to_seconds to_weeks to_years today week year"""
_OTHERS = """array_contains if ifnull json_array_length json_exists json_extract json_extract_string json_type
    json_valid list_contains list_value nullif"""

FUNCTIONS = frozenset(f"{_SIGNS} {_NUMBERS} {_TEXTS} {_TIMES} {_OTHERS}".split())
"""What a rule may call."""


def columns_named(connection: Any, text: str) -> list[str]:
    """The columns that the rule names, as it writes them.

    Args:
        connection: to DuckDB, for its parser.
        text: the rule.

    Raises:
        ValueError: it is no rule; a phrase says why.
    """
    if len(text) > MAX_TEXT:
        raise ValueError(f"has {len(text)} characters; {MAX_TEXT} are allowed")
    if not is_unicode(text):
        raise ValueError("has a lone surrogate, which is no Unicode text")
    # By itself first: brackets around it would make an expression of `a) OR (b`.
    _parsed(connection, f"SELECT {text}")
    # On lines of its own, so that a comment at its end hides nothing that follows.
    return list(_columns(_expression(_parsed(connection, f"SELECT (\n{text}\n)"))))


def _parsed(connection: Any, statement: str) -> dict[str, Any]:
    tree: dict[str, Any] = json.loads(connection.execute("SELECT json_serialize_sql(?)", [statement]).fetchall()[0][0])
    if tree.get("error"):
        raise ValueError(f"does not parse: {tree.get('error_message', 'a syntax error').splitlines()[0]}")
    return tree


def _expression(tree: dict[str, Any]) -> dict[str, Any]:
    """The only expression of a statement that has nothing beside it."""
    statements = tree["statements"]
    node = statements[0]["node"] if len(statements) == 1 else {}
    chosen = node.pop("select_list", [])
    source = node.pop("from_table", {})
    beside = {key: part for key, part in node.items() if key not in {"type", "aggregate_handling", "cte_map"}}
    named = node.get("cte_map", {}).get("map")
    if len(chosen) != 1 or source.get("type") != "EMPTY" or named or any(beside.values()) or chosen[0].get("alias"):
        raise ValueError("is more than one expression")
    whole: dict[str, Any] = chosen[0]
    return whole


def _columns(part: Any) -> Iterator[str]:
    if isinstance(part, list):
        for entry in part:
            yield from _columns(entry)
    if not isinstance(part, dict):
        return
    kind = part.get("class")
    if kind is not None and kind not in _KINDS:
        raise ValueError(f"uses {str(kind).lower().replace('_', ' ')}, and a rule looks at the values of one row only")
    if kind == "FUNCTION":
        name = str(part.get("function_name", "")).lower()
        if name not in FUNCTIONS or part.get("schema") or part.get("catalog"):
            raise ValueError(f"calls {name or 'a function'}, which a rule may not")
    if kind == "COLUMN_REF":
        names = part["column_names"]
        if len(names) != 1:
            raise ValueError(f"names {'.'.join(names)}; a column is named without a table")
        if names[0].lower() not in MOMENTS:
            yield names[0]
    for value in part.values():
        yield from _columns(value)
