"""The newest rows of a table, in bounded memory, and how they are shown."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from sfwriter.report.terminal import show_on_terminal

if TYPE_CHECKING:
    from datetime import datetime
    from typing import TextIO

    from sfwriter.storage.engine import TableReader

SHOWN = (
    "logged_at",
    "run_id",
    "phase",
    "step_name",
    "success",
    "duration_secs",
    "rows_processed",
    "rows_written",
    "error_message",
)
TEXT_WIDTH = 40
"""Characters of a cell; the rest is cut, with an ellipsis."""


def newest_rows(table: TableReader, columns: list[str] | None, order_by: str, limit: int) -> pa.Table:
    """The `limit` rows with the highest `order_by`, newest first; any rows where no time tells their order.

    Streams the table and keeps no more than twice `limit` rows and one batch of it.
    """
    kept: list[pa.RecordBatch] = []
    fresh = 0
    for batch in table.scan(columns):
        if not batch.num_rows:
            continue
        if order_by not in batch.schema.names or not pa.types.is_timestamp(batch.schema.field(order_by).type):
            return _first_rows(table, columns, limit)  # somebody else's table
        kept.append(batch)
        fresh += batch.num_rows
        # Not at each batch: a table of many small files would be sorted as often as it has files.
        if fresh >= limit:
            kept, fresh = _newest(pa.Table.from_batches(kept), order_by, limit).to_batches(), 0
    if not kept:
        return table.scan(columns).read_all()
    return _newest(pa.Table.from_batches(kept), order_by, limit)


def _newest(rows: pa.Table, order_by: str, limit: int) -> pa.Table:
    places = pc.select_k_unstable(rows[order_by], min(limit, rows.num_rows), sort_keys=[(order_by, "descending")])
    return rows.take(places).combine_chunks()


def _first_rows(table: TableReader, columns: list[str] | None, limit: int) -> pa.Table:
    reader = table.scan(columns)
    kept: list[pa.RecordBatch] = []
    for batch in reader:
        kept.append(batch.slice(0, limit - sum(one.num_rows for one in kept)))
        if sum(one.num_rows for one in kept) == limit:
            break
    return pa.Table.from_batches(kept, reader.schema)


def show_rows(rows: list[dict[str, Any]], title: str, out: TextIO | None = None) -> None:
    """Print rows as a table: with rules and colours on a terminal, as plain aligned text elsewhere."""
    out = out or sys.stdout
    if not rows:
        out.write(f"{title}: no rows\n")
        return
    names = [name for name in SHOWN if name in rows[0]] or list(rows[0])[: len(SHOWN)]
    encoding = getattr(out, "encoding", None) or "utf-8"
    # A terminal that knows no `é` shows `?`, and no error.
    cells = [[_text(row[name]).encode(encoding, "replace").decode(encoding) for name in names] for row in rows]
    failed = [row.get("success") is False for row in rows]
    if out.isatty():
        show_on_terminal(names, cells, failed, title, out)
        return
    widths = [max(len(name), *(len(line[i]) for line in cells)) for i, name in enumerate(names)]
    out.write(f"{title}\n")
    for line in [names, *cells]:
        out.write("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() + "\n")


def _text(value: Any) -> str:
    if value is None:
        return ""
    if hasattr(value, "isoformat"):
        moment: datetime = value
        return moment.isoformat(sep=" ", timespec="milliseconds").replace("+00:00", "Z")
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    text = "".join(char if char.isprintable() else " " for char in text)
    return text if len(text) <= TEXT_WIDTH else text[: TEXT_WIDTH - 1] + "…"
