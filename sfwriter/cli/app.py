"""The commands and their options."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import typer

import sfwriter

app = typer.Typer(
    name="sfwriter",
    help="""Log rows of pipeline runs in Delta Lake tables, each exactly once.

Every option of WriterConfig can be set by an environment variable SFWRITER_<OPTION>, e.g.
SFWRITER_WAREHOUSE=/data/warehouse; the flags of a command win.

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.""",
    epilog="sfwriter COMMAND --help shows each command with examples.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    # Plain text: it can be piped, and square brackets stay.
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

BACKFILL_EXAMPLES = """\b
Examples:
  sfwriter backfill runs/ --table analytics.pipeline_logs
  sfwriter backfill 'logs/**/*.jsonl.gz' old.csv --table ops.runs --warehouse /data/wh --mode lenient
  sfwriter backfill export.parquet --table ops.runs --service logs --json
"""
SERVE_EXAMPLES = """\b
Examples:
  sfwriter serve --warehouse /data/wh
  sfwriter serve --name logs --config service.toml --set compression=zstd --drain-timeout 120
  sfwriter serve --config service.yaml --detach
"""
STATUS_EXAMPLES = """\b
Examples:
  sfwriter status
  sfwriter status --name logs --json
  sfwriter status --prometheus
"""
TOP_EXAMPLES = """\b
Examples:
  sfwriter top
  sfwriter top --interval 5 --json >> figures.jsonl
  sfwriter top --once
"""
DRAIN_EXAMPLES = """\b
Example:
  sfwriter drain --name logs --timeout 60
"""
STOP_EXAMPLES = """\b
Example:
  sfwriter stop --name logs --timeout 60 --json
"""
INFO_EXAMPLES = """\b
Example:
  sfwriter info --table analytics.pipeline_logs --warehouse /data/wh --json
"""
TAKE_OVER_EXAMPLES = """\b
Examples:
  sfwriter take-over --table analytics.pipeline_logs --warehouse /data/wh --dry-run
  sfwriter take-over --table analytics.pipeline_logs --path /data/spark-warehouse/analytics.db/pipeline_logs
"""


class Mode(str, Enum):
    """`schema_validation_mode`."""

    strict = "strict"
    lenient = "lenient"
    ignore = "ignore"


Table = Annotated[str, typer.Option("--table", metavar="SCHEMA.NAME", help="The table, e.g. analytics.pipeline_logs.")]
Warehouse = Annotated[
    str | None,
    typer.Option(
        "--warehouse",
        metavar="PLACE",
        help="Folder or object-store URL of the tables.  [default: $SFWRITER_WAREHOUSE, else warehouse]",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, and nothing else there.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"sfwriter {sfwriter.__version__}")
        raise typer.Exit


@app.callback()
def root(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Carry the options that stand before a command."""


@app.command(epilog=BACKFILL_EXAMPLES)
def backfill(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="Files, folders (with all below) or globs in quotes: .parquet; .jsonl, .ndjson, .json (one object a "
            "line); .csv; the text formats also with .gz or .zst.",
        ),
    ],
    *,
    table: Table,
    warehouse: Warehouse = None,
    mode: Annotated[
        Mode | None,
        typer.Option(
            "--mode",
            help="strict refuses a wrong row, naming its file and row; lenient sets it aside in quarantine; ignore "
            "writes what fits of it.  [default: $SFWRITER_SCHEMA_VALIDATION_MODE, else strict]",
        ),
    ] = None,
    as_new: Annotated[
        bool, typer.Option("--as-new", help="Take a source that was changed after a part was written as another one.")
    ] = False,
    service: Annotated[
        str | None, typer.Option("--service", metavar="NAME", help="Write through this running service.")
    ] = None,
    as_json: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
    debug: Debug = False,  # noqa: ARG001  read where errors end
) -> None:
    """Write files of log rows into a table, each row exactly once.

    It is exact: killed at any moment and started again with the same command it goes on where it was, and a finished
    source is not written again. A text file that only grew continues with its new rows; any other change after a part
    was written is an error.
    """
    from sfwriter.cli import commands  # Arrow and the engine are loaded only where they are used

    commands.backfill(
        sources,
        table=table,
        warehouse=warehouse,
        mode=None if mode is None else mode.value,
        as_new=as_new,
        service=service,
        as_json=as_json,
        quiet=quiet,
    )


@app.command(epilog=INFO_EXAMPLES)
def info(
    *,
    table: Table,
    warehouse: Warehouse = None,
    as_json: Json = False,
    debug: Debug = False,  # noqa: ARG001  read where errors end
) -> None:
    """Show what a table is: rows, files, columns, version. Reads no data file."""
    from sfwriter.cli import commands

    commands.info(table=table, warehouse=warehouse, as_json=as_json)


@app.command(name="take-over", epilog=TAKE_OVER_EXAMPLES)
def take_over(
    *,
    table: Table,
    path: Annotated[
        str | None,
        typer.Option(
            "--path",
            metavar="PLACE",
            help="The table's own folder or object-store URL, where it is not WAREHOUSE/SCHEMA/NAME.",
        ),
    ] = None,
    warehouse: Warehouse = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    as_json: Json = False,
    debug: Debug = False,  # noqa: ARG001  read where errors end
) -> None:
    """Take over a Delta log table that SparkForge, or another writer, has made.

    It looks at the table, says what it does, and adds the columns that it lacks. Nothing is rewritten or dropped, and
    a second run finds nothing to do. What cannot be taken over is an error that says why and what to do; the table is
    not touched then.
    """
    from sfwriter.cli import commands

    commands.take_over(table=table, path=path, warehouse=warehouse, dry_run=dry_run, as_json=as_json)


Name = Annotated[str, typer.Option("--name", metavar="NAME", help="The service's name.")]
Timeout = Annotated[
    float | None, typer.Option("--timeout", metavar="SECS", min=0, help="How long to wait; by default without end.")
]


@app.command(epilog=SERVE_EXAMPLES)
def serve(
    *,
    name: Name = "logs",
    config_file: Annotated[
        str | None,
        typer.Option("--config", metavar="FILE", help="Options in TOML or YAML; variables and flags win over it."),
    ] = None,
    warehouse: Warehouse = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="OPTION=VALUE", help="An option of WriterConfig; may be given often."),
    ] = None,
    drain_timeout: Annotated[
        float, typer.Option("--drain-timeout", metavar="SECS", min=0, help="For settling what is left at the end.")
    ] = 60.0,
    detach: Annotated[bool, typer.Option("--detach", help="Return when the service runs.")] = False,
    as_json: Json = False,
    debug: Debug = False,  # noqa: ARG001  read where errors end
) -> int:
    """Run a service until SIGTERM or Ctrl-C; then it takes nothing more, settles what it has, and ends.

    Exit code 0 when everything was settled, 1 when the time for it ran out; a second signal ends at once and leaves
    the service running. Where the service runs already with the same configuration nothing is done.
    """
    from sfwriter.cli import operations

    return operations.serve(
        name,
        config_file=config_file,
        settings=settings or [],
        warehouse=warehouse,
        drain_timeout=drain_timeout,
        detach=detach,
        as_json=as_json,
    )


@app.command(epilog=STATUS_EXAMPLES)
def status(
    *,
    name: Name = "logs",
    prometheus: Annotated[
        bool, typer.Option("--prometheus", help="Print the figures as Prometheus reads them.")
    ] = False,
    as_json: Json = False,
    debug: Debug = False,  # noqa: ARG001  read where errors end
) -> int:
    """Show a service's actors, figures and configuration. Exit code 1 where it is not well."""
    from sfwriter.cli import operations

    return operations.status(name, as_json=as_json, prometheus=prometheus)


@app.command(epilog=TOP_EXAMPLES)
def top(
    *,
    name: Name = "logs",
    interval: Annotated[float, typer.Option("--interval", metavar="SECS", min=0.1, help="Between two looks.")] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Look once.")] = False,
    as_json: Json = False,
    debug: Debug = False,  # noqa: ARG001  read where errors end
) -> int:
    """Show a service's figures live, until Ctrl-C; with --json one object on a line for each look."""
    from sfwriter.cli import operations

    return operations.top(name, interval=interval, once=once, as_json=as_json)


@app.command(epilog=DRAIN_EXAMPLES)
def drain(
    *,
    name: Name = "logs",
    timeout: Timeout = None,
    as_json: Json = False,
    debug: Debug = False,  # noqa: ARG001  read where errors end
) -> int:
    """Have a service take nothing more and settle what it has. Exit code 1 where the time ran out."""
    from sfwriter.cli import operations

    return operations.drain(name, timeout=timeout, as_json=as_json)


@app.command(epilog=STOP_EXAMPLES)
def stop(
    *,
    name: Name = "logs",
    timeout: Timeout = 60.0,
    as_json: Json = False,
    debug: Debug = False,  # noqa: ARG001  read where errors end
) -> int:
    """Drain a service and end it, and Ray where it started that. Where none runs, nothing is done."""
    from sfwriter.cli import operations

    return operations.stop(name, timeout=timeout, as_json=as_json)
