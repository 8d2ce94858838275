"""The digest tells the same content from other content, and nothing else from anything."""

import subprocess
import sys
from datetime import datetime, timezone
from itertools import pairwise

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sfwriter.ingest.digest import digest_of
from sfwriter.ingest.gate import Gate
from sfwriter.testing.rows import log_rows, log_table

NOON = datetime(2024, 1, 31, 12, tzinfo=timezone.utc)


def row(**fields):
    return {"run_id": "r", "phase": "bronze", "step_name": "a", **fields}


def digest(rows, run_id=None, mode="strict"):
    return Gate(mode).encode(rows, run_id).digest


def test_the_same_rows_as_dicts_and_as_arrow_have_the_same_digest():
    rows = log_rows(2_500, seed=3)

    assert digest(rows) == digest(log_table(2_500, seed=3).select(list(rows[0])))


def test_the_digest_has_16_hex_digits_and_is_the_same_in_another_process():
    script = (
        "from sfwriter.ingest.gate import Gate; from sfwriter.testing.rows import log_rows;"
        "print(Gate().encode(log_rows(50)).digest)"
    )
    other = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip()

    mine = digest(log_rows(50))
    assert mine == other
    assert len(mine) == 16
    assert set(mine) <= set("0123456789abcdef")


def test_made_up_run_ids_are_left_out_and_given_ones_are_not():
    rows = [{"phase": "gold", "step_name": "a"}]

    assert digest(rows) == digest(rows)
    assert digest(rows, "x") == digest(rows, "x") == digest([{**rows[0], "run_id": "x"}])
    assert len({digest(rows), digest(rows, "x"), digest(rows, "y")}) == 3


def test_the_order_of_keys_and_of_new_columns_leaves_no_trace():
    one = [row(alpha=1, zeta="x"), row(zeta="y")]
    other = [dict(reversed(row(zeta="x", alpha=1).items())), row(zeta="y", alpha=None)]

    assert digest(one) == digest(other)


def test_what_lies_behind_a_null_leaves_no_trace():
    clean = pa.array([1, None, 3])
    dirty = pa.Array.from_buffers(
        pa.int64(), 3, [clean.buffers()[0], pa.py_buffer(b"\1" + b"\0" * 7 + b"\7" * 8 + b"\3" + b"\0" * 7)]
    )
    text = pa.Array.from_buffers(
        pa.string(),
        3,
        [
            clean.buffers()[0],
            pa.py_buffer(b"".join(n.to_bytes(4, "little") for n in (0, 1, 5, 6))),
            pa.py_buffer(b"ajunkb"),
        ],
    )

    def rows(count, message):
        return pa.table(
            {
                "run_id": ["r"] * 3,
                "phase": ["gold"] * 3,
                "step_name": ["a"] * 3,
                "rows_written": count,
                "error_message": message,
            }
        )

    assert dirty.to_pylist() == clean.to_pylist()
    assert digest(rows(clean, ["a", None, "b"])) == digest(rows(dirty, text))


CHANGES = [
    {"rows_written": 1},
    {"rows_written": 2},
    {"input_rows": 1},
    {"duration_secs": 1.0},
    {"start_time": NOON},
    {"end_time": NOON},
    {"success": False},
    {"success": True},
    {"error_message": ""},
    {"metadata": {}},
    {"new": 1},
    {"new": "1"},
    {"new": True},
    {"other": 1},
    {"step_name": "b"},
]


def test_every_change_of_a_value_or_its_column_changes_the_digest():
    digests = [digest([row(), row(**change)]) for change in CHANGES]
    # `success` left out is success.
    assert digest([row(), row()]) == digest([row(), row(success=True)])
    assert len(set(digests)) == len(CHANGES)


def test_order_and_number_of_rows_change_the_digest():
    a, b = row(), row(step_name="b")

    assert len({digest([a, b]), digest([b, a]), digest([a]), digest([a, a, b]), digest([])}) == 5


@pytest.mark.parametrize(
    ("one", "other"),
    [(["ab", "c"], ["a", "bc"]), ([None, "a"], ["a", None]), (["", "a"], ["a", ""]), ([None, "a"], ["", "a"])],
)
def test_texts_do_not_run_into_each_other(one, other):
    assert digest([row(error_message=text, success=True) for text in one]) != digest(
        [row(error_message=text, success=True) for text in other]
    )


def test_the_digest_does_not_depend_on_what_became_of_a_value_that_does_not_fit():
    rows = [row(), row(rows_written="x"), 7, row(**{"bad name": {1, 2}})]
    assert digest(rows, mode="lenient") == digest(rows, mode="lenient")
    assert digest(rows[:2], mode="lenient") == digest(rows[:2], mode="ignore")
    assert digest(rows[:2], mode="lenient") != digest([row(), row(rows_written="y")], mode="lenient")


def test_objects_are_told_by_their_text_without_addresses():
    assert digest([row(new=object())], mode="lenient") == digest([row(new=object())], mode="lenient")


COLUMNS = {
    "text": st.none() | st.text(max_size=5),
    "count": st.none() | st.integers(-(2**63), 2**63 - 1),
    "figure": st.none() | st.floats(),
    "flag": st.none() | st.booleans(),
    "at": st.none() | st.datetimes(timezones=st.just(timezone.utc)),
}
TYPES = {
    "text": pa.string(),
    "count": pa.int64(),
    "figure": pa.float64(),
    "flag": pa.bool_(),
    "at": pa.timestamp("us", "UTC"),
}


@st.composite
def tables(draw):
    count = draw(st.integers(0, 30))
    return pa.table(
        {
            name: pa.array(draw(st.lists(values, min_size=count, max_size=count)), TYPES[name])
            for name, values in COLUMNS.items()
        }
    )


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(tables(), st.lists(st.integers(0, 30), max_size=4), st.integers(0, 5))
def test_chunks_slices_and_offsets_leave_no_trace(table, cuts, padding):
    expected = digest_of(table)
    borders = sorted({0, table.num_rows, *(cut for cut in cuts if cut < table.num_rows)})
    pieces = [table.slice(start, end - start) for start, end in pairwise(borders)]
    padded = pa.concat_tables([table, table])

    assert digest_of(pa.concat_tables([table.slice(0, 0), *pieces])) == expected
    assert digest_of(padded.slice(table.num_rows)) == expected
    assert digest_of(padded.combine_chunks().slice(table.num_rows)) == expected
    assert digest_of(table.select(reversed(table.column_names))) == expected


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(tables(), tables())
def test_different_tables_have_different_digests(one, other):
    def content(table):
        # repr tells 0.0 from -0.0 and NaN from null, as the digest of doubles does.
        return (
            table.num_rows,
            {name: repr(table[name].to_pylist()) for name in table.column_names if table[name].null_count < len(table)},
        )

    same = content(one) == content(other)
    assert (digest_of(one) == digest_of(other)) == same or _only_signs_of_zero(one, other)


def _only_signs_of_zero(one, other):
    return one.to_pylist() == other.to_pylist()
