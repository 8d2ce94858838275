"""What each schema mode takes, converts, sets aside and refuses, value by value."""

import json
import pickle
import uuid
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from pathlib import PurePosixPath

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from sfwriter.exceptions import WriterSchemaError, WriterValidationError
from sfwriter.ingest.gate import Gate
from sfwriter.ingest.jsontext import parse_row

UTC = timezone.utc
NOON = datetime(2024, 1, 31, 12, tzinfo=UTC)


class Color(Enum):
    BRONZE = "bronze"


class Text(str, Enum):
    SILVER = "silver"


class Number(IntEnum):
    SEVEN = 7


class Sub(str):
    __slots__ = ()


def row(**fields):
    return {"run_id": "r", "phase": "bronze", "step_name": "a", **fields}


EXACT = [
    # column, value, what the table keeps: taken in every mode
    ("phase", Color.BRONZE, "bronze"),
    ("phase", Text.SILVER, "silver"),
    ("step_name", Sub("x"), "x"),
    ("step_name", np.str_("x"), "x"),
    ("step_name", "größe 🙂", "größe 🙂"),
    ("rows_processed", 2**63 - 1, 2**63 - 1),
    ("rows_processed", Number.SEVEN, 7),
    ("rows_processed", np.int32(7), 7),
    ("rows_processed", np.uint64(7), 7),
    ("rows_processed", pa.scalar(7), 7),
    ("duration_secs", 1, 1.0),
    ("duration_secs", 2**53, float(2**53)),
    ("duration_secs", 0.1, 0.1),
    ("duration_secs", np.float64(0.1), 0.1),
    ("duration_secs", np.float32(0.5), 0.5),
    ("success", False, False),
    ("success", np.bool_(True), True),
    ("start_time", NOON, NOON),
    ("start_time", NOON.replace(tzinfo=None), NOON),
    ("start_time", NOON.astimezone(timezone(timedelta(hours=5, minutes=30))), NOON),
    ("start_time", pd.Timestamp(NOON), NOON),
    ("start_time", np.datetime64("2024-01-31T12:00:00.000000000"), NOON),
    ("start_time", np.datetime64("2024-01-31T12:00"), NOON),
    ("start_time", np.datetime64("2024-01-31T12", "h"), NOON),
    ("metadata", {"a": 1, "b": [None, {"c": 0.5}]}, '{"a":1,"b":[null,{"c":0.5}]}'),
    ("metadata", {}, "{}"),
    ("metadata", '{ "a" : 1 }', '{ "a" : 1 }'),
    ("metadata", {"big": 2**70}, '{"big":1180591620717411303424}'),
    ("metadata", {"at": NOON, "d": Decimal("0.10")}, '{"at":"2024-01-31T12:00:00+00:00","d":"0.10"}'),
    ("metadata", {"n": np.int64(3), "e": Color.BRONZE, "p": PurePosixPath("/x")}, '{"n":3,"e":"bronze","p":"/x"}'),
    ("metadata", {"word": "null"}, '{"word":"null"}'),
    ("rows_written", None, None),
    ("rows_written", pd.NA, None),
    ("start_time", pd.NaT, None),
    ("start_time", np.datetime64("NaT"), None),
]

LOSSLESS = [
    # column, value, what the table keeps: of the wrong type in strict, converted in the other modes
    ("rows_processed", 12.0, 12),
    ("rows_processed", "12", 12),
    ("rows_processed", " 12 ", 12),
    ("rows_processed", "12.0", 12),
    ("rows_processed", "1e3", 1000),
    ("rows_processed", Decimal(12), 12),
    ("duration_secs", "0.1", 0.1),
    ("duration_secs", Decimal("2.5"), 2.5),
    ("success", "True", True),
    ("start_time", "2024-01-31T12:00:00Z", NOON),
    ("start_time", "2024-01-31 12:00", NOON),
    ("start_time", "2024-01-31T13:30:00.000000+01:30", NOON),
    ("start_time", "2024-01-31T12:00:00.000000000Z", NOON),
    ("start_time", date(2024, 1, 31), NOON.replace(hour=0)),
    ("start_time", np.datetime64("2024-01-31"), NOON.replace(hour=0)),
    ("start_time", np.datetime64("2024-01"), NOON.replace(hour=0, day=1)),
    ("run_id", 12, "12"),
    ("run_id", uuid.UUID(int=1), str(uuid.UUID(int=1))),
]

WRONG = [
    # column, value, what the error says: taken in no mode
    ("start_time", np.datetime64(1, "ps"), "is not a timestamp"),
    ("start_time", np.datetime64(20_000, "Y"), "is not a timestamp"),
    ("rows_processed", True, "is not an integer"),
    ("rows_processed", 12.5, "integer"),
    ("rows_processed", "12x", "is not an integer"),
    ("rows_processed", "1_000", "is not an integer"),
    ("rows_processed", 2**63, "beyond 64 bits"),
    ("rows_processed", -(2**63) - 1, "beyond 64 bits"),
    ("rows_processed", np.uint64(2**64 - 1), "beyond 64 bits"),
    ("rows_processed", "9" * 400, "integer"),
    ("rows_processed", "1e999", "integer"),
    ("rows_processed", [1], "is not an integer"),
    ("duration_secs", True, "is not a number"),
    ("duration_secs", 2**53 + 1, "does not keep exactly"),
    ("duration_secs", "0.12345678901234567890123", "number"),
    ("duration_secs", "nan", "is not a number"),
    ("duration_secs", timedelta(seconds=1), "is not a number"),
    ("success", 1, "is not a bool"),
    ("success", "yes", "is not a bool"),
    ("start_time", 1706702400, "is not a timestamp"),
    ("start_time", "31.01.2024", "is not a timestamp"),
    ("start_time", "2024-02-30", "is not a timestamp"),
    ("start_time", "2024-01-31T12:00:00.123456789Z", "is not a timestamp"),
    ("start_time", pd.Timestamp("2024-01-31T12:00:00.000000001"), "nanoseconds"),
    ("start_time", datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1))), "years 1 to 9999"),
    ("error_message", b"bytes", "is not text"),
    ("error_message", {"a": 1}, "is not text"),
    ("error_message", True, "is not text"),
    ("error_message", float("nan"), "is not text"),
    ("error_message", "half \ud800 pair", "lone surrogate (U+D800)"),
    ("metadata", [1], "neither a dict nor"),
    ("metadata", 7, "neither a dict nor"),
    ("metadata", "[1]", "not of an object"),
    ("metadata", "", "not the text of a JSON object"),
    ("metadata", '{"a": NaN}', "not the text of a JSON object"),
    ("metadata", {"a": float("nan")}, "nan"),
    ("metadata", {"a": [{"b": float("-inf")}]}, "-inf"),
    ("metadata", {1: "a"}, "key 1 (int)"),
    ("metadata", {"a": {2: "a"}}, "key 2 (int)"),
    ("metadata", {"a": "\udfff"}, "lone surrogate"),
    ("metadata", {"\udfff": 1}, "lone surrogate"),
    ("metadata", {"a": b"x"}, "cannot be written as JSON"),
    ("metadata", {"a": {1, 2}}, "cannot be written as JSON"),
]


@pytest.mark.parametrize("mode", ["strict", "lenient", "ignore"])
@pytest.mark.parametrize(("column", "value", "kept"), EXACT)
def test_every_mode_takes_the_exact_type(mode, column, value, kept):
    batch = Gate(mode).encode([row(**{column: value})])

    assert batch.rows[column].to_pylist() == [kept]
    assert batch.quarantined is None


@pytest.mark.parametrize(("column", "value", "kept"), LOSSLESS)
def test_what_converts_without_loss_is_wrong_in_strict_and_converted_elsewhere(column, value, kept):
    with pytest.raises(WriterSchemaError) as refused:
        Gate("strict").encode([row(), row(**{column: value})])
    assert (refused.value.validation_errors[0]["row"], refused.value.validation_errors[0]["column"]) == (1, column)

    for mode in ("lenient", "ignore"):
        batch = Gate(mode).encode([row(**{column: value})])
        assert batch.rows[column].to_pylist() == [kept]
        assert batch.quarantined is None


@pytest.mark.parametrize(("column", "value", "told"), WRONG)
def test_strict_names_row_column_value_and_expected_type_of_what_does_not_fit(column, value, told):
    with pytest.raises(WriterSchemaError) as refused:
        Gate("strict").encode([row(), row(**{column: value})])

    error = refused.value
    [entry] = error.validation_errors
    assert (entry["row"], entry["column"]) == (1, column)
    assert entry["expected"] in error.message
    assert entry["value"] in error.message
    assert told in entry["reason"]
    assert error.expected_schema[column] in {"int64", "double", "bool", "string", "timestamp[us, tz=UTC]"}
    assert type(value).__name__ in error.actual_schema[column]
    assert error.suggestions
    assert pickle.loads(pickle.dumps(error)).validation_errors == error.validation_errors


@pytest.mark.parametrize(("column", "value", "told"), WRONG)
def test_lenient_sets_the_row_aside_with_its_reason_and_its_original(column, value, told):
    gated = Gate("lenient").admit([row(step_name="good"), row(**{column: value})])

    assert gated.batch.rows["step_name"].to_pylist() == ["good"]
    [aside] = gated.batch.quarantined.to_pylist()
    assert len(aside["quarantine_id"]) == 32
    assert aside["run_id"] == "r"
    assert any(told in reason for reason in aside["reasons"])
    original = parse_row(aside["row"])
    assert original["step_name"] == "a"
    assert column in original


@pytest.mark.parametrize(("column", "value", "told"), WRONG)
def test_ignore_writes_the_row_with_null_and_keeps_the_text(column, value, told):
    gated = Gate("ignore").admit([row(**{column: value})])

    [kept] = gated.batch.rows.to_pylist()
    metadata = json.loads(kept["metadata"])
    assert column == "metadata" or kept[column] is None
    assert isinstance(metadata["_unconverted"][column], str)
    assert (metadata["_unconverted"][column] == "") == (value == "")
    assert (gated.accepted, gated.quarantined, gated.unconverted) == (1, 0, 1)


def test_the_original_text_is_kept_as_it_was_beside_the_other_metadata():
    gated = Gate("ignore").admit([row(rows_processed="12x", metadata={"a": 2**70, "_unconverted": {"old": "y"}})])

    metadata = json.loads(gated.batch.rows["metadata"][0].as_py())
    assert metadata == {"a": 2**70, "_unconverted": {"old": "y", "rows_processed": "12x"}}


def test_metadata_that_used_a_reserved_key_for_something_else_keeps_it():
    gated = Gate("ignore").admit([row(rows_processed="x", metadata={"_unconverted": 7})])

    metadata = json.loads(gated.batch.rows["metadata"][0].as_py())
    assert metadata == {"_unconverted": {"_unconverted": 7, "rows_processed": "x"}}


def test_one_wrong_row_refuses_the_whole_call_and_all_wrong_values_are_listed():
    rows = [row(rows_processed="x") if n % 3 == 0 else row() for n in range(3000)]

    with pytest.raises(WriterSchemaError) as refused:
        Gate("strict").encode(rows)

    assert [entry["row"] for entry in refused.value.validation_errors] == list(range(0, 3000, 3))
    assert len(str(refused.value)) < 2_000
    assert "And 995 more" in str(refused.value)


def test_a_phase_in_capitals_is_lowered_in_lenient_and_ignore_only():
    rows = [row(phase="BRONZE", run_mode="Initial")]

    with pytest.raises(WriterValidationError):
        Gate("strict").encode(rows)
    for mode in ("lenient", "ignore"):
        kept = Gate(mode).encode(rows).rows.to_pylist()[0]
        assert (kept["phase"], kept["run_mode"]) == ("bronze", "initial")


# ---------------------------------------------------------------- what is left out


def test_run_id_comes_from_the_row_else_from_the_call_else_one_new_uuid_is_shared():
    rows = [row(), {"phase": "gold", "step_name": "b"}, {"phase": "gold", "step_name": "c", "run_id": None}]

    from_call = Gate().encode(rows, "call")
    made_up = Gate().encode(rows)

    assert from_call.rows["run_id"].to_pylist() == ["r", "call", "call"]
    assert from_call.run_id == "call"
    first, second, third = made_up.rows["run_id"].to_pylist()
    assert (first, second) == ("r", third)
    assert str(uuid.UUID(second)) == second
    assert made_up.run_id == second
    assert Gate().encode(rows[:1]).run_id == "r"


@pytest.mark.parametrize("run_id", ["", "  ", 7, "\ud800"])
def test_a_run_id_of_the_call_that_is_no_text_is_refused(run_id):
    with pytest.raises(WriterValidationError, match="run_id"):
        Gate("ignore").encode([row()], run_id)


@pytest.mark.parametrize("given", [lambda rows: rows, pa.Table.from_pylist])
def test_success_left_out_means_that_there_is_no_error_message(given):
    told = [(None, None), ("boom", None), ("boom", True), (None, False)]
    rows = [row(error_message=message, success=success) for message, success in told]

    assert Gate().encode(given(rows)).rows["success"].to_pylist() == [True, False, True, False]


def test_success_is_not_made_up_for_a_value_or_a_message_that_could_not_be_kept():
    rows = [row(success="maybe"), row(error_message=b"boom")]

    assert Gate("ignore").encode(rows).rows["success"].to_pylist() == [None, False]


def test_other_missing_fields_are_null():
    [kept] = Gate().encode([{"phase": "gold", "step_name": "a"}], "r").rows.to_pylist()

    assert {name for name, value in kept.items() if value is not None} == {"run_id", "phase", "step_name", "success"}


def test_logged_at_is_set_on_writing_and_a_given_one_is_replaced_with_a_note():
    gated = Gate().admit([row(logged_at=NOON)])

    assert "logged_at" not in gated.batch.rows.column_names
    assert "logged_at" in gated.notes[0]
    assert gated.batch.digest == Gate().encode([row()]).digest
    assert Gate().admit([row(logged_at=None)]).notes == ()


# ---------------------------------------------------------------- keys


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("bad name", "letters, digits and _"),
        ("größe", "letters, digits and _"),
        ("", "letters, digits and _"),
        ("x" * 129, "at most 128"),
        ("Run_ID", "differs only in case from the column run_id"),
        ("LOGGED_AT", "differs only in case"),
        ("\ud800", "letters, digits and _"),
        (7, "not text"),
        (None, "not text"),
    ],
)
def test_a_key_that_cannot_be_a_column_is_refused_set_aside_or_kept(key, told):
    rows = [row(step_name="good"), row(rows_written=1) | {key: "value"}]

    with pytest.raises(WriterSchemaError) as refused:
        Gate("strict").encode(rows)
    assert told in refused.value.validation_errors[0]["reason"]
    assert refused.value.validation_errors[0]["row"] == 1

    lenient = Gate("lenient").admit(rows)
    assert (lenient.accepted, lenient.quarantined) == (1, 1)
    assert told in lenient.batch.quarantined["reasons"].to_pylist()[0][0]

    ignored = Gate("ignore").admit(rows)
    assert ignored.accepted == 2
    assert list(json.loads(ignored.batch.rows["metadata"][1].as_py())["_unknown"].values()) == ["value"]


@pytest.mark.parametrize("given", [lambda rows: rows, pa.Table.from_pylist])
def test_with_evolution_off_an_unknown_key_is_refused_set_aside_or_kept(given):
    rows = given([row(surprise=[1, 2]), row(step_name="good", surprise=None)])

    with pytest.raises(WriterSchemaError, match="enable_schema_evolution") as refused:
        Gate("strict", evolution=False).encode(rows)
    assert "surprise" in refused.value.actual_schema
    assert "surprise" not in refused.value.expected_schema
    assert "phase" in refused.value.expected_schema

    lenient = Gate("lenient", evolution=False).admit(rows)
    assert lenient.batch.rows["step_name"].to_pylist() == ["good"]

    [first, second] = Gate("ignore", evolution=False).encode(rows).rows["metadata"].to_pylist()
    assert json.loads(first) == {"_unknown": {"surprise": [1, 2]}}
    assert second is None


def test_a_known_additional_column_needs_no_evolution():
    gate = Gate(evolution=False).with_schema(pa.schema([("phase", pa.string()), ("host", pa.string())]))

    gated = gate.admit([row(host="h1")])

    assert gated.batch.rows["host"].to_pylist() == ["h1"]
    assert gated.new_columns == ()


# ---------------------------------------------------------------- quarantine


def test_a_row_in_quarantine_has_all_its_reasons_and_reads_back_as_it_was_given():
    given = row(
        duration_secs=float("nan"), rows_processed=2**70, validation_rate=101, start_time=NOON, phase=Text.SILVER,
        metadata={"s": {1}}, error_message="\ud800", extra=b"x",
    )  # fmt: skip

    [aside] = Gate("lenient").encode([given]).quarantined.to_pylist()

    assert len(aside["reasons"]) == 6
    original = parse_row(aside["row"])
    assert original["rows_processed"] == 2**70
    assert original["duration_secs"] == "nan"
    assert original["start_time"] == NOON.isoformat()
    assert original["phase"] == "silver"
    assert original["error_message"] == "\ud800"
    assert original["metadata"] == {"s": "{1}"}
    assert original["extra"] == "b'x'"


def test_rows_of_arrow_are_set_aside_without_their_nulls():
    table = pl.DataFrame(
        {"phase": ["gold", "x"], "step_name": ["a", "b"], "rows_written": [None, 1], "run_id": ["r", "s"]}
    )

    gated = Gate("lenient").admit(table)

    assert gated.accepted == 1
    assert parse_row(gated.batch.quarantined["row"][0].as_py()) == {
        "phase": "x", "step_name": "b", "rows_written": 1, "run_id": "s",
    }  # fmt: skip
    assert gated.batch.quarantined["run_id"].to_pylist() == ["s"]


def test_rows_aside_share_the_run_id_that_the_call_was_given():
    gated = Gate("lenient").admit([{"phase": "x", "step_name": "a"}, {"phase": "gold", "step_name": "b"}])

    assert (
        gated.batch.quarantined["run_id"].to_pylist() == gated.batch.rows["run_id"].to_pylist() == [gated.batch.run_id]
    )


@pytest.mark.parametrize("wrong", [{"phase": None}, {"step_name": None}, {"step_name": b"x"}, {"phase": {}}])
def test_ignore_refuses_the_call_where_a_row_lacks_phase_or_step_name(wrong):
    with pytest.raises(WriterValidationError) as refused:
        Gate("ignore").encode([row(), row(**wrong)])

    [entry] = refused.value.validation_errors
    assert entry["row"] == 1
    assert next(iter(wrong)) in entry["reasons"][0]


def test_ignore_reports_the_rules_and_writes_the_rows():
    rows = [row(), row(phase="platinum", duration_secs=-1.0, validation_rate=float("inf"), run_id=" ", step_name="")]

    gated = Gate("ignore").admit(rows)

    assert gated.accepted == 2
    assert {(breach.row, breach.column) for breach in gated.breaches} == {
        (1, "phase"), (1, "duration_secs"), (1, "validation_rate"), (1, "run_id"), (1, "step_name"),
    }  # fmt: skip
    assert gated.batch.rows["phase"].to_pylist() == ["bronze", "platinum"]
