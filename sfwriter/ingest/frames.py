"""Rows of frames that Arrow cannot take over whole, because a column mixes types.

Receives: a pandas or polars frame whose Arrow form could not be made.
Produces: an iterator over its rows as dicts, missing values (NaN, NaT, NA) as None, as in the Arrow form.
Guarantees: the same names as the Arrow form has: no index without a name, no `RangeIndex`.
Never does: import pandas or polars.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


def rows_of(frame: Any) -> Iterator[dict[str, Any]] | None:
    """The rows one by one; None where it is no frame, or two of its columns have one name."""
    library = type(frame).__module__.partition(".")[0]
    if library == "polars" and hasattr(frame, "iter_rows"):
        rows: Iterator[dict[str, Any]] = frame.iter_rows(named=True)
        return rows
    if library == "pandas" and hasattr(frame, "columns"):
        columns = [(str(name), frame.iloc[:, place]) for place, name in enumerate(frame.columns)]
        if type(frame.index).__name__ != "RangeIndex":
            levels = enumerate(frame.index.names)
            columns += [(str(name), frame.index.get_level_values(level)) for level, name in levels if name is not None]
        names = [name for name, _ in columns]
        return _rows(names, [column for _, column in columns]) if len(set(names)) == len(names) else None
    return None


def _rows(names: list[str], columns: list[Any]) -> Iterator[dict[str, Any]]:
    values = [
        [None if missing else value for value, missing in zip(column.tolist(), column.isna().tolist(), strict=True)]
        for column in columns
    ]
    return (dict(zip(names, row, strict=True)) for row in zip(*values, strict=True))
