"""Arrow columns: what widens without loss is taken in every mode, the rest goes by the mode."""

from array import array
from datetime import date, datetime, timezone
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sfwriter.exceptions import WriterSchemaError
from sfwriter.ingest.arrow_columns import is_plain_ascii
from sfwriter.ingest.gate import Gate

NOON = datetime(2024, 1, 31, 12, tzinfo=timezone.utc)


def table(**columns):
    count = len(next(iter(columns.values())))
    return pa.table({"run_id": ["r"] * count, "phase": ["gold"] * count, "step_name": ["a"] * count, **columns})


WIDENED = [
    *(("rows_processed", pa.array([5, None], kind), [5, None])
      for kind in (pa.int8(), pa.int16(), pa.int32(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64())),
    ("duration_secs", pa.array([0.5, None], pa.float16()), [0.5, None]),
    ("duration_secs", pa.array([0.5, None], pa.float32()), [0.5, None]),
    ("duration_secs", pa.array([5, None], pa.int32()), [5.0, None]),
    ("error_message", pa.array(["x", None], pa.large_string()), ["x", None]),
    ("error_message", pa.array(["x", None], pa.string_view()), ["x", None]),
    ("error_message", pa.array(["x", None]).dictionary_encode(), ["x", None]),
    ("start_time", pa.array([NOON, None], pa.timestamp("s")), [NOON, None]),
    ("start_time", pa.array([NOON, None], pa.timestamp("ms", "+02:00")), [NOON, None]),
    ("start_time", pa.array([NOON, None], pa.timestamp("us", "America/New_York")), [NOON, None]),
    ("start_time", pa.array([NOON, None], pa.timestamp("ns", "UTC")), [NOON, None]),
    ("start_time", pa.nulls(2), [None, None]),
    ("rows_processed", pa.nulls(2, pa.binary()), [None, None]),
    ("metadata", pa.array([{"a": 1, "b": None}, None]), ['{"a":1}', None]),
    ("metadata", pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int64())), ['{"k":1}', None]),
    ("metadata", pa.array(['{"a": {"b": [1]}}', '{"b": -1.5e3}']), ['{"a": {"b": [1]}}', '{"b": -1.5e3}']),
]  # fmt: skip


@pytest.mark.parametrize("mode", ["strict", "lenient", "ignore"])
@pytest.mark.parametrize(("column", "values", "kept"), WIDENED)
def test_widening_without_loss_is_taken_in_every_mode(mode, column, values, kept):
    batch = Gate(mode).encode(table(**{column: values}))

    assert batch.rows[column].to_pylist() == kept
    assert batch.quarantined is None


WRONG = [
    ("rows_processed", pa.array([1, 2**63], pa.uint64()), "beyond 64 bits"),
    ("rows_processed", pa.array([1.0, 1.5]), "integer"),
    ("rows_processed", pa.array(["1", "x"]), "integer"),
    ("rows_processed", pa.array([Decimal("1.0"), Decimal("1.5")]), "integer"),
    ("duration_secs", pa.array([1, 2**53 + 1], pa.int64()), "does not keep exactly"),
    ("start_time", pa.array([1_000, 1_001], pa.timestamp("ns", "UTC")), "nanoseconds"),
    ("start_time", pa.array([0, 2**60], pa.timestamp("s")), "years 1 to 9999"),
    ("start_time", pa.array([0, 2**62], pa.timestamp("us")), "years 1 to 9999"),
    ("start_time", pa.array([0, -(2**62)], pa.timestamp("ms")), "years 1 to 9999"),
    ("start_time", pa.array(["2024-01-31", "soon"]), "timestamp"),
    ("error_message", pa.array([None, b"x"]), "is not text"),
    ("error_message", pa.array([None, [1]]), "is not text"),
    ("metadata", pa.array(["{}", "[]"]), "not of an object"),
    ("metadata", pa.array(["{}", "{"]), "not the text of a JSON object"),
    ("metadata", pa.array(["{}", '{"a":1}{"b":2}']), "not the text of a JSON object"),
    ("metadata", pa.array(["{}", '{"a":01}']), "not the text of a JSON object"),
    ("metadata", pa.array(["{}", '{"a":"\\ud800"}']), "not the text of a JSON object"),
    ("metadata", pa.array([None, [1]]), "neither a dict"),
    ("new", pa.array([None, b"x"]), "is not text"),
    ("new", pa.array([None, 7], pa.duration("s")), "is not text"),
]


@pytest.mark.parametrize(("column", "values", "told"), WRONG)
def test_what_a_column_cannot_keep_is_named_in_strict_and_set_aside_in_lenient(column, values, told):
    with pytest.raises(WriterSchemaError) as refused:
        Gate("strict").encode(table(**{column: values}))
    assert (refused.value.validation_errors[-1]["row"], refused.value.validation_errors[-1]["column"]) == (1, column)
    assert refused.value.actual_schema[column] == str(values.type)

    gated = Gate("lenient").admit(table(**{column: values}))
    assert (gated.accepted, gated.quarantined) == (1, 1)
    assert any(told in reason for reason in gated.batch.quarantined["reasons"].to_pylist()[0])

    ignored = Gate("ignore").admit(table(**{column: values}))
    assert (ignored.accepted, ignored.unconverted) == (2, 1)
    assert "_unconverted" in ignored.batch.rows["metadata"].to_pylist()[1]


@pytest.mark.parametrize(
    ("column", "values", "kept"),
    [
        ("rows_processed", pa.array([1.0, None]), [1, None]),
        ("rows_processed", pa.array(["1", " 2 "]), [1, 2]),
        ("duration_secs", pa.array([Decimal("0.5"), None]), [0.5, None]),
        ("start_time", pa.array([date(2024, 1, 31), None]), [NOON.replace(hour=0), None]),
        ("start_time", pa.array(["2024-01-31T12:00:00Z", None]), [NOON, None]),
        ("run_id", pa.array([7, 8]), ["7", "8"]),
    ],
)
def test_what_converts_without_loss_is_wrong_in_strict_and_converted_elsewhere(column, values, kept):
    with pytest.raises(WriterSchemaError):
        Gate("strict").encode(table(step_type=["x", "y"]).drop_columns(["run_id"]).append_column(column, values))

    for mode in ("lenient", "ignore"):
        rows = table(step_type=["x", "y"]).drop_columns(["run_id"]).append_column(column, values)
        assert Gate(mode).encode(rows, "r").rows[column].to_pylist() == kept


def test_text_that_is_no_unicode_is_found_though_arrow_took_it_unseen():
    buffers = [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0\4\0\0\0"), pa.py_buffer(b"a\xed\xa0\x80")]
    broken = pa.Array.from_buffers(pa.string(), 2, buffers)

    with pytest.raises(WriterSchemaError, match="lone surrogate") as refused:
        Gate().encode(table(error_message=broken))
    assert refused.value.validation_errors[0]["row"] == 1

    gated = Gate("lenient").admit(table(error_message=broken))
    assert gated.batch.rows["error_message"].to_pylist() == ["a"]


offsets = st.lists(st.integers(0, 8), min_size=2, max_size=6)


@settings(max_examples=300, deadline=None)
@given(
    offsets | offsets.map(sorted),
    st.binary(min_size=8, max_size=8) | st.text("ab", min_size=8, max_size=8).map(str.encode),
    st.integers(0, 4),
    st.integers(0, 63),
)
def test_what_the_quick_look_takes_for_unicode_is_unicode(places, data, start, valid):
    assume(places[0] <= places[-1])  # pyarrow makes no others
    buffers = [pa.py_buffer(bytes([valid])), pa.py_buffer(array("i", places)), pa.py_buffer(data)]
    texts = pa.Array.from_buffers(pa.string(), len(places) - 1, buffers)
    sliced = texts.slice(min(start, len(texts)))
    assume(places[len(places) - 1 - len(sliced)] <= places[-1])

    if is_plain_ascii(sliced):
        sliced.validate(full=True)
    elif len(sliced) and places == sorted(places):
        assert not data.isascii()


def test_slices_and_chunks_are_read_where_they_lie():
    whole = table(rows_processed=pa.array(range(10), pa.int32()), metadata=[f'{{"a":{i}}}' for i in range(10)])
    chunked = pa.concat_tables([whole.slice(2, 3), whole.slice(5, 0), whole.slice(5, 2)])

    rows = Gate().encode(chunked).rows

    assert rows["rows_processed"].to_pylist() == [2, 3, 4, 5, 6]
    assert rows["metadata"].to_pylist() == [f'{{"a":{i}}}' for i in range(2, 7)]


def test_positions_of_wrong_values_count_over_all_chunks():
    parts = [table(rows_processed=pa.array(["1", "2"])), table(rows_processed=pa.array(["3", "x"]))]

    gated = Gate("lenient").admit(pa.concat_tables(parts))

    assert gated.batch.rows["rows_processed"].to_pylist() == [1, 2, 3]
    assert '"x"' in gated.batch.quarantined["row"][0].as_py()
