from __future__ import annotations

import pickle
import typing
from datetime import datetime, timedelta, timezone

import pytest
from pydantic import ValidationError

from sfwriter import Column, ExecutionContext, ExecutionResult, LogRecord, LogRow, Phase, RunMode, StepResult, WriteMode
from sfwriter.schema import LOG_SCHEMA

START = datetime(2024, 1, 1, 12, tzinfo=timezone.utc)
END = START + timedelta(seconds=90)


def test_a_log_row_has_the_table_s_columns_but_the_one_that_writing_stamps():
    assert [*typing.get_type_hints(LogRow), "logged_at"] == LOG_SCHEMA.names


def test_a_log_record_has_the_same_columns():
    names = {field.alias or name for name, field in LogRecord.model_fields.items()}
    assert names | {"logged_at"} == set(LOG_SCHEMA.names)


def test_words_are_text_and_print_as_it():
    assert WriteMode("append") is WriteMode.APPEND
    assert WriteMode.OVERWRITE == "overwrite"
    assert f"{Phase.GOLD} {RunMode.FULL_REFRESH}" == "gold full_refresh"
    assert [phase.value for phase in Phase] == ["bronze", "silver", "gold", "pipeline"]
    assert {mode.value for mode in RunMode} == {"initial", "incremental", "full_refresh", "validation_only"}


def test_a_record_gives_a_row_of_plain_values_without_what_it_lacks():
    record = LogRecord(
        phase="bronze", step_name="extract", schema="raw", run_mode=RunMode.INITIAL, rows_processed=5, duration_secs=2
    )
    assert record.to_row() == {
        "phase": "bronze",
        "step_name": "extract",
        "schema": "raw",
        "run_mode": "initial",
        "rows_processed": 5,
        "duration_secs": 2.0,
    }
    assert all(type(value) in {str, int, float} for value in record.to_row().values())


def test_a_record_s_naive_time_is_taken_as_utc_and_others_are_kept_in_utc():
    naive = START.replace(tzinfo=None)
    record = LogRecord(
        phase="gold", step_name="s", start_time=naive, end_time=END.astimezone(timezone(timedelta(hours=5)))
    )
    assert record.start_time == START
    assert record.end_time.utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("phase", "copper"),
        ("step_name", "  "),
        ("step_name", None),
        ("run_id", ""),
        ("run_mode", "sometimes"),
        ("duration_secs", -1.0),
        ("duration_secs", float("nan")),
        ("duration_secs", "3"),
        ("rows_processed", -1),
        ("rows_processed", 1.0),
        ("rows_processed", True),
        ("rows_written", 2**63),
        ("validation_rate", 100.1),
        ("validation_rate", float("inf")),
        ("success", 1),
        ("pipeline_id", 7),
        ("metadata", "text"),
        ("end_time", START - timedelta(seconds=1)),
        ("durationsecs", 1.0),
    ],
)
def test_a_record_refuses_what_no_row_may_have(field, value):
    fields = {"phase": "bronze", "step_name": "s", "start_time": START, field: value}
    with pytest.raises(ValidationError):
        LogRecord(**fields)


def test_a_record_of_a_subclass_has_more_columns():
    class Record(LogRecord):
        region: str | None = None

    assert Record(phase="gold", step_name="s", region="eu").to_row()["region"] == "eu"


def test_a_context_knows_each_value_by_both_of_its_names():
    context = ExecutionContext(run_id="r", mode=RunMode.INITIAL, start_time=START, ended_at=END)
    assert (context.run_mode, context.started_at, context.end_time) == (RunMode.INITIAL, START, END)
    both = ExecutionContext(run_mode="initial", mode="incremental")
    assert (both.run_mode, both.mode) == ("initial", "incremental")


def test_steps_that_are_made_by_outcome_measure_their_duration():
    good = StepResult.create_success("clean", Phase.SILVER, START, END, rows_processed=10, rows_written=9)
    bad = StepResult.create_failure("clean", "silver", START, END, "no such column", table_fqn="a.b")
    assert (good.success, good.duration_secs, good.rows_written, good.error_message) == (True, 90.0, 9, None)
    assert (bad.success, bad.duration_secs, bad.rows_written, bad.error_message) == (
        False,
        90.0,
        None,
        "no such column",
    )


def test_a_run_succeeds_when_none_of_its_steps_failed():
    context = ExecutionContext(run_id="r")
    good, bad = StepResult("a", "bronze"), StepResult("b", "bronze", error_message="x")
    assert ExecutionResult.from_context_and_results(context, [good]).success
    assert not ExecutionResult.from_context_and_results(context, [good, bad]).success


def test_nothing_is_made_up_for_a_step():
    step = StepResult("a", "bronze")
    assert step.success is None
    assert step.duration_secs is None
    assert step.validation_rate is None


def test_models_survive_pickling():
    result = ExecutionResult(ExecutionContext(run_id="r"), [StepResult("a", Phase.GOLD)])
    record = LogRecord(phase="gold", step_name="s", schema="x")
    for value in (result, record, Column("a > 0")):
        assert pickle.loads(pickle.dumps(value)) == value


def test_a_column_is_its_text():
    assert str(Column("a > 0")) == Column("a > 0").sql == "a > 0"
    assert len({Column("a > 0"), Column("a > 0")}) == 1
