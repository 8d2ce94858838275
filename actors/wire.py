"""What travels between client, coordinator and writers.

A parcel is one payload of rows with the entries that share it. The payload is Arrow IPC, a stream for
each table and set of columns, opened only
by the writer that stages it: inline where it is small, else a reference into Ray's object store, which
the coordinator passes on.

Named tuples, not dataclasses: those take six times as long to read back, and a small call is mostly that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa

from actors.options import INLINE_BYTES
from sfwriter.dictionaries import FEW_TEXTS, is_encoded
from sfwriter.ingest.arrow_columns import check_unicode

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ray.exceptions import RayTaskError

    from sfwriter.batch import EncodedBatch, Token


TEXTS = pa.list_(pa.string())
"""The type of reasons and of rules."""

_FEW_ROWS = 512
"""Up to here Arrow looks at all columns at once in less than it takes to look at them one by one, 3 µs for 35."""


class Share(NamedTuple):
    """What a batch has of one table: `rows` rows from `offset` on, in the payload's stream of this number.

    `table` is None for the log table that answers; `nbytes` are Arrow bytes.
    """

    table: str | None
    stream: int
    offset: int
    rows: int
    nbytes: int


class Entry(NamedTuple):
    """One batch of a parcel: its identity, and which rows of the payload are its own.

    Attributes:
        producer_id, sequence, digest, stamp, assigned, resent, checked, expires, patient: as in
            `sfwriter.flow.vocabulary.Submitted`.
        wait_secs: how long it waits for memory; None for ever.
        replaces: see `sfwriter.runtime.channel.Delivery`.
        shares: its rows, table by table, in the order in which they are committed.
        gate_secs: what the client's gate took.
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
    replaces: frozenset[str]
    shares: tuple[Share, ...]
    gate_secs: float = 0.0


class Payload(NamedTuple):
    """Rows on the wire: `inline` bytes, or an object reference, in a list so that Ray leaves it closed."""

    inline: Any = None
    reference: list[Any] | None = None


class Ack(NamedTuple):
    """How long a batch took from its call to the client's answer. `tables` as in its shares."""

    producer_id: str
    tables: tuple[str | None, ...]
    secs: float


class Parcel(NamedTuple):
    """What one call of a client brings.

    Attributes:
        number: of the client's parcels, from 0 on.
        entries: batches.
        payload: their rows.
        packed_secs: what it took to pack those.
        sender: the producer id that the client was connected with; None for a random one.
        acks: of the batches that were answered since the last parcel.
    """

    number: int
    entries: tuple[Entry, ...]
    payload: Payload
    packed_secs: float
    sender: str | None = None
    acks: tuple[Ack, ...] = ()


class Slice(NamedTuple):
    """Rows of a payload's stream that a writer is to stage under a token; `nbytes` is what they were said to be."""

    token: Token
    stream: int
    offset: int
    rows: int
    nbytes: int


def pack(batches: Sequence[EncodedBatch], quarantine_table: str) -> tuple[pa.Buffer, list[tuple[Share, ...]]]:
    """Write the rows of some batches as IPC streams, one behind the other: one for each table and set of columns.

    Returns:
        The payload, and the shares of each batch.
    """
    streams: list[tuple[pa.Schema, list[pa.Table]]] = []
    newest: dict[str | None, int] = {}
    known: dict[tuple[str | None, pa.Schema], int] = {}
    lengths: list[int] = []
    shares: list[tuple[Share, ...]] = []
    for batch in batches:
        own = []
        tables = batch.by_table(_ANSWERING, quarantine_table)
        for name, rows in tables.items():
            table = None if name == _ANSWERING else name
            schema = rows.schema
            stream = newest.get(table)
            # Asked first: most batches have the columns of the one before, and a schema's hash takes 15 µs.
            if stream is None or not streams[stream][0].equals(schema):
                stream = known.setdefault((table, schema), len(streams))
                if stream == len(streams):
                    streams.append((schema, []))
                    lengths.append(0)
                newest[table] = stream
            nbytes = batch.nbytes if len(tables) == 1 else int(rows.nbytes)
            own.append(Share(table, stream, lengths[stream], rows.num_rows, nbytes))
            lengths[stream] += rows.num_rows
            streams[stream][1].append(rows)
        shares.append(tuple(own))
    joined = [_joined(pieces) for _, pieces in streams]
    if sum(share.nbytes for own in shares for share in own) <= INLINE_BYTES:
        sink = pa.BufferOutputStream()
        _write(sink, joined)
        return sink.getvalue(), shares
    # Measured before it is written: a buffer that grows is copied over and over, each time into fresh memory.
    scale = pa.MockOutputStream()
    _write(scale, joined)
    content = pa.allocate_buffer(scale.size())
    _write(pa.FixedSizeBufferWriter(content), joined)
    return content, shares


def unpack(payload: Any, known: pa.Schema | None = None) -> Iterator[pa.Table]:
    """Read the streams of a payload one after the other, without copying.

    What comes is as others made it: every column is looked at before anything is done with it.

    Args:
        payload: bytes or a buffer.
        known: columns of an earlier stream, whose types need no second look.

    Raises:
        pyarrow.ArrowInvalid: it is not what `pack` writes, or a buffer is not what its column needs.
    """
    source = pa.BufferReader(payload)
    while source.tell() < source.size():
        rows = pa.ipc.open_stream(source).read_all()
        if known is None or not rows.schema.equals(known):
            for field in rows.schema:
                _check_type(field)
            known = rows.schema
        if rows.num_rows <= _FEW_ROWS:
            rows.validate(full=True)
        else:
            for column in rows.columns:
                _check(column)
        yield rows


def _check_type(field: pa.Field) -> None:
    kind = field.type
    if not (
        pa.types.is_string(kind) or pa.types.is_primitive(kind) or pa.types.is_null(kind)
        or kind in (FEW_TEXTS, TEXTS)
    ):  # fmt: skip
        raise pa.ArrowInvalid(f"column {field.name!r} is {kind}, which no batch has")


def _check(column: pa.ChunkedArray) -> None:
    kind = column.type
    if pa.types.is_string(kind):
        check_unicode(column)
    else:
        # Numbers point into a dictionary, and texts in it are UTF-8; others have nothing more to be looked at.
        column.validate(full=not (pa.types.is_primitive(kind) or pa.types.is_null(kind)))


def cause_of(error: RayTaskError) -> Exception:
    """What was raised at the other end, as it was: `as_instanceof_cause` gives a class of Ray's own making."""
    cause = error.cause
    return cause if isinstance(cause, Exception) else error


_ANSWERING = ""


def _joined(tables: Sequence[pa.Table]) -> pa.Table:
    if len(tables) == 1:
        return tables[0]
    joined = pa.concat_tables(tables)
    # Joined dictionaries would count for each batch; each record batch brings its own.
    return joined if any(is_encoded(field.type) for field in joined.schema) else joined.combine_chunks()


def _write(sink: pa.NativeFile, tables: Sequence[pa.Table]) -> None:
    for table in tables:
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
