"""The same calls on both engines: results equal key by key, rows equal value by value, files that each can read."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from sfwriter import LogWriter, WriterConfig
from sfwriter.exceptions import WriterError
from sfwriter.models import ExecutionContext, ExecutionResult, StepResult

NOW = datetime.now(timezone.utc).replace(microsecond=123456)
ROWS = [
    {
        "run_id": f"run-{number % 3}",
        "phase": ("bronze", "silver", "gold")[number % 3],
        "step_name": f"step \"{number}\" 'ä' \\ 日本",
        "start_time": NOW - timedelta(hours=number),
        "duration_secs": number * 1.5,
        "rows_processed": 2**40 + number,
        "validation_rate": 100.0 - number,
        "success": number % 4 != 0,
        "error_message": None if number % 4 else "it's \\broken\\ \n`here`",
        "metadata": {"n": number, "nested": {"text": "🙂"}},
    }
    for number in range(12)
]
RANDOM = {"duration_secs", "batch_duration_secs", "run_id", "batch_id", "last_modified", "location", "size_mb",
          "optimization_duration_secs", "maintenance_duration_secs", "export_path", "export_size_mb",
          "timestamp", "user_metadata"}  # fmt: skip
# Spark brings new columns in the commit of the rows, the embedded engine in one before it.
VERSIONS = {"version", "versions", "total_versions", "log_entries"}
ENGINE = {"engine", "engine_road_reason"}


def run_of(number):
    context = ExecutionContext(run_id=f"x-{number}", pipeline_id="p", run_mode="incremental", start_time=NOW)
    step = StepResult(
        step_name="s", phase="gold", duration_secs=1.0, rows_processed=3, validation_rate=99.0, success=True
    )
    return ExecutionResult(context=context, step_results=[step, step])


def attempt(call):
    """What a call gives, or how it fails."""
    try:
        return call()
    except WriterError as error:
        return type(error).__name__, error.message


def calls(writer, folder):
    """Every call of the writer, with what it answers."""
    yield "info before", writer.get_table_info
    yield "rows", lambda: writer.write_log_rows(ROWS)
    yield "evolved", lambda: writer.write_log_rows([{**ROWS[0], "host": "a", "cores": 4, "cost": 0.5, "ok": True}])
    yield "the same number again", lambda: writer.write_log_rows(ROWS, sequence=0)
    yield "a gap", lambda: writer.write_log_rows(ROWS, sequence=9)
    yield "a key", lambda: writer.write_log_rows(ROWS[:1], idempotency_key="k")
    yield "the key again", lambda: writer.write_log_rows(ROWS[:1], idempotency_key="k")
    yield "wrong type", lambda: writer.write_log_rows([{**ROWS[0], "rows_processed": "many"}])
    yield "wrong phase", lambda: writer.write_log_rows([{**ROWS[0], "phase": "copper"}])
    yield "clash of types", lambda: writer.write_log_rows([{**ROWS[0], "cores": "four"}])
    yield "a run", lambda: writer.write_execution_result(run_of(1))
    yield "runs", lambda: writer.write_execution_result_batch([run_of(2), run_of(3), "no run"])
    yield (
        "batches",
        lambda: writer.write_batches([ROWS[:2], pa.Table.from_pylist([{"phase": "gold", "step_name": "t"}])]),
    )
    yield "info", writer.get_table_info
    yield "summary", lambda: writer.generate_summary_report(days=7)
    yield "trends", lambda: writer.analyze_performance_trends(days=7)
    yield "anomalies", lambda: writer.detect_anomalies(ROWS[:3])
    yield "export", lambda: writer.export_analytics_data("json", None, {"phase": "bronze"}, path=folder / "x.json")
    yield "unknown filter", lambda: writer.export_analytics_data("json", None, {"nowhere": 1}, path=folder / "y.json")
    yield "optimize", lambda: writer.optimize_table(enable_partitioning=True, enable_compression=True)
    yield "maintain", lambda: writer.maintain_table({"analyze": True, "validate_schema": True, "checkpoint": True})
    yield "history", lambda: writer.get_table_history(3)
    yield "info after", writer.get_table_info


def settled(found, names=RANDOM | ENGINE | VERSIONS):
    """A result without what differs between any two runs: there it says only of what type it is."""
    if isinstance(found, dict):
        return {name: type(value).__name__ if name in names else settled(value, names) for name, value in found.items()}
    if isinstance(found, (list, tuple)):
        return [settled(value, names) for value in found]
    # Sums of doubles depend on the order of the rows, which nobody promises.
    return round(found, 9) if isinstance(found, float) else found


@pytest.fixture(scope="module")
def both(spark, tmp_path_factory):
    """Every call on both engines, once; and what the tables hold."""
    told = {}
    for engine, session in (("embedded", None), ("spark", spark)):
        folder = tmp_path_factory.mktemp(engine)
        options = {"warehouse": str(folder), "producer_id": "me", "retry_delay_secs": 0, "enable_optimization": False}
        with LogWriter(session, WriterConfig(**options)) as writer:
            told[engine] = {
                "folder": folder / "analytics" / "pipeline_logs",
                "exported": folder / "x.json",
                **{name: attempt(call) for name, call in calls(writer, folder)},
            }
    return told


NAMES = [name for name, _ in calls(LogWriter.__new__(LogWriter), Path())]


@pytest.mark.parametrize("name", NAMES)
def test_a_call_answers_the_same_on_both_engines(both, name):
    one, other = (settled(both[engine][name]) for engine in ("embedded", "spark"))
    if name in ("optimize", "maintain"):
        # Spark's files are a little smaller or larger.
        one, other = (_without_bytes(found) for found in (one, other))
    assert str(other).replace(str(both["spark"]["folder"]), "") == str(one).replace(str(both["embedded"]["folder"]), "")


def _without_bytes(found):
    if isinstance(found, dict):
        return {
            name: _without_bytes(value) for name, value in found.items() if "mb" not in name and "bytes" not in name
        }
    return found


def rows_of(folder):
    table = DeltaTable(str(folder))
    parts = [pq.ParquetFile(uri).read() for uri in table.file_uris()]
    whole = pa.concat_tables(parts, promote_options="default").drop_columns(["logged_at"])
    return sorted(whole.to_pylist(), key=str)


def test_the_rows_are_the_same_value_by_value_in_files_that_any_reader_reads(both):
    one, other = (rows_of(both[engine]["folder"]) for engine in ("embedded", "spark"))
    assert len(one) == len(other) == 23
    made = {"run_id"}  # rows without a run id get a new one
    for mine, theirs in zip(one, other, strict=True):
        assert {k: v for k, v in mine.items() if k not in made} == {k: v for k, v in theirs.items() if k not in made}


def test_exports_are_the_same(both):
    one, other = (json.loads(both[engine]["exported"].read_text()) for engine in ("embedded", "spark"))
    for rows in (one, other):
        for row in rows:
            row.pop("logged_at")
    assert sorted(map(str, one)) == sorted(map(str, other))


def test_a_table_is_written_by_one_engine_and_the_other_in_turn(open_writer):
    for sequence, engine in enumerate(("embedded", "spark", "embedded", "spark")):
        with open_writer(engine, producer_id="me") as writer:
            assert writer.committed_sequence == (sequence - 1 if sequence else None)
            if sequence:
                assert writer.write_log_rows(ROWS, sequence=sequence - 1)["already_written"]
            writer.write_log_rows(ROWS)
            assert writer.get_table_info()["row_count"] == (sequence + 1) * len(ROWS)


def test_other_content_under_a_number_of_the_other_engine_is_refused(open_writer):
    open_writer("embedded", producer_id="me").write_log_rows(ROWS)
    with pytest.raises(WriterError, match="other content"):
        open_writer("spark", producer_id="me").write_log_rows(ROWS[:3], sequence=0)
    open_writer("spark", producer_id="me").write_log_rows(ROWS[:3])
    with pytest.raises(WriterError, match="other content"):
        open_writer("embedded", producer_id="me").write_log_rows(ROWS, sequence=1)


def test_quarantined_rows_are_repaired_by_the_other_engine(open_writer):
    with open_writer("spark", schema_validation_mode="lenient") as writer:
        assert writer.write_log_rows([ROWS[0], {**ROWS[1], "phase": "copper"}])["quarantined_rows"] == 1
    with open_writer("embedded", schema_validation_mode="lenient") as writer:
        (found,) = writer.quarantined()
        assert found["row"]["metadata"] == ROWS[1]["metadata"]
    with open_writer("spark", schema_validation_mode="lenient") as writer:
        assert writer.replay_quarantine(lambda row, reasons: {**row, "phase": "gold"})["replayed"] == 1
        assert writer.replay_quarantine(lambda row, reasons: row)["already_replayed"] == 1
        assert writer.quarantined() == []
