"""Takes over a log table that another writer made: looks, says, and adds the columns that it lacks.

Receives: a table that is there, such as SparkForge's.
Produces: a `TakeOverResult`, or one error with everything that stands in the way.
Guarantees: afterwards a `LogWriter` can write to the table, and the rows that are in it read as before. A
    second time there is nothing to do.
Never does: rewrite or drop anything, change a column or a property, or create a table.

SparkForge's tables have INT and FLOAT where this library makes 64 bits. Such columns are kept: see
`sfwriter.storage.columns.is_narrower`.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import pyarrow as pa

from sfwriter.exceptions import WriterTableError
from sfwriter.runtime.blueprint import log_table_spec
from sfwriter.schema import LOG_SCHEMA
from sfwriter.storage.columns import is_narrower, plain
from sfwriter.storage.engine import AddColumns
from sfwriter.storage.place import local_root

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sfwriter.config import WriterConfig
    from sfwriter.results import TakeOverResult
    from sfwriter.storage.engine import Engine, TableSpec, TableStats

OLDER_NAMES = {"step": "step_name", "schema_name": "schema"}
"""Columns of SparkForge's earlier log tables, and where this library keeps the same."""

_SAFE_PARTITIONS = "a date, a bool, a whole number or a text"


def take_over(
    config: WriterConfig, engine: Engine, path: str | None = None, *, dry_run: bool = False
) -> TakeOverResult:
    """Make a log table that is there ready for `LogWriter`, or say why it cannot be.

    Args:
        config: names the table.
        engine: reaches it.
        path: its folder or object-store URL; None for the place that the configuration gives.
        dry_run: only look.

    Raises:
        WriterTableError: there is no such table, it cannot be read, or something stands in the way;
            `context["problems"]` lists all of it.
    """
    usual = log_table_spec(config)
    spec = usual if path is None else replace(usual, location=_absolute(path))
    table = engine.open(spec)
    stats = table.stats()
    if not stats.exists or stats.schema is None:
        raise WriterTableError(
            f"There is no Delta table {spec.name} at {spec.location}.",
            context={"table": spec.name, "location": spec.location},
            suggestions=["Give the table's own folder or URL with --path.", "Or let a first write make a new table."],
            code="table_missing",
        )
    looked = table.run(AddColumns(LOG_SCHEMA, dry_run=True))
    problems = [*_of_features(looked["refused"]), *_of_columns(stats.schema), *_of_partitions(stats)]
    if problems:
        raise _refused(spec, problems)
    added = list(looked["added"])
    version = stats.version
    if added and not dry_run:
        version = int(table.run(AddColumns(LOG_SCHEMA))["version"])
        table.ensure()  # what a writer asks of a table before its first row
    known = set(stats.schema.names)
    return {
        "table_fqn": spec.name,
        "location": spec.location,
        "dry_run": dry_run,
        "changed": bool(added) and not dry_run,
        "version": version,
        "row_count": stats.rows,
        "columns_added": {name: str(LOG_SCHEMA.field(name).type) for name in added},
        "narrower_columns": {
            column.name: str(stats.schema.field(column.name).type)
            for column in LOG_SCHEMA
            if column.name in known and is_narrower(stats.schema.field(column.name).type, column.type)
        },
        "other_columns": [name for name in stats.schema.names if name not in LOG_SCHEMA.names],
        "notes": list(_notes(stats)),
        "open_with": _open_with(config, spec, usual),
    }


def _absolute(path: str) -> str:
    # As Spark's DESCRIBE DETAIL writes it: `file:/data/…`.
    root = local_root(re.sub(r"^file:/(?!/)", "/", path))
    return path.rstrip("/") if root is None else str(root)


def _of_features(refused: list[str]) -> Iterator[str]:
    for feature in refused:
        yield (
            f"it uses {feature}, which the embedded engine cannot write to: open it with LogWriter(spark, config), or"
            " switch the feature off with the engine that made it"
        )


def _of_columns(schema: pa.Schema) -> Iterator[str]:
    """Columns of the log that the table has in a type, or under a spelling, that rows cannot be written to."""
    lowered = {name.lower(): name for name in schema.names}
    for wanted in LOG_SCHEMA:
        found = lowered.get(wanted.name.lower())
        if found is None:
            continue
        if found != wanted.name:
            yield (
                f"its column {found!r} differs from {wanted.name!r} only in upper and lower case: copy the table with"
                f" `SELECT {found} AS {wanted.name}, …` into a new one and take that over"
            )
            continue
        kept = plain(schema.field(found).type)
        if kept != plain(wanted.type) and not is_narrower(kept, wanted.type):
            yield (
                f"its column {found!r} is {kept}, and {wanted.type} is expected: copy the table with"
                f" `CREATE TABLE … USING delta AS SELECT CAST({found} AS {_SQL[wanted.type]}) AS {found}, …` into a new"
                " one and take that over"
            )


_SQL = {
    pa.string(): "STRING", pa.int64(): "BIGINT", pa.float64(): "DOUBLE", pa.bool_(): "BOOLEAN",
    pa.timestamp("us", "UTC"): "TIMESTAMP",
}  # fmt: skip


def _of_partitions(stats: TableStats) -> Iterator[str]:
    schema = stats.schema or pa.schema([])
    for name in stats.partition_columns:
        kept = plain(schema.field(name).type)
        if not (kept in (pa.string(), pa.bool_(), pa.date32()) or pa.types.is_signed_integer(kept)):
            yield (
                f"it is partitioned by {name!r}, which is {kept}: {_SAFE_PARTITIONS} can name a folder safely; copy it"
                " into a table that is partitioned by a date, or not at all"
            )


def _notes(stats: TableStats) -> Iterator[str]:
    schema = stats.schema or pa.schema([])
    for old, new in OLDER_NAMES.items():
        if old in schema.names and new not in schema.names:
            yield f"the rows that are there keep their {new} in {old!r}; {new!r} is null in them, and reports see that"
    for column in schema:
        if not column.nullable:
            yield f"{column.name!r} may not be null in this table: a row without it is refused"
    for name in stats.partition_columns:
        if schema.field(name).type == pa.string():
            signs = "letters, digits, _ and -"
            yield f"it is partitioned by {name!r}: rows whose {name} has other signs than {signs} are refused"
    if stats.properties.get("delta.appendOnly", "").lower() == "true":
        yield "it is append-only: write_mode OVERWRITE is refused"


def _refused(spec: TableSpec, problems: list[str]) -> WriterTableError:
    return WriterTableError(
        f"{spec.name} at {spec.location} cannot be taken over, and was not touched: {'; '.join(problems)}.",
        context={"table": spec.name, "location": spec.location, "problems": problems},
        suggestions=["Mend what is named, or write to a new table and copy the old rows into it."],
        code="not_to_be_taken_over",
    )


def _open_with(config: WriterConfig, spec: TableSpec, usual: TableSpec) -> dict[str, str] | None:
    """The embedded engine finds a table at `<warehouse>/<schema>/<name>`; elsewhere a catalog has to know it."""
    names = {"table_schema": config.table_schema, "table_name": config.table_name}
    if spec.location == usual.location:
        return {"warehouse": str(config.warehouse), **names}
    place = PurePosixPath(spec.location)
    if (place.parent.name, place.name) != (config.table_schema, config.table_name):
        return None
    return {"warehouse": spec.location[: -len(f"/{config.table_schema}/{config.table_name}")], **names}
