"""What the commands do: from their options to a writer, and from its answer to what is printed."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from sfwriter.arrays import use_returning_memory
from sfwriter.backfill import backfill as run_backfill
from sfwriter.cli.entry import Interrupted, printed
from sfwriter.cli.operations import MIB, loaded
from sfwriter.cli.progress import duration, progress_on, size
from sfwriter.config import WriterConfig
from sfwriter.exceptions import WriterConfigurationError
from sfwriter.maintenance.takeover import take_over as run_take_over
from sfwriter.modes import WriteMode
from sfwriter.sources import discover
from sfwriter.writer import LogWriter, own_engine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sfwriter.backfill import BackfillResult
    from sfwriter.results import TableInfo, TakeOverResult
    from sfwriter.sources import Found


_SIGNALS = (signal.SIGINT, signal.SIGTERM)

LISTED = 3
"""Files that a note names."""


def backfill(
    names: Sequence[str],
    *,
    table: str,
    warehouse: str | None,
    mode: str | None,
    as_new: bool,
    service: str | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Find the sources, write them, say how it ended."""
    config = _config(table, warehouse, mode)
    if config.write_mode is not WriteMode.APPEND:
        raise _usage("SFWRITER_WRITE_MODE is overwrite, and a backfill only appends", "unset SFWRITER_WRITE_MODE")
    found = discover(names)
    for folder in found.empty:
        _note(f"{folder} is empty: there is nothing to read")
    if found.skipped:
        some = ", ".join(path.name for path in found.skipped[:LISTED])
        count = len(found.skipped)
        left = (
            "1 file is left out, its name says it is"
            if count == 1
            else f"{count} files are left out, their names say they are"
        )
        _note(f"{left} something else: {some}{', …' if count > LISTED else ''}")
    use_returning_memory()
    with _stoppable() as stop, _writer(config, service, mode, warehouse) as writer:
        stop.listen()  # Ray takes SIGTERM for itself when a process joins it
        result = _run(writer, found, stop.check, as_new=as_new, quiet=quiet)
    if as_json:
        print(printed(result))
    else:
        print(_summary(result, writer.config))


def info(*, table: str, warehouse: str | None, as_json: bool) -> None:
    """Look at a table and print what is there."""
    with LogWriter(config=_config(table, warehouse, None)) as writer:
        found = writer.get_table_info()
    print(printed(found) if as_json else _described(found))


def take_over(*, table: str, path: str | None, warehouse: str | None, dry_run: bool, as_json: bool) -> None:
    """Look at a table that others made, add what it lacks, say both."""
    if path is not None and warehouse is not None:
        raise _usage("--path and --warehouse both say where the table is", "leave one of them out")
    config = _config(table, warehouse, None)
    found = run_take_over(config, own_engine(config), path, dry_run=dry_run)
    print(printed(found) if as_json else _taken_over(found))


# ---------------------------------------------------------------- the writer


def _config(table: str, warehouse: str | None, mode: str | None) -> WriterConfig:
    schema, dot, name = table.partition(".")
    if not (schema and dot and name) or "." in name:
        raise _usage(
            f"--table is {table!r}, expected schema.name", "name the table as in --table analytics.pipeline_logs"
        )
    given: dict[str, Any] = {"table_schema": schema, "table_name": name}
    if warehouse is not None:
        given["warehouse"] = warehouse
    if mode is not None:
        given["schema_validation_mode"] = mode
    return WriterConfig.from_env(os.environ, **given)


@contextmanager
def _writer(config: WriterConfig, service: str | None, mode: str | None, warehouse: str | None) -> Iterator[LogWriter]:
    if service is None:
        with LogWriter(config=config) as writer:
            yield writer
        return
    with _connect(service, mode) as client:
        running = client.config
        if running.table_fqn != config.table_fqn:
            raise _usage(
                f"service {service!r} writes to {running.table_fqn}, not to {config.table_fqn}",
                f"give --table {running.table_fqn}, or leave out --service",
            )
        if warehouse is not None and _place(running.warehouse) != _place(warehouse):
            raise _usage(
                f"service {service!r} writes to the warehouse {running.warehouse}, not to {warehouse}",
                "leave out --warehouse, or --service",
            )
        yield client


def _place(warehouse: str) -> str:
    return warehouse.rstrip("/") if "://" in warehouse else str(Path(warehouse).expanduser().resolve())


def _connect(name: str, mode: str | None) -> LogWriter:
    return cast("LogWriter", loaded("connect")(name, schema_validation_mode=mode))


def _usage(what: str, advice: str) -> WriterConfigurationError:
    return WriterConfigurationError(what, problems=[what], suggestions=[advice], code="usage")


# ---------------------------------------------------------------- the run


def _run(writer: LogWriter, found: Found, check: Callable[[], None], *, as_new: bool, quiet: bool) -> BackfillResult:
    with progress_on(sys.stderr, quiet=quiet) as progress:
        try:
            return run_backfill(
                writer, found.sources, as_new=as_new, progress=progress.show, note=progress.note, check=check
            )
        except KeyboardInterrupt:
            again = shlex.join(["sfwriter", *sys.argv[1:]])
            raise Interrupted(f"interrupted, and nothing is lost: {progress.so_far()}; go on with: {again}") from None


class _Stop:
    """The first Ctrl-C or SIGTERM as a request that is looked at where it is safe; the second one interrupts."""

    def __init__(self) -> None:
        self._asked = threading.Event()

    def check(self) -> None:
        if self._asked.is_set():
            raise KeyboardInterrupt

    def listen(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                signal.signal(number, self._ask)

    def _ask(self, number: int, _frame: object) -> None:
        if self._asked.is_set():
            signal.default_int_handler(number, None)
        self._asked.set()


@contextmanager
def _stoppable() -> Iterator[_Stop]:
    """Listen for what ends a run, and leave the signals as they were."""
    stop = _Stop()
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    stop.listen()
    try:
        yield stop
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)


# ---------------------------------------------------------------- what is printed


def _note(text: str) -> None:
    print(f"sfwriter: {text}", file=sys.stderr)


def _summary(result: BackfillResult, config: WriterConfig) -> str:
    lines = [
        f"{config.table_fqn}: {_counted(result['rows_written'], 'row')} written from "
        f"{_counted(result['sources'], 'source')} in "
        f"{duration(result['duration_secs'])} ({result['rows_per_sec']:,.0f} rows/s)"
        + ("" if result["version"] is None else f", version {result['version']}")
    ]
    if result["already_written"]:
        were = "was" if result["already_written"] == 1 else "were"
        lines.append(f"{_counted(result['already_written'], 'row')} {were} written by earlier runs")
    if result["quarantined_rows"]:
        place = f"{config.table_schema}.{config.quarantine_table_name}"
        are = "is" if result["quarantined_rows"] == 1 else "are"
        lines.append(f"{_counted(result['quarantined_rows'], 'row')} {are} in quarantine, with the reasons: {place}")
    return "\n".join(lines)


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _taken_over(found: TakeOverResult) -> str:
    lines = [f"{found['table_fqn']} at {found['location']}: {found['row_count']:,} rows"]
    added, narrower, others = found["columns_added"], found["narrower_columns"], found["other_columns"]
    if narrower:
        lines.append("  kept in the table's narrower types (whole numbers beyond them are refused, FLOAT rounds):")
        lines += [f"    {name}  {kind}" for name, kind in narrower.items()]
    if others:
        lines.append(f"  kept, and null in new rows that do not bring them: {', '.join(others)}")
    lines += [f"  note: {note}" for note in found["notes"]]
    columns = f"{len(added)} column{'' if len(added) == 1 else 's'}"
    if not added:
        lines.append("nothing to do: it has every column already")
    elif found["dry_run"]:
        lines.append(f"would add {columns}, null in the rows that are there:")
    else:
        lines.append(f"added {columns} as version {found['version']}, null in the rows that are there:")
    lines += [f"    {name}  {kind}" for name, kind in added.items()]
    if not found["dry_run"]:
        lines.append(_opening(found["open_with"]))
    return "\n".join(lines)


def _opening(options: dict[str, str] | None) -> str:
    if options is None:
        return (
            "open it with LogWriter(spark, config) where a catalog knows it; the embedded engine looks at"
            " <warehouse>/<schema>/<name> only"
        )
    return f"open it with LogWriter(config=WriterConfig({', '.join(f'{k}={v!r}' for k, v in options.items())}))"


def _described(found: TableInfo) -> str:
    if not found["exists"]:
        return f"{found['table_fqn']} is not there ({found['location']})"
    modified = found["last_modified"]
    facts = {
        "location": found["location"],
        "rows": f"{found['row_count']:,}",
        "files": f"{found['num_files']:,} ({size(found['size_mb'] * MIB)})",
        "version": found["version"],
        "modified": "-" if modified is None else modified.isoformat(sep=" ", timespec="seconds"),
        "partitions": ", ".join(found["partition_columns"]) or "none",
        "engine": found["engine"],
        "columns": "",
    }
    width = max(map(len, found["schema"]), default=0)
    return "\n".join(
        [
            found["table_fqn"],
            *(f"  {name:<11}{value}".rstrip() for name, value in facts.items()),
            *(f"    {name:<{width}}  {kind}" for name, kind in found["schema"].items()),
        ]
    )
