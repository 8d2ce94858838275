"""The hash that tells whether a batch's number is used for the same content again.

Receives: the rows of a call in the table's types, before anything made up is filled in, and what did not fit.
Produces: 16 hex digits (XXH3, 64 bits).
Guarantees: equal for equal values in equal order, however they are chunked, sliced or padded, whatever
    stands behind a null, in whatever order additional columns come, in every process. Encoded columns are as
    `few_texts` makes them, of the values alone.
Never does: read a value in Python; see `logged_at` or a made-up run id.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from sfwriter.arrays import constant
from sfwriter.dictionaries import is_encoded
from sfwriter.schema import LOG_SCHEMA

if TYPE_CHECKING:
    from collections.abc import Iterable

_LOG_COLUMNS = frozenset(LOG_SCHEMA.names)


def digest_of(rows: pa.Table, unfit: Iterable[str] = ()) -> str:
    """Hash a table, and a text for each value that it could not take.

    A column without a value counts as absent. XXH3 is not cryptographic: it finds mistakes, not attacks.
    """
    whole = xxhash.xxh3_64(opening(rows.num_rows))
    for name in sorted(rows.column_names):
        column = rows.column(name)
        if column.null_count == len(column):
            continue
        whole.update(column_identity(name, column))
    for text in unfit:
        data = text.encode("utf-8", "surrogatepass")
        whole.update(f"{len(data)}:".encode())
        whole.update(data)
    return str(whole.hexdigest())


def opening(count: int) -> bytes:
    """What the hash of a batch begins with."""
    return f"rows:{count};".encode()


def head(name: str, kept: pa.DataType) -> bytes:
    """What goes before the hash of a column."""
    return f"{name}:{'timestamp' if pa.types.is_timestamp(kept) else kept};".encode()


def column_identity(name: str, column: pa.ChunkedArray) -> bytes:
    """What the hash of a batch sees of one column that has a value."""
    if name not in _LOG_COLUMNS:
        column = _canonical(column)
    if not is_encoded(column.type):
        return head(name, column.type) + _column_hash(column)
    texts = pa.chunked_array([column.chunk(0).dictionary])
    numbers = pa.chunked_array([chunk.indices for chunk in column.chunks], pa.int32())
    return head(name, column.type.value_type) + _column_hash(texts) + _column_hash(numbers)


def _canonical(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """An additional column as it would look in a table that has never seen it.

    What a table keeps such a column in depends on who wrote first. Whole numbers hash alike as integers
    and as doubles, and narrow types as wide ones.
    """
    if pa.types.is_integer(column.type):
        return column.cast(pa.int64())
    if pa.types.is_floating(column.type):
        wide = column.cast(pa.float64())
        try:
            return wide.cast(pa.int64())
        except pa.ArrowInvalid:
            return wide
    return column


def _column_hash(column: pa.ChunkedArray) -> bytes:
    """Two streams, one of places and lengths, one of values, so that chunk borders leave no trace."""
    places, values = xxhash.xxh3_64(), xxhash.xxh3_64()
    nullable = column.null_count > 0
    for chunk in column.chunks:
        if len(chunk) == 0:
            continue
        if pa.types.is_string(chunk.type):
            lengths = pc.binary_length(chunk)
            known = pc.fill_null(lengths, constant(-1, pa.int64()).cast(lengths.type)) if nullable else lengths
            places.update(_view(known))
            values.update(_text_bytes(chunk, lengths))
            continue
        if nullable:
            places.update(_view(pc.is_valid(chunk).cast(pa.uint8())))
        if pa.types.is_boolean(chunk.type):
            chunk = chunk.cast(pa.uint8())  # noqa: PLW2901  the same chunk, one byte a value
        values.update(_view(pc.drop_null(chunk) if chunk.null_count else chunk))
    return bytes(places.digest() + values.digest())


def _view(array: pa.Array) -> Any:
    """The bytes of a fixed-width array without nulls."""
    if len(array) == 0:
        return b""
    width = array.type.bit_width // 8
    return memoryview(array.buffers()[1])[array.offset * width : (array.offset + len(array)) * width]


def _text_bytes(chunk: pa.Array, lengths: pa.Array) -> Any:
    """The texts one after the other, without what may lie behind nulls."""
    offsets = memoryview(chunk.buffers()[1]).cast("i")
    first, last = offsets[chunk.offset], offsets[chunk.offset + len(chunk)]
    if chunk.null_count and last - first != (pc.sum(lengths).as_py() or 0):
        return _text_bytes_of_valid(pc.drop_null(chunk))
    return memoryview(chunk.buffers()[2])[first:last] if last > first else b""


def _text_bytes_of_valid(chunk: pa.Array) -> Any:
    offsets = memoryview(chunk.buffers()[1]).cast("i")
    first, last = offsets[chunk.offset], offsets[chunk.offset + len(chunk)]
    return memoryview(chunk.buffers()[2])[first:last] if last > first else b""
