"""`write_batches`: many batches in flight, in bounded memory, in order, and to be repeated."""

from __future__ import annotations

import json
import threading

import pyarrow as pa
import pytest

from sfwriter.exceptions import WriterPerformanceError, WriterSchemaError, WriterTableError, WriterValidationError
from sfwriter.storage.delta_rs import DeltaRsEngine
from sfwriter.testing import Fail, FaultyEngine, MemoryEngine
from sfwriter.testing.rows import log_table, log_tables


def numbered(row, count, start=0):
    for number in range(start, start + count):
        yield [row(step_name=str(number))]


def test_every_kind_of_batch_is_taken(open_writer, row, count) -> None:
    pandas = pytest.importorskip("pandas")
    polars = pytest.importorskip("polars")
    table = log_table(14)
    batches = [
        [row()],
        (row() for _ in range(2)),
        table,
        table.to_batches()[0],
        table.to_reader(),
        pandas.DataFrame([row()]),
        polars.DataFrame([row()]),
        iter(table.to_batches()),
        [],
    ]
    result = open_writer().write_batches(iter(batches))
    assert result["success"] is True
    assert result["batches"] == 9
    assert result["rows_written"] == count() == 1 + 2 + 14 + 14 + 14 + 1 + 1 + 14


@pytest.mark.parametrize(
    "make", [lambda table: table, lambda table: table.to_reader(), lambda table: iter(table.to_batches())]
)
def test_the_record_batches_of_arrow_data_are_the_batches(open_writer, count, make) -> None:
    table = pa.concat_tables(log_tables(700, chunk=100))
    result = open_writer().write_batches(make(table))
    assert (result["batches"], result["rows_written"], count()) == (7, 700, 700)


def test_nothing_to_write_is_no_commit(open_writer, location) -> None:
    result = open_writer().write_batches([])
    assert (result["success"], result["batches"], result["versions"]) == (True, 0, None)
    assert not location().exists()


@pytest.mark.parametrize("wrong", ["text", b"bytes", {"phase": "bronze"}, 5, None])
def test_what_is_no_iterable_of_batches_is_refused(open_writer, wrong) -> None:
    with pytest.raises(WriterValidationError) as caught:
        open_writer().write_batches(wrong)
    assert caught.value.suggestions


def test_small_batches_share_commits_and_the_versions_are_told(open_writer, row, version) -> None:
    writer = open_writer()
    writer.write_log_rows([row()])
    result = writer.write_batches(numbered(row, 200))
    first, last = result["versions"]
    assert (first, last) == (2, version())
    assert last < 20


def test_progress_is_told_after_each_batch_on_the_callers_thread(open_writer, row) -> None:
    seen, threads = [], set()

    def progress(result):
        seen.append((result["batches"], result["rows_written"]))
        threads.add(threading.current_thread())

    open_writer().write_batches(numbered(row, 10), progress=progress)
    assert seen == [(number, number) for number in range(1, 11)]
    assert threads == {threading.current_thread()}


def test_what_is_no_function_of_the_progress_is_refused_before_anything_is_written(open_writer, row, count) -> None:
    writer = open_writer()
    writer.write_log_rows([row()])
    with pytest.raises(WriterValidationError, match="progress"):
        writer.write_batches(numbered(row, 2), progress=5)
    assert count() == 1


def test_an_error_of_progress_stops_the_call_after_what_is_on_its_way(open_writer, row, count) -> None:
    writer = open_writer(producer_id="p")

    def progress(result):
        raise RuntimeError("the bar is broken")

    with pytest.raises(RuntimeError, match="the bar"):
        writer.write_batches(numbered(row, 5), progress=progress)
    assert count() == writer.committed_sequence + 1
    assert writer.write_log_rows([row()])["rows_written"] == 1


def test_a_generator_is_read_no_faster_than_memory_allows(open_writer) -> None:
    engine = FaultyEngine(MemoryEngine())
    writer = open_writer(engine=engine, memory_fraction=0.0005, max_batch_mb=0.05)
    budget = writer._budget_bytes
    table = log_table(2_000)
    ahead = []
    given = settled = 0

    def progress(result):
        nonlocal settled
        settled = result["batches"]

    def batches():
        nonlocal given
        for _ in range(100):
            ahead.append((given - settled) * table.nbytes)
            given += 1
            yield table

    result = writer.write_batches(batches(), progress=progress)
    assert result["rows_written"] == 200_000
    assert max(ahead) <= budget + table.nbytes
    assert writer._channel.usage().peak_bytes <= budget
    assert writer.get_memory_usage()["in_flight_mb"] == 0


def steps(read):
    return sorted(int(name) for name in read()["step_name"].to_pylist())


def test_after_a_refusal_those_before_are_written_and_none_behind(open_writer, row, read) -> None:
    asked = []

    def batches():
        for number in range(50):
            asked.append(number)
            yield [row(step_name=str(number), phase="tin" if number == 20 else "gold")]

    writer = open_writer(producer_id="p")
    with pytest.raises(WriterValidationError, match="batch 20 of write_batches") as caught:
        writer.write_batches(batches())
    assert caught.value.context["batch_index"] == 20
    assert caught.value.context["batches_written"] == 20
    assert caught.value.suggestions
    assert steps(read) == list(range(20))
    assert max(asked) == 20
    assert writer.committed_sequence == 19


@pytest.mark.parametrize("numbered_by_caller", [True, False])
def test_after_a_fault_in_the_background_none_behind_is_written(open_writer, row, read, numbered_by_caller) -> None:
    engine = FaultyEngine(DeltaRsEngine())
    writer = open_writer(engine=engine, producer_id="p", max_retries=0, max_batch_mb=0.001)
    engine.inject("stage", *[Fail(WriterTableError("the disk is gone"))] * 1)
    started = threading.Event()

    def batches():
        for number in range(40):
            if number > 2:
                started.wait(0.02)
            yield [row(step_name=str(number), error_message="x" * 2000)]

    with pytest.raises(WriterTableError, match="of write_batches") as caught:
        writer.write_batches(batches(), sequence=0 if numbered_by_caller else None)
    index = caught.value.context["batch_index"]
    written = steps(read) if writer.get_table_info()["row_count"] else []
    assert written == list(range(index))
    assert (writer.committed_sequence or -1) == index - 1


def test_a_single_row_in_the_place_of_a_batch_is_named(open_writer, row, count) -> None:
    with pytest.raises(WriterValidationError, match="single row") as caught:
        open_writer().write_batches([[row()], row()])
    assert caught.value.context["batch_index"] == 1
    assert count() == 1


def test_numbered_batches_are_resumed_after_those_that_are_there(open_writer, row, read) -> None:
    open_writer(producer_id="p").write_batches(numbered(row, 5), sequence=0)
    writer = open_writer(producer_id="p")
    result = writer.write_batches(numbered(row, 8), sequence=0)
    assert (result["already_written"], result["batches"], result["rows_written"]) == (5, 3, 3)
    result = writer.write_batches(numbered(row, 2, start=8), sequence=writer.committed_sequence + 1)
    assert (result["already_written"], result["rows_written"]) == (0, 2)
    assert steps(read) == list(range(10))


def test_a_key_numbers_the_batches_of_a_call_that_is_repeated(open_writer, row, read) -> None:
    interrupted = open_writer()
    with pytest.raises(WriterValidationError):
        interrupted.write_batches([*numbered(row, 4), [row(phase="tin")]], idempotency_key="load")
    result = open_writer().write_batches(numbered(row, 6), idempotency_key="load")
    assert (result["already_written"], result["rows_written"]) == (4, 2)
    assert steps(read) == list(range(6))


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, GeneratorExit])
def test_what_the_generator_raises_comes_through_and_nothing_is_written_afterwards(
    open_writer, row, read, error
) -> None:
    writer = open_writer(producer_id="p")

    def batches():
        yield from numbered(row, 7)
        raise error

    with pytest.raises(error):
        writer.write_batches(batches())
    assert steps(read) == list(range(7))
    assert writer.get_memory_usage()["in_flight_mb"] == 0
    result = writer.write_batches(numbered(row, 9), sequence=0)
    assert (result["already_written"], result["rows_written"]) == (7, 2)


def test_what_a_batch_raises_while_it_is_read_comes_through(open_writer, row, read) -> None:
    def broken():
        yield row(step_name="99")
        raise OSError("the source is gone")

    writer = open_writer()
    with pytest.raises(OSError, match="the source"):
        writer.write_batches([*numbered(row, 3), broken(), *numbered(row, 3, start=5)])
    assert steps(read) == [0, 1, 2]
    assert writer.get_metrics()["failed_writes"] == 1


def test_a_batch_beyond_the_budget_is_named_and_told_to_be_split(open_writer, row, count) -> None:
    writer = open_writer(memory_fraction=0.0002)
    big = pa.table({"phase": ["gold"], "step_name": ["s"], "error_message": ["x" * writer._budget_bytes]})
    with pytest.raises(WriterPerformanceError) as caught:
        writer.write_batches([[row()], big, [row()]])
    assert caught.value.context["batch_index"] == 1
    assert any("split" in text.lower() for text in caught.value.suggestions)
    assert count() == 1


def test_quarantined_rows_are_counted(open_writer, row, count) -> None:
    result = open_writer(schema_validation_mode="lenient").write_batches(
        [[row(), row(phase="tin")], [row(phase="lead")]]
    )
    assert (result["rows_written"], result["quarantined_rows"], result["batches"]) == (1, 2, 2)
    assert count("pipeline_logs_quarantine") == 2


def test_new_columns_may_come_in_any_batch(open_writer, row, read) -> None:
    writer = open_writer()
    writer.write_batches([[row()], [row(cluster="a")], [row(retries=1)], [row(cluster="b")]])
    table = read()
    assert table["cluster"].to_pylist().count(None) == 2
    with pytest.raises(WriterSchemaError) as caught:
        writer.write_batches([[row()], [row(cluster=3)]])
    assert caught.value.context["batch_index"] == 1


def test_a_backfill_equals_its_source(open_writer, read) -> None:
    source = pa.concat_tables(log_tables(30_000, chunk=5_000))
    open_writer().write_batches(source.to_batches())
    found = read().drop_columns(["logged_at"]).select(source.column_names)
    keys = [("run_id", "ascending"), ("step_name", "ascending")]
    assert found.sort_by(keys).equals(source.sort_by(keys))
    assert json.loads(found["metadata"][0].as_py())["attempt"] in {1, 2}
