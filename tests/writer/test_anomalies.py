"""Anomalies through a writer on real tables."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta, timezone

import pyarrow as pa
import pytest

from sfwriter import WriterSchemaError, WriterTableError, WriterValidationError
from sfwriter.testing import ManualClock

START = datetime(2026, 3, 1, tzinfo=timezone.utc)
KEYS = {"anomalies_detected", "anomaly_count", "anomalies", "history_too_short"}


def one(number, **changes):
    return {
        "run_id": f"run-{number}", "pipeline_id": "p", "phase": "bronze", "step_name": "extract",
        "run_mode": "incremental", "start_time": START + timedelta(hours=number),
        "duration_secs": 10.0 + number % 3 / 10, "rows_processed": 1000 + number % 7, "validation_rate": 99.0,
        **changes,
    }  # fmt: skip


def test_rows_are_compared_with_the_table_and_nothing_is_written(open_writer, count):
    writer = open_writer()
    writer.write_log_rows([one(number) for number in range(20)])
    result = writer.detect_anomalies([one(20, duration_secs=100.0), one(21)])
    assert set(result) == KEYS
    assert (result["anomalies_detected"], result["anomaly_count"], result["history_too_short"]) == (True, 1, [])
    assert result["anomalies"][0]["type"] == "duration"
    assert result["anomalies"][0]["run_id"] == "run-20"
    assert count() == 20
    assert not writer.detect_anomalies([one(22)])["anomalies_detected"]


def test_rows_that_were_written_already_do_not_count_as_their_own_history(open_writer):
    writer = open_writer()
    writer.write_log_rows([*(one(number) for number in range(8)), one(8, duration_secs=100.0)])
    assert writer.detect_anomalies([one(8, duration_secs=100.0)])["anomaly_count"] == 1


def test_a_history_that_is_too_short_is_said(open_writer):
    writer = open_writer()
    writer.write_log_rows([one(number) for number in range(7)])
    result = writer.detect_anomalies([one(9, duration_secs=1e6)])
    assert result["anomalies"] == []
    assert result["history_too_short"] == [
        {"pipeline_id": "p", "step_name": "extract", "run_mode": "incremental", "earlier_runs": 7}
    ]


def test_without_a_table_the_batch_is_its_own_history(open_writer, location):
    writer = open_writer()
    for size in (12, 60):
        result = writer.detect_anomalies([*(one(number) for number in range(size)), one(99, duration_secs=500.0)])
        assert [found["run_id"] for found in result["anomalies"]] == ["run-99"]
    assert writer.detect_anomalies([])["anomalies"] == []
    assert not location().exists()


def test_each_write_tells_its_anomalies_where_that_is_asked_for(open_writer):
    writer = open_writer(enable_anomaly_detection=True)
    first = writer.write_log_rows([one(number) for number in range(10)])
    assert set(first["anomalies"]) == KEYS
    for number in range(10, 14):
        assert writer.write_log_rows([one(number)])["anomalies"]["anomaly_count"] == 0
    result = writer.write_log_rows([one(14, rows_processed=5)])
    assert (result["success"], result["anomalies"]["anomaly_count"]) == (True, 1)
    assert result["anomalies"]["anomalies"][0]["type"] == "rows_processed"
    assert open_writer().write_log_rows([one(15, rows_processed=5)])["anomalies"] is None


def test_the_history_is_not_read_at_each_write(open_writer, monkeypatch):
    writer = open_writer(enable_anomaly_detection=True)
    writer.write_log_rows([one(number) for number in range(10)])
    writer.write_log_rows([one(10)])
    scans = []
    monkeypatch.setattr(writer._log_table, "scan", lambda *a, **k: scans.append(a))
    for number in range(11, 20):
        writer.write_log_rows([one(number)])
    assert scans == []
    monkeypatch.undo()
    assert writer.detect_anomalies([one(30, duration_secs=900.0)])["anomaly_count"] == 1


def test_what_others_wrote_is_seen_at_once_where_it_is_asked_for(open_writer, monkeypatch):
    watching, other = open_writer(), open_writer()
    for number in range(7):
        watching.write_log_rows([one(number)])
    assert watching.detect_anomalies([one(20)])["history_too_short"][0]["earlier_runs"] == 7
    watching.write_log_rows([one(7)])
    assert watching.detect_anomalies([one(20, duration_secs=900.0)])["anomaly_count"] == 1
    other.write_log_rows([one(number, duration_secs=900.0) for number in range(8, 100)])
    assert watching.detect_anomalies([one(200, duration_secs=900.0)])["anomaly_count"] == 0
    monkeypatch.setattr(watching._log_table, "scan", lambda *_, **__: pytest.fail("nothing new was written"))
    assert watching.detect_anomalies([one(200, duration_secs=900.0)])["anomaly_count"] == 0


def test_at_writes_what_others_wrote_is_seen_after_a_while(open_writer):
    clock = ManualClock(START)
    watching, other = open_writer(clock=clock, enable_anomaly_detection=True), open_writer()
    watching.write_log_rows([one(0)])
    assert watching.write_log_rows([one(1)])["anomalies"]["history_too_short"][0]["earlier_runs"] == 1
    other.write_log_rows([one(number) for number in range(2, 13)])
    assert watching.write_log_rows([one(20)])["anomalies"]["history_too_short"]
    clock.advance(601)
    assert not watching.write_log_rows([one(21)])["anomalies"]["history_too_short"]


def test_a_detection_that_fails_fails_no_write(open_writer, monkeypatch, caplog, count):
    writer = open_writer(enable_anomaly_detection=True)
    writer.write_log_rows([one(0)])

    def fail(*_, **__):
        raise WriterTableError("no reading", suggestions=["none"])

    monkeypatch.setattr(writer._log_table, "scan", fail)
    result = writer.write_log_rows([one(1, pipeline_id="new")])
    assert (result["success"], result["anomalies"], count()) == (True, None, 2)
    assert "anomalies not looked for: no reading" in caplog.text


@pytest.mark.parametrize("rows", ["x", 5, None, {"phase": "gold"}])
def test_what_holds_no_rows_is_refused(open_writer, rows):
    with pytest.raises(WriterValidationError):
        open_writer().detect_anomalies(rows)


def test_rows_with_nulls_and_any_input_kind_are_judged(open_writer):
    writer = open_writer()
    writer.write_log_rows([one(number) for number in range(10)])
    table = pa.table({"phase": ["gold", None], "step_name": [None, "x"], "pipeline_id": ["it's", None]})
    result = writer.detect_anomalies(table)
    assert result["anomalies"] == []
    assert len(result["history_too_short"]) == 2


def test_many_threads_may_ask_and_write(open_writer, count):
    writer = open_writer(enable_anomaly_detection=True)
    writer.write_log_rows([one(number) for number in range(10)])
    failures = []

    def work(first):
        try:
            for number in range(first, first + 10):
                writer.write_log_rows([one(number)])
                writer.detect_anomalies([one(number)])
                writer.generate_summary_report(3650)
        except Exception as error:  # noqa: BLE001  whatever it is, the test shows it
            failures.append(error)

    threads = [threading.Thread(target=work, args=(100 * place,)) for place in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert count() == 50


def test_numbers_that_ignore_let_through_are_no_history_and_never_an_error(open_writer):
    odd = {"duration_secs": float("nan"), "validation_rate": float("inf")}
    writer = open_writer(schema_validation_mode="ignore")
    writer.write_log_rows([one(number, **(odd if number % 2 else {})) for number in range(40)])

    for tested in (one(41, **odd), one(41, duration_secs=-1.0, rows_processed=-5, validation_rate=-5.0)):
        writer.detect_anomalies([tested])

    [found] = writer.detect_anomalies([one(41, duration_secs=500.0)])["anomalies"]
    assert (found["type"], found["expected"]) == ("duration", pytest.approx(10.1, abs=0.2))


def test_what_is_no_row_is_refused(open_writer):
    writer = open_writer()
    with pytest.raises(WriterValidationError, match=r"Row 1 is 3 \(int\), not a mapping, and 1 more") as caught:
        writer.detect_anomalies([one(1), 3, None])
    assert [entry["row"] for entry in caught.value.validation_errors] == [1, 2]
    assert caught.value.suggestions


def test_a_value_that_does_not_fit_is_refused_where_writing_would(open_writer):
    rows = [one(1), one(2, duration_secs="slow", success="maybe")]
    with pytest.raises(
        WriterSchemaError, match=r"Row 1: duration_secs = 'slow' \(str\), .* number.* And 1 more"
    ) as caught:
        open_writer().detect_anomalies(rows)
    assert [(entry["row"], entry["column"]) for entry in caught.value.validation_errors] == [
        (1, "duration_secs"),
        (1, "success"),
    ]
    assert open_writer(schema_validation_mode="lenient").detect_anomalies(rows)["anomaly_count"] == 0


def test_rows_are_compared_with_the_table_that_their_name_gives(open_writer):
    writer = open_writer(table_name_pattern="{schema}.{pipeline_id}_log", enable_anomaly_detection=True)
    for pipeline, scale in (("p", 1.0), ("q", 100.0)):
        writer.write_log_rows(
            [one(number, pipeline_id=pipeline, duration_secs=scale * (10 + number % 3)) for number in range(20)]
        )
    # What is usual for one is far out for the other.
    usual = [one(20, pipeline_id="p"), one(20, pipeline_id="q", duration_secs=1100.0)]
    assert not writer.detect_anomalies(usual)["anomalies_detected"]
    result = writer.write_log_rows(
        [one(21, pipeline_id="p", duration_secs=1100.0), one(21, pipeline_id="q", duration_secs=1100.0)]
    )
    assert [found["pipeline_id"] for found in result["anomalies"]["anomalies"]] == ["p"]
    assert result["table_fqn"] is None
    # Another process knows it from the tables.
    again = open_writer(table_name_pattern="{schema}.{pipeline_id}_log").detect_anomalies(usual)
    assert (again["anomalies_detected"], again["history_too_short"]) == (False, [])
