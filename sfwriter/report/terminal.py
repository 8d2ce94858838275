"""Rows on a terminal: as many columns as are readable in its width.

Receives: texts, row by row.
Produces: a table with rules and colours; rows that failed are red.
Guarantees: times, numbers and outcomes are whole; long texts are cut; what has no room is left out and said.
Never does: look at a row's values beyond their texts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import TextIO

_LEAST = {"step_name": 12, "error_message": 16, "run_id": 8}
"""Characters that are left of a text at least, and who gets what there is beyond that; other columns are whole."""

_LEFT_OUT_FIRST = ("rows_written", "rows_processed", "run_id", "phase", "duration_secs", "logged_at")
_BESIDE = 3
"""Characters of a column's rule and blanks."""

_TIME = len("2024-01-31 12:00:00")


def show_on_terminal(
    names: Sequence[str], rows: Sequence[Sequence[str]], failed: Sequence[bool], title: str, out: TextIO
) -> None:
    """Print the columns in which any row has something, as far as the terminal is wide enough."""
    # Imported here: rich takes 40 ms, and most writers never show anything.
    from rich.box import ROUNDED
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=out)
    columns = {
        name: [row[i][:_TIME] if name == "logged_at" else row[i] for row in rows]
        for i, name in enumerate(names)
        if any(row[i] for row in rows)
    }
    full = {name: max(map(len, [*texts, *_header(name).split("\n")])) for name, texts in columns.items()}
    widths = fitting(full, console.width)
    left_out = [name for name in columns if name not in widths]
    table = Table(title=title, box=ROUNDED, caption=f"no room for {', '.join(left_out)}" if left_out else None)
    for name, width in widths.items():
        number = name.startswith("rows_") or name.endswith("_secs")
        table.add_column(_header(name), width=width, no_wrap=True, justify="right" if number else "left")
    for cells, bad in zip(zip(*(columns[name] for name in widths), strict=True), failed, strict=True):
        table.add_row(*map(Text, cells), style="bold red" if bad else None)
    console.print(table)


def fitting(full: Mapping[str, int], width: int) -> dict[str, int]:
    """The columns that are readable side by side, and how wide each is; the least important ones go first.

    Args:
        full: column to the width that shows all of it.
        width: of the terminal.
    """
    widths = {name: min(most, _LEAST.get(name, most)) for name, most in full.items()}
    for name in _LEFT_OUT_FIRST:
        if _together(widths) <= width:
            break
        if len(widths) > 1:
            widths.pop(name, None)
    for name in _LEAST:
        if name in widths:
            widths[name] = min(full[name], widths[name] + max(0, width - _together(widths)))
    return widths


def _together(widths: Mapping[str, int]) -> int:
    return sum(widths.values()) + _BESIDE * len(widths) + 1


def _header(name: str) -> str:
    return "logged_at (UTC)" if name == "logged_at" else name.replace("_secs", "\nsecs").replace("rows_", "rows\n")
