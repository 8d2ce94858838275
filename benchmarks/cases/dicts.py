"""Lists of dicts, as pipelines hold them, beside pyarrow's conversion and `write_deltalake`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.case import Case, Figures, Peer, Scale, Setting, Verdict
from benchmarks.cases.backfill import Stopwatch
from benchmarks.cases.data import TABLE, check_table, rows_for
from benchmarks.child import in_child
from sfwriter.testing.rows import log_rows

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

BATCH = 10_000


def prepare(_folder: Path, scale: Scale) -> Mapping[str, Any]:
    """A million rows; each child makes them anew."""
    return {"rows": rows_for(scale, full=1_000_000, quick=60_000, tiny=3_000)}


def run_sfwriter(setting: Setting) -> Figures:
    """`write_batches`, gate and metadata included."""
    figures = in_child("dicts:with_sfwriter", warehouse=str(setting.folder), rows=setting.given["rows"])
    check_table(setting.folder / TABLE, setting.given["rows"])
    return {**figures, "rows_per_s": setting.given["rows"] / figures["secs"]}


def run_write_deltalake(setting: Setting) -> Figures:
    """`pa.Table.from_pylist`, then `write_deltalake`; metadata is text already."""
    return _run_peer(setting, streamed=False)


def run_streamed(setting: Setting) -> Figures:
    """The same, where `write_deltalake` encodes the last batch while the next one is converted."""
    return _run_peer(setting, streamed=True)


def _run_peer(setting: Setting, *, streamed: bool) -> Figures:
    target, rows = setting.folder / "table", setting.given["rows"]
    figures = in_child("dicts:with_write_deltalake", target=str(target), rows=rows, streamed=streamed)
    check_table(target, rows)
    return {**figures, "rows_per_s": rows / figures["secs"]}


# ---------------------------------------------------------------- in the child


def with_sfwriter(warehouse: str, rows: int) -> Figures:
    """The writer's opening and closing count."""
    from sfwriter import LogWriter, WriterConfig
    from sfwriter.storage import delta_rs  # noqa: F401  the writer loads it when it opens; the peers have theirs loaded

    batches = _batches(rows)
    watch = Stopwatch()
    with LogWriter(config=WriterConfig(warehouse=warehouse)) as writer:
        writer.write_batches(batches)
    return watch.read()


def with_write_deltalake(target: str, rows: int, *, streamed: bool) -> Figures:
    """All batches into one commit."""
    import json

    import pyarrow as pa
    from deltalake import write_deltalake

    from sfwriter.schema import LOG_SCHEMA

    schema = pa.schema([field for field in LOG_SCHEMA if field.name != "logged_at"])
    batches = [
        [{**row, "metadata": None if row.get("metadata") is None else json.dumps(row["metadata"])} for row in batch]
        for batch in _batches(rows)
    ]
    watch = Stopwatch()
    tables = (pa.Table.from_pylist(part, schema=schema) for part in batches)
    if streamed:
        stream = (batch for table in tables for batch in table.to_batches())
        write_deltalake(target, pa.RecordBatchReader.from_batches(schema, stream))
    else:
        write_deltalake(target, pa.concat_tables(tables))
    return watch.read()


def _batches(rows: int) -> list[list[dict[str, Any]]]:
    whole: list[dict[str, Any]] = list(log_rows(rows))
    return [whole[start : start + BATCH] for start in range(0, rows, BATCH)]


CASE = Case(
    "dicts",
    "lists of dicts by write_batches, beside pa.Table.from_pylist and write_deltalake",
    (
        Peer("sfwriter", run_sfwriter),
        Peer("write_deltalake", run_write_deltalake),
        Peer("streamed", run_streamed),
    ),
    (
        Verdict(
            "sfwriter / write_deltalake", ("sfwriter", "rows_per_s"), ("write_deltalake", "rows_per_s"), target=1.8
        ),
        Verdict("sfwriter / streamed", ("sfwriter", "rows_per_s"), ("streamed", "rows_per_s")),
    ),
    prepare,
)
