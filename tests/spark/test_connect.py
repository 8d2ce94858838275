"""Spark Connect: no JVM beside the writer, so everything goes through Spark's own commands."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from sfwriter import LogWriter, WriterConfig
from sfwriter.exceptions import WriterError, WriterPerformanceError, WriterSchemaError, WriterTableError
from sfwriter.maintenance.takeover import take_over
from sfwriter.spark import examine
from sfwriter.storage.delta_spark import DeltaSparkEngine

ROW = {"run_id": "r", "phase": "gold", "step_name": "s", "metadata": {"a": "it's \\ 日本"}}
MOMENT = datetime(2024, 3, 10, 2, 30, 0, 123456, tzinfo=timezone.utc)

pytestmark = [pytest.mark.timeout(280), pytest.mark.filterwarnings("ignore::DeprecationWarning:google")]


def test_a_session_of_connect_will_do(remote):
    found = examine(remote)
    assert (found.ready, found.connect) == (True, True)


def test_rows_are_written_once_and_read_back(remote, tmp_path):
    config = WriterConfig(warehouse=str(tmp_path), producer_id="p", retry_delay_secs=0, enable_optimization=False)
    before = {name: remote.conf.get(name) for name in ("spark.sql.session.timeZone", "spark.sql.ansi.enabled")}
    with LogWriter(remote, config) as writer:
        first = writer.write_log_rows([{**ROW, "start_time": MOMENT}, {**ROW, "step_name": "t"}])
        assert (first["rows_written"], writer.committed_sequence) == (2, 0)
        info = writer.get_table_info()
        assert (info["engine"], info["engine_road"], info["row_count"]) == ("delta-spark", "dataframe", 2)
        assert "Connect" in info["engine_road_reason"]
        assert writer.write_log_rows([{**ROW, "start_time": MOMENT}, {**ROW, "step_name": "t"}], sequence=0)[
            "already_written"
        ]
        assert writer.write_log_rows([{**ROW, "host": "h"}])["rows_written"] == 1
        assert writer.write_log_rows([ROW], idempotency_key="k")["rows_written"] == 1
        assert writer.write_log_rows([ROW], idempotency_key="k")["already_written"] is True
        with pytest.raises(WriterSchemaError):
            writer.write_log_rows([{**ROW, "host": 5}])
        found = writer._log_table.scan(["step_name", "start_time", "metadata", "host"]).read_all().to_pylist()
        assert {row["start_time"] for row in found} == {MOMENT, None}
        assert {row["host"] for row in found} == {None, "h"}
        assert writer.generate_summary_report(days=10_000)["total_executions"] == 4
        optimized = writer.optimize_table(enable_partitioning=True)
        assert optimized["optimized"] is True
        assert writer.get_table_history(1)["versions"][0]["operation"] == "OPTIMIZE"
    with LogWriter(remote, config) as again:
        assert again.committed_sequence == 1
        assert again.write_log_rows([ROW])["batch_id"] == "p:2"
    with LogWriter(config=config) as embedded:
        assert (embedded.get_table_info()["row_count"], embedded.committed_sequence) == (5, 2)
    assert {name: remote.conf.get(name) for name in before} == before


def test_two_writers_with_one_producer_do_not_write_the_same_number(remote, tmp_path):
    config = WriterConfig(warehouse=str(tmp_path), producer_id="p", retry_delay_secs=0, enable_optimization=False)
    with LogWriter(remote, config) as one, LogWriter(remote, config) as other:
        one.write_log_rows([ROW])
        with pytest.raises(WriterError):
            other.write_log_rows([{**ROW, "step_name": "x"}], sequence=0)
        assert other.get_table_info()["row_count"] == 1


def test_tables_of_the_catalog_are_made_and_overwritten(remote):
    config = WriterConfig(table_schema="far", table_name="runs", write_mode="overwrite", enable_optimization=False)
    try:
        with LogWriter(remote, config) as writer:
            for name in "ab":
                writer.write_log_rows([{**ROW, "step_name": name}])
            assert [row.step_name for row in remote.table("far.runs").collect()] == ["b"]
            remote.sql("DROP TABLE far.runs")
            with pytest.raises(WriterTableError):
                writer.write_log_rows([ROW])
    finally:
        remote.sql("DROP DATABASE IF EXISTS far CASCADE")


def test_frames_pass_the_gate_on_the_server_and_come_through_the_driver_in_bounds(remote, tmp_path, monkeypatch):
    config = WriterConfig(
        warehouse=str(tmp_path), producer_id="p", schema_validation_mode="lenient", enable_optimization=False
    )
    from pyspark.sql.connect import functions as F  # noqa: N812  its usual name

    text = "SELECT 'gold' AS phase, concat('s', id) AS step_name, id AS rows_written FROM range(0, 50, 1, 3)"
    with LogWriter(remote, config) as writer:
        first = writer.write_log_rows(remote.sql(text), sequence=0)
        again = writer.write_log_rows(remote.sql(text), sequence=0)
        aside = writer.write_log_rows(remote.sql(text.replace("id AS rows", "id - 1 AS rows")))
        quality = writer.validate_log_data_quality(remote.sql(text), {"rows_written": [F.col("rows_written") < 10]})
        monkeypatch.setattr(writer._frames, "_max_bytes", 500)
        with pytest.raises(WriterPerformanceError):
            writer.write_log_rows(remote.sql(text))
        rows = writer._log_table.scan(["rows_written"]).read_all()["rows_written"].to_pylist()

    assert (first["rows_written"], again["already_written"], quality["valid_rows"]) == (50, True, 10)
    assert (aside["rows_written"], aside["quarantined_rows"]) == (49, 1)
    assert sorted(rows) == sorted([*range(50), *range(49)])


def test_a_table_of_sparks_own_making_is_taken_over(remote, tmp_path):
    config = WriterConfig(warehouse=str(tmp_path), enable_optimization=False)
    location = f"{tmp_path}/analytics/pipeline_logs"
    remote.sql("SELECT 'gold' AS phase, 's' AS step_name, 1 AS rows_written").write.format("delta").save(location)

    looked = take_over(config, DeltaSparkEngine(remote), dry_run=True)
    done = take_over(config, DeltaSparkEngine(remote))

    assert (looked["changed"], done["changed"], done["version"]) == (False, True, 1)
    assert looked["columns_added"] == done["columns_added"]
    assert done["narrower_columns"] == {"rows_written": "int32"}
    with LogWriter(remote, config) as writer:
        assert writer.write_log_rows([ROW])["rows_written"] == 1
        assert writer.get_table_info()["row_count"] == 2
