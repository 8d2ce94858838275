"""Sequences, keys, rivals, restarts: each row once, whoever sends it how often."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pytest

from sfwriter.exceptions import WriterTableError, WriterValidationError
from sfwriter.testing import FaultyEngine, Hang
from sfwriter.testing.rows import log_table


def test_calls_are_numbered_from_zero_in_their_order(open_writer, row) -> None:
    writer = open_writer(producer_id="p")
    assert writer.committed_sequence is None
    assert [writer.write_log_rows([row()])["batch_id"] for _ in range(3)] == ["p:0", "p:1", "p:2"]
    assert writer.committed_sequence == 2


def test_a_writer_without_an_id_has_one_of_its_own(open_writer, row) -> None:
    one, other = open_writer(), open_writer()
    assert one.producer_id != other.producer_id
    assert one.write_log_rows([row()])["batch_id"] == f"{one.producer_id}:0"


def test_a_number_that_is_committed_writes_nothing_and_says_so(open_writer, row, count, version) -> None:
    writer = open_writer(producer_id="p")
    first = writer.write_log_rows([row()], sequence=0)
    again = writer.write_log_rows([row()], sequence=0)
    assert (first["already_written"], first["rows_written"]) == (False, 1)
    assert (again["already_written"], again["rows_written"], again["success"]) == (True, 0, True)
    assert (again["batch_id"], again["version"]) == (first["batch_id"], first["version"])
    assert count() == 1
    assert version() == 1


def test_a_gap_names_the_number_expected_and_writes_nothing(open_writer, row, count) -> None:
    writer = open_writer(producer_id="p")
    writer.write_log_rows([row()])
    with pytest.raises(WriterValidationError, match="is 1") as caught:
        writer.write_log_rows([row()], sequence=5)
    assert caught.value.context["expected_sequence"] == 1
    assert caught.value.suggestions
    assert writer.write_log_rows([row()], sequence=1)["rows_written"] == 1
    assert count() == 2


def test_the_first_number_is_zero(open_writer, row) -> None:
    with pytest.raises(WriterValidationError) as caught:
        open_writer(producer_id="p").write_log_rows([row()], sequence=1)
    assert caught.value.context["expected_sequence"] == 0


@pytest.mark.parametrize("reopened", [False, True])
def test_a_number_that_was_used_for_other_content_is_an_error(open_writer, row, count, reopened) -> None:
    writer = open_writer(producer_id="p")
    writer.write_log_rows([row()], sequence=0)
    if reopened:
        writer = open_writer(producer_id="p")
    with pytest.raises(WriterValidationError, match="other content") as caught:
        writer.write_log_rows([row(step_name="another")], sequence=0)
    assert caught.value.suggestions
    assert count() == 1


def test_rows_without_a_run_id_are_known_again(open_writer, count) -> None:
    writer = open_writer(producer_id="p")
    rows = [{"phase": "bronze", "step_name": "s"}]
    writer.write_log_rows(rows, sequence=0)
    assert writer.write_log_rows(rows, sequence=0)["already_written"]
    assert count() == 1


@pytest.mark.parametrize("sequence", [-1, True, 1.0, "1"])
def test_a_sequence_that_is_no_number_is_refused(open_writer, row, sequence) -> None:
    with pytest.raises(WriterValidationError, match="sequence") as caught:
        open_writer(producer_id="p").write_log_rows([row()], sequence=sequence)
    assert caught.value.suggestions


def test_sequence_and_idempotency_key_exclude_each_other(open_writer, row) -> None:
    with pytest.raises(WriterValidationError, match="exclude") as caught:
        open_writer().write_log_rows([row()], sequence=0, idempotency_key="k")
    assert caught.value.suggestions


@pytest.mark.parametrize("producer_id", [None, "", 7, "key:k", "a\nb", "a\ud800b"])
def test_a_producer_that_no_config_could_name_is_refused(open_writer, row, producer_id) -> None:
    writer = open_writer()
    for call in (
        lambda: writer.watermark(producer_id),
        lambda: writer.submit([row()], producer_id=producer_id, sequence=0),
    ):
        with pytest.raises(WriterValidationError, match="producer_id") as caught:
            call()
        assert caught.value.suggestions


def test_a_submitted_number_that_is_none_is_refused(open_writer, row) -> None:
    with pytest.raises(WriterValidationError, match="sequence is -1"):
        open_writer().submit([row()], producer_id="p", sequence=-1)


@pytest.mark.parametrize("key", ["", "  ", 7, "k" * 513, b"k", "a\ud800b"])
def test_a_key_that_is_no_text_is_refused(open_writer, row, key) -> None:
    with pytest.raises(WriterValidationError, match="idempotency_key") as caught:
        open_writer().write_log_rows([row()], idempotency_key=key)
    assert caught.value.suggestions


def test_a_key_is_committed_once_by_whomever(open_writer, row, count) -> None:
    one, other = open_writer(producer_id="one"), open_writer()
    assert one.write_log_rows([row()], idempotency_key="task-7")["rows_written"] == 1
    again = other.write_log_rows([row()], idempotency_key="task-7")
    assert (again["already_written"], again["rows_written"]) == (True, 0)
    # A key stands for the call, whatever its rows are the second time.
    assert one.write_log_rows([row(step_name="late")], idempotency_key="task-7")["already_written"]
    assert one.write_log_rows([row()], idempotency_key="task-8")["rows_written"] == 1
    assert one.committed_sequence is None
    assert count() == 2


def test_a_key_given_by_two_writers_at_once_is_committed_once(open_writer, row, count) -> None:
    writers = [open_writer() for _ in range(4)]
    ready = threading.Barrier(4)

    def write(writer):
        ready.wait()
        return writer.write_log_rows([row()], idempotency_key="nightly")

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(write, writers))
    assert sum(result["rows_written"] for result in results) == 1
    assert sum(result["already_written"] for result in results) == 3
    assert count() == 1


def test_a_writer_that_is_opened_again_goes_on_after_the_last_number(open_writer, row, count) -> None:
    with open_writer(producer_id="p") as writer:
        writer.write_log_rows([row()])
        writer.write_log_rows([row()])
    writer = open_writer(producer_id="p")
    assert writer.committed_sequence == 1
    assert writer.write_log_rows([row()])["batch_id"] == "p:2"
    assert count() == 3


def test_a_pipeline_that_sends_everything_again_writes_only_what_is_missing(open_writer, row, count) -> None:
    first = open_writer(producer_id="p")
    for number in range(3):
        first.write_log_rows([row(step_name=str(number))], sequence=number)
    second = open_writer(producer_id="p")
    results = [second.write_log_rows([row(step_name=str(number))], sequence=number) for number in range(6)]
    assert [result["already_written"] for result in results] == [True] * 3 + [False] * 3
    assert count() == 6


def test_the_slower_of_two_live_writers_of_one_producer_is_told_before_anything_is_visible(
    open_writer, row, count
) -> None:
    one, other = open_writer(producer_id="p"), open_writer(producer_id="p")
    one.write_log_rows([row(step_name="one")])
    assert other.write_log_rows([row(step_name="other")])["batch_id"] == "p:1"
    with pytest.raises(WriterTableError, match="another live writer") as caught:
        one.write_log_rows([row(step_name="lost")])
    assert caught.value.suggestions
    assert count() == 2
    # What either was acknowledged stays, and the loser may go on with the number that is free now.
    assert one.write_log_rows([row(step_name="again")])["batch_id"] == "p:2"


def test_an_idle_writer_whose_rival_has_gone_on_may_lose_a_number_and_no_row(open_writer, row, count) -> None:
    writers = [open_writer(producer_id="shared") for _ in range(3)]
    acknowledged = 0

    def write(writer):
        done = 0
        for _ in range(8):
            try:
                done += writer.write_log_rows([row()])["rows_written"]
            except WriterTableError as error:  # noqa: PERF203
                assert "another live writer" in error.message  # noqa: PT017  any other one is a failure
        return done

    with ThreadPoolExecutor(3) as pool:
        acknowledged = sum(pool.map(write, writers))
    assert count() == acknowledged
    assert open_writer(producer_id="shared").committed_sequence == acknowledged - 1


def test_numbered_batches_may_come_from_many_threads(open_writer, rows, read) -> None:
    writer = open_writer(producer_id="p")
    writer.write_log_rows(rows(1), sequence=0)
    started = threading.Barrier(6)

    def write(number):
        started.wait()
        while True:
            try:
                return writer.write_log_rows(rows(number, step_name=str(number)), sequence=number)["batch_id"]
            except WriterValidationError as error:  # noqa: PERF203
                # The one before it has not been given yet.
                assert error.context["expected_sequence"] < number  # noqa: PT017

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(write, range(1, 7))) == [f"p:{number}" for number in range(1, 7)]
    found = read()["step_name"].to_pylist()
    assert {name: found.count(name) for name in set(found)} == {"extract": 1, **{str(n): n for n in range(1, 7)}}


def test_the_same_numbered_call_from_many_threads_is_written_once(open_writer, rows, count) -> None:
    writer = open_writer(producer_id="p")
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: writer.write_log_rows(rows(5), sequence=0), range(8)))
    assert sum(result["rows_written"] for result in results) == 5
    assert count() == 5


def test_many_threads_on_one_writer_share_commits_and_every_row_is_there_once(open_writer, row, read, version) -> None:
    writer = open_writer()
    ready = threading.Barrier(16)

    def write(thread):
        ready.wait()
        return [writer.write_log_rows([row(step_name=f"{thread}-{call}")])["version"] for call in range(6)]

    with ThreadPoolExecutor(16) as pool:
        versions = list(pool.map(write, range(16)))
    names = read()["step_name"].to_pylist()
    assert sorted(names) == sorted(f"{thread}-{call}" for thread in range(16) for call in range(6))
    assert version() < 96 / 2
    assert all(mine == sorted(mine) for mine in versions)
    usage = writer.get_memory_usage()
    assert usage["in_flight_mb"] == 0.0


@pytest.mark.parametrize(
    "empty",
    [list, lambda: iter(()), lambda: (row for row in []), lambda: log_table(0), lambda: pa.table({}), tuple],
    ids=["list", "iterator", "generator", "Arrow", "Arrow without columns", "tuple"],
)
def test_an_empty_call_writes_nothing_commits_nothing_and_makes_no_table(open_writer, location, empty) -> None:
    writer = open_writer(producer_id="p")
    result = writer.write_log_rows(empty())
    assert (result["success"], result["rows_written"], result["version"], result["batch_id"]) == (True, 0, None, None)
    assert isinstance(result["run_id"], str)
    assert not location().exists()
    assert writer.committed_sequence is None


def test_an_empty_call_with_a_number_uses_it(open_writer, row, count) -> None:
    writer = open_writer(producer_id="p")
    result = writer.write_log_rows([], sequence=0)
    assert (result["rows_written"], result["batch_id"], result["already_written"]) == (0, "p:0", False)
    assert writer.write_log_rows(iter(()), sequence=0)["already_written"]
    assert writer.write_log_rows([row()])["batch_id"] == "p:1"
    assert count() == 1


def test_a_run_of_steps_that_are_none_is_an_empty_call(open_writer, location) -> None:
    assert open_writer().write_step_results([], {"run_id": "r"})["rows_written"] == 0
    assert not location().exists()


def test_a_refused_call_leaves_its_number_to_the_next(open_writer, row) -> None:
    writer = open_writer(producer_id="p")
    with pytest.raises(WriterValidationError):
        writer.write_log_rows([row(phase="tin")])
    assert writer.write_log_rows([row()])["batch_id"] == "p:0"


def test_a_refused_call_does_not_take_those_behind_it_along(open_writer, row, count) -> None:
    from sfwriter.exceptions import WriterSchemaError
    from sfwriter.storage.delta_rs import DeltaRsEngine

    engine = FaultyEngine(DeltaRsEngine())
    writer = open_writer(engine=engine, producer_id="p", parallel_write_threads=1)
    writer.write_log_rows([row()])
    gate = threading.Event()
    hang = Hang(gate)
    engine.inject("commit", hang)
    with ThreadPoolExecutor(4) as pool:
        held = pool.submit(writer.write_log_rows, [row()])
        assert hang.started.wait(10)
        rival = open_writer(producer_id="rival")
        rival.write_log_rows([row(extra="text")])
        # Encoded before the writer could know of the rival's column.
        clash = pool.submit(writer.write_log_rows, [row(later=1)])
        fine = [pool.submit(writer.write_log_rows, [row()]) for _ in range(2)]
        gate.set()
        assert held.result(10)["rows_written"] == 1
        assert clash.result(10)["rows_written"] == 1
        assert all(one.result(10)["rows_written"] == 1 for one in fine)
    with pytest.raises(WriterSchemaError):
        writer.write_log_rows([row(extra=5)])
    assert count() == 6


def test_rows_may_be_written_while_the_rows_of_another_call_are_made(open_writer, row, count) -> None:
    writer = open_writer()

    def rows():
        yield row(step_name="outer")
        assert writer.write_log_rows([row(step_name="inner")])["rows_written"] == 1
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(writer.write_log_rows, [row(step_name="other thread")]).result(10)["rows_written"] == 1

    assert writer.write_log_rows(rows())["rows_written"] == 1
    assert count() == 3
