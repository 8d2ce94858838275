"""The library is a guest in the caller's session: it leaves no trace, and the session does not change results."""

from __future__ import annotations

import threading
from datetime import datetime, timezone

import pytest

from sfwriter import LogWriter, WriterConfig
from sfwriter.exceptions import WriterTableError

ROW = {"run_id": "r", "phase": "gold", "step_name": "s"}
MOMENT = datetime(2024, 3, 10, 2, 30, 0, 123456, tzinfo=timezone.utc)


def state(spark):
    """Everything of a session that a guest could change."""
    context = spark.sparkContext
    return {
        "conf": {row.key: row.value for row in spark.sql("SET").collect()},
        "views": [table.tableName for table in spark.sql("SHOW TABLES").collect() if table.isTemporary],
        "database": spark.catalog.currentDatabase(),
        "streams": len(spark.streams.active),
        "description": context.getLocalProperty("spark.job.description"),
        "group": context.getLocalProperty("spark.jobGroup.id"),
        "active": spark.getActiveSession() is spark,
        "jvm": spark._jvm.org.apache.spark.sql.SparkSession.getActiveSession().get().equals(spark._jsparkSession),
        "default": spark._jvm.org.apache.spark.sql.SparkSession.getDefaultSession().get().equals(spark._jsparkSession),
    }


def everything(writer):
    """Calls that use Spark in every way there is."""
    writer.write_log_rows([{**ROW, "start_time": MOMENT}, {**ROW, "start_time": MOMENT.replace(tzinfo=None), "new": 1}])
    writer.generate_summary_report(days=10_000)
    writer.optimize_table()
    writer.maintain_table({"vacuum": True, "checkpoint": True})


def test_a_session_is_left_as_it_was(spark, open_writer):
    spark.range(1).createOrReplaceTempView("mine")
    spark.sparkContext.setJobDescription("the caller's")
    try:
        before = state(spark)
        writer = open_writer()
        everything(writer)
        assert state(spark) == before
        writer.close()
        assert spark.sql("SELECT count(*) FROM mine").collect()[0][0] == 1
    finally:
        spark.sparkContext.setJobDescription(None)
        spark.catalog.dropTempView("mine")


def test_the_zone_of_the_session_changes_no_moment(spark, open_writer):
    assert spark.conf.get("spark.sql.session.timeZone") != "UTC"
    writer = open_writer()
    writer.write_log_rows([{**ROW, "start_time": MOMENT, "run_started_at": MOMENT.replace(tzinfo=None)}])
    found = writer._log_table.scan(["start_time", "run_started_at"]).read_all().to_pylist()
    assert found == [{"start_time": MOMENT, "run_started_at": MOMENT}]
    assert open_writer("embedded")._log_table.scan(["start_time"]).read_all().to_pylist() == [{"start_time": MOMENT}]


def test_writers_and_threads_of_one_session_lose_and_double_nothing(spark, config):
    writers = [LogWriter(spark, config(producer_id=f"p{number}")) for number in range(2)]

    def work(writer, name):
        for number in range(5):
            writer.write_log_rows([{**ROW, "step_name": f"{name}-{number}"}])

    threads = [
        threading.Thread(target=work, args=(writer, f"{place}-{thread}"))
        for place, writer in enumerate(writers)
        for thread in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = writers[0]._log_table.scan(["step_name"]).read_all().column(0).to_pylist()
    assert (len(rows), len(set(rows))) == (30, 30)
    for writer in writers:
        assert writer.committed_sequence == 14
        writer.close()


def test_commits_of_sparks_own_writer_in_between_lose_and_double_nothing(spark, open_writer):
    writer = open_writer()
    writer.write_log_rows([ROW])
    location = writer.get_table_info()["location"]
    stop = threading.Event()
    theirs = []

    def rival():
        while not stop.is_set() and len(theirs) < 6:
            frame = spark.sql("SELECT 'them' AS run_id, 'gold' AS phase, 's' AS step_name")
            frame.write.format("delta").mode("append").save(location)
            theirs.append(1)

    thread = threading.Thread(target=rival)
    thread.start()
    try:
        for number in range(6):
            writer.write_log_rows([{**ROW, "step_name": f"mine-{number}"}])
    finally:
        stop.set()
        thread.join()
    found = writer._log_table.scan(["run_id", "step_name"]).read_all().to_pylist()
    mine = [row["step_name"] for row in found if row["run_id"] == "r" and row["step_name"] != "s"]
    assert sorted(mine) == sorted(f"mine-{number}" for number in range(6))
    assert len([row for row in found if row["run_id"] == "them"]) == len(theirs) > 0


def test_streams_into_the_table_and_out_of_it_lose_and_double_nothing(spark, open_writer, tmp_path):
    writer = open_writer()
    writer.write_log_rows([ROW])
    location = writer.get_table_info()["location"]
    source = tmp_path / "source"
    theirs = spark.range(6).selectExpr("concat('theirs-', id) AS step_name", "'them' AS run_id", "'gold' AS phase")
    theirs.repartition(6).write.json(str(source))
    into = (
        spark.readStream.schema(theirs.schema).option("maxFilesPerTrigger", 1).json(str(source))
        .writeStream.format("delta").option("checkpointLocation", str(tmp_path / "into")).start(location)
    )  # fmt: skip
    out = (
        spark.readStream.format("delta").load(location).select("step_name")
        .writeStream.format("parquet").option("checkpointLocation", str(tmp_path / "out"))
        .option("path", str(tmp_path / "seen")).start()
    )  # fmt: skip
    try:
        for number in range(10):
            writer.write_log_rows([{**ROW, "step_name": f"mine-{number}"}])
        into.processAllAvailable()
        out.processAllAvailable()
    finally:
        into.stop()
        out.stop()
    wanted = sorted(["s", *(f"mine-{number}" for number in range(10)), *(f"theirs-{number}" for number in range(6))])
    assert sorted(writer._log_table.scan(["step_name"]).read_all().column(0).to_pylist()) == wanted
    assert sorted(row.step_name for row in spark.read.parquet(str(tmp_path / "seen")).collect()) == wanted


# ---------------------------------------------------------------- names of the catalog


@pytest.fixture
def schema(spark):
    """A schema of the test's own, which is not there yet."""
    name = "guest_tests"
    yield name
    spark.sql(f"DROP DATABASE IF EXISTS `{name}` CASCADE")


def test_without_a_warehouse_tables_are_the_catalogs_and_made_where_they_are_missing(spark, schema):
    config = WriterConfig(table_schema=schema, table_name="runs", partition_columns=["phase"])
    with LogWriter(spark, config) as writer:
        before = writer.get_table_info()
        assert before["exists"] is False
        writer.write_log_rows([ROW, {**ROW, "phase": "bronze", "host": "h"}])
        info = writer.get_table_info()
        assert info["location"] == before["location"]
        assert (info["row_count"], info["partition_columns"], info["engine"]) == (2, ["phase"], "delta-spark")
    assert {row.phase: row.host for row in spark.table(f"`{schema}`.runs").collect()} == {"gold": None, "bronze": "h"}
    with LogWriter(spark, config.replace(schema_validation_mode="lenient")) as writer:
        writer.write_log_rows([{**ROW, "phase": "copper"}])
        assert writer.get_table_info()["row_count"] == 2
    assert spark.table(f"`{schema}`.runs_quarantine").count() == 1


def test_a_view_and_a_table_of_another_format_are_named_as_what_they_are(spark, schema):
    spark.sql(f"CREATE DATABASE `{schema}`")
    spark.sql(f"CREATE TABLE `{schema}`.plain (phase STRING) USING parquet")
    spark.sql(f"CREATE VIEW `{schema}`.seen AS SELECT 1 AS one")
    for name, what in (("seen", "is a view"), ("plain", "is a table of format parquet")):
        with pytest.raises(WriterTableError, match=what):
            LogWriter(spark, WriterConfig(table_schema=schema, table_name=name))


def test_a_table_that_was_dropped_is_an_error_and_not_made_anew(spark, schema):
    with LogWriter(spark, WriterConfig(table_schema=schema, table_name="runs")) as writer:
        writer.write_log_rows([ROW])
        spark.sql(f"DROP TABLE `{schema}`.runs")
        with pytest.raises(WriterTableError, match="gone"):
            writer.write_log_rows([ROW])
    assert not spark.catalog.tableExists(f"`{schema}`.runs")
