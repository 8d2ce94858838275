"""Spark DataFrames as rows: staged on the executors, committed as one batch."""

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pyarrow as pa
import pytest

from sfwriter import LogWriter, WriterConfig
from sfwriter.exceptions import (
    WriterDataQualityError,
    WriterError,
    WriterPerformanceError,
    WriterSchemaError,
    WriterValidationError,
)
from sfwriter.storage.delta_spark import DeltaSparkEngine

pytestmark = pytest.mark.spark

NOON = datetime(2024, 1, 31, 12, tzinfo=timezone.utc)
SCHEMA = (
    "run_id string, phase string, step_name string, pipeline_id string, start_time timestamp, duration_secs double,"
    " rows_written int, validation_rate float, success boolean, metadata string"
)
COLUMNS = [part.split()[0] for part in SCHEMA.split(",")]


def config(folder, **options):
    return WriterConfig(table_schema="analytics", table_name="logs", warehouse=str(folder), **options)


@pytest.fixture
def writer(tmp_path):
    """Writers of one test, all closed."""
    made = []

    def make(**options):
        made.append(LogWriter(config=config(tmp_path, **options)))
        return made[-1]

    yield make
    for one in made:
        one.close()


def row(number, **more):
    return {
        "run_id": f"r{number // 7}", "phase": "silver", "step_name": f"s{number % 7}", "pipeline_id": "p",
        "start_time": NOON + timedelta(seconds=number), "duration_secs": number / 4, "rows_written": number,
        "validation_rate": 97.5, "success": True, "metadata": f'{{"n":{number}}}', **more,
    }  # fmt: skip


def frame_of(spark, rows, schema=SCHEMA, parts=2):
    names = [part.split()[0] for part in schema.split(",")]
    return spark.createDataFrame([tuple(one.get(name) for name in names) for one in rows], schema).repartition(parts)


def kept(writer):
    found = writer._log_table.scan(COLUMNS).read_all().to_pylist()
    return sorted(found, key=lambda one: (one["rows_written"] is None, one["rows_written"]))


def data_files(folder):
    return {str(path) for path in Path(folder, "analytics/logs").glob("*.parquet")}


def test_a_frame_is_one_batch_with_the_rows_that_the_same_dicts_would_give(spark, writer, tmp_path):
    rows = [row(number) for number in range(50)]

    result = writer(producer_id="p").write_log_rows(frame_of(spark, rows))
    LogWriter(config=config(tmp_path / "other")).write_log_rows(rows)
    other = LogWriter(config=config(tmp_path / "other"))

    assert (result["rows_written"], result["batch_id"], result["quarantined_rows"]) == (50, "p:0", 0)
    assert result["version"] == 1
    assert kept(writer()) == kept(other)
    assert writer().get_table_info()["row_count"] == 50


def test_numbers_and_keys_hold_for_frames_however_they_are_divided(spark, writer):
    rows = [row(number) for number in range(20)]
    log = writer(producer_id="p")

    first = log.write_log_rows(frame_of(spark, rows, parts=2), sequence=0)
    again = log.write_log_rows(frame_of(spark, rows[::-1], parts=3), sequence=0)
    by_key = [log.write_log_rows(frame_of(spark, rows), idempotency_key="k")["already_written"] for _ in range(2)]
    with pytest.raises(WriterError, match="other content"):
        log.write_log_rows(frame_of(spark, rows[1:]), sequence=0)

    assert (first["rows_written"], again["rows_written"], again["already_written"]) == (20, 0, True)
    assert by_key == [False, True]
    assert len(kept(log)) == 40


def test_files_of_a_frame_that_was_there_already_or_was_refused_are_deleted(spark, writer, tmp_path):
    log = writer(producer_id="p")
    log.write_log_rows(frame_of(spark, [row(1)]), sequence=0)
    log.flush()
    before = data_files(tmp_path)

    log.write_log_rows(frame_of(spark, [row(1)]), sequence=0)
    with pytest.raises(WriterValidationError):
        log.write_log_rows(frame_of(spark, [row(n) for n in range(9)] + [row(9, phase="iron")], parts=3))
    log.close()

    assert data_files(tmp_path) == before


def test_a_wrong_row_refuses_the_whole_frame_and_every_wrong_row_is_told(spark, writer):
    rows = [row(n) for n in range(30)] + [row(30, phase="iron"), row(31, duration_secs=-1.0)]
    log = writer()

    with pytest.raises(WriterValidationError) as refused:
        log.write_log_rows(frame_of(spark, rows, parts=3))

    assert len(refused.value.validation_errors) == 2
    assert {"row", "reasons", "partition"} <= set(refused.value.validation_errors[0])
    assert refused.value.context["bad_rows"] == 2
    assert log.get_table_info()["row_count"] == 0


def test_in_lenient_wrong_rows_go_to_quarantine_with_the_number_of_their_batch(spark, writer):
    log = writer(schema_validation_mode="lenient", producer_id="p")
    rows = [row(n) for n in range(8)] + [row(8, phase="iron"), row(9, step_name=None)]

    result = log.write_log_rows(frame_of(spark, rows, parts=3))

    aside = log._quarantine_table.scan().read_all().to_pylist()
    assert (result["rows_written"], result["quarantined_rows"]) == (8, 2)
    assert {entry["batch_id"] for entry in aside} == {"p:0"}
    assert any("iron" in entry["row"] for entry in aside)
    assert len(kept(log)) == 8


def test_a_frame_without_rows_writes_nothing(spark, writer, tmp_path):
    log = writer()

    result = log.write_log_rows(frame_of(spark, []))
    exists = log.get_table_info()["exists"]
    log.write_log_rows(frame_of(spark, [row(1)]))
    again = log.write_log_rows(frame_of(spark, [row(1)]).filter("rows_written > 1"))

    assert (result["rows_written"], result["batch_id"], exists) == (0, None, False)
    assert (again["rows_written"], again["batch_id"]) == (0, None)
    assert log.get_table_info()["version"] == 1


def test_new_columns_of_a_frame_become_columns_and_nested_values_json(spark, writer):
    frame = spark.sql(
        "SELECT 'gold' AS phase, 'a' AS step_name, 3 AS attempt, array(1, 2) AS sizes, named_struct('a', 1) AS what,"
        " void AS nothing FROM (SELECT NULL AS void)"
    )
    log = writer()

    result = log.write_log_rows(frame, run_id="call")

    [found] = log._log_table.scan(["run_id", "attempt", "sizes", "what"]).read_all().to_pylist()
    assert found == {"run_id": "call", "attempt": 3, "sizes": "[1,2]", "what": '{"a":1}'}
    assert result["run_id"] == "call"
    assert "nothing" not in log.get_table_info()["columns"]


def test_rows_without_a_run_id_share_one_in_the_whole_frame(spark, writer):
    log = writer()

    result = log.write_log_rows(frame_of(spark, [row(n, run_id=None) for n in range(20)], parts=4))

    assert {entry["run_id"] for entry in kept(log)} == {result["run_id"]}


WRONG = {
    "two columns of one name": (lambda spark: spark.sql("SELECT 'gold' phase, 'a' step_name, 1 x, 2 x"), "'x'"),
    "two that differ in case": (lambda spark: spark.sql("SELECT 'gold' phase, 'a' step_name, 1 Phase"), "'Phase'"),
    "a nested value for a text": (lambda spark: spark.sql("SELECT array('gold') phase, 'a' step_name"), "phase"),
    "a text for a count": (lambda spark: spark.sql("SELECT 'gold' phase, 'a' step_name, 'x' rows_written"), "rows_w"),
    "an interval": (
        lambda spark: spark.sql("SELECT 'gold' phase, 'a' step_name, make_interval(1) AS took"), "'took'.*interval"
    ),
    "very many columns": (
        lambda spark: spark.range(1).selectExpr(*[f"id AS c{n}" for n in range(2_001)]), "2,001 columns"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("make", "said"), WRONG.values(), ids=WRONG)
def test_a_frame_whose_columns_do_not_fit_is_refused_by_its_column(spark, writer, make, said):
    with pytest.raises(WriterSchemaError, match=said):
        writer().write_log_rows(make(spark))


def test_a_stream_and_a_frame_that_fails_are_refused_with_what_to_do(spark, writer):
    log = writer()

    with pytest.raises(WriterValidationError, match="streaming") as stream:
        log.write_log_rows(spark.readStream.format("rate").load())
    with pytest.raises(WriterError, match="nothing was written"):
        log.write_log_rows(spark.sql("SELECT 'gold' phase, 'a' step_name, 1 / id AS x FROM range(1)"))

    assert "foreachBatch" in stream.value.suggestions[0]


def test_frames_are_batches_of_write_batches_and_a_frame_alone_is_one(spark, writer):
    log = writer(producer_id="p")

    several = log.write_batches([frame_of(spark, [row(1), row(2)]), [row(3)], frame_of(spark, [row(4)])])
    alone = log.write_batches(frame_of(spark, [row(5), row(6)]))

    assert (several["batches"], several["rows_written"]) == (3, 4)
    assert (alone["batches"], alone["rows_written"]) == (1, 2)
    assert [entry["rows_written"] for entry in kept(log)] == [1, 2, 3, 4, 5, 6]
    assert log.committed_sequence == 3


def test_overwrite_replaces_the_rows_by_those_of_the_frame(spark, writer):
    writer().write_log_rows([row(1), row(2)])

    writer(write_mode="overwrite").write_log_rows(frame_of(spark, [row(3), row(4)]))

    assert [entry["rows_written"] for entry in kept(writer())] == [3, 4]


def test_a_partitioned_table_takes_frames(spark, writer, tmp_path):
    log = writer(partition_columns=["phase"])

    log.write_log_rows(frame_of(spark, [row(1), row(2, phase="gold")]))

    assert sorted(path.name for path in Path(tmp_path, "analytics/logs").glob("phase=*")) == [
        "phase=gold", "phase=silver",
    ]  # fmt: skip
    assert len(kept(log)) == 2


def test_rules_and_quality_are_those_of_the_same_rows_given_as_dicts(spark, writer):
    rows = [row(n) for n in range(20)] + [row(20, rows_written=99, duration_secs=0.0)]
    rules = {"rows_written": ["rows_written < 50"], "duration_secs": ["duration_secs >= 0.5"]}
    log = writer(validation_rules=rules, log_data_quality_results=True, schema_validation_mode="lenient")

    as_frame = log.validate_log_data_quality(frame_of(spark, rows, parts=3))
    as_dicts = log.validate_log_data_quality(rows)
    given = log.validate_log_data_quality(frame_of(spark, rows), {"phase": ["phase = 'gold'"]})
    written = log.write_log_rows(frame_of(spark, rows))

    counts = (
        "quality_passed",
        "validation_rate",
        "total_rows",
        "valid_rows",
        "invalid_rows",
        "validation_rules_applied",
    )
    assert [as_frame[key] for key in counts] == [as_dicts[key] for key in counts]
    assert {(i["rule"], i["failed_rows"]) for i in as_frame["issues"]} == {
        (i["rule"], i["failed_rows"]) for i in as_dicts["issues"]
    }
    assert (given["valid_rows"], given["validation_rules_applied"]) == (0, ["phase = 'gold'"])
    assert written["quality_results"]["invalid_rows"] == written["quarantined_rows"] == 3
    with pytest.raises(WriterValidationError, match="no_such"):
        log.validate_log_data_quality(frame_of(spark, rows), {"phase": ["no_such > 1"]})


def test_fail_fast_refuses_a_frame_of_poor_quality_and_leaves_no_file(spark, writer, tmp_path):
    log = writer(validation_rules={"rows_written": ["rows_written < 1"]}, fail_fast=True)

    with pytest.raises(WriterDataQualityError):
        log.write_log_rows(frame_of(spark, [row(n) for n in range(5)]))

    assert data_files(tmp_path) == set()


def test_anomalies_are_looked_for_in_frames(spark, writer, monkeypatch):
    log = writer(enable_anomaly_detection=True)
    usual = [row(n, step_name="s", duration_secs=10.0 + n % 3, run_id=f"u{n}") for n in range(30)]
    log.write_log_rows(usual)
    slow = [row(40, step_name="s", duration_secs=900.0, run_id="slow")]

    found = log.detect_anomalies(frame_of(spark, slow))
    written = log.write_log_rows(frame_of(spark, slow))

    assert {one["type"] for one in found["anomalies"]} == {
        one["type"] for one in log.detect_anomalies(slow)["anomalies"]
    }
    assert found["anomalies_detected"]
    assert written["anomalies"]["anomalies_detected"]
    monkeypatch.setattr("sfwriter.frames.MOST_WATCHED", 3)
    with pytest.raises(WriterPerformanceError, match="more than 3 rows"):
        log.detect_anomalies(frame_of(spark, usual))
    assert log.write_log_rows(frame_of(spark, usual))["anomalies"] is None


def test_the_session_is_left_as_it_was(spark, writer):
    before = dict(spark.sparkContext.getConf().getAll()), spark.conf.get("spark.sql.session.timeZone")
    views = spark.catalog.listTables()

    writer().write_log_rows(frame_of(spark, [row(1)]))

    assert (dict(spark.sparkContext.getConf().getAll()), spark.conf.get("spark.sql.session.timeZone")) == before
    assert spark.catalog.listTables() == views


def test_a_frame_for_a_table_by_name_is_refused_with_what_to_do(spark, writer):
    with pytest.raises(WriterValidationError, match="table_name_pattern"):
        writer(table_name_pattern="{schema}.{pipeline_id}").write_log_rows(frame_of(spark, [row(1)]))


def test_files_that_somebody_deletes_before_the_commit_are_an_error_and_no_row_is_lost_silently(
    spark, writer, tmp_path
):
    log = writer(producer_id="p", max_retries=1, retry_delay_secs=0.01)
    log.write_log_rows([row(0)])
    gated = log._encode(frame_of(spark, [row(1)]), None)
    for path in data_files(tmp_path):
        if any(path.endswith(file.path) for file in gated.staged.files):
            Path(path).unlink()

    with pytest.raises(WriterError, match="gone"):
        log._write(lambda: gated, None, None)

    assert len(kept(log)) == 1
    assert log.write_log_rows([row(2)])["rows_written"] == 1


def test_the_spark_engine_takes_frames_also_where_it_has_to_write_the_rows_itself(spark, tmp_path):
    given = config(tmp_path, producer_id="p", partition_columns=["phase"])
    with LogWriter.start(given, engine=DeltaSparkEngine(spark)) as log:
        log.write_log_rows(frame_of(spark, [row(1), row(2, phase="gold")]))
        path = log.get_table_info()["location"]
        spark.sql(f"ALTER TABLE delta.`{path}` ADD CONSTRAINT few CHECK (rows_written < 10)")
        result = log.write_log_rows(frame_of(spark, [row(3), row(4)]))
        with pytest.raises(WriterValidationError):
            log.write_log_rows(frame_of(spark, [row(5), row(50)]))
        found = log._log_table.scan(["rows_written"]).read_all()["rows_written"].to_pylist()

    assert result["batch_id"] == "p:1"
    assert sorted(found) == [1, 2, 3, 4]


def test_a_million_cells_come_in_few_files(spark, writer, tmp_path):
    frame = spark.range(300_000, numPartitions=2).selectExpr(
        "'silver' AS phase", "concat('s', id % 7) AS step_name", "id AS rows_written", "'r' AS run_id"
    )
    log = writer()

    result = log.write_log_rows(frame)

    info = log.get_table_info()
    assert (result["rows_written"], info["row_count"]) == (300_000, 300_000)
    assert info["num_files"] == 2
    total = pa.compute.sum(log._log_table.scan(["rows_written"]).read_all()["rows_written"]).as_py()
    assert total == 300_000 * 299_999 // 2
