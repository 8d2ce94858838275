"""Every option of the writer does something, shown by what it changes."""

from __future__ import annotations

import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from sfwriter.exceptions import WriterPerformanceError, WriterTableError
from sfwriter.limits import usable_memory_bytes
from sfwriter.storage.delta_rs import DeltaRsEngine
from sfwriter.testing import FaultyEngine, Hang, MemoryEngine
from sfwriter.testing.rows import log_table


def files_of(location, name="pipeline_logs"):
    return [Path(uri) for uri in DeltaTable(str(location(name))).file_uris()]


@pytest.fixture
def fsynced(monkeypatch):
    """Inodes that were flushed to the disk: data files get their name only afterwards."""
    inodes = []
    real = os.fsync

    def recording(descriptor):
        inodes.append(os.fstat(descriptor).st_ino)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", recording)
    return inodes


def test_durability_fsync_flushes_data_log_and_folders_before_the_ack(open_writer, row, location, fsynced) -> None:
    writer = open_writer()
    writer.write_log_rows([row()])
    before = set(files_of(location))
    fsynced.clear()
    version = writer.write_log_rows([row()])["version"]
    log = location() / "_delta_log"
    written = [*(set(files_of(location)) - before), location(), log / f"{version:020}.json", log]
    assert len(written) == 4
    assert {path.stat().st_ino for path in written} <= set(fsynced)


def test_durability_os_flushes_nothing(open_writer, row, count, fsynced) -> None:
    writer = open_writer(durability="os")
    writer.write_log_rows([row()])
    assert fsynced == []
    assert count() == 1


@pytest.mark.parametrize("codec", ["snappy", "zstd", "lz4", "gzip", "none"])
def test_compression_is_that_of_the_files(open_writer, location, codec) -> None:
    open_writer(compression=codec).write_log_rows(log_table(500))
    (path,) = files_of(location)
    group = pq.read_metadata(path).row_group(0)
    found = {group.column(index).compression.lower() for index in range(group.num_columns)}
    assert found == {{"none": "uncompressed"}.get(codec, codec)}


def test_a_file_that_reaches_its_size_is_closed(open_writer, location, count) -> None:
    table = log_table(60_000)
    open_writer(max_file_size_mb=1).write_log_rows(table)
    sizes = [path.stat().st_size for path in files_of(location)]
    assert len(sizes) > 1
    assert max(sizes) < 2.5 * 2**20
    assert count() == 60_000


@pytest.mark.parametrize("threads", [1, 3])
def test_parallel_write_threads_batches_are_staged_at_once(open_writer, threads) -> None:
    engine = FaultyEngine(MemoryEngine())
    writer = open_writer(engine=engine, parallel_write_threads=threads, max_batch_mb=0.0001)
    writer.write_log_rows(log_table(10))
    gate = threading.Event()
    hangs = [Hang(gate) for _ in range(5)]
    engine.inject("stage", *hangs)
    with ThreadPoolExecutor(5) as pool:
        calls = [pool.submit(writer.write_log_rows, log_table(10)) for _ in range(5)]
        assert all(hang.started.wait(10) for hang in hangs[:threads])
        time.sleep(0.1)
        assert sum(hang.started.is_set() for hang in hangs) == threads
        gate.set()
        assert sum(call.result(10)["rows_written"] for call in calls) == 50


@pytest.mark.parametrize(("linger_ms", "jobs"), [(2_000, 2), (0, 6)])
def test_small_calls_linger_for_company_while_a_commit_is_running(open_writer, row, linger_ms, jobs) -> None:
    engine = FaultyEngine(MemoryEngine())
    writer = open_writer(engine=engine, linger_ms=linger_ms)
    writer.write_log_rows([row()])
    engine.calls.clear()
    hang = Hang(threading.Event())
    engine.inject("commit", hang)
    with ThreadPoolExecutor(6) as pool:
        calls = [pool.submit(writer.write_log_rows, [row()])]
        assert hang.started.wait(10)
        for _ in range(5):
            calls.append(pool.submit(writer.write_log_rows, [row()]))
            time.sleep(0.03)
        until = time.monotonic() + 10
        while engine.calls["stage"] < jobs and time.monotonic() < until:
            time.sleep(0.01)
        hang.gate.set()
        assert sum(call.result(10)["rows_written"] for call in calls) == 6
    assert engine.calls["stage"] == jobs


def test_a_lone_call_does_not_linger(open_writer, faulty, row) -> None:
    writer = open_writer(engine=faulty, linger_ms=20_000)
    writer.write_log_rows([row()])
    begun = time.monotonic()
    for _ in range(3):
        writer.write_log_rows([row()])
    assert time.monotonic() - begun < 5


def test_max_batch_mb_bounds_what_is_staged_together(open_writer, faulty) -> None:
    table = log_table(500)
    for megabytes, least, most in ((64, 1, 5), (table.nbytes * 2.5 / 2**20, 10, 25)):
        faulty.calls.clear()
        writer = open_writer(engine=faulty, max_batch_mb=megabytes)
        writer.write_batches([table] * 30)
        assert least <= faulty.calls["stage"] <= most


def test_memory_fraction_is_the_budget(open_writer) -> None:
    for fraction in (0.1, 0.5, 1):
        budget = open_writer(memory_fraction=fraction).get_memory_usage()["budget_mb"]
        assert budget == pytest.approx(fraction * usable_memory_bytes() / 2**20, rel=0.001)
    large = pa.table({"phase": ["gold"], "step_name": ["s"], "error_message": ["x" * 2_000_000]})
    tight = open_writer(memory_fraction=1_000_000 / usable_memory_bytes())
    with pytest.raises(WriterPerformanceError):
        tight.write_log_rows(large)
    roomy = open_writer(memory_fraction=8_000_000 / usable_memory_bytes())
    assert roomy.write_log_rows(large)["rows_written"] == 1


def test_a_limit_of_the_control_group_bounds_the_budget(open_writer, monkeypatch) -> None:
    for module in ("sfwriter.questions", "sfwriter.runtime.blueprint"):
        monkeypatch.setattr(f"{module}.usable_memory_bytes", lambda: 100 * 2**20)
    usage = open_writer(memory_fraction=0.5).get_memory_usage()
    assert usage["budget_mb"] == pytest.approx(50)
    assert usage["total_mb"] == 100


def test_partition_columns_are_those_of_a_new_table(open_writer, row, location, read) -> None:
    writer = open_writer(partition_columns=["phase", "success"])
    rows = [row(phase="bronze"), row(phase="gold"), row(phase="gold", error_message="x")]
    writer.write_log_rows(rows)
    writer.write_batches([rows, rows])
    assert writer.get_table_info()["partition_columns"] == ["phase", "success"]
    folders = {str(path.parent.relative_to(location())) for path in files_of(location)}
    assert folders == {"phase=bronze/success=true", "phase=gold/success=true", "phase=gold/success=false"}
    found = sorted((entry["phase"], entry["success"]) for entry in read().to_pylist())
    assert found == [("bronze", True)] * 3 + [("gold", False)] * 3 + [("gold", True)] * 3
    # A writer that names none takes the table's own; one that names others is told.
    assert open_writer().write_log_rows(rows)["rows_written"] == 3
    with pytest.raises(WriterTableError, match="partitioned") as caught:
        open_writer(partition_columns=["run_id"]).write_log_rows(rows)
    assert caught.value.suggestions


UNSAFE = ["a/b", "..", "a b", "ü", "a\nb", "__HIVE_DEFAULT_PARTITION__", "x" * 300, "C:\\x"]


def test_lenient_sets_aside_the_rows_that_no_folder_can_be_named_for(open_writer, row, count) -> None:
    writer = open_writer(partition_columns=["step_name"], schema_validation_mode="lenient")

    result = writer.write_log_rows([row(step_name="good"), *(row(step_name=name) for name in UNSAFE)])

    assert (result["rows_written"], result["quarantined_rows"], count()) == (1, len(UNSAFE), 1)
    aside = writer.quarantined()
    assert {entry["row"]["step_name"] for entry in aside} == set(UNSAFE)
    assert all("partitioned by it" in entry["reasons"][0] for entry in aside)
    assert writer.replay_quarantine(lambda row, _: {**row, "step_name": "mended"})["replayed"] == len(UNSAFE)


@pytest.mark.parametrize("mode", ["strict", "ignore"])
def test_every_row_that_no_folder_can_be_named_for_is_named(open_writer, row, count, mode) -> None:
    from sfwriter.exceptions import WriterValidationError

    open_writer(partition_columns=["step_name"]).write_log_rows([row(step_name="first")])
    # The table says by what it is partitioned, whatever this writer's configuration does.
    writer = open_writer(schema_validation_mode=mode)

    with pytest.raises(WriterValidationError) as refused:
        writer.write_log_rows([row(step_name="good"), *(row(step_name=name) for name in UNSAFE)])

    assert [entry["row"] for entry in refused.value.validation_errors] == list(range(1, 1 + len(UNSAFE)))
    assert count() == 1


def test_a_value_that_no_folder_can_be_named_by_refuses_the_call(open_writer, row, count) -> None:
    from sfwriter.exceptions import WriterValidationError

    writer = open_writer(partition_columns=["run_id"])
    writer.write_log_rows([row()])
    with pytest.raises(WriterValidationError, match="run_id") as caught:
        writer.write_log_rows([row(run_id="../../etc")])
    assert caught.value.suggestions
    assert writer.write_log_rows([row(run_id="r-2")])["rows_written"] == 1
    assert count() == 2


def test_the_warehouse_schema_and_name_say_where_the_table_is(open_writer, row, tmp_path) -> None:
    writer = open_writer(warehouse=tmp_path / "lake", table_schema="ops", table_name="runs")
    assert writer.write_log_rows([row()])["table_fqn"] == "ops.runs"
    assert DeltaTable(str(tmp_path / "lake" / "ops" / "runs")).version() == 1


def test_a_warehouse_or_export_that_leads_nowhere_is_told(config, open_writer, row, tmp_path, monkeypatch) -> None:
    from sfwriter import LogWriter
    from sfwriter.exceptions import WriterValidationError

    writer = open_writer()
    writer.write_log_rows([row()])
    with pytest.raises(WriterTableError, match="leads nowhere"):
        LogWriter(config=config(warehouse="~nobody-of-that-name/lake"))
    with pytest.raises(WriterValidationError, match="path is"):
        writer.export_analytics_data(path="~nobody-of-that-name/rows.json")
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(WriterTableError, match="leads nowhere") as refused:
        LogWriter(config=config(warehouse="lake"))
    assert "absolute" in refused.value.suggestions[0]
    with pytest.raises(WriterValidationError, match="path is"):
        writer.export_analytics_data(path="rows.json")


def test_idempotency_keys_are_remembered_as_long_as_asked(open_writer, row, location) -> None:
    open_writer(idempotency_retention_days=0.5).write_log_rows([row()], idempotency_key="k")
    entry = json.loads((location() / "_delta_log" / "00000000000000000000.json").read_text().splitlines()[-1])
    found = (
        entry.get("metaData")
        or json.loads(
            next(
                line
                for line in (location() / "_delta_log" / "00000000000000000000.json").read_text().splitlines()
                if "metaData" in line
            )
        )["metaData"]
    )
    assert found["configuration"]["delta.setTransactionRetentionDuration"] == "interval 12 hours"


def test_statistics_of_the_log_name_what_people_filter_by(open_writer, location) -> None:
    open_writer().write_log_rows(log_table(100))
    actions = pa.RecordBatchReader.from_stream(DeltaTable(str(location())).get_add_actions(flatten=True)).read_all()
    assert "min.run_id" in actions.column_names
    assert "max.start_time" in actions.column_names
    assert actions["num_records"].to_pylist() == [100]


def test_every_engine_is_named(open_writer, faulty) -> None:
    assert open_writer(engine=faulty).get_table_info()["engine"] == "memory"
    assert open_writer(engine=DeltaRsEngine()).get_table_info()["engine"] == "delta-rs"
