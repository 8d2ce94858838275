"""Unknown keys: which column they become, and how values keep to it afterwards."""

import uuid
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum

import pyarrow as pa
import pytest

from sfwriter.exceptions import WriterSchemaError
from sfwriter.ingest.gate import Gate

UTC = timezone.utc
NOON = datetime(2024, 1, 31, 12, tzinfo=UTC)


class Level(Enum):
    HIGH = 3


def row(**fields):
    return {"run_id": "r", "phase": "bronze", "step_name": "a", **fields}


def rows_with(values):
    return [row(new=value) for value in values]


INFERRED = [
    ([True, None], pa.bool_(), [True, None]),
    ([1, None, 2**63 - 1], pa.int64(), [1, None, 2**63 - 1]),
    ([Level.HIGH, 4], pa.int64(), [3, 4]),
    ([0.5, None], pa.float64(), [0.5, None]),
    ([1, 0.5], pa.float64(), [1.0, 0.5]),
    ([0.5, 1], pa.float64(), [0.5, 1.0]),
    (["x"], pa.string(), ["x"]),
    ([NOON, NOON.replace(tzinfo=None)], pa.timestamp("us", "UTC"), [NOON, NOON]),
    ([date(2024, 1, 31), None], pa.date32(), [date(2024, 1, 31), None]),
    ([{"a": 1}, [1, {"b": None}], (2,), "text"], pa.string(), ['{"a":1}', '[1,{"b":null}]', "[2]", "text"]),
    ([Decimal("0.10")], pa.string(), ["0.10"]),
    ([uuid.UUID(int=1)], pa.string(), [str(uuid.UUID(int=1))]),
    ([time(12, 30)], pa.string(), ["12:30:00"]),
]


@pytest.mark.parametrize("mode", ["strict", "lenient", "ignore"])
@pytest.mark.parametrize(("values", "kept_as", "kept"), INFERRED)
def test_a_new_column_has_the_type_that_its_values_have_without_loss(mode, values, kept_as, kept):
    gated = Gate(mode).admit(rows_with(values))

    assert gated.batch.rows.schema.field("new").type == kept_as
    assert gated.batch.rows["new"].to_pylist() == kept
    assert gated.new_columns == ("new",)


@pytest.mark.parametrize(
    ("column", "kept_as", "kept"),
    [
        (pa.array([1, None], pa.int8()), pa.int64(), [1, None]),
        (pa.array([1, 2], pa.uint64()), pa.int64(), [1, 2]),
        (pa.array([0.5, None], pa.float32()), pa.float64(), [0.5, None]),
        (pa.array(["x", None], pa.large_string()), pa.string(), ["x", None]),
        (pa.array(["x", None], pa.string_view()), pa.string(), ["x", None]),
        (pa.array(["x", "x"]).dictionary_encode(), pa.string(), ["x", "x"]),
        (pa.RunEndEncodedArray.from_arrays(pa.array([2], pa.int32()), pa.array([7])), pa.int64(), [7, 7]),
        (pa.array([date(2024, 1, 31), None], pa.date64()), pa.date32(), [date(2024, 1, 31), None]),
        (pa.array([NOON, None], pa.timestamp("ms", "Europe/Berlin")), pa.timestamp("us", "UTC"), [NOON, None]),
        (pa.array([NOON, None], pa.timestamp("s")), pa.timestamp("us", "UTC"), [NOON, None]),
        (pa.array([NOON, None], pa.timestamp("ns", "UTC")), pa.timestamp("us", "UTC"), [NOON, None]),
        (pa.array([{"a": 1, "b": None}, None]), pa.string(), ['{"a":1}', None]),
        (pa.array([[1, 2], []]), pa.string(), ["[1,2]", "[]"]),
        (pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int64())), pa.string(), ['{"k":1}', None]),
        (pa.array([Decimal("0.10"), None]), pa.string(), ["0.10", None]),
        (pa.array([time(12, 30), None]), pa.string(), ["12:30:00", None]),
        (pa.array([uuid.UUID(int=1).bytes, None], pa.uuid()), None, None),
    ],
)
def test_a_new_arrow_column_has_the_same_type_as_from_dicts(column, kept_as, kept):
    table = pa.table({"run_id": ["r", "r"], "phase": ["gold", "gold"], "step_name": ["a", "b"], "new": column})

    if kept is None:
        with pytest.raises(WriterSchemaError):
            Gate().encode(table)
        return
    rows = Gate().encode(table).rows
    assert rows.schema.field("new").type == kept_as
    assert rows["new"].to_pylist() == kept


def test_a_column_without_a_value_is_not_made():
    assert Gate().admit([row(new=None)]).new_columns == ()
    assert Gate("lenient").admit([row(), row(new=1, phase="x")]).new_columns == ()
    assert Gate("ignore").admit([row(new=b"x")]).new_columns == ()


def test_new_columns_follow_those_of_the_log_by_first_appearance():
    rows = [row(zeta=1) for _ in range(1500)] + [row(alpha="x", zeta=2)]

    batch = Gate().encode(rows)

    assert batch.rows.column_names[-2:] == ["zeta", "alpha"]
    assert batch.rows["alpha"].null_count == 1500
    assert batch.rows["zeta"].to_pylist()[-1] == 2


@pytest.mark.parametrize(
    "values", [[1, "x"], ["x", 1.5], [True, 1], [NOON, date(2024, 1, 1)], [1, b"x"], ["x", timedelta(1)]]
)
def test_the_first_value_decides_and_another_type_is_wrong(values):
    with pytest.raises(WriterSchemaError) as refused:
        Gate().encode(rows_with(values))

    assert [(entry["row"], entry["column"]) for entry in refused.value.validation_errors] == [(1, "new")]


def test_lenient_converts_to_the_first_type_where_nothing_is_lost():
    gated = Gate("lenient").admit(rows_with([1, "2", "x"]))

    assert gated.batch.rows["new"].to_pylist() == [1, 2]
    assert gated.quarantined == 1


def test_ints_beyond_what_a_double_keeps_do_not_pass_beside_floats():
    with pytest.raises(WriterSchemaError, match="does not keep exactly"):
        Gate().encode(rows_with([0.5, 2**53 + 1]))


def test_two_new_keys_that_differ_only_in_case_clash_and_the_first_wins():
    gated = Gate("lenient").admit([row(Foo=1), row(foo=2)])

    assert gated.new_columns == ("Foo",)
    assert "differs only in case from the column Foo" in gated.batch.quarantined["reasons"].to_pylist()[0][0]


KNOWN = pa.schema(
    [("n8", pa.int8()), ("f32", pa.float32()), ("txt", pa.large_string()), ("d", pa.date32()),
     ("l", pa.list_(pa.int64())), ("ts", pa.timestamp("us")), ("i", pa.int64())]
)  # fmt: skip


@pytest.mark.parametrize("given", [list, pa.Table.from_pylist])
def test_values_keep_to_the_types_that_the_table_has(given):
    gate = Gate().with_schema(KNOWN)

    batch = gate.encode(given([row(n8=127, f32=0.5, txt="x", d=date(2024, 1, 1), ts=NOON, i=7)]))

    kept = {
        name: (batch.rows.schema.field(name).type, batch.rows[name][0].as_py()) for name in ("n8", "f32", "txt", "d")
    }
    assert kept == {
        "n8": (pa.int8(), 127),
        "f32": (pa.float32(), 0.5),
        "txt": (pa.string(), "x"),
        "d": (pa.date32(), date(2024, 1, 1)),
    }
    assert batch.rows["ts"].to_pylist() == [NOON.replace(tzinfo=None)]
    assert batch.rows.schema.field("ts").type == pa.timestamp("us")


@pytest.mark.parametrize("given", [list, pa.Table.from_pylist])
@pytest.mark.parametrize("wrong", [{"n8": 128}, {"f32": 1e39}, {"l": [1]}, {"i": 0.5}, {"txt": 7}, {"d": NOON}])
def test_what_a_narrow_or_foreign_column_does_not_keep_is_wrong(given, wrong):
    with pytest.raises(WriterSchemaError) as refused:
        Gate().with_schema(KNOWN).encode(given([row(**wrong)]))

    assert refused.value.validation_errors[0]["column"] == next(iter(wrong))


@pytest.mark.parametrize("given", [list, pa.Table.from_pylist])
def test_a_float_column_rounds_as_every_engine_does(given):
    batch = Gate().with_schema(KNOWN).encode(given([row(f32=0.1)]))

    assert batch.rows["f32"].to_pylist() == [pytest.approx(0.1, rel=1e-6)]


def test_whole_numbers_pass_into_a_known_double_column_with_the_digest_that_they_had_before():
    rows = rows_with([1, 2])
    gate = Gate()

    later = gate.with_schema(pa.schema([("new", pa.float64())])).encode(rows)

    assert later.rows.schema.field("new").type == pa.float64()
    assert later.digest == gate.encode(rows).digest
