"""What the demo prints: short sections, bars on a terminal and a line now and then elsewhere."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PLAIN_WIDTH = 110
"""Columns where there is no terminal that has a width."""

PLAIN_STEPS = 4
"""Lines of progress that each bar becomes where there is no terminal."""


class Bars:
    """Progress of several things at once. `advance` and `at` take the thing's name."""

    def __init__(self, console: Console, totals: dict[str, int], unit: str) -> None:
        """Begin at zero."""
        self._console = console
        self._totals = totals
        self._unit = unit
        self._at = dict.fromkeys(totals, 0)
        self._told = 0
        self._live: Progress | None = None
        self._tasks: dict[str, TaskID] = {}

    def at(self, name: str, number: int) -> None:
        """Show that a thing has come so far."""
        self._at[name] = number
        if self._live is not None:
            self._live.update(self._tasks[name], completed=number)
            return
        done, total = sum(self._at.values()), max(1, sum(self._totals.values()))
        reached = PLAIN_STEPS * done // total
        if reached > self._told:
            self._told = reached
            self._console.print(f"  {done:,} of {total:,} {self._unit}")

    def advance(self, name: str, by: int) -> None:
        """Show that a thing has come further."""
        self.at(name, self._at[name] + by)

    @contextlib.contextmanager
    def drawn(self) -> Iterator[Bars]:
        """Draw the bars for as long as the block runs."""
        if not self._console.is_terminal:
            yield self
            return
        columns = (
            TextColumn("  {task.description}"),
            BarColumn(bar_width=36),
            MofNCompleteColumn(),
            TextColumn(self._unit),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self._console, transient=True, refresh_per_second=8) as live:
            self._tasks = {name: live.add_task(name, total=total) for name, total in self._totals.items()}
            self._live = live
            try:
                yield self
            finally:
                self._live = None


class Show:
    """The demo's voice. Texts are plain, not rich markup."""

    def __init__(self, console: Console | None = None) -> None:
        """Speak on a console; stdout by default."""
        self.console = console or Console(highlight=False)
        if not self.console.is_terminal:
            self.console = console or Console(highlight=False, width=PLAIN_WIDTH)

    def section(self, title: str) -> None:
        """Begin a part of the story."""
        self.console.print(f"\n[bold]{escape(title)}[/bold]")

    def say(self, text: str) -> None:
        """Tell a fact."""
        self.console.print(f"  {escape(text)}", soft_wrap=True)

    def good(self, text: str) -> None:
        """Tell what went well."""
        self.console.print(f"  [green]✓[/green] {escape(text)}", soft_wrap=True)

    def bad(self, text: str) -> None:
        """Tell what went wrong."""
        self.console.print(f"  [red]✗[/red] [bold]{escape(text)}[/bold]", soft_wrap=True)

    def done_to(self, text: str) -> None:
        """Tell what was broken on purpose."""
        self.console.print(f"  [yellow]![/yellow] [bold]{escape(text)}[/bold]", soft_wrap=True)

    def verdict(self, text: str, *, good: bool) -> None:
        """The last word."""
        colour = "green" if good else "red"
        self.console.print(f"\n[bold {colour}]{escape(text)}[/bold {colour}]", soft_wrap=True)

    def command(self, text: str) -> None:
        """A command to try, in one line that can be copied."""
        self.console.print(f"    [cyan]{escape(text)}[/cyan]", soft_wrap=True)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """A table; numbers stand on the right, floats with two decimals."""
        drawn = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
        for place, column in enumerate(columns):
            numbers = any(isinstance(row[place], (int, float)) for row in rows)
            drawn.add_column(column, justify="right" if numbers else "left", no_wrap=True, overflow="ellipsis")
        for row in rows:
            drawn.add_row(*(escape(_text(value)) for value in row))
        self.console.print(Padding(drawn, (0, 0, 0, 2)))

    def bars(self, totals: dict[str, int], unit: str) -> Bars:
        """Bars, not drawn yet."""
        return Bars(self.console, totals, unit)


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.2f}"
    if isinstance(value, int):
        return f"{value:,}"
    return "" if value is None else str(value)
