"""How far a backfill is, for people: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from sfwriter.backfill import BackfillProgress

if TYPE_CHECKING:
    from collections.abc import Iterator

FIRST_LINE_S = 5.0
LINE_EVERY_S = 10.0
"""In a log file: often enough to see that it lives, rare enough not to bury everything else."""


class Teller(Protocol):
    """Takes what a backfill tells."""

    def show(self, progress: BackfillProgress) -> None:
        """See how far it is."""

    def note(self, text: str) -> None:
        """Pass a sentence on."""

    def so_far(self) -> str:
        """What was done, in a few words."""


@contextmanager
def progress_on(stream: TextIO, *, quiet: bool) -> Iterator[Teller]:
    """Tell it on this stream, as fits it; `quiet` leaves only the notes."""
    if quiet or not stream.isatty():
        yield _Lines(stream, quiet=quiet)
        return
    console = Console(file=stream)
    columns = [BarColumn(bar_width=30), TaskProgressColumn(), TextColumn("{task.description}")]
    with Progress(*columns, console=console, transient=True, refresh_per_second=5) as bar:
        yield _Bar(bar)


class _Lines:
    def __init__(self, stream: TextIO, *, quiet: bool) -> None:
        self._stream = stream
        self._quiet = quiet
        self._next = FIRST_LINE_S
        self._last = BackfillProgress()

    def show(self, progress: BackfillProgress) -> None:
        self._last = progress
        if self._quiet or progress.elapsed_secs < self._next:
            return
        self._next = progress.elapsed_secs + LINE_EVERY_S
        self.note(f"{_percent(progress)} {told(progress)}")

    def note(self, text: str) -> None:
        print(f"sfwriter: {text}", file=self._stream, flush=True)

    def so_far(self) -> str:
        return written(self._last)


class _Bar:
    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._task = bar.add_task("looking at the sources", total=None)
        self._last = BackfillProgress()

    def show(self, progress: BackfillProgress) -> None:
        self._last = progress
        self._bar.update(
            self._task,
            total=max(progress.bytes_total, 1),
            completed=progress.bytes_done,
            description=told(progress),
        )

    def note(self, text: str) -> None:
        self._bar.console.print(f"sfwriter: {text}", markup=False, highlight=False, soft_wrap=True)

    def so_far(self) -> str:
        return written(self._last)


def told(progress: BackfillProgress) -> str:
    """Rows, speed, what is left, and how long that takes."""
    left = progress.bytes_total - progress.bytes_done
    parts = [f"{progress.rows_written:,} rows", f"{progress.rows_per_sec:,.0f} rows/s", f"{size(left)} left"]
    if progress.quarantined_rows:
        parts.insert(1, f"{progress.quarantined_rows:,} in quarantine")
    if progress.sources > 1:
        parts.append(f"source {min(progress.finished + 1, progress.sources):,} of {progress.sources:,}")
    if progress.eta_secs is not None:
        parts.append(f"ETA {duration(progress.eta_secs)}")
    return ", ".join(parts)


def written(progress: BackfillProgress) -> str:
    """What this run has done."""
    quarantined = f" and {progress.quarantined_rows:,} quarantined" if progress.quarantined_rows else ""
    return f"{progress.rows_written:,} rows written{quarantined} by this run"


def _percent(progress: BackfillProgress) -> str:
    return f"{100 * progress.bytes_done / max(progress.bytes_total, 1):.0f}%"


def size(nbytes: float) -> str:
    """Bytes for people; a kB is 1024 bytes."""
    for unit in ("B", "kB", "MB", "GB"):
        if nbytes < 1024:
            return f"{nbytes:.0f} {unit}" if unit == "B" else f"{nbytes:.1f} {unit}"
        nbytes /= 1024
    return f"{nbytes:.1f} TB"


def duration(seconds: float) -> str:
    """Seconds for people."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"
