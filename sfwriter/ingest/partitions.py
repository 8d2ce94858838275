"""Which values a table may be partitioned by: those that a folder can safely be named by.

Receives: rows in the log table's types, behind the gate's defaults.
Produces: the rows whose values name no folder.
Guarantees: what passes here is staged without an error for its values; values are refused, never escaped,
    since readers differ in how they take escapes back.
Never does: look at columns that are no partition columns.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from sfwriter.arrays import array_of
from sfwriter.quality.builtin import Breach

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    MoreRules = Callable[[pa.Table], Iterable[Breach]]

NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"
_SAFE = re.compile(r"[A-Za-z0-9_-]+")
_MAX_FOLDER = 255
"""Bytes of a name on every file system in use; `column=value` is one."""

_CHECKED_ELSEWHERE = frozenset({"phase", "run_mode"})
"""The built-in rules allow only a few words for them."""


def names_folder(column: str, text: str) -> bool:
    """Whether Delta can keep the rows of this value in a folder `column=text`."""
    return bool(_SAFE.fullmatch(text)) and text != NULL_PARTITION and len(column) + 1 + len(text) <= _MAX_FOLDER


def rules_with_partitions(more: MoreRules | None, columns: Sequence[str], mode: str) -> MoreRules | None:
    """Rules of a table that is partitioned by these columns, added to others; None where there are none."""
    asked = [name for name in columns if mode == "ignore" or name not in _CHECKED_ELSEWHERE]
    if not asked:
        return more

    def both(rows: pa.Table) -> Iterator[Breach]:
        yield from unsafe(rows, asked)
        if more is not None:
            yield from more(rows)

    return both


def unsafe(rows: pa.Table, columns: Sequence[str]) -> Iterator[Breach]:
    """The rows with a text that names no folder, column by column."""
    for name in columns:
        if name not in rows.column_names or not pa.types.is_string(rows.schema.field(name).type):
            continue
        column = rows.column(name)
        bad = [text for text in pc.unique(column).to_pylist() if text is not None and not names_folder(name, text)]
        if bad:
            yield from _breaches(name, column, bad)


def _breaches(name: str, column: Any, bad: list[str]) -> Iterator[Breach]:
    where: Any = pc.is_in(column, value_set=array_of(bad, pa.string()))
    places = pc.indices_nonzero(where)
    rule = f"{name} names a folder"
    for place, text in zip(places.to_pylist(), column.take(places).to_pylist(), strict=True):
        shown = repr(text) if len(text) <= 80 else f"{text[:77]!r}..."
        # In every mode: a row that no folder can be named for cannot be kept.
        yield Breach(
            place,
            name,
            f"{name} is {shown}, and the table is partitioned by it: ASCII letters, digits, '_' and '-' name a "
            f"folder, at most {_MAX_FOLDER - 1 - len(name)} of them",
            rule,
            missing=True,
        )
