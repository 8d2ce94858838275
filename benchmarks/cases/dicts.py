"""Lists of dicts, as pipelines hold them, beside pyarrow's conversion and `write_deltalake`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks.case import Case, Figures, Peer, Scale, Setting, Verdict
from benchmarks.cases.backfill import Stopwatch
from benchmarks.cases.data import TABLE, check_table, rows_for
from benchmarks.child import in_child
from sfwriter.testing.rows import log_rows

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SHORT, LONG = 10_000, 100_000
"""Rows in a list. `from_pylist` takes 2.0 µs a row of a short list and 3.4 to 4.4 of a long one, whose dicts no
longer fit into the processor's cache; sfwriter reads both 5,000 rows at a time."""


def prepare(_folder: Path, scale: Scale) -> Mapping[str, Any]:
    """A million rows; each child makes them anew."""
    return {"rows": rows_for(scale, full=1_000_000, quick=60_000, tiny=3_000)}


def run_sfwriter(setting: Setting, batch: int) -> Figures:
    """`write_batches`, gate and metadata included."""
    figures = in_child("dicts:with_sfwriter", warehouse=str(setting.folder), rows=setting.given["rows"], batch=batch)
    check_table(setting.folder / TABLE, setting.given["rows"])
    return {**figures, "rows_per_s": setting.given["rows"] / figures["secs"]}


def run_write_deltalake(setting: Setting, batch: int, *, streamed: bool) -> Figures:
    """`pa.Table.from_pylist`, then `write_deltalake`; metadata is text already.

    Args:
        setting: of the run.
        batch: rows in a list.
        streamed: `write_deltalake` encodes the last list while the next one is converted.
    """
    target, rows = setting.folder / "table", setting.given["rows"]
    figures = in_child("dicts:with_write_deltalake", target=str(target), rows=rows, batch=batch, streamed=streamed)
    check_table(target, rows)
    return {**figures, "rows_per_s": rows / figures["secs"]}


# ---------------------------------------------------------------- in the child


def with_sfwriter(warehouse: str, rows: int, batch: int) -> Figures:
    """The writer's opening and closing count."""
    from sfwriter import LogWriter, WriterConfig
    from sfwriter.storage import delta_rs  # noqa: F401  the writer loads it when it opens; the peers have theirs loaded

    batches = _batches(rows, batch)
    watch = Stopwatch()
    with LogWriter(config=WriterConfig(warehouse=warehouse)) as writer:
        writer.write_batches(batches)
    return watch.read()


def with_write_deltalake(target: str, rows: int, batch: int, *, streamed: bool) -> Figures:
    """All batches into one commit."""
    import json

    import pyarrow as pa
    from deltalake import write_deltalake

    from sfwriter.schema import LOG_SCHEMA

    schema = pa.schema([field for field in LOG_SCHEMA if field.name != "logged_at"])
    batches = [
        [{**row, "metadata": None if row.get("metadata") is None else json.dumps(row["metadata"])} for row in part]
        for part in _batches(rows, batch)
    ]
    watch = Stopwatch()
    tables = (pa.Table.from_pylist(part, schema=schema) for part in batches)
    if streamed:
        stream = (piece for table in tables for piece in table.to_batches())
        write_deltalake(target, pa.RecordBatchReader.from_batches(schema, stream))
    else:
        write_deltalake(target, pa.concat_tables(tables))
    return watch.read()


def _batches(rows: int, batch: int) -> list[list[dict[str, Any]]]:
    whole: list[dict[str, Any]] = list(log_rows(rows))
    return [whole[start : start + batch] for start in range(0, rows, batch)]


def _case(name: str, batch: int) -> Case:
    return Case(
        name,
        f"lists of {batch:,} dicts by write_batches, beside pa.Table.from_pylist and write_deltalake",
        (
            Peer("sfwriter", partial(run_sfwriter, batch=batch)),
            Peer("write_deltalake", partial(run_write_deltalake, batch=batch, streamed=False)),
            Peer("streamed", partial(run_write_deltalake, batch=batch, streamed=True)),
        ),
        (
            Verdict(
                "sfwriter / write_deltalake", ("sfwriter", "rows_per_s"), ("write_deltalake", "rows_per_s"), target=1.8
            ),
            Verdict("sfwriter / streamed", ("sfwriter", "rows_per_s"), ("streamed", "rows_per_s")),
        ),
        prepare,
    )


CASES = (_case("dicts", SHORT), _case("dicts-long", LONG))
