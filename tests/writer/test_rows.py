"""Rows that are wrong, rows that bring new columns, rows in quarantine: through the whole path."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone

import pyarrow as pa
import pytest

from sfwriter.exceptions import WriterError, WriterSchemaError, WriterValidationError
from sfwriter.testing.rows import log_rows, log_table

MODES = ("strict", "lenient", "ignore")


def test_what_was_written_is_what_was_given(open_writer, read) -> None:
    rows = log_rows(700)
    writer = open_writer()
    assert writer.write_log_rows(rows)["rows_written"] == 700
    by_key = {(row["run_id"], row["step_name"]): row for row in rows}
    for stored in read().to_pylist():
        given = by_key.pop((stored["run_id"], stored["step_name"]))
        assert json.loads(stored["metadata"]) == given["metadata"]
        assert {name: stored[name] for name in given if name != "metadata"} == {
            name: value for name, value in given.items() if name != "metadata"
        }
    assert not by_key


@pytest.mark.parametrize("mode", MODES)
def test_dicts_arrow_pandas_and_polars_give_the_same_rows(open_writer, read, mode) -> None:
    pytest.importorskip("pandas")
    polars = pytest.importorskip("polars")
    # Without nulls in counts: pandas makes floats of those, which strict does not take.
    table = log_table(50).drop_columns(["output_rows"])
    writer = open_writer(schema_validation_mode=mode)
    for rows in (
        table.to_pylist(),
        table,
        table.to_pandas(),
        polars.from_arrow(table),
        table.to_batches(),
        table.to_reader(),
    ):
        assert writer.write_log_rows(rows)["rows_written"] == 50
    keys = ("run_id", "step_name", "duration_secs", "rows_processed", "start_time", "success", "metadata")
    found = [tuple(row[key] for key in keys) for row in read().to_pylist()]
    assert len(found) == 300
    assert {found.count(row) for row in set(found)} == {6}


NOT_ROWS = [None, 5, "rows", b"rows", {"phase": "gold"}, object(), pa.array([1]), [5], ["row"], [None], [[]]]


@pytest.mark.parametrize("mode", ["strict", "ignore"])
@pytest.mark.parametrize("wrong", NOT_ROWS, ids=lambda wrong: type(wrong).__name__)
def test_what_is_no_row_is_refused_and_nothing_is_written(open_writer, location, wrong, mode) -> None:
    with pytest.raises(WriterValidationError) as caught:
        open_writer(schema_validation_mode=mode).write_log_rows(wrong)
    assert caught.value.suggestions
    assert not location().exists()


WRONG_TYPES = {
    "rows_processed": ["12", 1.5, True, 2**63, "many"],
    "duration_secs": ["1.5", True, "long"],
    "success": [1, "yes"],
    "start_time": ["2024-01-01", 5],
    "step_type": [5],
    "metadata": [[1], "not json", 5],
}


@pytest.mark.parametrize(
    ("column", "value"), [(column, value) for column, values in WRONG_TYPES.items() for value in values], ids=repr
)
def test_a_wrong_type_is_named_in_strict_and_never_lost_in_the_other_modes(
    open_writer, row, count, column, value
) -> None:
    with pytest.raises(WriterSchemaError) as caught:
        open_writer(table_name="strict").write_log_rows([row(), row(**{column: value})])
    assert column in caught.value.message
    assert caught.value.suggestions
    assert column in caught.value.expected_schema
    assert caught.value.actual_schema
    result = open_writer(table_name="lenient", schema_validation_mode="lenient").write_log_rows(
        [row(), row(**{column: value})]
    )
    assert result["rows_written"] + result["quarantined_rows"] == 2
    assert result["rows_written"] == count("lenient")
    writer = open_writer(table_name="ignore", schema_validation_mode="ignore")
    assert writer.write_log_rows([row(), row(**{column: value})])["rows_written"] == 2


RULES = [
    {"run_id": " "},
    {"step_name": ""},
    {"phase": "copper"},
    {"run_mode": "sometimes"},
    {"duration_secs": -1.0},
    {"rows_processed": -1},
    {"validation_rate": 101.0},
    {"validation_rate": float("nan")},
    {"duration_secs": float("inf")},
    {"start_time": datetime(2024, 1, 2, tzinfo=timezone.utc), "end_time": datetime(2024, 1, 1, tzinfo=timezone.utc)},
]


@pytest.mark.parametrize("broken", RULES, ids=repr)
def test_a_broken_rule_refuses_the_call_or_sets_the_row_aside(open_writer, row, count, broken) -> None:
    with pytest.raises(WriterValidationError) as caught:
        open_writer().write_log_rows([row(), row(**broken)])
    (error,) = caught.value.validation_errors
    assert error["row"] == 1
    assert error["reasons"]
    assert caught.value.suggestions
    writer = open_writer(schema_validation_mode="lenient")
    result = writer.write_log_rows([row(), row(**broken)])
    assert (result["rows_written"], result["quarantined_rows"]) == (1, 1)
    assert count() == 1
    assert count("pipeline_logs_quarantine") == 1


def test_a_refusal_for_types_names_the_rows_that_break_rules_too_once_each(open_writer, row) -> None:
    rows = [row(phase="tin"), row(), row(rows_written="many", duration_secs="long", validation_rate=101.0), "none"]
    with pytest.raises(WriterSchemaError) as caught:
        open_writer().write_log_rows(rows)
    first, second, third = caught.value.validation_errors
    assert [entry["row"] for entry in (first, second, third)] == [0, 2, 3]
    assert ([len(entry["reasons"]) for entry in (first, second, third)]) == [1, 3, 1]
    assert [value["column"] for value in second["values"]] == ["rows_written", "duration_secs"]
    assert first["column"] == "phase"
    assert "many" in caught.value.message
    assert "tin" in caught.value.message


def test_all_bad_rows_are_listed_with_all_their_reasons(open_writer, row) -> None:
    rows = [row(phase="tin", step_name=""), row(), *[row(duration_secs=-1.0)] * 3]
    with pytest.raises(WriterValidationError) as caught:
        open_writer().write_log_rows(rows)
    assert [error["row"] for error in caught.value.validation_errors] == [0, 2, 3, 4]
    assert len(caught.value.validation_errors[0]["reasons"]) == 2


def test_naive_datetimes_are_utc_and_others_are_turned(open_writer, row, read) -> None:
    naive = datetime(2024, 1, 1, 12, 0, 0, 1)  # noqa: DTZ001  that is the case
    east = naive.replace(tzinfo=timezone(timedelta(hours=2)))
    open_writer().write_log_rows([row(step_name="naive", start_time=naive), row(step_name="east", start_time=east)])
    found = {entry["step_name"]: entry["start_time"] for entry in read().to_pylist()}
    assert found["naive"] == naive.replace(tzinfo=timezone.utc)
    assert found["east"] == east


@pytest.mark.parametrize("bad", [{"step_type": "\ud800"}, {5: "x"}, {"a b": 1}, {"": 1}, {"x" * 200: 1}], ids=repr)
@pytest.mark.parametrize("mode", MODES)
def test_surrogates_and_odd_keys_lose_no_row(open_writer, row, count, bad, mode) -> None:
    writer = open_writer(schema_validation_mode=mode)
    try:
        result = writer.write_log_rows([row(), {**row(), **bad}])
    except WriterError as error:
        assert mode == "strict"
        assert error.suggestions  # noqa: PT017
        return
    assert mode != "strict"
    assert result["rows_written"] + result["quarantined_rows"] == 2
    assert count() == result["rows_written"]


def test_new_keys_become_columns_and_existing_rows_read_null(open_writer, row, read) -> None:
    writer = open_writer()
    writer.write_log_rows([row(step_name="old")])
    writer.write_log_rows([row(step_name="new", cluster="c-7", retries=2, tags=["a", {"b": 1}], cost=0.5, spot=True)])
    found = {entry["step_name"]: entry for entry in read().to_pylist()}
    assert found["old"]["cluster"] is None
    new = found["new"]
    assert (new["cluster"], new["retries"], new["cost"], new["spot"]) == ("c-7", 2, 0.5, True)
    assert json.loads(new["tags"]) == ["a", {"b": 1}]
    assert {"cluster", "retries", "tags", "cost", "spot"} <= set(writer.get_table_info()["columns"])


def test_without_evolution_an_unknown_key_is_a_schema_error_with_both_schemas(open_writer, row, count) -> None:
    writer = open_writer(enable_schema_evolution=False)
    writer.write_log_rows([row()])
    with pytest.raises(WriterSchemaError, match="cluster") as caught:
        writer.write_log_rows([row(cluster="c")])
    assert "cluster" not in caught.value.expected_schema
    assert "cluster" in caught.value.actual_schema
    assert caught.value.expected_schema["phase"]
    assert caught.value.suggestions
    assert count() == 1


def test_a_column_that_another_writer_added_is_learned(open_writer, row, read) -> None:
    one = open_writer(enable_schema_evolution=False)
    one.write_log_rows([row()])
    open_writer().write_log_rows([row(cluster="a")])
    assert one.write_log_rows([row(cluster="b")])["rows_written"] == 1
    assert one.write_log_rows(iter([row(cluster="c")]))["rows_written"] == 1
    assert sorted(filter(None, read()["cluster"].to_pylist())) == ["a", "b", "c"]


def test_a_column_that_another_writer_added_with_another_type_refuses_the_call(open_writer, row, count) -> None:
    one = open_writer()
    one.write_log_rows([row()])
    open_writer().write_log_rows([row(cores="four")])
    with pytest.raises(WriterSchemaError) as caught:
        one.write_log_rows([row(cores=4)])
    assert caught.value.suggestions
    assert count() == 2
    assert one.write_log_rows([row(cores="4")])["rows_written"] == 1


def test_a_table_of_another_writer_keeps_its_columns(open_writer, row, location, read) -> None:
    from deltalake import write_deltalake

    location().parent.mkdir(parents=True)
    write_deltalake(str(location()), pa.table({"run_id": ["theirs"], "theirs": [1]}))
    writer = open_writer()
    assert writer.get_table_info()["columns"] == ["run_id", "theirs"]
    assert writer.get_table_info()["row_count"] == 1
    result = writer.write_log_rows([row(theirs=2)])
    assert result["rows_written"] == 1
    found = {entry["run_id"]: entry for entry in read().to_pylist()}
    assert found["theirs"]["phase"] is None
    assert (found["run-1"]["theirs"], found["run-1"]["phase"]) == (2, "bronze")


def test_the_quarantine_table_is_made_when_it_is_needed(open_writer, row, location, read) -> None:
    writer = open_writer(schema_validation_mode="lenient", producer_id="p")
    assert writer.quarantined() == []
    writer.write_log_rows([row()])
    assert not location("pipeline_logs_quarantine").exists()
    bad = [row(phase="tin", duration_secs=-1.0, note="kept"), row(rows_processed="many")]
    result = writer.write_log_rows([row(), *bad])
    assert (result["success"], result["rows_written"], result["quarantined_rows"]) == (True, 1, 2)
    stored = read("pipeline_logs_quarantine").to_pylist()
    assert {entry["producer_id"] for entry in stored} == {"p"}
    assert {entry["batch_id"] for entry in stored} == {"p:1"}
    assert len({entry["quarantine_id"] for entry in stored}) == 2
    aside = {entry["row"].get("phase"): entry for entry in writer.quarantined()}
    assert set(aside["tin"]) == {"row", "reasons", "quarantine_id", "quarantined_at"}
    assert aside["tin"]["row"] == bad[0]
    assert len(aside["tin"]["reasons"]) == 2
    assert aside["bronze"]["row"]["rows_processed"] == "many"
    assert aside["tin"]["quarantined_at"].tzinfo is not None
    assert len(writer.quarantined(limit=1)) == 1
    with pytest.raises(WriterValidationError):
        writer.quarantined(limit=0)


def test_a_call_of_which_every_row_is_set_aside_is_committed_and_known_again(open_writer, row, count) -> None:
    writer = open_writer(schema_validation_mode="lenient", producer_id="p")
    rows = [row(phase="tin"), row(phase="lead")]
    result = writer.write_log_rows(rows, sequence=0)
    assert (result["rows_written"], result["quarantined_rows"], result["batch_id"]) == (0, 2, "p:0")
    again = writer.write_log_rows(rows, sequence=0)
    assert (again["already_written"], again["quarantined_rows"]) == (True, 0)
    assert count("pipeline_logs_quarantine") == 2
    assert writer.get_table_info()["exists"]


def test_bad_rows_are_quarantined_once_however_often_their_call_is_sent(open_writer, row, count) -> None:
    for _ in range(3):
        writer = open_writer(schema_validation_mode="lenient")
        writer.write_log_rows([row(), row(phase="tin")], idempotency_key="once")
    assert count() == 1
    assert count("pipeline_logs_quarantine") == 1


def test_ignore_keeps_what_it_could_not_convert_in_metadata(open_writer, row, read) -> None:
    writer = open_writer(schema_validation_mode="ignore", enable_schema_evolution=False)
    writer.write_log_rows([row(rows_processed="many", duration_secs="2.5", phase="copper", unknown=[1])])
    (found,) = read().to_pylist()
    assert found["rows_processed"] is None
    assert found["duration_secs"] == 2.5
    assert found["phase"] == "copper"
    metadata = json.loads(found["metadata"])
    assert metadata["_unconverted"] == {"rows_processed": "many"}
    assert "unknown" in metadata["_unknown"]


def test_logged_at_is_the_writers_and_a_given_one_is_said_to_be_replaced(open_writer, row, read, caplog) -> None:
    before = datetime.now(timezone.utc) - timedelta(milliseconds=1)
    open_writer().write_log_rows([row(logged_at=datetime(1999, 1, 1, tzinfo=timezone.utc))])
    assert before <= read()["logged_at"][0].as_py() <= datetime.now(timezone.utc)
    assert "logged_at" in caplog.text
