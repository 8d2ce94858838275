"""What travels between client, coordinator and writers."""

import struct
from contextlib import suppress
from unittest.mock import patch

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.wire import Payload, Slice, pack, unpack
from actors.writer import Writer
from sfwriter.batch import EncodedBatch, Token
from sfwriter.exceptions import WriterValidationError
from sfwriter.storage.engine import TableSpec


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


def test_what_is_large_is_packed_alike(monkeypatch):
    batches = [batch(pa.table({"a": [1, 2]})), batch(pa.table({"a": [3], "b": ["x"]}))]
    small, shares = pack(batches, "s.q")
    monkeypatch.setattr("actors.wire.INLINE_BYTES", 0)
    large, _ = pack(batches, "s.q")
    assert large.equals(small)
    assert len(shares) == 2


def test_batches_without_rows_travel_too():
    content, ((share,),) = pack([batch(pa.table({"a": pa.array([], pa.int64())}))], "s.q")
    assert share.rows == 0
    assert [table.num_rows for table in unpack(content)] == [0]


def test_a_payload_that_is_none_is_refused():
    with pytest.raises(pa.ArrowInvalid):
        list(unpack(b"no Arrow at all, but long enough to be looked at"))


def ints(*values):
    return struct.pack(f"{len(values)}i", *values)


BENT = {
    "offsets beyond the text": (ints(0, 2, 3), ints(0, 2, 1_000_000)),
    "offsets that fall": (ints(0, 2, 3), ints(0, 3, 1)),
    "offsets below zero": (ints(0, 2, 3), ints(-5, 2, 3)),
    "no UTF-8": (b"abc", bytes([0xFF, 0xFE, 0x61])),
}
ENCODED = {
    "numbers beyond the dictionary": (ints(1, 0, 1), ints(1, 0, 2)),
    "numbers below zero": (ints(1, 0, 1), ints(1, -1, 1)),
    "no UTF-8": (b"abc", bytes([0xFF, 0xFE, 0x61])),
}


@pytest.fixture(params=[512, 0], ids=["looked at together", "one by one"])
def few_rows(request, monkeypatch):
    monkeypatch.setattr("actors.wire._FEW_ROWS", request.param)


@pytest.mark.usefixtures("few_rows")
@pytest.mark.parametrize(("honest", "bent"), BENT.values(), ids=BENT)
def test_columns_that_are_not_what_they_say_are_refused(honest, bent):
    content, _ = pack([batch(pa.table({"a": ["ab", "c"]}))], "s.q")
    payload = content.to_pybytes()
    assert honest in payload
    with pytest.raises(pa.ArrowInvalid):
        list(unpack(payload.replace(honest, bent)))


@pytest.mark.usefixtures("few_rows")
@pytest.mark.parametrize(("honest", "bent"), ENCODED.values(), ids=ENCODED)
def test_dictionaries_that_are_not_what_they_say_are_refused(honest, bent):
    encoded = pa.DictionaryArray.from_arrays(pa.array([1, 0, 1], pa.int32()), pa.array(["ab", "c"]))
    content, _ = pack([batch(pa.table({"a": encoded}))], "s.q")
    payload = content.to_pybytes()
    assert [table.to_pydict() for table in unpack(payload)] == [{"a": ["c", "ab", "c"]}]
    assert honest in payload
    with pytest.raises((pa.ArrowInvalid, pa.ArrowIndexError)):
        list(unpack(payload.replace(honest, bent)))


def test_each_batch_brings_its_own_dictionary():
    texts = [["a", "b"], ["c", "c"]]
    batches = [batch(pa.table({"a": pa.array(own).dictionary_encode()})) for own in texts]
    content, shares = pack(batches, "s.q")
    streams = list(unpack(content))
    assert [rows_of(streams, share) for (share,) in shares] == [{"a": own} for own in texts]
    assert [streams[0].slice(share.offset, share.rows).nbytes for (share,) in shares] == [s.nbytes for (s,) in shares]


@pytest.mark.parametrize("values", [pa.array([[1], [2]]), pa.array([1, 1]).dictionary_encode()])
def test_types_that_no_batch_has_are_refused(values):
    content, _ = pack([batch(pa.table({"a": values}))], "s.q")
    with pytest.raises(pa.ArrowInvalid, match="no batch has"):
        list(unpack(content))


def test_types_that_were_looked_at_stand_for_no_others():
    known = pa.schema([("a", pa.int64())])
    content, _ = pack([batch(pa.table({"a": [1]}))], "s.q")
    assert [table.to_pydict() for table in unpack(content, known)] == [{"a": [1]}]
    content, _ = pack([batch(pa.table({"a": [[1]]}))], "s.q")
    with pytest.raises(pa.ArrowInvalid, match="no batch has"):
        list(unpack(content, known))


@given(st.data())
def test_bytes_that_were_changed_on_the_way_never_crash(data):
    encoded = pa.array(["m", "m", None]).dictionary_encode()
    content, _ = pack([batch(pa.table({"a": ["x", None, "yz"], "b": [1, 2, 3], "c": encoded}))], "s.q")
    damaged = bytearray(content.to_pybytes())
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(damaged)))
    for payload in (bytes(damaged), bytes(damaged[:cut])):
        few = patch("actors.wire._FEW_ROWS", data.draw(st.sampled_from([0, 512])))
        with few, suppress(pa.ArrowException, OSError, UnicodeDecodeError):
            for table in unpack(payload):
                table.to_pydict()


@pytest.mark.parametrize(
    "offsets", [(0, 0), (1, 0)], ids=["the same rows twice", "another order, which is measured one by one"]
)
def test_a_writer_believes_no_slice_that_is_larger_than_it_says(tmp_path, monkeypatch, offsets):
    monkeypatch.setattr("actors.writer.use_returning_memory", lambda: None)
    rows = pa.table({"a": ["x" * (1 << 20), "y"]})
    content, _ = pack([batch(rows)], "s.q")
    # Together they claim as much as there is; each of them by itself less than what it names.
    slices = [Slice(Token("p", number), 0, offset, 1, 400_000) for number, offset in enumerate(offsets)]
    spec = TableSpec("s.t", str(tmp_path / "t"), pa.schema([("a", pa.string())]))
    with pytest.raises(WriterValidationError, match="claims 1 rows of 400000 bytes"):
        Writer().stage(spec, [(Payload(inline=content.to_pybytes()), slices)])
    assert not list(tmp_path.rglob("*.parquet"))
