"""What travels between client, coordinator and writers.

A parcel is one payload of rows with the entries that share it. The payload is Arrow IPC, opened only
by the writer that stages it: inline where it is small, else a reference into Ray's object store, which
the coordinator passes on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sfwriter.batch import EncodedBatch, Token


@dataclass(frozen=True, slots=True)
class Entry:
    """One batch of a parcel: its identity, and which rows of the payload are its own.

    Attributes:
        producer_id, sequence, digest, stamp, assigned, resent, checked, expires, patient: as in
            `sfwriter.flow.vocabulary.Submitted`.
        wait_secs: how long it waits for memory; None for ever.
        offset, rows, nbytes: its rows in the payload's first table, and their Arrow bytes.
        set_aside_offset, set_aside_rows, set_aside_nbytes: the same for quarantine, the second table.
    """

    producer_id: str
    sequence: int | None
    digest: str
    stamp: str
    assigned: bool
    resent: bool
    checked: bool
    expires: bool
    patient: bool
    wait_secs: float | None
    offset: int
    rows: int
    nbytes: int
    set_aside_offset: int = 0
    set_aside_rows: int = 0
    set_aside_nbytes: int = 0


@dataclass(frozen=True, slots=True)
class Payload:
    """Rows on the wire: `inline` bytes, or an object reference, in a list so that Ray leaves it closed."""

    inline: Any = None
    reference: list[Any] | None = None


@dataclass(frozen=True, slots=True)
class Parcel:
    """What one call of a client brings."""

    entries: tuple[Entry, ...]
    payload: Payload


@dataclass(frozen=True, slots=True)
class Slice:
    """Rows of a payload that a writer is to stage under a token."""

    token: Token
    offset: int
    rows: int


def pack(batches: Sequence[EncodedBatch]) -> pa.Buffer:
    """Write the rows of some batches as two IPC streams, accepted and set aside, one behind the other.

    Batches of one payload have the same columns.
    """
    tables = [_joined([batch.rows for batch in batches])]
    aside = [batch.quarantined for batch in batches if batch.quarantined is not None]
    if aside:
        tables.append(_joined(aside))
    # Measured before it is written: a buffer that grows is copied over and over, each time into fresh memory.
    scale = pa.MockOutputStream()
    _write(scale, tables)
    content = pa.allocate_buffer(scale.size())
    _write(pa.FixedSizeBufferWriter(content), tables)
    return content


def unpack(payload: Any, *, set_aside: bool) -> pa.Table:
    """Read one of the two tables of a payload, without copying.

    Raises:
        pyarrow.ArrowInvalid: it is not what `pack` writes.
    """
    source = pa.BufferReader(payload)
    table = pa.ipc.open_stream(source).read_all()
    if set_aside:
        table = pa.ipc.open_stream(source).read_all()
    return table


def _joined(tables: Sequence[pa.Table]) -> pa.Table:
    return tables[0] if len(tables) == 1 else pa.concat_tables(tables).combine_chunks()


def _write(sink: pa.NativeFile, tables: Sequence[pa.Table]) -> None:
    for table in tables:
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)


def offsets(batches: Sequence[EncodedBatch]) -> Iterator[tuple[int, int]]:
    """Where each batch's rows begin in the two tables of their payload."""
    rows = aside = 0
    for batch in batches:
        yield rows, aside
        rows += batch.rows.num_rows
        aside += 0 if batch.quarantined is None else batch.quarantined.num_rows
