"""`sfwriter take-over`: log tables that SparkForge made, before and after."""

from datetime import datetime, timezone
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from sfwriter import LogWriter, WriterConfig
from sfwriter.exceptions import WriterSchemaError, WriterTableError, WriterValidationError
from sfwriter.maintenance.takeover import take_over as take_over_here
from sfwriter.storage.delta_rs import DeltaRsEngine
from tests.cli.support import sfwriter

NOON = datetime(2024, 1, 31, 12, tzinfo=timezone.utc)
MOMENT = pa.timestamp("us", "UTC")
TEXT, INT, FLOAT = pa.string(), pa.int32(), pa.float32()

NEWEST = pa.schema(
    [
        ("run_id", TEXT), ("run_mode", TEXT), ("run_started_at", MOMENT), ("run_ended_at", MOMENT),
        ("execution_id", TEXT), ("pipeline_id", TEXT), ("schema", TEXT), ("phase", TEXT), ("step_name", TEXT),
        ("step_type", TEXT), ("start_time", MOMENT), ("end_time", MOMENT), ("duration_secs", FLOAT),
        ("table_fqn", TEXT), ("write_mode", TEXT), ("input_rows", INT), ("output_rows", INT), ("rows_written", INT),
        ("rows_processed", INT), ("valid_rows", INT), ("invalid_rows", INT), ("validation_rate", FLOAT),
        ("success", pa.bool_()), ("error_message", TEXT), ("memory_usage_mb", FLOAT), ("cpu_usage_percent", FLOAT),
        ("metadata", TEXT), ("created_at", MOMENT), ("updated_at", MOMENT),
    ]
)  # fmt: skip
"""As SparkForge's `create_log_schema` and storage make it (Spark drops its NOT NULLs on the way)."""

MIDDLE = pa.schema(
    [
        ("run_id", TEXT), ("run_mode", TEXT), ("run_started_at", MOMENT), ("run_ended_at", MOMENT),
        ("run_duration_secs", FLOAT), ("phase", TEXT), ("step_name", TEXT), ("step_order", INT), ("step_type", TEXT),
        ("start_time", MOMENT), ("end_time", MOMENT), ("duration_secs", FLOAT), ("table_fqn", TEXT),
        ("write_mode", TEXT), ("input_rows", INT), ("output_rows", INT), ("rows_written", INT), ("valid_rows", INT),
        ("invalid_rows", INT), ("validation_rate", FLOAT), ("validation_passed", pa.bool_()),
        ("data_quality_status", TEXT), ("filtered_rows", INT), ("error_message", TEXT), ("success", pa.bool_()),
        ("retry_count", INT), ("schema_name", TEXT), ("created_at", MOMENT),
    ]
)  # fmt: skip

FIRST = pa.schema(
    [
        ("run_mode", TEXT), ("run_started_at", MOMENT), ("run_ended_at", MOMENT), ("phase", TEXT), ("step", TEXT),
        ("start_time", MOMENT), ("end_time", MOMENT), ("table_fqn", TEXT), ("write_mode", TEXT), ("input_rows", INT),
        ("output_rows", INT), ("rows_written", INT), ("valid_rows", INT), ("invalid_rows", INT),
        ("validation_rate", FLOAT), ("previous_watermark", MOMENT), ("filtered_rows", INT),
    ]
)  # fmt: skip
"""Of its first writer: a step's name is in `step`, and there is no run id."""

OLD_ROW = {
    "run_id": "old-run", "run_mode": "initial", "phase": "bronze", "step_name": "extract", "step": "extract",
    "start_time": NOON, "end_time": NOON, "duration_secs": 10.5, "rows_written": 90, "rows_processed": 100,
    "valid_rows": 90, "invalid_rows": 10, "validation_rate": 90.0, "success": True, "metadata": "{}",
}  # fmt: skip


def made(folder, schema, rows=(OLD_ROW,), place="warehouse/analytics/logs", **options):
    path = Path(folder) / place
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist([{k: v for k, v in row.items() if k in schema.names} for row in rows], schema)
    write_deltalake(str(path), table, **options)
    return path


def take_over(folder, *arguments):
    return sfwriter(folder, "take-over", "--table", "analytics.logs", *arguments)


def log_of(path):
    return {entry.name: entry.read_bytes() for entry in (path / "_delta_log").iterdir()}


def config(folder, **options):
    warehouse = str(Path(folder) / "warehouse")
    return WriterConfig(table_schema="analytics", table_name="logs", warehouse=warehouse, **options)


def writer(folder, **options):
    return LogWriter(config=config(folder, **options))


def row(**more):
    return {"run_id": "new", "phase": "silver", "step_name": "clean", **more}


@pytest.mark.parametrize("schema", [NEWEST, MIDDLE, FIRST], ids=["newest", "middle", "first"])
def test_a_table_of_each_of_sparkforges_shapes_is_taken_over_once_and_then_written_and_read(tmp_path, schema):
    path = made(tmp_path, schema)
    files = DeltaTable(str(path)).file_uris()

    first = take_over(tmp_path, "--json")
    second = take_over(tmp_path, "--json")

    assert (first.code, second.code) == (0, 0), first.err
    assert first.json["changed"]
    assert first.json["version"] == 1
    assert "logged_at" in first.json["columns_added"]
    assert not second.json["changed"]
    assert second.json["columns_added"] == {}
    assert DeltaTable(str(path)).version() == 1
    assert DeltaTable(str(path)).file_uris() == files
    with writer(tmp_path) as log:
        log.write_log_rows([row(duration_secs=0.1, rows_written=7, validation_rate=97.3, metadata={"a": 1})])
        info = log.get_table_info()
        summary = log.generate_summary_report(days=36_500)
        exported = log.export_analytics_data(format="parquet")
    assert info["row_count"] == 2
    assert info["schema"]["rows_written"] == "int32"
    assert summary["total_rows_written"] == 97
    assert exported["records_exported"] == 2
    assert set(pq.read_table(exported["export_path"])["rows_written"].to_pylist()) == {90, 7}


def test_what_it_says_is_what_it_does(tmp_path):
    path = made(tmp_path, NEWEST)

    planned = take_over(tmp_path, "--dry-run")
    before = log_of(path)
    done = take_over(tmp_path)
    again = take_over(tmp_path)

    assert len(before) == 1
    assert "would add 1 column" in planned.out
    assert "added 1 column as version 1" in done.out
    assert "nothing to do" in again.out
    assert "rows_written  int32" in done.out
    assert "created_at, updated_at" in done.out
    assert "WriterConfig(warehouse=" in done.out
    assert (planned.code, done.code, again.code) == (0, 0, 0)


def test_a_table_at_another_place_is_named_by_its_path(tmp_path):
    path = made(tmp_path, NEWEST, place="spark-warehouse/analytics.db/logs")
    elsewhere = made(tmp_path, NEWEST, place="other/analytics/logs")

    found = take_over(tmp_path, "--path", f"file:{path}", "--json").json
    opened = take_over(tmp_path, "--path", elsewhere, "--json").json

    assert found["location"] == str(path)
    assert found["open_with"] is None
    assert opened["open_with"]["warehouse"] == str(tmp_path / "other")
    assert DeltaTable(str(path)).version() == 1


def test_older_names_are_told(tmp_path):
    made(tmp_path, FIRST)

    notes = take_over_here(config(tmp_path), DeltaRsEngine())["notes"]

    assert any("'step'" in note and "step_name" in note for note in notes)


REFUSED = {
    "a text for a count": ({"rows_written": TEXT}, {}, ["'rows_written' is string", "CAST(rows_written AS BIGINT)"]),
    "a map for the metadata": ({"metadata": pa.map_(TEXT, TEXT)}, {}, ["'metadata' is map"]),
    "another case": ({"Phase": TEXT}, {}, ["'Phase' differs from 'phase' only in upper and lower case"]),
    "a double for a count, and two more": (
        {"rows_written": pa.float64(), "success": TEXT, "duration_secs": pa.int64()},
        {},
        ["'rows_written' is double", "'success' is string", "'duration_secs' is int64"],
    ),
    "partitions by moments": ({}, {"partition_by": ["start_time"]}, ["partitioned by 'start_time'"]),
    "a constraint": (
        {}, {"configuration": {"delta.constraints.some": "rows_written > 0"}}, ["CHECK constraints", "LogWriter(spark"]
    ),
}  # fmt: skip


@pytest.mark.parametrize(("types", "options", "said"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_taken_over_is_said_all_at_once_and_the_table_is_not_touched(tmp_path, types, options, said):
    fields = [field for field in NEWEST if field.name.lower() not in {name.lower() for name in types}]
    schema = pa.schema([*fields, *types.items()])
    empty = schema.empty_table()
    path = tmp_path / "warehouse/analytics/logs"
    path.parent.mkdir(parents=True)
    DeltaTable.create(str(path), empty.schema, raise_if_key_not_exists=False, **options)
    before = log_of(path)

    with pytest.raises(WriterTableError) as refused:
        take_over_here(config(tmp_path), DeltaRsEngine())

    problems = " ".join(refused.value.context["problems"])
    assert [part for part in said if part not in problems] == []
    assert log_of(path) == before


def test_a_refusal_is_one_line_and_exit_code_1(tmp_path):
    made(tmp_path, pa.schema([("rows_written", TEXT), ("phase", INT)]), [{"rows_written": "x"}])

    refused = take_over(tmp_path, "--json")

    assert (refused.code, refused.err.count("\n")) == (1, 1)
    assert len(refused.json["error"]["context"]["problems"]) == 2


def test_a_table_that_is_not_there_is_an_error_and_is_not_made(tmp_path):
    refused = take_over(tmp_path, "--json")
    both = take_over(tmp_path, "--path", "a", "--warehouse", "b")

    assert refused.code == 1
    assert "--path" in refused.json["error"]["suggestions"][0]
    assert list(tmp_path.iterdir()) == []
    assert both.code == 2


@pytest.mark.parametrize("given", [list, pa.Table.from_pylist])
def test_a_number_beyond_a_narrow_column_is_refused_by_row_or_quarantined(tmp_path, given):
    made(tmp_path, NEWEST)
    take_over_here(config(tmp_path), DeltaRsEngine())
    values = [(1, 0.5), (3_000_000_000, None), (None, 1e39)]
    rows = [row(rows_written=count, duration_secs=duration) for count, duration in values]

    with writer(tmp_path) as strict, pytest.raises(WriterSchemaError) as refused:
        strict.write_log_rows(given(rows))
    with writer(tmp_path, schema_validation_mode="lenient") as lenient:
        result = lenient.write_log_rows(given(rows))
        reasons = [entry["reasons"] for entry in lenient.quarantined()]

    assert [(entry["row"], entry["column"]) for entry in refused.value.validation_errors] == [
        (1, "rows_written"), (2, "duration_secs"),
    ]  # fmt: skip
    assert "does not fit in int32" in refused.value.validation_errors[0]["reason"]
    assert (result["rows_written"], result["quarantined_rows"]) == (1, 2)
    assert len(reasons) == 2


def test_a_table_with_moments_without_a_zone_keeps_them_in_utc(tmp_path):
    naive = pa.schema([f.with_type(pa.timestamp("us")) if f.type == MOMENT else f for f in NEWEST])
    made(tmp_path, naive, [{**OLD_ROW, "start_time": NOON.replace(tzinfo=None), "end_time": NOON.replace(tzinfo=None)}])

    first = take_over_here(config(tmp_path), DeltaRsEngine())
    with writer(tmp_path) as log:
        log.write_log_rows([row(start_time=NOON, rows_written=1)])
        summary = log.generate_summary_report(days=36_500)
        trends = log.analyze_performance_trends(days=36_500)
        anomalies = log.detect_anomalies([row(start_time=NOON, rows_written=1)])

    assert first["narrower_columns"]["start_time"] == "timestamp[us]"
    path = tmp_path / "warehouse/analytics/logs"
    with writer(tmp_path) as log:
        found = log._log_table.scan(["start_time"]).read_all()
    assert set(found["start_time"].to_pylist()) == {NOON.replace(tzinfo=None)}
    assert summary["total_rows_written"] == 91
    assert trends["trends_available"]
    assert anomalies["anomaly_count"] == 0
    assert DeltaTable(str(path)).version() == 2


def test_unsafe_values_of_a_partition_column_are_told_before_they_are_refused(tmp_path):
    made(tmp_path, NEWEST, [OLD_ROW], partition_by=["run_id"])

    notes = take_over_here(config(tmp_path), DeltaRsEngine())["notes"]

    assert any("partitioned by 'run_id'" in note for note in notes)
    with writer(tmp_path) as log:
        assert log.write_log_rows([row(run_id="a-1")])["rows_written"] == 1
        with pytest.raises(WriterValidationError, match="name a folder"):
            log.write_log_rows([row(run_id="a/1")])
