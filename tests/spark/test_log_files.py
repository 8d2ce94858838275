"""What commits through the JVM leave in the log, and what Delta then knows of it."""

from __future__ import annotations

from pathlib import Path

from sfwriter.storage import checkpoints

ROW = {"run_id": "r", "phase": "gold", "step_name": "s"}


def log_of(writer):
    return Path(writer.get_table_info()["location"]) / "_delta_log"


def snapshot_of(spark, writer):
    """What Delta knows of the table without looking."""
    location = writer.get_table_info()["location"]
    return spark._jvm.org.apache.spark.sql.delta.DeltaLog.forTable(
        spark._jsparkSession, location
    ).unsafeVolatileSnapshot()


def test_entries_have_deltas_checksum_and_none_of_hadoops(spark, open_writer):
    writer = open_writer()
    for _ in range(3):
        version = writer.write_log_rows([ROW])["version"]
    log = log_of(writer)
    assert (log / f"{version:020}.crc").is_file()
    assert not list(log.glob(".*.json.crc"))


def test_what_delta_knows_begins_at_the_newest_checkpoint(spark, open_writer, monkeypatch):
    monkeypatch.setattr(checkpoints, "VERSIONS_PER_CHECKPOINT", 20)
    writer = open_writer()
    for _ in range(60):
        version = writer.write_log_rows([ROW])["version"]
    known = snapshot_of(spark, writer)
    assert known.version() == version
    assert known.logSegment().deltas().size() < 40  # a checkpoint is written beside the commits
    assert known.checksumOpt().isDefined()


def test_entries_of_others_are_taken_in_before_a_commit(spark, open_writer):
    mine, theirs = open_writer(), open_writer("embedded")
    for _ in range(3):
        mine.write_log_rows([ROW])
        version = theirs.write_log_rows([ROW])["version"]
        assert mine.write_log_rows([ROW])["version"] == version + 1
    assert snapshot_of(spark, mine).version() == version + 1
    assert mine.get_table_info()["row_count"] == 9
