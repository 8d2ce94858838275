"""What commits through the JVM leave in the log, and what Delta then knows of it."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from sfwriter.storage import checkpoints, spark_commit
from sfwriter.storage.delta_log import LogDisk

ROW = {"run_id": "r", "phase": "gold", "step_name": "s"}


def log_of(writer):
    return Path(writer.get_table_info()["location"]) / "_delta_log"


def delta_log_of(spark, writer):
    """Delta's own object for the table, which all sessions of the JVM share."""
    location = writer.get_table_info()["location"]
    return spark._jvm.org.apache.spark.sql.delta.DeltaLog.forTable(spark._jsparkSession, location)


def engine_of(writer, version):
    """Who says that it made an entry."""
    lines = (log_of(writer) / f"{version:020}.json").read_text().splitlines()
    return next(json.loads(line)["commitInfo"]["engineInfo"] for line in lines if "commitInfo" in line)


class Held:
    """Delta's lock on a table, held by another thread of the JVM until it is let go."""

    def __init__(self, spark, log):
        java = spark._jvm.java
        named, invoke = java.lang.Class.forName, java.lang.invoke
        self._latch = java.util.concurrent.CountDownLatch(1)
        kind = invoke.MethodType.fromMethodDescriptorString("()V", None)
        wait = invoke.MethodHandles.publicLookup().findVirtual(self._latch.getClass(), "await", kind)
        task = invoke.MethodHandleProxies.asInterfaceInstance(named("scala.Function0"), wait.bindTo(self._latch))
        self._thread = threading.Thread(target=log.withSnapshotLockInterruptibly, args=(task,))

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._latch.countDown()
        self._thread.join()


def test_an_append_is_an_entry_of_our_own_and_hadoop_leaves_nothing_beside_it(spark, open_writer):
    writer = open_writer()
    for _ in range(3):
        version = writer.write_log_rows([ROW])["version"]
    assert engine_of(writer, version) == "sfwriter"
    assert not [path for path in log_of(writer).iterdir() if path.name.endswith((".json.crc", ".tmp"))]
    (last,) = spark.sql(f"DESCRIBE HISTORY delta.`{log_of(writer).parent}` LIMIT 1").collect()
    assert (last.version, last.operation, last.isBlindAppend) == (version, "WRITE", True)


def test_the_checksum_beside_an_entry_of_our_own_says_what_delta_counts(spark, open_writer):
    writer = open_writer()
    writer.write_log_rows([ROW])
    writer.write_log_rows([ROW])
    _, version = writer.write_batches([[ROW]] * 3)["versions"]
    told = json.loads((log_of(writer) / f"{version:020}.crc").read_bytes())
    (detail,) = spark.sql(f"DESCRIBE DETAIL delta.`{log_of(writer).parent}`").collect()
    assert (told["numFiles"], told["tableSizeBytes"]) == (detail.numFiles, detail.sizeInBytes)
    log = delta_log_of(spark, writer)
    log.update(False, spark._jvm.scala.Option.empty(), spark._jvm.scala.Option.empty())
    known = log.unsafeVolatileSnapshot()
    assert (known.version(), known.checksumOpt().isDefined()) == (version, True)
    assert known.metadata().id() == told["metadata"]["id"]


def test_an_append_waits_for_the_lock_under_which_delta_makes_entries(spark, open_writer):
    writer = open_writer()
    before = writer.write_log_rows([ROW])["version"]
    landed = threading.Event()

    def write():
        writer.write_log_rows([ROW])
        landed.set()

    thread = threading.Thread(target=write)
    with Held(spark, delta_log_of(spark, writer)):
        thread.start()
        assert not landed.wait(1.5)
        assert not (log_of(writer) / f"{before + 1:020}.json").exists()
    thread.join()
    assert landed.is_set()
    assert (log_of(writer) / f"{before + 1:020}.json").exists()


def test_a_version_that_delta_took_meanwhile_is_not_overwritten(spark, open_writer):
    writer = open_writer()
    before = writer.write_log_rows([ROW])["version"]
    log = delta_log_of(spark, writer)
    thread = threading.Thread(target=writer.write_log_rows, args=([ROW],))
    with Held(spark, log):
        thread.start()
        while not list(log_of(writer).glob(".*.json.tmp")):
            pass  # until the entry waits for its name
        theirs = log_of(writer) / f"{before + 1:020}.json"
        theirs.write_bytes((log_of(writer) / f"{before:020}.json").read_bytes())
        kept = theirs.read_bytes()
    thread.join()
    assert theirs.read_bytes() == kept
    assert engine_of(writer, before + 2) == "sfwriter"


def test_what_is_more_than_an_append_is_deltas_own_transaction(spark, open_writer):
    writer = open_writer()
    writer.write_log_rows([ROW])
    version = writer.write_log_rows([{**ROW, "host": "h1"}])["version"]
    assert "Spark" in engine_of(writer, version)
    assert engine_of(writer, writer.write_log_rows([{**ROW, "host": "h2"}])["version"]) == "sfwriter"
    spark.sql(
        f"ALTER TABLE delta.`{log_of(writer).parent}`"
        " SET TBLPROPERTIES ('delta.compatibility.symlinkFormatManifest.enabled' = 'true')"
    )
    version = writer.write_log_rows([{**ROW, "host": "h3"}])["version"]
    assert "Spark" in engine_of(writer, version)
    assert list((log_of(writer).parent / "_symlink_format_manifest").iterdir())
    assert writer.get_table_info()["row_count"] == 4


@pytest.mark.parametrize(
    "why", ["the session commits without the lock", "no hard links", "another Delta", "a JVM that forbids it"]
)
def test_without_the_lock_every_commit_is_deltas_own(why, spark, open_writer, monkeypatch):
    if why == "no hard links":
        monkeypatch.setattr(LogDisk, "has_links", lambda disk: False)
    elif why == "a JVM that forbids it":
        monkeypatch.setattr("sfwriter.storage.delta_lock._CREATE_LINK", "none")
    elif why == "another Delta":
        monkeypatch.setattr("sfwriter.storage.delta_lock._UNDER_LOCK", "notThere")
    else:
        spark.conf.set("spark.databricks.delta.commitLock.enabled", "false")
    try:
        writer = open_writer(producer_id="p")
        writer.write_log_rows([ROW])
        first = writer.write_log_rows([ROW], sequence=1)
        again = writer.write_log_rows([ROW], sequence=1)
    finally:
        spark.conf.unset("spark.databricks.delta.commitLock.enabled")
    assert "Spark" in engine_of(writer, first["version"])
    assert (again["already_written"], writer.committed_sequence) == (True, 1)
    assert writer.get_table_info()["row_count"] == 2


def test_what_delta_knows_begins_at_the_newest_checkpoint(spark, open_writer, monkeypatch):
    monkeypatch.setattr(checkpoints, "VERSIONS_PER_CHECKPOINT", 20)
    monkeypatch.setattr(spark_commit, "usable_lock", lambda spec, bridge: None)
    writer = open_writer()
    for _ in range(60):
        version = writer.write_log_rows([ROW])["version"]
    known = delta_log_of(spark, writer).unsafeVolatileSnapshot()
    assert known.version() == version
    assert known.logSegment().deltas().size() < 40  # a checkpoint is written beside the commits
    assert known.checksumOpt().isDefined()


def test_where_an_entry_of_others_has_no_checksum_delta_makes_the_next(spark, open_writer):
    mine, theirs = open_writer(), open_writer("embedded")
    for _ in range(3):
        mine.write_log_rows([ROW])
        version = theirs.write_log_rows([ROW])["version"]
        assert mine.write_log_rows([ROW])["version"] == version + 1
        assert "Spark" in engine_of(mine, version + 1)
        assert engine_of(mine, mine.write_log_rows([ROW])["version"]) == "sfwriter"
    assert mine.get_table_info()["row_count"] == 12
    assert spark.read.format("delta").load(str(log_of(mine).parent)).count() == 12
