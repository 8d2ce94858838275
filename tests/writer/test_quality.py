"""Quality through a writer: validating, writing by rules, `<table>_quality`, and replaying the quarantine."""

from __future__ import annotations

import json
import threading

import pyarrow as pa
import pytest

from sfwriter import (
    Column,
    WriterConfigurationError,
    WriterDataQualityError,
    WriterValidationError,
)

KEYS = {
    "quality_passed", "validation_rate", "threshold_met", "total_rows", "valid_rows", "invalid_rows",
    "validation_rules_applied", "issues",
}  # fmt: skip


@pytest.mark.parametrize("rules", [None, {"rows_processed": ["rows_processed >= 0"]}])
def test_a_sample_shows_no_run_id_that_nobody_gave(open_writer, row, rules):
    rows = [row(run_id=None, rows_processed=-1), row(run_id="mine", rows_processed=-1)]
    writer = open_writer() if rules is None else open_writer(validation_rules=rules)
    [issue] = writer.validate_log_data_quality(rows)["issues"]
    assert [sample["run_id"] for sample in issue["sample"]] == [None, "mine"]


def test_validation_counts_rows_and_shows_samples_without_writing(open_writer, row, location):
    writer = open_writer()
    found = writer.validate_log_data_quality([row(duration_secs=1.0), row(duration_secs=-1.0), row(rows_processed="x")])
    assert set(found) == KEYS
    assert (found["total_rows"], found["valid_rows"], found["invalid_rows"]) == (3, 1, 2)
    assert found["validation_rate"] == pytest.approx(100 / 3)
    assert not found["quality_passed"]
    assert not found["threshold_met"]
    by_column = {issue["column"]: issue for issue in found["issues"]}
    assert by_column["duration_secs"]["failed_rows"] == 1
    assert by_column["duration_secs"]["sample"][0]["row"] == 1
    assert by_column["duration_secs"]["sample"][0]["value"] == -1.0
    assert by_column["rows_processed"]["sample"][0]["value"] == "'x' (str)"
    assert not location().exists()


def test_rules_of_a_call_stand_in_for_the_built_in_ones(open_writer, row):
    rules = {"duration_secs": [Column("duration_secs >= 0")], "rows_processed": "rows_processed > 0"}
    found = open_writer().validate_log_data_quality([row(duration_secs=1.0, rows_processed=0, phase="copper")], rules)
    assert found["validation_rules_applied"] == ["duration_secs >= 0", "rows_processed > 0"]
    assert [issue["rule"] for issue in found["issues"]] == ["rows_processed > 0"]


@pytest.mark.parametrize("empty", [[], {}.values(), pa.table({"phase": pa.array([], pa.string())})])
def test_no_rows_have_none_that_is_invalid(open_writer, empty):
    found = open_writer().validate_log_data_quality(list(empty) if not isinstance(empty, pa.Table) else empty)
    assert (found["total_rows"], found["quality_passed"], found["issues"]) == (0, True, [])


@pytest.mark.parametrize(
    ("bad", "passed", "met"), [(0, True, True), (5, True, True), (6, False, False)]
)  # fmt: skip
def test_a_batch_passes_by_both_thresholds(open_writer, row, bad, passed, met):
    rows = [row(duration_secs=-1.0 if place < bad else 1.0) for place in range(100)]
    found = open_writer().validate_log_data_quality(rows)
    assert (found["quality_passed"], found["threshold_met"]) == (passed, met)
    strict = open_writer(max_invalid_rows_percent=0.0, min_validation_rate=0.0).validate_log_data_quality(rows)
    assert strict["threshold_met"]
    assert strict["quality_passed"] == (bad == 0)


def test_fail_fast_raises_and_writes_nothing(open_writer, row, location):
    writer = open_writer(fail_fast=True, validation_rules={"duration_secs": "duration_secs < 5"})
    for call in (writer.validate_log_data_quality, writer.write_log_rows):
        with pytest.raises(WriterDataQualityError, match="1 of 1 rows") as caught:
            call([row(duration_secs=9.0)])
        assert caught.value.quality_issues[0]["rule"] == "duration_secs < 5"
        assert caught.value.suggestions
    assert writer.get_table_info()["row_count"] == 0
    assert writer.write_log_rows([row(duration_secs=1.0)])["rows_written"] == 1


def test_rules_only_measure_in_strict(open_writer, row):
    writer = open_writer(log_data_quality_results=True, validation_rules={"duration_secs": "duration_secs < 5"})
    result = writer.write_log_rows([row(duration_secs=9.0), row(duration_secs=1.0)])
    assert result["rows_written"] == 2
    assert result["quality_results"]["invalid_rows"] == 1


def test_rows_that_break_a_rule_are_quarantined_in_lenient(open_writer, row):
    writer = open_writer(schema_validation_mode="lenient", validation_rules={"duration_secs": "duration_secs < 5"})
    result = writer.write_log_rows([row(duration_secs=9.0), row(duration_secs=1.0), row(phase="copper")])
    assert (result["rows_written"], result["quarantined_rows"]) == (1, 2)
    assert result["quality_results"] is None
    reasons = {entry["row"].get("phase"): entry["reasons"] for entry in writer.quarantined()}
    assert any("duration_secs < 5" in reason for reason in reasons["bronze"])
    assert len(reasons["copper"]) == 2, "all reasons"


def test_results_are_kept_beside_the_table_once_for_each_batch(open_writer, row, read):
    writer = open_writer(log_data_quality_results=True, producer_id="p", schema_validation_mode="lenient")
    result = writer.write_log_rows([row(), row(duration_secs=-1.0)], sequence=0)
    assert writer.write_log_rows([row(), row(duration_secs=-1.0)], sequence=0)["already_written"]
    writer.write_log_rows([row()], sequence=1)
    kept = read("pipeline_logs_quality").sort_by("batch_id").to_pylist()
    assert [entry["batch_id"] for entry in kept] == ["p:0", "p:1"]
    first = kept[0]
    assert (first["total_rows"], first["invalid_rows"], first["quality_passed"]) == (2, 1, False)
    assert first["validation_rate"] == 50.0
    assert first["min_validation_rate"] == 95.0
    assert json.loads(first["issues"])[0]["column"] == "duration_secs"
    assert first["checked_at"] is not None
    assert result["quality_results"]["validation_rate"] == 50.0
    assert result["table_fqn"] == "analytics.pipeline_logs"


def test_overwriting_leaves_the_kept_results(open_writer, row, count):
    writer = open_writer(log_data_quality_results=True, write_mode="overwrite")
    writer.write_log_rows([row()])
    writer.write_log_rows([row()])
    assert (count(), count("pipeline_logs_quality")) == (1, 2)


@pytest.mark.parametrize("rules", [{"duration_secs": "nope > 1"}, {"nope": "1 = 1"}, {"phase": ["phase", "phase >"]}])
def test_wrong_rules_are_refused_where_they_are_given(open_writer, row, rules):
    with pytest.raises(WriterConfigurationError, match="validation_rules") as caught:
        open_writer(validation_rules=rules)
    assert caught.value.suggestions
    with pytest.raises(WriterValidationError, match="validation_rules"):
        open_writer().validate_log_data_quality([row()], rules)


@pytest.mark.parametrize("rules", ["duration_secs > 0", 5, [1], {"phase": 5}, {5: "1 = 1"}, {"phase": [None]}])
def test_rules_of_another_shape_are_refused(open_writer, row, rules):
    with pytest.raises(WriterValidationError, match="validation_rules"):
        open_writer().validate_log_data_quality([row()], rules)


def test_a_rule_of_a_call_may_name_a_column_that_only_its_rows_have(open_writer, row):
    found = open_writer().validate_log_data_quality([row(cost=1), row(cost=9)], {"cost": "cost < 5"})
    assert found["invalid_rows"] == 1


def test_replayed_rows_are_written_once_and_leave_the_quarantine(open_writer, row, count):
    writer = open_writer(schema_validation_mode="lenient")
    writer.write_log_rows([row(), row(phase="copper"), row(duration_secs=-1.0)])
    assert writer.replay_quarantine() == {"replayed": 0, "still_invalid": 2, "already_replayed": 0}

    def repair(given, reasons):
        assert reasons
        return {**given, "phase": "gold"} if given["phase"] == "copper" else None

    assert writer.replay_quarantine(repair) == {"replayed": 1, "still_invalid": 1, "already_replayed": 0}
    assert writer.replay_quarantine(repair) == {"replayed": 0, "still_invalid": 1, "already_replayed": 1}
    assert count() == 2
    assert [entry["row"]["phase"] for entry in writer.quarantined()] == ["bronze"]
    assert count("pipeline_logs_quarantine") == 2, "nothing is quarantined a second time"


def test_replay_takes_the_oldest_rows_first_and_no_more_than_the_limit(open_writer, row):
    writer = open_writer(schema_validation_mode="lenient")
    for place in range(3):
        writer.write_log_rows([row(phase=f"copper{place}")])
    seen = []
    writer.replay_quarantine(lambda given, _: seen.append(given["phase"]), limit=2)
    assert sorted(seen) == ["copper0", "copper1"]


def test_concurrent_replays_write_each_row_once(open_writer, row, count):
    writer = open_writer(schema_validation_mode="lenient")
    writer.write_log_rows([row(phase="copper") for _ in range(20)])
    results = []
    threads = [
        threading.Thread(
            target=lambda: results.append(writer.replay_quarantine(lambda given, _: {**given, "phase": "gold"}))
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert sum(result["replayed"] for result in results) == 20
    assert count() == 20


def test_replay_under_overwrite_replaces_nothing(open_writer, row, count):
    writer = open_writer(schema_validation_mode="lenient", write_mode="overwrite")
    writer.write_log_rows([row(), row(phase="copper")])
    writer.replay_quarantine(lambda given, _: {**given, "phase": "gold"})
    assert count() == 2


@pytest.mark.parametrize("limit", [0, -1, True, 1.5, "x"])
def test_a_wrong_limit_of_a_replay_is_refused(open_writer, limit):
    with pytest.raises(WriterValidationError, match="limit"):
        open_writer().replay_quarantine(limit=limit)


def test_wrong_repairs_are_refused(open_writer, row):
    writer = open_writer(schema_validation_mode="lenient")
    assert writer.replay_quarantine() == {"replayed": 0, "still_invalid": 0, "already_replayed": 0}
    writer.write_log_rows([row(phase="copper")])
    with pytest.raises(WriterValidationError, match="repair is a str"):
        writer.replay_quarantine("x")
    with pytest.raises(WriterValidationError, match="repair gave a int"):
        writer.replay_quarantine(lambda *_: 5)
    with pytest.raises(ZeroDivisionError):
        writer.replay_quarantine(lambda *_: 1 / 0)
    assert len(writer.quarantined()) == 1
