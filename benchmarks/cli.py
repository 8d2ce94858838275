"""The command line of the benchmarks."""

from __future__ import annotations

import json
import random
import shutil
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import Progress, TextColumn
from rich.table import Table

from benchmarks.case import Scale, run_case
from benchmarks.cases import CASES
from benchmarks.machine import describe

if TYPE_CHECKING:
    from benchmarks.case import Judged, Report

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Measures sfwriter beside its peers, in turns and on the same data. A wrong outcome is a failure.",
    epilog="Examples:  python -m benchmarks list  ·  python -m benchmarks run --quick  ·  "
    "python -m benchmarks run backfill memory --rounds 5 --json figures.json",
)
_TOLD_EVERY = 50
"""Blows of the crash test between two lines of a log, which has no progress bar."""

_UNITS = {
    "rows_per_s": ("rows/s", 1.0, 0), "batches_per_s": ("batches/s", 1.0, 0), "calls_per_s": ("calls/s", 1.0, 1),
    "secs": ("s", 1.0, 3), "ms": ("ms", 1.0, 1), "bytes": ("MiB", 2.0**-20, 1), "rows": ("rows", 1.0, 0),
}  # fmt: skip


@app.command("list")
def list_cases() -> None:
    """The cases, and what is asked of them."""
    table = Table("case", "what", "asked", box=None, header_style="bold")
    for case in CASES.values():
        asked = "; ".join(
            f"{verdict.label} {'≥' if verdict.at_least else '≤'} {verdict.target:g} {verdict.unit}"
            for verdict in case.verdicts
            if verdict.target is not None
        )
        table.add_row(case.name, case.title, asked)
    Console().print(table)


@app.command(
    epilog="Examples:  python -m benchmarks crash --kills 60  ·  python -m benchmarks crash --kills 1000 --seed 7"
)
def crash(
    kills: Annotated[int, typer.Option(min=1, help="How many kills and freezes.")] = 60,
    seed: Annotated[int | None, typer.Option(help="Of their order; by default a new one, which is printed.")] = None,
    folder: Annotated[Path | None, typer.Option(help="Where the table goes; by default a new one.")] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the counts there; - is stdout.")
    ] = None,
) -> None:
    """Kill and freeze the processes of a service under load, and count rows by an independent reader."""
    from benchmarks.crash.run import crash as run_crash

    errors = Console(stderr=True)
    scratch = Path(tempfile.mkdtemp(prefix="sfwriter-crash-", dir=folder))
    seed = random.SystemRandom().randrange(2**31) if seed is None else seed
    errors.print(f"seed {seed}; repeat with: python -m benchmarks crash --kills {kills} --seed {seed}")
    with Progress(*Progress.get_default_columns(), TextColumn("{task.fields[kind]}"), console=errors) as bar:
        task = bar.add_task("kills", total=kills, kind="")

        def told(number: int, kind: str) -> None:
            bar.update(task, completed=number, kind=kind)
            if not errors.is_terminal and number % _TOLD_EVERY == 0:
                errors.print(f"{number} of {kills}")

        counts = run_crash(kills, seed, scratch, told)
    shutil.rmtree(scratch, ignore_errors=True)
    text = json.dumps(counts, indent=2)
    if json_file == Path("-"):
        sys.stdout.write(text + "\n")
    elif json_file is not None:
        json_file.write_text(text + "\n")
    errors.print(f"{kills} kills and freezes: {counts['acknowledged_batches']:,} acknowledged batches, "
                 f"{counts['rows']:,} rows, each there once")  # fmt: skip
    for kind, count in counts["kills"].items():
        errors.print(f"  {count:5}  {kind}")


@app.command(
    epilog="Examples:  python -m benchmarks steady --minutes 60  ·  python -m benchmarks steady --minutes 2 --json -"
)
def steady(
    minutes: Annotated[float, typer.Option(min=0.05, help="How long.")] = 5.0,
    folder: Annotated[Path | None, typer.Option(help="Where the table goes; by default a new one.")] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write all looks there; - is stdout.")
    ] = None,
) -> None:
    """Write to a service steadily, large and small, and see whether memory, latency, files or log grow."""
    from benchmarks.steady import steady as run_steady

    errors = Console(stderr=True)
    scratch = Path(tempfile.mkdtemp(prefix="sfwriter-steady-", dir=folder))

    def told(secs: float, look: dict[str, float]) -> None:
        mib = look["memory_bytes"] / (1 << 20)
        errors.print(f"[dim]{secs:6.0f} s  {mib:,.0f} MiB  {look['files']:.0f} files[/dim]", highlight=False)

    try:
        found = run_steady(60 * minutes, scratch, told)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if json_file is not None:
        _write(json_file, found)
    counts = f"{found['rows']:,} rows in {found['calls']:,} calls and {found['commits']:,} commits"
    lines = (
        f"{minutes:g} minutes: {counts}, each there once",
        f"last fifth over the second: memory {found['memory_growth']:+.1%}, median ack {found['latency_growth']:+.1%}",
        f"p50 {found['p50_ms']:.0f} ms, p99 {found['p99_ms']:.0f} ms",
        f"{found['files']:.0f} files, {found['most_files']:.0f} at most",
        f"{found['most_log_entries']:.0f} log entries at most",
    )
    errors.print("\n".join(lines), highlight=False)


@app.command(
    epilog="Examples:  python -m benchmarks run  ·  python -m benchmarks run backfill --rounds 5  ·  "
    "python -m benchmarks run --quick --json figures.json"
)
def run(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME…]", help="Cases; all of them by default.")] = None,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Write figures and machine there; - is stdout."),
    ] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="How often each peer runs.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Less work: a look, not a measurement.")] = False,
    folder: Annotated[Path | None, typer.Option(help="Where data and tables go; by default a new one.")] = None,
) -> None:
    """Run cases and print medians, ratios and targets. Exit code 1 where an outcome was wrong or a case failed."""
    unknown = [name for name in names or [] if name not in CASES]
    if unknown:
        raise typer.BadParameter(f"unknown: {', '.join(unknown)}; there are {', '.join(CASES)}", param_hint="NAME")
    errors = Console(stderr=True)
    console = errors if json_file == Path("-") else Console()
    scratch = Path(tempfile.mkdtemp(prefix="sfwriter-benchmarks-", dir=folder))
    machine = describe(scratch)
    reports: list[Report] = []
    try:
        for name in names or CASES:
            report = run_case(
                CASES[name],
                scratch,
                scale=Scale.QUICK if quick else Scale.FULL,
                rounds=rounds,
                told=lambda line: errors.print(f"[dim]{line}[/dim]") if errors.is_terminal else None,
            )
            reports.append(report)
            show(report, console)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        if json_file is not None and reports:
            _write(json_file, {"machine": machine, "quick": quick, "cases": [asdict(report) for report in reports]})
    if any(report.failure for report in reports):
        raise typer.Exit(1)


@app.command(
    epilog="Examples:  python -m benchmarks plot figures.json ratios.svg  ·  "
    "python -m benchmarks plot steady.json steady.png"
)
def plot(
    figures: Annotated[
        Path,
        typer.Argument(metavar="FIGURES", exists=True, dir_okay=False, help="What run or steady wrote with --json."),
    ],
    picture: Annotated[Path, typer.Argument(metavar="PICTURE", help="Where it goes: .svg, .png or .pdf.")],
) -> None:
    """Draw every ratio beside its target, or memory, latency and files of a steady load over time."""
    from benchmarks.plots import draw

    try:
        found = json.loads(figures.read_text())
    except ValueError as error:
        raise typer.BadParameter(f"{figures} is no JSON: {error}", param_hint="FIGURES") from None
    try:
        draw(found, picture)
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"{picture}: {error}", param_hint="PICTURE") from None


def show(report: Report, console: Console) -> None:
    """Print what came of a case."""
    console.print(f"\n[bold]{report.case}[/bold]  {report.title}")
    if report.failure is not None:
        console.print(f"  [red]failed[/red]: {report.failure}", highlight=False, markup=True)
        return
    table = Table("peer", "figure", box=None, padding=(0, 2), header_style="dim")
    for heading in ("median", "min", "max"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("")
    for peer in report.rounds:
        for figure in report.figures(peer):
            low, high = report.spread((peer, figure))
            unit, factor, digits = _unit(figure)
            values = (report.median((peer, figure)), low, high)
            table.add_row(peer, figure, *(f"{value * factor:,.{digits}f}" for value in values), unit)
    console.print(table)
    for judged in report.verdicts:
        console.print(f"  {_judgement(judged)}", highlight=False)


def _judgement(judged: Judged) -> str:
    line = f"{judged.label}: [bold]{judged.value:,.3g} {judged.unit}[/bold]"
    if judged.value >= 1000:
        line = f"{judged.label}: [bold]{judged.value:,.0f} {judged.unit}[/bold]"
    if judged.target is None:
        return line
    met = "[green]met[/green]" if judged.met else "[red]missed[/red]"
    return f"{line}, target {'≥' if judged.at_least else '≤'} {judged.target:g}: {met}"


def _unit(figure: str) -> tuple[str, float, int]:
    """How a figure is printed: unit, factor, digits."""
    return next(
        (how for suffix, how in _UNITS.items() if figure == suffix or figure.endswith(f"_{suffix}")), ("", 1, 2)
    )


def _write(file: Path, content: object) -> None:
    text = json.dumps(content, indent=2) + "\n"
    if file == Path("-"):
        sys.stdout.write(text)
    else:
        file.write_text(text)
