"""The reference's examples that are in scope, run as they stand, and the shape of every result."""

from __future__ import annotations

import inspect
import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from enum import Enum

import duckdb
import pytest
from deltalake import DeltaTable

from sfwriter import LogWriter, WriteMode, WriterConfig
from sfwriter.exceptions import WriterConfigurationError, WriterError, WriterTableError, WriterValidationError
from sfwriter.models import ExecutionContext, ExecutionResult, LogRecord, LogRow, StepResult

START = datetime(2024, 1, 1, 12, tzinfo=timezone.utc)
RESULT_KEYS = {
    "success": bool,
    "rows_written": int,
    "run_id": str,
    "batch_id": str,
    "table_fqn": str,
    "version": int,
    "duration_secs": float,
    "quarantined_rows": int,
    "quality_results": type(None),
    "anomalies": type(None),
    "already_written": bool,
}


def test_basic_usage_of_the_reference_runs_as_it_stands(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    config = WriterConfig(table_schema="analytics", table_name="pipeline_logs", write_mode=WriteMode.APPEND)
    writer = LogWriter(config=config)
    log_rows = [
        {
            "run_id": "example-run",
            "phase": "bronze",
            "step_name": "extract_data",
            "duration_secs": 10.0,
            "rows_processed": 1000,
            "validation_rate": 95.0,
        }
    ]
    result = writer.write_log_rows(log_rows)
    assert result["success"] is True
    assert result["rows_written"] == 1

    info = writer.get_table_info()
    assert info["row_count"] == 1
    metrics = writer.get_metrics()
    assert metrics["total_writes"] == 1
    assert metrics["success_rate_percent"] == 100.0
    memory = writer.get_memory_usage()
    assert memory["rss_mb"] > 0
    writer.show_logs(limit=50)
    assert "extract_data" in capsys.readouterr().out
    writer.reset_metrics()
    assert writer.get_metrics()["total_writes"] == 0
    writer.close()
    assert (tmp_path / "warehouse/analytics/pipeline_logs/_delta_log").is_dir()


def test_the_log_row_of_the_reference_comes_back_as_it_was_given(open_writer, location) -> None:
    now = datetime.now()  # noqa: DTZ005  as the reference has it
    log_row: LogRow = {
        "run_id": "run-123",
        "run_mode": "initial",
        "run_started_at": now,
        "run_ended_at": now,
        "execution_id": "exec-456",
        "pipeline_id": "pipeline-789",
        "schema": "analytics",
        "phase": "bronze",
        "step_name": "extract_data",
        "step_type": "extraction",
        "start_time": now,
        "end_time": now,
        "duration_secs": 10.0,
        "table_fqn": "analytics.source_table",
        "rows_processed": 1000,
        "rows_written": 950,
        "validation_rate": 95.0,
        "success": True,
        "error_message": None,
        "metadata": {},
    }
    before = datetime.now(timezone.utc) - timedelta(milliseconds=1)
    result = open_writer().write_log_rows([log_row], run_id="test-run")
    assert result["run_id"] == "test-run"

    files = DeltaTable(str(location())).file_uris()
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        found = connection.execute("SELECT * FROM read_parquet(?)", [files])
        names = [column[0] for column in found.description]
        (values,) = found.fetchall()
    stored = dict(zip(names, values, strict=True))
    utc = now.replace(tzinfo=timezone.utc)
    moments = ("run_started_at", "run_ended_at", "start_time", "end_time")
    for name, given in log_row.items():
        assert stored[name] == (utc if name in moments else "{}" if name == "metadata" else given), name
    assert before <= stored["logged_at"] <= datetime.now(timezone.utc)
    for name in ("write_mode", "input_rows", "output_rows", "valid_rows", "invalid_rows"):
        assert stored[name] is None
    assert len(names) == 26


def test_every_key_of_a_write_result_is_there_with_its_type(open_writer, row) -> None:
    result = open_writer(producer_id="nightly").write_log_rows([row()])
    assert {name: type(value) for name, value in result.items()} == RESULT_KEYS
    assert result["batch_id"] == "nightly:0"
    assert result["table_fqn"] == "analytics.pipeline_logs"
    assert result["run_id"] == "run-1"


def test_every_key_of_the_other_results_is_there_with_its_type(open_writer, row) -> None:
    writer = open_writer()
    batches = writer.write_batches([[row()], [row()]])
    assert {name: type(value) for name, value in batches.items()} == {
        "success": bool, "batches": int, "rows_written": int, "already_written": int, "quarantined_rows": int,
        "versions": tuple, "duration_secs": float,
    }  # fmt: skip
    info = writer.get_table_info()
    assert {name: type(value) for name, value in info.items()} == {
        "exists": bool, "row_count": int, "columns": list, "schema": dict, "table_fqn": str, "location": str,
        "version": int, "num_files": int, "size_mb": float, "partition_columns": list, "last_modified": datetime,
        "engine": str, "engine_road": str, "engine_road_reason": str, "idempotency_retention_days": float,
    }  # fmt: skip
    assert all(isinstance(name, str) for name in info["columns"])
    assert list(info["schema"]) == info["columns"]
    assert info["last_modified"].tzinfo is not None
    metrics = writer.get_metrics()
    assert {name: type(value) for name, value in metrics.items()} == {
        "total_writes": int, "successful_writes": int, "failed_writes": int, "success_rate_percent": float,
        "total_rows_written": int, "total_duration_secs": float, "average_duration_secs": float,
        "average_validation_rate": float, "memory_usage_peak_mb": float, "retries": int, "quarantined_rows": int,
        "latency_p50_secs": float, "latency_p95_secs": float, "latency_p99_secs": float,
    }  # fmt: skip
    memory = writer.get_memory_usage()
    assert set(memory) == {"rss_mb", "vms_mb", "percent", "available_mb", "total_mb", "budget_mb", "in_flight_mb"}
    assert all(type(value) is float for value in memory.values())
    assert memory["rss_mb"] <= memory["total_mb"]
    assert memory["budget_mb"] == pytest.approx(0.6 * memory["total_mb"], rel=0.01)
    assert memory["in_flight_mb"] == 0.0
    assert memory["percent"] == pytest.approx(100 * memory["rss_mb"] / memory["total_mb"], rel=0.2)


def test_step_results_become_one_row_each(open_writer, read) -> None:
    context = ExecutionContext(
        run_id="of-the-context", execution_id="e", pipeline_id="p", schema="s", run_mode="incremental", started_at=START
    )
    step1 = StepResult.create_success("extract", "bronze", START, START + timedelta(seconds=2), rows_processed=10)
    step2 = StepResult.create_failure("clean", "silver", START, START + timedelta(seconds=1), "no such column")
    result = open_writer().write_step_results(step_results=[step1, step2], execution_context=context, run_id="run-123")
    assert result["rows_written"] == 2
    assert result["run_id"] == "run-123"
    rows = {row["step_name"]: row for row in read().to_pylist()}
    assert {row["run_id"] for row in rows.values()} == {"run-123"}
    assert rows["extract"]["success"] is True
    assert rows["extract"]["duration_secs"] == 2.0
    assert rows["clean"]["success"] is False
    assert rows["clean"]["error_message"] == "no such column"
    assert rows["clean"]["pipeline_id"] == "p"
    assert rows["clean"]["run_mode"] == "incremental"


def test_an_execution_result_becomes_a_row_for_each_step_or_one_for_the_run(open_writer, read) -> None:
    writer = open_writer()
    context = ExecutionContext(run_id="r1", pipeline_id="p")
    steps = [StepResult("a", "bronze"), StepResult("b", "gold")]
    result = writer.write_execution_result(ExecutionResult.from_context_and_results(context, steps), run_id="run-123")
    assert (result["rows_written"], result["run_id"]) == (2, "run-123")
    result = writer.write_execution_result(ExecutionResult(ExecutionContext(run_id="r2"), metadata={"why": "no steps"}))
    assert (result["rows_written"], result["run_id"]) == (1, "r2")
    (lone,) = (row for row in read().to_pylist() if row["run_id"] == "r2")
    assert (lone["phase"], lone["step_name"]) == ("pipeline", "__run__")
    assert json.loads(lone["metadata"]) == {"why": "no steps"}


def test_dataclasses_and_mappings_of_the_same_shape_are_taken(open_writer, read) -> None:
    class PipelinePhase(Enum):
        SILVER = "silver"

    @dataclass
    class ForeignStep:
        step_name: str
        phase: PipelinePhase
        success: bool
        start_time: datetime
        end_time: datetime
        duration_secs: float

    @dataclass
    class ForeignContext:
        execution_id: str = "x-1"
        pipeline_id: str = "foreign"

    @dataclass
    class ForeignResult:
        context: ForeignContext
        step_results: list[ForeignStep] = field(default_factory=list)

    step = ForeignStep("join", PipelinePhase.SILVER, True, START, START, 0.0)
    writer = open_writer()
    assert writer.write_execution_result(ForeignResult(ForeignContext(), [step]))["rows_written"] == 1
    assert (
        writer.write_execution_result(
            {"context": {"pipeline_id": "mapped"}, "step_results": [{"step_name": "s", "phase": "gold"}]}
        )["rows_written"]
        == 1
    )
    found = {row["pipeline_id"]: row for row in read().to_pylist()}
    assert found["foreign"]["phase"] == "silver"
    assert found["mapped"]["step_name"] == "s"
    assert all(row["run_id"] for row in found.values())


def test_rows_of_one_call_without_a_run_id_share_a_new_one(open_writer, read) -> None:
    result = open_writer().write_log_rows([{"phase": "bronze", "step_name": str(n)} for n in range(3)])
    assert set(read()["run_id"].to_pylist()) == {result["run_id"]}


def test_log_records_are_rows(open_writer, count) -> None:
    assert open_writer().write_log_rows([LogRecord(phase="gold", step_name="s", schema="x")])["rows_written"] == 1
    assert count() == 1


def test_metadata_is_json_in_the_table_and_a_dict_at_the_api(open_writer, read, row) -> None:
    writer = open_writer(schema_validation_mode="lenient")
    writer.write_log_rows([row(metadata={"a": [1, {"b": None}]}), row(phase="tin", metadata={"c": 2})])
    assert json.loads(read()["metadata"][0].as_py()) == {"a": [1, {"b": None}]}
    (aside,) = writer.quarantined()
    assert aside["row"]["metadata"] == {"c": 2}


def test_the_configuration_example_with_an_empty_schema_is_caught_where_the_reference_catches_it() -> None:
    with pytest.raises(WriterConfigurationError, match="table_schema"):  # noqa: PT012  the reference has these lines
        invalid_config = WriterConfig(table_schema="", table_name="test")
        LogWriter(None, invalid_config)


def test_the_base_exception_has_context_and_suggestions(open_writer) -> None:
    with pytest.raises(WriterError) as caught:
        open_writer().write_log_rows([{"phase": "copper"}])
    assert isinstance(caught.value, WriterValidationError)
    assert isinstance(caught.value.context, dict)
    assert caught.value.suggestions


def test_the_constructor_takes_none_for_spark_and_names_what_else_it_was_given(config) -> None:
    LogWriter(None, config()).close()
    parameters = list(inspect.signature(LogWriter.__init__).parameters)
    assert parameters == ["self", "spark", "config", "logger"]
    for arguments in ((config(),), (object(), config()), (None, {"table_name": "x"}), (None, "config")):
        with pytest.raises(WriterConfigurationError) as caught:
            LogWriter(*arguments)
        assert caught.value.suggestions


def test_a_writer_without_a_config_has_the_defaults(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with LogWriter() as writer:
        assert writer.get_table_info()["table_fqn"] == "analytics.pipeline_logs"


def test_a_standard_logger_is_told(open_writer, row, caplog) -> None:
    import logging

    logger = logging.getLogger("pipelines.of.mine")
    with caplog.at_level(logging.INFO, logger="pipelines.of.mine"):
        open_writer(logger=logger, schema_validation_mode="lenient").write_log_rows([row(), row(phase="tin")])
    (record,) = [record for record in caplog.records if record.name == "pipelines.of.mine"]
    assert record.levelno == logging.WARNING
    assert "1 rows written as version 1" in record.message
    assert "1 quarantined" in record.message


def test_any_object_with_the_methods_of_a_logger_is_told_and_cannot_break_a_call(open_writer, row) -> None:
    class PipelineLogger:
        def __init__(self) -> None:
            self.told = []

        def info(self, message: str) -> None:
            self.told.append(message)
            raise RuntimeError("out of paper")

        warning = info

    logger = PipelineLogger()
    writer = open_writer(logger=logger)
    assert writer.write_log_rows([row()])["rows_written"] == 1
    with pytest.raises(WriterValidationError):
        writer.write_log_rows([row(phase="tin")])
    assert "1 rows written" in logger.told[0]
    assert "a call failed" in logger.told[1]


def test_what_is_no_logger_is_refused(config) -> None:
    with pytest.raises(WriterConfigurationError, match="logger") as caught:
        LogWriter(config=config(), logger="sfwriter")
    assert caught.value.suggestions


def test_table_info_of_a_missing_an_empty_and_a_filled_table(open_writer, row) -> None:
    writer = open_writer(producer_id="p")
    info = writer.get_table_info()
    assert (info["exists"], info["row_count"], info["version"], info["columns"]) == (False, 0, None, [])
    writer.write_log_rows([], sequence=0)
    info = writer.get_table_info()
    assert (info["exists"], info["row_count"], info["num_files"], len(info["columns"])) == (True, 0, 0, 26)
    writer.write_log_rows([row(), row()])
    info = writer.get_table_info()
    assert (info["row_count"], info["num_files"]) == (2, 1)
    assert 0 < info["size_mb"] < 1
    assert info["engine"] == "delta-rs"
    assert info["location"].endswith("warehouse/analytics/pipeline_logs")


def test_table_info_tells_how_long_the_table_itself_remembers_keys(open_writer, row) -> None:
    open_writer(idempotency_retention_days=2).write_log_rows([row()])
    assert open_writer(idempotency_retention_days=30).get_table_info()["idempotency_retention_days"] == 2.0


def test_a_table_that_forgets_no_producer_says_none(open_writer, location) -> None:
    import pyarrow as pa
    from deltalake import write_deltalake

    write_deltalake(str(location()), pa.table({"step_name": ["a"]}))
    assert open_writer().get_table_info()["idempotency_retention_days"] is None


def test_logs_are_shown_on_a_terminal_in_a_file_and_where_there_are_none(open_writer, row, monkeypatch) -> None:
    import io

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    writer = open_writer()
    for table_is_there in (False, True):
        out = io.StringIO()
        monkeypatch.setattr("sys.stdout", out)
        if table_is_there:
            writer.write_log_rows([], idempotency_key="k")
        writer.show_logs()
        assert "no rows" in out.getvalue()
    for number in range(5):
        writer.write_log_rows([row(step_name=f"step-{number}", error_message="[bold]x" if number == 4 else None)])
    plain, terminal = io.StringIO(), Terminal()
    monkeypatch.setenv("COLUMNS", "200")
    for out in (plain, terminal):
        monkeypatch.setattr("sys.stdout", out)
        writer.show_logs(limit=2)
        text = out.getvalue()
        assert "step-4" in text
        assert "step-3" in text
        assert "step-2" not in text
        assert "[bold]x" in text
    assert plain.getvalue().index("step-4") < plain.getvalue().index("step-3")
    for limit in (0, -1, True, "2", 1.5):
        with pytest.raises(WriterValidationError):
            writer.show_logs(limit=limit)


def test_metrics_count_successes_failures_and_quarantine_and_go_back_to_zero(open_writer, row) -> None:
    writer = open_writer(schema_validation_mode="lenient")
    zeros = writer.get_metrics()
    assert set(zeros.values()) == {0}
    writer.write_log_rows([row(), row(), row(phase="tin")])
    with pytest.raises(WriterValidationError):
        writer.write_log_rows("rows")
    with pytest.raises(WriterValidationError):
        writer.write_log_rows([row()], sequence=-1)
    metrics = writer.get_metrics()
    assert (metrics["total_writes"], metrics["successful_writes"], metrics["failed_writes"]) == (3, 1, 2)
    assert metrics["success_rate_percent"] == pytest.approx(100 / 3)
    assert (metrics["total_rows_written"], metrics["quarantined_rows"]) == (2, 1)
    assert metrics["average_validation_rate"] == pytest.approx(200 / 3)
    assert metrics["average_duration_secs"] == pytest.approx(metrics["total_duration_secs"] / 3)
    assert 0 < metrics["latency_p50_secs"] <= metrics["latency_p95_secs"] <= metrics["latency_p99_secs"]
    assert metrics["memory_usage_peak_mb"] > 10
    writer.reset_metrics()
    assert writer.get_metrics() == zeros


def test_a_table_error_is_raised_for_a_table_that_is_not_there_any_more(open_writer, row, location) -> None:
    import shutil

    writer = open_writer()
    writer.write_log_rows([row()])
    shutil.rmtree(location())
    for _ in range(2):
        with pytest.raises(WriterTableError, match="gone") as caught:
            writer.write_log_rows([row()])
        assert caught.value.suggestions
        assert not location().exists()
    with pytest.raises(WriterTableError):
        writer.get_table_info()
    # A new writer finds no table and may make one.
    assert open_writer().write_log_rows([row()])["version"] == 1
