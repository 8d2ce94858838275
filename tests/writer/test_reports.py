"""Reports, trends and exports of real tables, against plain Python over the same rows."""

from __future__ import annotations

import csv
import json
import math
import os
import statistics
from collections import Counter, defaultdict
from datetime import date, datetime, timedelta, timezone
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from sfwriter import WriterSchemaError, WriterTableError, WriterValidationError
from sfwriter.testing import ManualClock, MemoryEngine

NOW = datetime(2026, 6, 1, 12, tzinfo=timezone.utc)


def logged(count=400):
    """Rows over 40 days before `NOW`, with nulls, failures and several steps of several runs."""
    rows = []
    for place in range(count):
        began = NOW - timedelta(days=40 * place / count, minutes=7)
        rows.append(
            {
                "run_id": f"run-{place // 4}",
                "pipeline_id": f"p{place % 3}" if place % 17 else None,
                "phase": ("bronze", "silver", "gold")[place % 3],
                "step_name": f"step{place % 5}",
                "start_time": began if place % 4 else None,
                "run_started_at": began if place % 4 == 0 or place % 3 else None,
                "duration_secs": (place * 37 % 101) / 7 if place % 11 else None,
                "rows_processed": place if place % 5 else None,
                "rows_written": place // 2,
                "validation_rate": 50 + place % 50 if place % 3 else None,
                "success": place % 9 != 0,
                "error_message": "boom" if place % 9 == 0 else None,
            }
        )
    return rows


def within(rows, days):
    since = NOW - timedelta(days=days)
    return [row for row in rows if (row["start_time"] or row["run_started_at"]) >= since]


def mean(values):
    return statistics.mean(values) if values else None


@pytest.fixture
def filled(open_writer):
    """A writer on a table with those rows, and a clock that stands at `NOW`."""
    writer = open_writer(clock=ManualClock(NOW))
    writer.write_log_rows(logged())
    return writer


@pytest.mark.parametrize("days", [0.5, 7, 30, 3650])
def test_the_summary_says_what_plain_python_says(filled, days):
    rows = within(logged(), days)
    report = filled.generate_summary_report(days)
    durations = [row["duration_secs"] for row in rows if row["duration_secs"] is not None]
    runs = defaultdict(list)
    for row in rows:
        runs[row["run_id"]].append(row["success"])
    assert report["report_available"]
    assert report["total_executions"] == len(rows)
    assert report["success_rate_percent"] == pytest.approx(100 * sum(row["success"] for row in rows) / len(rows))
    assert report["average_duration_secs"] == pytest.approx(mean(durations))
    assert report["total_rows_processed"] == sum(row["rows_processed"] or 0 for row in rows)
    assert report["total_rows_written"] == sum(row["rows_written"] for row in rows)
    assert report["phase_distribution"] == Counter(row["phase"] for row in rows)
    assert report["total_runs"] == len(runs)
    assert report["run_success_rate_percent"] == pytest.approx(100 * sum(map(all, runs.values())) / len(runs))
    steps = defaultdict(list)
    for row in rows:
        steps[row["step_name"], row["pipeline_id"]].append(row)
    for entry in report["slowest_steps"]:
        given = steps[entry["step_name"], entry["pipeline_id"]]
        timed = [row["duration_secs"] for row in given if row["duration_secs"] is not None]
        assert entry["count"] == len(given)
        assert entry["average_duration_secs"] == pytest.approx(mean(timed))
        assert entry["max_duration_secs"] == max(timed)
    slow = [entry["average_duration_secs"] for entry in report["slowest_steps"]]
    assert slow == sorted(slow, reverse=True)
    failures = {key: sum(not row["success"] for row in given) for key, given in steps.items()}
    assert [entry["failures"] for entry in report["most_failing_steps"]] == sorted(
        (count for count in failures.values() if count), reverse=True
    )[:10]
    for entry in report["most_failing_steps"]:
        assert entry["failures"] == failures[entry["step_name"], entry["pipeline_id"]]


@pytest.mark.parametrize("days", [7, 30])
def test_the_trends_say_what_plain_python_says(filled, days):
    rows = within(logged(), days)
    trends = filled.analyze_performance_trends(days)
    durations = [row["duration_secs"] for row in rows if row["duration_secs"] is not None]
    rates = [row["validation_rate"] for row in rows if row["validation_rate"] is not None]
    cuts = statistics.quantiles(durations, n=100, method="inclusive")
    timed = [row for row in rows if row["duration_secs"] is not None]
    at = [(row["start_time"] or row["run_started_at"]).timestamp() / 86_400 for row in timed]
    found = trends["duration_trend"]
    assert trends["trends_available"]
    assert found["mean"] == pytest.approx(mean(durations))
    assert found["stddev"] == pytest.approx(statistics.stdev(durations))
    assert (found["min"], found["max"]) == (min(durations), max(durations))
    assert (found["p50"], found["p95"]) == (pytest.approx(cuts[49]), pytest.approx(cuts[94]))
    slope = statistics.linear_regression([moment - at[0] for moment in at], durations).slope
    assert found["slope_per_day"] == pytest.approx(slope, abs=1e-9)
    assert trends["success_trend"]["total_executions"] == len(rows)
    assert trends["validation_trend"] == {
        "mean": pytest.approx(mean(rates)),
        "stddev": pytest.approx(statistics.stdev(rates)),
    }
    by_day = Counter((row["start_time"] or row["run_started_at"]).date().isoformat() for row in rows)
    assert {day["date"]: day["total_executions"] for day in trends["daily"]} == by_day
    assert [day["date"] for day in trends["daily"]] == sorted(by_day)


def test_a_missing_and_an_empty_table_are_answered(open_writer):
    writer = open_writer(write_mode="overwrite")
    assert not writer.generate_summary_report()["report_available"]
    assert not writer.analyze_performance_trends()["trends_available"]
    assert writer.export_analytics_data() == {
        "export_successful": False, "records_exported": 0, "export_size_mb": 0.0, "export_path": "", "format": "json",
    }  # fmt: skip
    writer.write_log_rows([], sequence=0)
    report, trends = writer.generate_summary_report(), writer.analyze_performance_trends()
    assert report["report_available"]
    assert (report["total_executions"], report["success_rate_percent"], report["total_runs"]) == (0, None, 0)
    assert trends["trends_available"]
    assert trends["duration_trend"]["mean"] is None
    assert trends["success_trend"] == {"success_rate_percent": None, "total_executions": 0}
    assert trends["daily"] == []
    for form in ("json", "jsonl", "csv", "parquet"):
        found = writer.export_analytics_data(form)
        assert (found["export_successful"], found["records_exported"]) == (True, 0)
    assert content(writer.export_analytics_data()) == []


def test_reports_work_on_the_reference_engine_too(open_writer):
    writer = open_writer(engine=MemoryEngine(), clock=ManualClock(NOW))
    writer.write_log_rows(logged(40))
    assert writer.generate_summary_report(3650)["total_executions"] == 40
    assert writer.analyze_performance_trends(3650)["success_trend"]["total_executions"] == 40


def test_a_short_window_reads_the_files_of_its_days_only(filled, monkeypatch, location):
    filled.write_log_rows([{**row, "start_time": NOW - timedelta(days=200)} for row in logged(50)])
    old = max(location().glob("*.parquet"), key=lambda path: path.stat().st_mtime)
    old.write_bytes(b"whoever reads this fails")
    assert filled.generate_summary_report(7)["total_executions"] == len(within(logged(), 7))
    with pytest.raises(WriterTableError):
        filled.generate_summary_report(3650)


def test_a_table_of_another_writer_with_few_columns_is_reported(open_writer, location):
    import pyarrow as pa

    rows = pa.table({"phase": ["gold", None], "step_name": ["a", "b"], "start_time": [datetime.now(timezone.utc)] * 2})
    write_deltalake(str(location()), rows)
    report = open_writer().generate_summary_report()
    assert report["phase_distribution"] == {"gold": 1, "unknown": 1}
    assert report["success_rate_percent"] == 0.0
    assert report["total_runs"] == 0


_NAMES = ("run_id", "phase", "step_name", "start_time", "duration_secs")
NO_LOGS = {
    "no column of a log": ({"x": [1, 2]}, False),
    "texts everywhere": ({name: ["a", "b"] for name in _NAMES}, True),
    "numbers everywhere": ({name: [1, 2] for name in _NAMES}, True),
    "days for moments": ({"step_name": ["s"], "start_time": [date(2024, 1, 1)]}, True),
    "nested metadata": ({"run_id": ["r"], "phase": ["bronze"], "step_name": ["s"], "metadata": [{"a": 1}]}, False),
}


@pytest.mark.parametrize(("columns", "clashes"), NO_LOGS.values(), ids=list(NO_LOGS))
def test_a_table_that_is_no_log_is_answered_or_its_column_is_named(open_writer, row, location, columns, clashes):
    import pyarrow as pa

    table = pa.table(columns)
    write_deltalake(str(location()), table)
    writer = open_writer()

    asked = (writer.analyze_performance_trends, lambda: writer.detect_anomalies([row(duration_secs=1.0)]))
    for ask in asked:
        if not clashes:
            assert ask()
            continue
        with pytest.raises(WriterSchemaError, match="in the table, and a log keeps") as refused:
            ask()
        assert refused.value.expected_schema.keys() == refused.value.actual_schema.keys()
        assert refused.value.suggestions
    if not clashes:
        assert writer.generate_summary_report()["report_available"]
    for form in ("json", "jsonl", "csv", "parquet"):
        assert writer.export_analytics_data(form)["records_exported"] == table.num_rows


def test_show_logs_shows_the_first_rows_of_a_table_without_a_time(open_writer, location, capsys):
    import pyarrow as pa

    write_deltalake(str(location()), pa.table({"x": [1, 2, 3]}))
    open_writer().show_logs(2)
    assert capsys.readouterr().out.splitlines()[1:] == ["x", "1", "2"]


@pytest.mark.parametrize("durations", [[1.0], [None], [1.0, 5.0], [1e308, 1e308]])
def test_a_figure_that_does_not_exist_is_none_and_every_result_is_json(open_writer, row, durations):
    writer = open_writer()
    now = datetime.now(timezone.utc)
    writer.write_log_rows([row(duration_secs=one, start_time=now) for one in durations])

    trends = writer.analyze_performance_trends()

    assert trends["duration_trend"]["slope_per_day"] is None or durations[0] == 1e308
    for result in (trends, writer.generate_summary_report()):
        json.dumps(result, allow_nan=False)


@pytest.mark.parametrize("days", [0, -1, True, None, "7", math.nan, math.inf, 10**9])
def test_wrong_days_are_refused(open_writer, days):
    writer = open_writer()
    for call in (writer.generate_summary_report, writer.analyze_performance_trends):
        with pytest.raises(WriterValidationError, match="days is"):
            call(days)


def content(result):
    path, form = Path(result["export_path"]), result["format"]
    assert path.stat().st_size == pytest.approx(result["export_size_mb"] * 2**20)
    if form == "parquet":
        return pq.read_table(path).to_pylist()
    with path.open(newline="", encoding="utf-8") as file:
        if form == "json":
            return json.load(file)
        return list(csv.DictReader(file)) if form == "csv" else [json.loads(line) for line in file]


@pytest.mark.parametrize("form", ["json", "jsonl", "csv", "parquet"])
def test_an_export_has_the_rows_asked_for(filled, form, tmp_path):
    result = filled.export_analytics_data(form, None, {"phase": ["gold", "silver"], "success": False})
    expected = [row for row in logged() if row["phase"] in {"gold", "silver"} and not row["success"]]
    rows = content(result)
    assert result["export_successful"]
    assert result["records_exported"] == len(rows) == len(expected)
    assert Counter((row["run_id"], row["step_name"]) for row in rows) == Counter(
        (row["run_id"], row["step_name"]) for row in expected
    )
    assert str(tmp_path / "warehouse" / "exports") in result["export_path"]
    assert not list(Path(result["export_path"]).parent.glob(".*"))


def test_the_newest_rows_come_first(filled):
    rows = content(filled.export_analytics_data("jsonl", 20))
    times = [row["start_time"] for row in rows if row["start_time"]]
    assert len(rows) == 20
    assert times == sorted(times, reverse=True)
    assert rows[0]["start_time"].endswith("Z")


def test_null_in_a_filter_means_null_and_an_empty_list_nothing(filled):
    rows = content(filled.export_analytics_data("json", None, {"pipeline_id": None}))
    assert len(rows) == sum(row["pipeline_id"] is None for row in logged())
    assert content(filled.export_analytics_data("json", None, {"pipeline_id": []})) == []
    moment = logged()[1]["start_time"]
    assert len(content(filled.export_analytics_data("json", None, {"start_time": [moment]}))) == 1


def test_a_filter_is_a_value_and_never_sql(filled):
    assert content(filled.export_analytics_data("json", None, {"phase": "gold' OR '1'='1"})) == []


def test_a_number_that_ignore_let_through_leaves_the_figures_of_the_others(open_writer, row):
    writer = open_writer(schema_validation_mode="ignore")
    now = datetime.now(timezone.utc)
    numbers = [(1.0, 99.0), (3.0, 97.0), (math.nan, math.nan), (math.inf, -math.inf)]
    writer.write_log_rows([row(duration_secs=one, validation_rate=two, start_time=now) for one, two in numbers])

    report, trends = writer.generate_summary_report(), writer.analyze_performance_trends()

    assert (report["total_executions"], report["average_duration_secs"]) == (4, 2.0)
    assert report["slowest_steps"][0]["max_duration_secs"] == 3.0
    assert (trends["duration_trend"]["mean"], trends["validation_trend"]["mean"]) == (2.0, 98.0)
    assert trends["daily"][0]["p50_duration_secs"] == 2.0
    assert pq.read_table(writer.export_analytics_data("parquet")["export_path"])["duration_secs"].null_count == 0


def test_exports_lie_in_the_warehouse_also_where_it_is_a_file_url_or_names_are_long(open_writer, row, tmp_path):
    writer = open_writer(warehouse=f"file://{tmp_path}/lake", table_schema="s" * 120, table_name="t" * 120)
    writer.write_log_rows([row()])

    path = Path(writer.export_analytics_data("parquet")["export_path"])

    assert path.parent == tmp_path / "lake" / "exports"
    assert path.is_file()


def test_numpys_scalars_and_any_limit_are_taken(filled):
    import numpy as np

    rows = content(filled.export_analytics_data("json", None))
    wanted = next(entry["rows_processed"] for entry in rows if entry["rows_processed"] is not None)

    found = content(filled.export_analytics_data("json", 10**30, {"rows_processed": np.int64(wanted)}))

    assert {entry["rows_processed"] for entry in found} == {wanted}


@pytest.mark.parametrize("cell", ["=1", "+1", "-1", "@x", "\t=1", "\r=1", "\n=1", " =1", "  +1", "＝1", "＠x"])
def test_no_cell_of_a_csv_file_is_a_formula_also_behind_blanks(open_writer, row, cell):
    writer = open_writer()
    writer.write_log_rows([row(error_message=cell)])
    with Path(writer.export_analytics_data("csv")["export_path"]).open(encoding="utf-8", newline="") as lines:
        assert [entry["error_message"] for entry in csv.DictReader(lines)] == ["'" + cell]


def test_metadata_is_an_object_and_text_survives(open_writer, row, tmp_path):
    writer = open_writer()
    names = ["=1+1", "+a", "-b", "@c", "\tt", 'a "quoted", text', "zwei\nZeilen", "é😀"]
    writer.write_log_rows([row(step_name=name, metadata={"name": name, "n": [1, None]}) for name in names])
    for form in ("json", "jsonl", "parquet"):
        rows = content(writer.export_analytics_data(form, None))
        assert {entry["step_name"] for entry in rows} == set(names)
    objects = [entry["metadata"] for entry in content(writer.export_analytics_data("json"))]
    assert {one["name"] for one in objects} == set(names)
    cells = {entry["step_name"] for entry in content(writer.export_analytics_data("csv"))}
    assert cells == {("'" + name) if name[0] in "=+-@\t" else name for name in names}


def test_a_path_is_written_whole_or_not_at_all(filled, tmp_path):
    target = tmp_path / "out's.csv"
    target.write_text("before")
    with pytest.raises(WriterValidationError):
        filled.export_analytics_data("csv", None, {"nope": 1}, path=target)
    assert target.read_text() == "before"
    result = filled.export_analytics_data("csv", 5, path=str(target))
    assert len(content(result)) == 5
    assert result["export_path"] == str(target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out's.csv", "warehouse"]


def test_a_disk_that_is_full_leaves_the_old_file_and_no_other(filled, tmp_path, monkeypatch):
    target = tmp_path / "a.json"
    target.write_text("before")

    def full(_handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WriterTableError, match="cannot be written") as caught:
        filled.export_analytics_data(path=target)
    assert caught.value.suggestions
    assert target.read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "warehouse"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"format": "xml"},
        {"format": None},
        {"format": 5},
        {"format": "JSON"},
        {"limit": -1},
        {"limit": 1.5},
        {"limit": True},
        {"limit": "10"},
        {"filters": "phase"},
        {"filters": ["phase"]},
        {"filters": {"nope": 1}},
        {"filters": {5: 1}},
        {"filters": {"phase": 5}},
        {"filters": {"rows_processed": "5"}},
        {"filters": {"rows_processed": True}},
        {"filters": {"rows_processed": 2**70}},
        {"filters": {"success": 1}},
        {"filters": {"start_time": "2024-01-01"}},
        {"filters": {"phase": {"$gt": 1}}},
        {"filters": {"phase": ["gold", 5]}},
        {"path": 5},
        {"path": ""},
        {"path": "/nowhere/at/all.json"},
        {"path": "/"},
        {"path": "s3://bucket/a.json"},
    ],
)
def test_wrong_arguments_of_an_export_are_refused(filled, wrong, tmp_path):
    with pytest.raises(WriterValidationError, match=next(iter(wrong))) as caught:
        filled.export_analytics_data(**wrong)
    assert caught.value.suggestions
    assert not (tmp_path / "warehouse" / "exports").exists() or not list((tmp_path / "warehouse" / "exports").iterdir())


SHAPES = {
    "plain": ({}, True),
    "partitioned": ({"partition_columns": ["phase"]}, False),
    "a name with a pattern": ({"table_name": "runs"}, True),
    "not finite": ({"schema_validation_mode": "ignore"}, True),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("days", [0.5, 7, 45])
def test_files_and_streams_of_rows_give_the_same_reports(open_writer, tmp_path, monkeypatch, shape, days):
    options, from_files = SHAPES[shape]
    warehouse = tmp_path / ("it's [here]*" if "pattern" in shape else "it's here")
    writer = open_writer(clock=ManualClock(NOW), warehouse=str(warehouse), **options)
    rows = logged(120)
    for start in range(0, 120, 30):
        writer.write_log_rows(rows[start : start + 30])
    if shape == "not finite":
        writer.write_log_rows([{**rows[3], "duration_secs": math.nan, "validation_rate": math.inf}])
    writer.write_log_rows([{"phase": "bronze", "step_name": "s"}])  # a file in which most columns have no value
    table = type(writer._log_table)
    files = []
    ask = table.files
    monkeypatch.setattr(table, "files", lambda *asked: files.append(ask(*asked)) or files[-1])
    reports = [writer.generate_summary_report(days), writer.analyze_performance_trends(days)]
    assert [found is not None for found in files] == [from_files and "pattern" not in shape] * len(files)
    assert len(files) >= 2
    monkeypatch.setattr(table, "files", lambda *_: None)
    streamed = [writer.generate_summary_report(days), writer.analyze_performance_trends(days)]
    assert json.loads(json.dumps(reports), parse_float=lambda text: round(float(text), 9)) == json.loads(
        json.dumps(streamed), parse_float=lambda text: round(float(text), 9)
    )


def test_files_that_lack_columns_of_the_table_are_reported(open_writer, location):
    rows = open_writer()._gate.encode(logged(8)).rows
    DeltaTable.create(str(location()), rows.schema)
    few = rows.select(["phase", "step_name", "start_time"])
    write_deltalake(str(location()), few, mode="append", schema_mode="merge")
    writer = open_writer(clock=ManualClock(NOW))
    for count in (8, 16):
        report = writer.generate_summary_report(90)
        assert report["total_executions"] == sum(row["start_time"] is not None for row in logged(8)) * count // 8
        assert report["total_rows_processed"] == 0
        assert writer.analyze_performance_trends(90)["duration_trend"]["mean"] is None
        write_deltalake(str(location()), few, mode="append", schema_mode="merge")


def test_files_without_statistics_are_read(open_writer, location):
    writer = open_writer(clock=ManualClock(NOW))
    rows = writer._gate.encode(logged(8)).rows
    write_deltalake(str(location("foreign")), rows, configuration={"delta.dataSkippingNumIndexedCols": "0"})
    foreign = open_writer(clock=ManualClock(NOW), table_name="foreign")
    assert foreign.generate_summary_report(90)["total_executions"] == 8
    assert foreign.generate_summary_report(1)["total_executions"] == len(within(logged(8), 1))


@pytest.mark.parametrize("filters", [{"nope": 1}, {"phase": 5}])
def test_filters_are_looked_at_before_there_is_a_table(open_writer, filters):
    with pytest.raises(WriterValidationError, match="filters"):
        open_writer().export_analytics_data(filters=filters)
    assert open_writer().export_analytics_data(filters={"phase": "gold"})["export_successful"] is False
