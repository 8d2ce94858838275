"""Maintenance of real tables: what it does, what it refuses, and that rows and numbers survive it."""

from __future__ import annotations

import fcntl
import os
import signal
import threading
import time
from datetime import datetime, timedelta, timezone

import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from sfwriter import WriterTableError, WriterValidationError
from sfwriter.maintenance import keeper
from sfwriter.schema import LOG_SCHEMA
from sfwriter.storage import maintenance_lock

DAY = datetime(2024, 1, 1, tzinfo=timezone.utc)
OPERATIONS = ("optimize", "vacuum", "analyze", "validate_schema", "checkpoint", "cleanup_log")


@pytest.fixture
def untidy(open_writer, row):
    """A writer on a table of twelve small files."""
    writer = open_writer(producer_id="p", enable_optimization=False)
    for number in range(12):
        writer.write_log_rows([row(rows_processed=number)], sequence=number)
    return writer


def test_small_files_are_joined_and_rows_and_numbers_survive(untidy, row, read):
    before = read().sort_by("rows_processed")
    result = untidy.optimize_table(enable_partitioning=True)
    assert result["optimized"]
    assert result["optimizations_applied"] == ["partitioning"]
    assert result["reason"] is None
    assert (result["metrics"]["files_before"], result["metrics"]["files_after"]) == (12, 1)
    assert result["metrics"]["partitioning"]["files_removed"] == 12
    assert read().sort_by("rows_processed") == before
    assert untidy.committed_sequence == 11
    assert untidy.write_log_rows([row(rows_processed=5)], sequence=5)["already_written"]
    assert untidy.write_log_rows([row(rows_processed=12)], sequence=12)["rows_written"] == 1


def test_what_gains_nothing_is_not_done_and_says_why(untidy, version):
    untidy.optimize_table()
    known = version()
    again = untidy.optimize_table(
        enable_partitioning=True, enable_compression=True, enable_zordering=True, enable_vacuum=True
    )
    assert not again["optimized"]
    assert again["optimizations_applied"] == []
    for name in ("partitioning", "compression", "zordering", "vacuum"):
        assert f"{name}: " in again["reason"]
    assert version() == known
    nothing = untidy.optimize_table(enable_partitioning=False)
    assert (nothing["optimized"], nothing["reason"]) == (False, "nothing was asked for")


def test_each_partition_is_joined_by_itself(open_writer, row, location):
    writer = open_writer(partition_columns=["phase"], enable_optimization=False)
    for _ in range(3):
        writer.write_log_rows([row(phase=phase) for phase in ("bronze", "silver", "gold")])
    assert writer.optimize_table(enable_partitioning=True)["metrics"]["partitioning"]["partitions"] == 3
    assert writer.get_table_info()["num_files"] == 3
    assert len(DeltaTable(str(location())).file_uris()) == 3


def test_files_are_rewritten_with_the_codec_of_the_configuration(open_writer, row, location):
    open_writer(compression="gzip").write_log_rows([row()])
    writer = open_writer(compression="zstd", enable_optimization=False)
    writer.write_log_rows([row()])
    assert writer.optimize_table(enable_compression=True)["optimizations_applied"] == ["compression"]
    for path in DeltaTable(str(location())).file_uris():
        assert pq.read_metadata(path.removeprefix("file://")).row_group(0).column(0).compression == "ZSTD"
    assert "compression" in writer.optimize_table(enable_compression=True)["reason"]


def at_any_time(rows, count=9_000, **changes):
    """Rows of half a year in no order; 5,000 take most of a file of 1 MiB."""
    return [
        {**one, "run_id": os.urandom(60).hex(), "start_time": DAY + timedelta(minutes=place * 7919 % 250_000)}
        for place, one in enumerate(rows(count, **changes))
    ]


def test_a_large_partition_in_which_times_overlap_is_sorted_once(open_writer, rows):
    writer = open_writer(max_file_size_mb=1, compression="none", enable_optimization=False)
    for part in range(3):
        writer.write_log_rows(at_any_time(rows, 5_000, pipeline_id=f"p{part}"))
    assert writer.maintain_table({"analyze": True})["results"]["analyze"]["overlap"] == 3
    done = writer.optimize_table(enable_zordering=True)
    assert done["optimizations_applied"] == ["zordering"]
    assert done["metrics"]["files_after"] >= 2
    assert writer.maintain_table({"analyze": True})["results"]["analyze"]["overlap"] < 2
    assert "overlap" in writer.optimize_table(enable_zordering=True)["reason"]
    assert writer.get_table_info()["row_count"] == 15_000


def test_what_lies_in_the_order_of_time_is_not_sorted(open_writer, rows):
    writer = open_writer(max_file_size_mb=1, compression="none", enable_optimization=False)
    for part in range(3):
        day = DAY + timedelta(days=part)
        writer.write_log_rows([{**one, "start_time": day} for one in at_any_time(rows, 5_000)])
    assert "overlap" in writer.optimize_table(enable_zordering=True)["reason"]


def test_each_partition_is_sorted_by_itself_also_that_of_null(open_writer, rows):
    writer = open_writer(
        max_file_size_mb=1, compression="none", enable_optimization=False, partition_columns=["pipeline_id"]
    )
    for pipeline in ("p", None, "p", None):
        writer.write_log_rows(at_any_time(rows, pipeline_id=pipeline))
    assert writer.optimize_table()["metrics"]["zordering"]["partitions"] == 2
    assert writer.get_table_info()["row_count"] == 36_000


def test_joined_files_are_encoded_as_staged_ones_are(open_writer, rows, location):
    writer = open_writer(enable_optimization=False)
    for _ in range(3):
        writer.write_log_rows([{**one, "duration_secs": 1.5} for one in rows(2_000)])
    sizes = {}
    for is_joined in (False, True):
        if is_joined:
            writer.optimize_table(enable_partitioning=True)
        sizes[is_joined] = writer.get_table_info()["size_mb"]
        (file, *_) = DeltaTable(str(location())).file_uris()
        group = pq.read_metadata(file.removeprefix("file://")).row_group(0)
        columns = {group.column(place).path_in_schema: group.column(place) for place in range(group.num_columns)}
        assert "RLE_DICTIONARY" in columns["step_name"].encodings
        assert "DELTA_BINARY_PACKED" in columns["rows_processed"].encodings
        assert "RLE_DICTIONARY" not in columns["metadata"].encodings
    assert sizes[True] <= sizes[False]


def test_a_routine_does_every_operation(untidy):
    result = untidy.maintain_table()
    assert result["maintained"]
    assert result["maintenance_operations"] == list(OPERATIONS)
    assert result["results"]["optimize"]["optimized"]
    assert result["results"]["vacuum"]["files_deleted"] == []
    analyzed = result["results"]["analyze"]
    assert (analyzed["row_count"], analyzed["num_files"], analyzed["small_files"]) == (12, 1, 0)
    assert result["results"]["validate_schema"] == {"valid": True, "differences": []}
    assert result["results"]["checkpoint"]["version"] == 13
    assert result["results"]["cleanup_log"]["log_entries"] == 14
    only = untidy.maintain_table({"analyze": True, "vacuum": False})
    assert only["maintenance_operations"] == ["analyze"]


def test_vacuum_deletes_what_is_old_and_unknown_and_nothing_younger(untidy, location, count):
    untidy.optimize_table()
    old = time.time() - 200 * 3600
    for name in (".part-x.parquet.tmp", "part-unknown.parquet"):
        (location() / name).write_bytes(b"x")
        os.utime(location() / name, (old, old))
    (location() / "part-staged.parquet").write_bytes(b"x")
    (location() / ".part-y.parquet.tmp").write_bytes(b"x")
    result = untidy.maintain_table({"vacuum": True, "retention_hours": 100})["results"]["vacuum"]
    assert result["files_deleted"] == [".part-x.parquet.tmp", "part-unknown.parquet"]
    assert result["full"]
    assert not (location() / "part-unknown.parquet").exists()
    assert (location() / "part-staged.parquet").exists()
    assert (location() / ".part-y.parquet.tmp").exists()
    assert count() == 12


def test_a_retention_that_staged_files_do_not_survive_is_refused_with_the_reason(untidy):
    for hours in (0, 1, 83.9):
        with pytest.raises(WriterValidationError, match="staged") as caught:
            untidy.maintain_table({"vacuum": True, "retention_hours": hours})
        assert "84" in caught.value.suggestions[0]
    assert untidy.maintain_table({"vacuum": True, "retention_hours": 84})["maintained"]


@pytest.mark.parametrize(
    "options",
    [
        {"nope": True}, {"vacuum": 1}, {"vacuum": None}, {"optimize": "yes"}, "vacuum", 5, ["vacuum"], {5: True},
        {"retention_hours": "7"}, {"retention_hours": -1}, {"retention_hours": True},
        {"retention_hours": float("nan")}, {"retention_hours": 10**9},
    ],
)  # fmt: skip
def test_wrong_operations_are_refused(untidy, options, version):
    known = version()
    with pytest.raises(WriterValidationError) as caught:
        untidy.maintain_table(options)
    assert caught.value.suggestions
    assert version() == known


@pytest.mark.parametrize("options", [{"nope": True}, {"enable_vacuum": 1}, {"enable_zordering": None}])
def test_wrong_options_are_refused(untidy, options):
    with pytest.raises(WriterValidationError, match="optimize_table"):
        untidy.optimize_table(**options)


def test_a_schema_that_differs_is_told_column_by_column(open_writer, location, row):
    open_writer().write_log_rows([row(cost=1)])
    found = open_writer(enable_schema_evolution=False).maintain_table({"validate_schema": True})
    assert found["results"]["validate_schema"] == {
        "valid": False, "differences": [{"column": "cost", "found": "int64", "expected": None}],
    }  # fmt: skip
    assert open_writer().maintain_table({"validate_schema": True})["results"]["validate_schema"]["valid"]


def test_a_missing_table_is_answered(open_writer, location):
    writer = open_writer()
    assert writer.optimize_table()["reason"] == "there is no table yet"
    assert not writer.maintain_table({"vacuum": True, "retention_hours": 1})["maintained"]
    assert writer.get_table_history() == {
        "history_available": False, "table_fqn": "analytics.pipeline_logs", "total_versions": 0, "versions": [],
    }  # fmt: skip
    assert not location().exists()


def test_history_tells_rows_and_sizes_of_the_latest_versions(untidy, row, location):
    untidy.optimize_table()
    untidy.write_log_rows([row()], sequence=12)
    history = untidy.get_table_history(4)
    assert history["history_available"]
    assert history["total_versions"] == 15
    assert [entry["version"] for entry in history["versions"]] == [14, 13, 12, 11]
    assert [entry["operation"] for entry in history["versions"]] == ["WRITE", "OPTIMIZE", "WRITE", "WRITE"]
    assert [entry["row_count"] for entry in history["versions"]] == [13, 12, 12, 11]
    assert all(entry["timestamp"].tzinfo is not None and entry["size_mb"] > 0 for entry in history["versions"])
    assert "sfwriter" in history["versions"][0]["user_metadata"]
    whole = untidy.get_table_history(2**70)["versions"]
    assert len(whole) == 15
    assert (whole[-1]["operation"], whole[-1]["row_count"]) == ("CREATE TABLE", 0)
    for entry in whole:
        table = DeltaTable(str(location()), version=entry["version"])
        assert entry["row_count"] == table.count()


def test_history_after_overwriting_and_by_other_writers(open_writer, row, location):
    writer = open_writer(write_mode="overwrite")
    writer.write_log_rows([row(), row()])
    writer.write_log_rows([row()])
    write_deltalake(str(location()), LOG_SCHEMA.empty_table(), mode="append")
    DeltaTable(str(location())).delete("true")
    assert [entry["row_count"] for entry in writer.get_table_history()["versions"]] == [0, 1, 1, 2, 0]
    for limit in (0, -1, True, "5", None):
        with pytest.raises(WriterValidationError):
            writer.get_table_history(limit)


def test_files_that_pile_up_are_joined_without_being_asked(open_writer, row, monkeypatch):
    monkeypatch.setattr(keeper, "WRITES_PER_LOOK", 20)
    monkeypatch.setattr("sfwriter.maintenance.plan.LEAST_SAVED", 10)
    for enabled, piled in ((True, False), (False, True)):
        writer = open_writer(enable_optimization=enabled, table_name=f"logs_{enabled}".lower())
        for _ in range(41):
            writer.write_log_rows([row()])
        writer.close()
        operations = [entry["operation"] for entry in writer.get_table_history(100)["versions"]]
        assert ("OPTIMIZE" not in operations) == piled
        assert writer.get_table_info()["row_count"] == 41


def test_maintenance_that_fails_by_itself_says_so_once_and_writing_goes_on(open_writer, row, monkeypatch, caplog):
    monkeypatch.setattr(keeper, "WRITES_PER_LOOK", 2)
    writer = open_writer()

    def fail(*_):
        raise WriterTableError("no luck", suggestions=["none"])

    writer.write_log_rows([row()])
    monkeypatch.setattr(writer._log_table, "run", fail)
    for _ in range(9):
        writer.write_log_rows([row()])
    writer.close()
    assert [record.message for record in caplog.records if "maintenance is off" in record.message] == [
        "analytics.pipeline_logs: maintenance is off for this writer: no luck"
    ]


def test_one_at_a_time_for_each_table_across_processes(untidy, location, monkeypatch):
    monkeypatch.setattr(maintenance_lock, "LOCK_PATIENCE_S", 0.2)
    with (location() / "_delta_log" / maintenance_lock.LOCK_NAME).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(WriterTableError, match="another process") as caught:
            untidy.optimize_table(enable_partitioning=True)
        assert caught.value.retriable
    assert untidy.optimize_table(enable_partitioning=True)["optimized"]


def test_two_optimizers_and_writers_at_once_keep_every_row(open_writer, row, read):
    writers = [open_writer(enable_optimization=False) for _ in range(2)]
    writers[0].write_log_rows([row(rows_processed=-0)])
    failures = []

    def attempt(call):
        try:
            call()
        except Exception as error:  # noqa: BLE001  whatever it is, the test shows it
            failures.append(error)

    def write(writer, first):
        for number in range(first, first + 15):
            writer.write_log_rows([row(rows_processed=number)])

    def tidy(writer):
        for _ in range(4):
            writer.optimize_table()
            writer.generate_summary_report()

    threads = [
        threading.Thread(target=attempt, args=(call,))
        for place, writer in enumerate(writers)
        for call in (
            lambda w=writer, n=place: write(w, 1000 * (n + 1)),
            lambda w=writer, n=place: write(w, 5000 * (n + 1)),
            lambda w=writer: tidy(w),
        )
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    found = sorted(read().column("rows_processed").to_pylist())
    expected = sorted([0, *(n for first in (1000, 2000, 5000, 10000) for n in range(first, first + 15))])
    assert found == expected


@pytest.mark.kill
def test_a_kill_in_the_middle_of_optimizing_leaves_the_table_whole(untidy, begin_python, read):
    process = begin_python(
        """
        import sys
        from sfwriter import LogWriter, WriterConfig
        writer = LogWriter(config=WriterConfig(warehouse=sys.argv[1], enable_optimization=False))
        print("ready")
        while True:
            writer.write_log_rows([{"run_id": "k", "phase": "gold", "step_name": "s"}])
            writer.optimize_table(enable_partitioning=True)
            writer.maintain_table({"vacuum": True})
            print("once")
        """
    )
    assert process.stdout.readline() == "ready\n"
    assert process.stdout.readline() == "once\n"
    time.sleep(0.2)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    rows = read().column("rows_processed").to_pylist()
    assert sorted(value for value in rows if value is not None) == list(range(12))
    assert untidy.maintain_table()["maintained"]


def test_a_table_that_is_gone_is_an_error(untidy, location):
    import shutil

    shutil.rmtree(location())
    for call in (untidy.optimize_table, untidy.maintain_table, untidy.get_table_history):
        with pytest.raises(WriterTableError, match="gone"):
            call()
    assert not location().exists()


def test_auto_optimize_schema_chooses_statistics_encodings_and_sort_columns(open_writer, rows, location):
    found = {}
    for chosen in (True, False):
        name = f"chosen_{chosen}".lower()
        writer = open_writer(auto_optimize_schema=chosen, table_name=name, enable_optimization=False)
        writer.write_log_rows([{**one, "metadata": {"n": place}} for place, one in enumerate(rows(50))])
        table = DeltaTable(str(location(name)))
        (file,) = table.file_uris()
        group = pq.read_metadata(file.removeprefix("file://")).row_group(0)
        columns = {group.column(place).path_in_schema: group.column(place) for place in range(group.num_columns)}
        minima = [name for name in table.get_add_actions(flatten=True).schema.names if name.startswith("min.")]
        found[chosen] = (
            len(minima), "RLE_DICTIONARY" in columns["metadata"].encodings,
            "auto_optimize_schema" in writer.optimize_table(enable_zordering=True)["reason"],
        )  # fmt: skip
    assert found[True][0] < found[False][0]
    assert found[True][1:] == (False, False)
    assert found[False][1:] == (True, True)
