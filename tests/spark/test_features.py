"""Tables that only Spark can write: the rows go through Spark's writer, and everything else is as ever."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import pytest
from deltalake import DeltaTable

from sfwriter import LogWriter, WriterConfig
from sfwriter.exceptions import WriterTableError, WriterValidationError

ROW = {
    "run_id": "r",
    "phase": "gold",
    "step_name": "a",
    "start_time": datetime(2024, 1, 2, 23, 30, tzinfo=timezone.utc),
}

FEATURES = {
    "column mapping": {"properties": "'delta.columnMapping.mode' = 'name'"},
    "row tracking": {"properties": "'delta.enableRowTracking' = 'true'"},
    "clustering": {"more": "CLUSTER BY (start_time)"},
    "identity column": {"columns": "n BIGINT GENERATED ALWAYS AS IDENTITY"},
    "generated column": {"columns": "day DATE GENERATED ALWAYS AS (CAST(start_time AS DATE))"},
    "generated partition": {
        "columns": "day DATE GENERATED ALWAYS AS (CAST(start_time AS DATE))",
        "more": "PARTITIONED BY (day)",
    },
    "deletion vectors": {"properties": "'delta.enableDeletionVectors' = 'true'"},
    "column default": {
        "columns": "site STRING DEFAULT 'here'",
        "properties": "'delta.feature.allowColumnDefaults' = 'supported'",
    },
}


# One for each thing that Spark's writer does; the others differ in the protocol alone.
@pytest.mark.parametrize(
    "feature", ["column mapping", "clustering", "identity column", "generated partition", "column default"]
)
def test_rows_go_through_sparks_writer_where_the_table_asks_for_it(feature, spark, made_by_spark, open_writer):
    address = made_by_spark(**FEATURES[feature])
    writer = open_writer(producer_id="p")
    info = writer.get_table_info()
    assert info["engine_road"] == "dataframe"
    assert "the table uses" in info["engine_road_reason"]
    rows = [ROW, {**ROW, "step_name": "b", "host": "h1"}]
    first, again = (writer.write_log_rows(rows, sequence=0) for _ in range(2))
    assert (first["rows_written"], again["already_written"]) == (2, True)
    assert writer.write_log_rows([{**ROW, "step_name": "c"}])["version"] == first["version"] + 1
    found = spark.sql(f"SELECT * FROM {address} ORDER BY step_name").collect()
    assert [(row.step_name, row.host) for row in found] == [("a", None), ("b", "h1"), ("c", None)]
    if "day" in FEATURES[feature].get("columns", ""):
        assert {str(row.day) for row in found} == {"2024-01-02"}
    if feature == "identity column":
        assert len({row.n for row in found}) == 3
    if feature == "column default":
        assert {row.site for row in found} == {"here"}
    assert (writer.get_table_info()["row_count"], writer.committed_sequence) == (3, 1)


def test_a_row_that_breaks_a_constraint_of_the_table_is_refused_and_nothing_of_it_lands(
    spark, made_by_spark, open_writer
):
    address = made_by_spark()
    spark.sql(f"ALTER TABLE {address} ADD CONSTRAINT short CHECK (duration_secs IS NULL OR duration_secs < 100)")
    writer = open_writer()
    assert writer.get_table_info()["engine_road"] == "dataframe"
    with pytest.raises(WriterValidationError, match="short"):
        writer.write_log_rows([{**ROW, "duration_secs": 5.0}, {**ROW, "duration_secs": 500.0}])
    assert writer.write_log_rows([{**ROW, "duration_secs": 5.0}])["rows_written"] == 1
    assert spark.sql(f"SELECT count(*) FROM {address}").collect()[0][0] == 1


def test_of_calls_that_share_a_commit_only_the_one_that_breaks_a_constraint_fails(spark, made_by_spark, open_writer):
    address = made_by_spark()
    spark.sql(f"ALTER TABLE {address} ADD CONSTRAINT short CHECK (duration_secs IS NULL OR duration_secs < 100)")
    writer = open_writer(linger_ms=200)
    futures = [
        writer.submit([{**ROW, "duration_secs": secs}], producer_id=f"p{number}", sequence=0)
        for number, secs in enumerate([1.0, 500.0, 2.0, 3.0])
    ]
    ended = [future.exception() for future in futures]
    assert [type(error) for error in ended] == [type(None), WriterValidationError, type(None), type(None)]
    assert spark.sql(f"SELECT count(*) FROM {address}").collect()[0][0] == 3


def test_a_constraint_that_comes_while_the_writer_is_open_is_kept_from_then_on(spark, made_by_spark, open_writer):
    address = made_by_spark()
    writer = open_writer()
    assert writer.get_table_info()["engine_road"] == "in_place"
    writer.write_log_rows([ROW])
    spark.sql(f"ALTER TABLE {address} ADD CONSTRAINT named CHECK (step_name <> 'bad')")
    with pytest.raises(WriterValidationError, match="named"):
        writer.write_log_rows([{**ROW, "step_name": "bad"}])
    assert writer.get_table_info()["engine_road"] == "dataframe"
    assert writer.write_log_rows([ROW])["success"]


def test_rows_that_were_deleted_behind_deletion_vectors_are_not_counted(spark, made_by_spark, open_writer):
    address = made_by_spark(**FEATURES["deletion vectors"])
    writer = open_writer()
    writer.write_log_rows([{**ROW, "step_name": name} for name in "abcd"])
    spark.sql(f"DELETE FROM {address} WHERE step_name = 'b'")
    assert writer.get_table_info()["row_count"] == 3
    assert writer.generate_summary_report(days=10_000)["total_executions"] == 3


def test_a_table_that_only_spark_can_write_is_overwritten_too(spark, made_by_spark, open_writer):
    address = made_by_spark(**FEATURES["clustering"])
    writer = open_writer(write_mode="overwrite")
    for name in "ab":
        writer.write_log_rows([{**ROW, "step_name": name}])
    assert [row.step_name for row in spark.sql(f"SELECT * FROM {address}").collect()] == ["b"]


def test_the_embedded_engine_says_that_it_needs_a_session(made_by_spark, config):
    made_by_spark(**FEATURES["clustering"])
    with LogWriter(config=config()) as writer, pytest.raises(WriterTableError, match="clustering") as caught:
        writer.write_log_rows([ROW])
    assert "SparkSession" in str(caught.value)
    assert isinstance(config(), WriterConfig)


@pytest.mark.parametrize("engine", ["embedded", "spark"])
def test_a_named_producer_outlives_a_checkpoint_that_spark_writes(spark, open_writer, engine):
    writer = open_writer(engine, producer_id="named")
    for _ in range(2):
        writer.write_log_rows([ROW])
    location = writer.get_table_info()["location"]
    assert "delta.setTransactionRetentionDuration" in DeltaTable(location).metadata().configuration

    jvm = spark._jvm.org.apache.spark.sql.delta.DeltaLog
    jvm.forTable(spark._jsparkSession, location).checkpoint()

    assert list(Path(location, "_delta_log").glob("*.checkpoint*"))
    assert writer.committed_sequence == 1
    assert open_writer("embedded", producer_id="named").committed_sequence == 1
    assert open_writer("spark", producer_id="named").write_log_rows([ROW])["batch_id"] == "named:2"
