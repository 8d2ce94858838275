"""What travels between client, coordinator and writers."""

import pyarrow as pa
import pytest

from actors.wire import pack, unpack
from sfwriter.batch import EncodedBatch


def batch(rows, *, quarantined=None, beside=None):
    return EncodedBatch(rows, quarantined, "digest", "r", beside or {})


def rows_of(streams, share):
    return streams[share.stream].slice(share.offset, share.rows).to_pydict()


def test_every_share_names_its_own_rows():
    first = batch(pa.table({"a": [1, 2]}), quarantined=pa.table({"row": ["x"]}))
    second = batch(pa.table({"a": [3]}), beside={"s.other": pa.table({"a": [9]})})
    third = batch(pa.table({"a": [4], "b": ["new"]}), quarantined=pa.table({"row": ["y", "z"]}))
    content, shares = pack([first, second, third], "s.q")
    streams = list(unpack(content))

    assert [[share.table for share in own] for own in shares] == [["s.q", None], ["s.other", None], ["s.q", None]]
    assert rows_of(streams, shares[0][0]) == {"row": ["x"]}
    assert rows_of(streams, shares[0][1]) == {"a": [1, 2]}
    assert rows_of(streams, shares[1][0]) == {"a": [9]}
    assert rows_of(streams, shares[1][1]) == {"a": [3]}
    assert rows_of(streams, shares[2][0]) == {"row": ["y", "z"]}
    assert rows_of(streams, shares[2][1]) == {"a": [4], "b": ["new"]}


def test_batches_without_rows_travel_too():
    content, ((share,),) = pack([batch(pa.table({"a": pa.array([], pa.int64())}))], "s.q")
    assert share.rows == 0
    assert [table.num_rows for table in unpack(content)] == [0]


def test_a_payload_that_is_none_is_refused():
    with pytest.raises(pa.ArrowInvalid):
        list(unpack(b"no Arrow at all, but long enough to be looked at"))
