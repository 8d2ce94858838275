"""Engines and disks that fail: what is tried again, what is said, and that nothing is lost once it is mended."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from sfwriter import LogWriter
from sfwriter.exceptions import WriterError, WriterPerformanceError, WriterSchemaError, WriterTableError
from sfwriter.flow.vocabulary import Ticked
from sfwriter.ingest.gate import Gate
from sfwriter.storage.delta_rs import DeltaRsEngine
from sfwriter.storage.engine import CommitConflict, CommitUnknown, StagedFilesLost
from sfwriter.testing import Fail, FaultyEngine, Hang, LandAndRaise, LandLate, ManualClock, MemoryEngine
from sfwriter.testing.rows import log_table

PASSING = WriterTableError("the network is away", retriable=True, suggestions=["wait"])
LASTING = WriterTableError("the disk is gone", suggestions=["mend it"])


# ------------------------------------------------------------------ retries


@pytest.mark.parametrize("call", ["stage", "commit", "last_sequence", "ensure"])
def test_what_passes_is_tried_again(open_writer, faulty, row, call) -> None:
    faulty.inject(call, Fail(PASSING), Fail(PASSING), Fail(PASSING))
    writer = open_writer(engine=faulty)
    assert writer.write_log_rows([row()])["rows_written"] == 1
    assert writer.get_metrics()["retries"] == 3
    assert writer.get_table_info()["row_count"] == 1


@pytest.mark.parametrize("call", ["stage", "commit", "last_sequence", "ensure"])
def test_after_max_retries_the_call_fails_and_nothing_is_written(open_writer, faulty, row, call) -> None:
    faulty.inject(call, *[Fail(PASSING)] * 3)
    writer = open_writer(engine=faulty, max_retries=2, producer_id="p")
    with pytest.raises(WriterTableError, match="the network is away") as caught:
        writer.write_log_rows([row()])
    assert caught.value.suggestions
    assert caught.value.retriable
    assert writer.get_metrics()["retries"] == 2
    assert writer.write_log_rows([row()])["batch_id"] == "p:0"
    assert writer.get_table_info()["row_count"] == 1


@pytest.mark.parametrize("call", ["stage", "commit"])
def test_fail_fast_tries_once(open_writer, faulty, row, call) -> None:
    faulty.inject(call, Fail(PASSING))
    writer = open_writer(engine=faulty, fail_fast=True, max_retries=5)
    with pytest.raises(WriterTableError, match="the network is away"):
        writer.write_log_rows([row()])
    assert faulty.calls[call] == 1
    assert writer.get_metrics()["retries"] == 0


@pytest.mark.parametrize("call", ["stage", "commit"])
def test_what_lasts_is_not_tried_again(open_writer, faulty, row, call) -> None:
    faulty.inject(call, Fail(LASTING))
    writer = open_writer(engine=faulty)
    with pytest.raises(WriterTableError, match="the disk is gone"):
        writer.write_log_rows([row()])
    assert faulty.calls[call] == 1
    assert writer.write_log_rows([row()])["rows_written"] == 1


def tries_at(faulty, clock, writer, rows, tries):
    """Times, by a clock that is moved by hand, at which a call was tried."""
    times = []
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(writer.write_log_rows, rows)
        until = time.monotonic() + 20
        while not call.done() and time.monotonic() < until:
            if faulty.calls["commit"] > len(times):
                times.append(clock.monotonic())
            clock.advance(0.25)
            writer._channel.tick()
            time.sleep(0.003)
        call.result(0)
    times += [clock.monotonic()] * (faulty.calls["commit"] - len(times))
    assert len(times) == tries
    return [later - earlier for earlier, later in pairwise(times)]


def test_the_delays_between_tries_double(open_writer, faulty, row) -> None:
    clock = ManualClock()
    writer = open_writer(engine=faulty, clock=clock, max_retries=3, retry_delay_secs=4)
    writer.write_log_rows([row()])
    faulty.calls.clear()
    faulty.inject("commit", *[Fail(PASSING)] * 3)
    waits = tries_at(faulty, clock, writer, [row()], 4)
    # The jitter is over the upper half of each span.
    for wait, (low, high) in zip(waits, ((2, 4), (4, 8), (8, 16)), strict=True):
        assert low <= wait <= high + 1


def test_without_back_off_all_delays_are_equal(open_writer, faulty, row) -> None:
    clock = ManualClock()
    options = {"max_retries": 3, "retry_delay_secs": 4, "retry_exponential_backoff": False}
    writer = open_writer(engine=faulty, clock=clock, **options)
    writer.write_log_rows([row()])
    faulty.calls.clear()
    faulty.inject("commit", *[Fail(PASSING)] * 3)
    assert all(4 <= wait <= 5 for wait in tries_at(faulty, clock, writer, [row()], 4))


# ------------------------------------------------------------------ outcomes


def test_a_commit_that_landed_and_was_reported_lost_is_not_committed_twice(open_writer, faulty, row) -> None:
    writer = open_writer(engine=faulty)
    writer.write_log_rows([row()])
    faulty.inject("commit", LandAndRaise())
    result = writer.write_log_rows([row()])
    assert (result["rows_written"], result["already_written"]) == (1, False)
    assert writer.get_table_info()["row_count"] == 2


@pytest.mark.parametrize(
    "error", [CommitUnknown("no answer"), CommitConflict("moved"), StagedFilesLost("gone", (0,)), RuntimeError("what")]
)
def test_a_commit_that_did_not_land_is_made_again(open_writer, faulty, row, error) -> None:
    faulty.inject("commit", Fail(error))
    writer = open_writer(engine=faulty)
    assert writer.write_log_rows([row(), row()])["rows_written"] == 2
    assert writer.get_table_info()["row_count"] == 2
    assert faulty.calls["commit"] == 2


def test_an_outcome_that_nobody_can_find_out_is_said_and_settled_by_the_same_number(open_writer, faulty, row) -> None:
    writer = open_writer(engine=faulty, producer_id="p", max_retries=1)
    writer.write_log_rows([row()])
    faulty.inject("commit", LandAndRaise())
    faulty.inject("last_sequence", *[Fail(PASSING)] * 4)
    with pytest.raises(WriterTableError) as caught:
        writer.write_log_rows([row(step_name="in doubt")])
    assert caught.value.outcome_unknown
    assert "sequence=1" in caught.value.suggestions[0]
    faulty._faults.clear()
    assert writer.write_log_rows([row(step_name="in doubt")], sequence=1)["already_written"]
    assert writer.get_table_info()["row_count"] == 2


def test_a_commit_that_lands_after_everybody_gave_it_up_does_not_double_anything(open_writer, faulty, row) -> None:
    writer = open_writer(engine=faulty, producer_id="p")
    writer.write_log_rows([row()])
    faulty.inject("commit", LandLate())
    assert writer.write_log_rows([row()])["rows_written"] == 1
    faulty.release_late()
    assert writer.get_table_info()["row_count"] == 2
    assert writer.write_log_rows([row()])["batch_id"] == "p:2"


def test_files_that_vanish_between_staging_and_commit_are_made_again(open_writer, row, location, count) -> None:
    engine = FaultyEngine(DeltaRsEngine())
    writer = open_writer(engine=engine)
    writer.write_log_rows([row()])
    hang = Hang(threading.Event())
    engine.inject("commit", hang)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(writer.write_log_rows, [row()])
        assert hang.started.wait(10)
        live = {Path(uri).name for uri in DeltaTable(str(location())).file_uris()}
        for path in location().glob("*.parquet"):
            if path.name not in live:
                path.unlink()
        hang.gate.set()
        assert call.result(20)["rows_written"] == 1
    assert count() == 2


@pytest.mark.parametrize("keyed", [True, False])
def test_a_column_of_another_type_that_came_meanwhile_refuses_only_the_batch_at_fault(
    open_writer, row, read, keyed
) -> None:
    engine = FaultyEngine(DeltaRsEngine())
    writer = open_writer(engine=engine, producer_id="p")
    writer.write_log_rows([row()])
    hang = Hang(threading.Event())
    engine.inject("commit", hang)
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(writer.write_log_rows, [row(step_name="first")])
        assert hang.started.wait(10)
        # Both are encoded while the table has no such column, and wait for the commit that hangs.
        keys = [{"idempotency_key": name} if keyed else {} for name in ("clash", "fine")]
        clash = pool.submit(writer.write_log_rows, [row(step_name="clash", cores=4)], **keys[0])
        fine = pool.submit(writer.write_log_rows, [row(step_name="fine", ready=True)], **keys[1])
        wait_until(lambda: engine.calls["stage"] >= 3 or writer._channel._machine.in_flight == 3)
        open_writer(producer_id="rival").write_log_rows([row(step_name="rival", cores="four")])
        hang.gate.set()
        assert first.result(20)["rows_written"] == 1
        with pytest.raises(WriterSchemaError) as caught:
            clash.result(20)
        assert fine.result(20)["rows_written"] == 1
    assert "positions" not in caught.value.context
    assert caught.value.expected_schema["cores"] == "string"
    assert caught.value.actual_schema["cores"] == "int64"
    assert caught.value.suggestions
    assert sorted(read()["step_name"].to_pylist()) == ["extract", "fine", "first", "rival"]
    # What it asks for is text now, and numbers are refused before anything is staged.
    with pytest.raises(WriterSchemaError):
        writer.write_log_rows([row(cores=4)])
    assert writer.write_log_rows([row(cores="4")])["rows_written"] == 1


def wait_until(condition, seconds=10):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it never came"
        time.sleep(0.005)


# ------------------------------------------------------------------ memory


def test_a_call_beyond_the_budget_says_how_to_split_it(open_writer, row, location) -> None:
    writer = open_writer(memory_fraction=0.0001)
    size = writer._budget_bytes
    wholes = {
        "Arrow": pa.table({"phase": ["gold"], "step_name": ["s"], "error_message": ["x" * size]}),
        "list": [row(error_message="x" * 1000) for _ in range(size // 1000)],
        "just too large": log_table(10).take(pa.array([0] * (size // 300))),
    }
    for rows in wholes.values():
        with pytest.raises(WriterPerformanceError) as caught:
            writer.write_log_rows(rows)
        assert "write_batches" in "".join(caught.value.suggestions)
    assert not location().exists()
    assert writer.get_memory_usage()["in_flight_mb"] == 0


def test_an_endless_generator_is_refused_before_it_has_eaten_all_memory(open_writer, row) -> None:
    writer = open_writer(memory_fraction=0.001)
    read = 0

    def endless():
        nonlocal read
        while True:
            read += 1
            yield row(metadata={"number": read}, rows_processed=read)

    with pytest.raises(WriterPerformanceError) as caught:
        writer.write_log_rows(endless())
    assert any("split" in text.lower() for text in caught.value.suggestions)
    # A dict of a few keys takes some 300 bytes in Python, and less in Arrow.
    assert read * 100 < writer._budget_bytes


def test_a_call_waits_for_memory_and_is_let_in(open_writer, faulty) -> None:
    writer, table = busy_writer(open_writer, faulty, queue_timeout_secs=30)
    hang = Hang(threading.Event())
    faulty.inject("stage", hang)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(writer.write_log_rows, table)
        assert hang.started.wait(10)
        second = pool.submit(writer.write_log_rows, table)
        time.sleep(0.1)
        assert not second.done()
        assert writer.get_memory_usage()["in_flight_mb"] > 0
        hang.gate.set()
        assert first.result(10)["rows_written"] == second.result(10)["rows_written"] == table.num_rows
    assert writer.get_memory_usage()["in_flight_mb"] == 0


@pytest.mark.parametrize("seconds", [0, 0.2])
def test_a_call_that_waits_too_long_for_memory_is_refused(open_writer, faulty, seconds) -> None:
    writer, table = busy_writer(open_writer, faulty, queue_timeout_secs=seconds)
    hang = Hang(threading.Event())
    faulty.inject("stage", hang)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(writer.write_log_rows, table)
        assert hang.started.wait(10)
        begun = time.monotonic()
        try:
            with pytest.raises(WriterPerformanceError) as caught:
                writer.write_log_rows(table)
        finally:
            hang.gate.set()
        assert seconds <= time.monotonic() - begun < seconds + 5
        assert caught.value.suggestions
        assert first.result(10)["rows_written"] == table.num_rows
    assert writer.get_memory_usage()["in_flight_mb"] == 0
    assert writer.write_log_rows(table)["rows_written"] == table.num_rows


def busy_writer(open_writer, faulty, **options):
    """A writer whose budget has room for one table and not for two."""
    writer = open_writer(engine=faulty, memory_fraction=0.0005, **options)
    sample = log_table(5_000)
    writer.write_log_rows(sample)
    # The gate makes texts shorter: what just fits as it is given takes more than half of the room afterwards.
    rows = int(writer._max_bytes * 0.95 / (sample.nbytes / sample.num_rows))
    assert Gate().encode(log_table(rows)).nbytes > 0.55 * writer._max_bytes
    return writer, log_table(rows)


# ------------------------------------------------------------------ warehouses that cannot be written


def is_clear(error):
    assert isinstance(error, WriterTableError)
    assert error.suggestions
    assert error.context["table"] == "analytics.pipeline_logs"
    return True


def open_and_write(config, rows):
    """As a pipeline does: whether the writer or its first call finds the fault is all the same."""
    with LogWriter(config=config) as writer:
        return writer.write_log_rows(rows)


def test_a_warehouse_that_is_a_file(config, tmp_path, row) -> None:
    (tmp_path / "warehouse").write_text("not a folder")
    with pytest.raises(WriterTableError) as caught:
        open_and_write(config(), [row()])
    assert is_clear(caught.value)
    (tmp_path / "warehouse").unlink()
    assert open_and_write(config(), [row()])["rows_written"] == 1


def test_a_schema_whose_folder_is_a_file(config, tmp_path, row) -> None:
    (tmp_path / "warehouse").mkdir()
    (tmp_path / "warehouse" / "analytics").write_text("in the way")
    with pytest.raises(WriterTableError) as caught:
        open_and_write(config(), [row()])
    assert is_clear(caught.value)
    (tmp_path / "warehouse" / "analytics").unlink()
    assert open_and_write(config(), [row()])["rows_written"] == 1


def test_a_warehouse_that_breaks_after_the_writer_was_opened_and_is_mended(open_writer, tmp_path, row) -> None:
    writer = open_writer()
    (tmp_path / "warehouse").write_text("in the way")
    for _ in range(2):
        with pytest.raises(WriterTableError) as caught:
            writer.write_log_rows([row()])
        assert is_clear(caught.value)
    (tmp_path / "warehouse").unlink()
    assert writer.write_log_rows([row()])["rows_written"] == 1


def test_a_folder_that_holds_something_else(config, location, row) -> None:
    location().mkdir(parents=True)
    (location() / "thesis.odt").write_text("years of work")
    with pytest.raises(WriterTableError) as caught:
        open_and_write(config(), [row()])
    assert is_clear(caught.value)
    assert [path.name for path in location().iterdir()] == ["thesis.odt"]


def test_a_corrupt_log_is_an_error_and_writing_goes_on_once_it_is_mended(open_writer, row, location, count) -> None:
    writer = open_writer()
    writer.write_log_rows([row()])
    entry = location() / "_delta_log" / "00000000000000000001.json"
    good = entry.read_bytes()
    entry.write_bytes(b"{ not json")
    with pytest.raises(WriterTableError) as caught:
        open_writer().write_log_rows([row()])
    assert is_clear(caught.value)
    entry.write_bytes(good)
    assert open_writer().write_log_rows([row()])["rows_written"] == 1
    assert writer.write_log_rows([row()])["rows_written"] == 1
    assert count() == 3


def test_a_table_that_asks_for_what_the_engine_cannot_do(open_writer, row, location) -> None:
    open_writer().write_log_rows([row()])
    entry = location() / "_delta_log" / "00000000000000000000.json"
    text = entry.read_text()
    entry.write_text(
        '{"protocol":{"minReaderVersion":3,"minWriterVersion":7,"readerFeatures":["teleport"],'
        '"writerFeatures":["teleport"]}}\n' + "\n".join(line for line in text.splitlines() if "protocol" not in line)
    )
    with pytest.raises(WriterTableError) as caught:
        open_writer().write_log_rows([row()])
    assert is_clear(caught.value)


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 1 MiB at the test's warehouse."""
    folder = tmp_path / "warehouse"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("this process may not mount a disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_loses_nothing_and_writing_goes_on_when_there_is_room(small_disk, open_writer, row, read) -> None:
    writer = open_writer(max_retries=0)
    assert writer.write_log_rows([row(step_name="0")])["rows_written"] == 1
    filler = small_disk / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass
    with pytest.raises(WriterTableError) as caught:
        writer.write_log_rows([row(step_name="1", error_message=os.urandom(9000).hex())])
    assert is_clear(caught.value)
    assert not caught.value.outcome_unknown
    assert read()["step_name"].to_pylist() == ["0"]
    filler.unlink()
    assert writer.write_log_rows([row(step_name="2")])["rows_written"] == 1
    assert sorted(read()["step_name"].to_pylist()) == ["0", "2"]


def test_a_limit_on_the_size_of_files_is_an_error_like_a_full_disk(open_writer, row, count) -> None:
    writer = open_writer(max_retries=0)
    writer.write_log_rows([row()])
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, hard))
    try:
        with pytest.raises(WriterTableError) as caught:
            writer.write_log_rows([row(error_message=os.urandom(1_000_000).hex())])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert is_clear(caught.value)
    assert not caught.value.outcome_unknown
    assert writer.write_log_rows([row()])["rows_written"] == 1
    assert count() == 2


def test_a_warehouse_that_may_only_be_read(tmp_path, config, row, open_writer, count) -> None:
    folder = tmp_path / "warehouse"
    folder.mkdir()
    writer = open_writer(max_retries=0)
    writer.write_log_rows([row()])
    bound = subprocess.run(["mount", "--bind", str(folder), str(folder)], capture_output=True, check=False)
    if bound.returncode:
        pytest.skip("this process may not mount a folder")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(folder)], check=True)
        with pytest.raises(WriterTableError) as caught:
            writer.write_log_rows([row()])
        assert is_clear(caught.value)
        with pytest.raises(WriterTableError):
            open_and_write(config(table_name="new"), [row()])
        assert writer.get_table_info()["row_count"] == 1
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
    assert writer.write_log_rows([row()])["rows_written"] == 1
    assert count() == 2


def test_a_table_that_is_moved_away_and_back_is_written_again(open_writer, row, location, count) -> None:
    writer = open_writer()
    writer.write_log_rows([row()])
    aside = location().with_name("aside")
    shutil.move(location(), aside)
    with pytest.raises(WriterTableError) as caught:
        writer.write_log_rows([row()])
    assert is_clear(caught.value)
    assert not location().exists()
    shutil.move(aside, location())
    assert writer.write_log_rows([row()])["rows_written"] == 1
    assert count() == 2


def test_a_defect_of_the_machine_answers_every_caller(open_writer, row, monkeypatch) -> None:
    writer = open_writer(engine=FaultyEngine(MemoryEngine()))
    writer.write_log_rows([row()])
    machine, handle = writer._channel._machine, writer._channel._machine.handle
    # A tick that the first call has left behind is none of it.
    monkeypatch.setattr(machine, "handle", lambda event, now: handle(event, now) if type(event) is Ticked else 1 / 0)
    with pytest.raises(WriterTableError, match="broke down") as caught:
        writer.write_log_rows([row()])
    assert caught.value.outcome_unknown
    assert caught.value.suggestions
    with pytest.raises(WriterError, match="closed"):
        writer.write_log_rows([row()])
