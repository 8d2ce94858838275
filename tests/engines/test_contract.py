"""What the seam promises, for every engine."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import date, datetime, timedelta, timezone

import pyarrow as pa
import pytest

from sfwriter.batch import Token
from sfwriter.exceptions import WriterError, WriterSchemaError, WriterTableError, WriterValidationError
from sfwriter.schema import LOG_SCHEMA, QUARANTINE_SCHEMA, QUARANTINE_STAMPS, TIMESTAMP
from sfwriter.storage.engine import (
    BatchToStage,
    Checkpoint,
    CommitConflict,
    CommitUnknown,
    Compact,
    History,
    Mark,
    Sort,
    StagedFilesLost,
    Survey,
    Vacuum,
)
from sfwriter.testing import Fail, FaultyEngine, Hang, LandAndRaise, LandLate, ManualClock

# ---------------------------------------------------------------- the table

MIDNIGHT = datetime(2024, 1, 1, tzinfo=timezone.utc)


@pytest.mark.every_road
def test_ensure_makes_the_table_of_the_spec(lab):
    made = lab.open().ensure()
    assert made.exists
    assert made.version == 0
    assert made.rows == made.files == 0
    assert made.schema.equals(LOG_SCHEMA)
    assert made.partition_columns == ()


def test_ensure_again_changes_nothing(lab):
    table = lab.ready()
    lab.put(table, "p", 0)
    before = table.stats()
    assert table.ensure() == before
    assert lab.open().ensure() == before


def test_many_that_ensure_at_once_get_one_table(lab):
    gate = threading.Barrier(4)
    versions = []

    def work():
        gate.wait()
        versions.append(lab.open().ensure().version)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert versions == [0, 0, 0, 0]


def test_nothing_is_there_before_ensure(lab):
    table = lab.open()
    assert table.stats().exists is False
    watermark = table.last_sequence(["p"])["p"]
    assert (watermark.sequence, watermark.version, dict(watermark.marks)) == (None, -1, {})


def test_rows_are_not_staged_where_no_table_was_made(lab):
    with pytest.raises(WriterTableError):
        lab.stage(lab.open(), "p", 0)
    assert lab.open().stats().exists is False


@pytest.mark.every_road
def test_a_table_that_vanished_is_an_error_and_not_made_anew(lab):
    table = lab.ready()
    lab.put(table, "p", 0)
    staged = lab.stage(table, "p", 1)
    lab.remove(table.spec)
    for call in (
        table.ensure,
        table.stats,
        table.scan,
        lambda: table.last_sequence(["p"]),
        lambda: lab.stage(table, "p", 2),
        lambda: table.commit(lab.group(lab.advance("p", 1), staged=[staged])),
    ):
        with pytest.raises(WriterTableError):
            call()
    assert lab.open().stats().exists is False


def test_a_table_that_was_replaced_by_another_is_an_error(lab):
    table = lab.ready()
    lab.put(table, "p", 0)
    lab.remove(table.spec)
    other = lab.ready()
    lab.put(other, "q", 0)
    for call in (
        table.ensure,
        lambda: table.last_sequence(["p"]),
        lambda: table.commit(lab.group(lab.advance("p", 1))),
    ):
        with pytest.raises(WriterTableError):
            call()
    assert lab.sequence(other, "p") is None


def test_a_spec_of_another_column_type_is_refused(lab):
    lab.ready()
    other = LOG_SCHEMA.set(LOG_SCHEMA.get_field_index("phase"), pa.field("phase", pa.int64()))
    with pytest.raises(WriterSchemaError) as caught:
        lab.open(lab.spec(schema=other)).ensure()
    assert caught.value.expected_schema["phase"] == "string"
    assert caught.value.actual_schema["phase"] == "int64"


def test_what_is_no_action_is_refused(lab):
    with pytest.raises(WriterTableError, match="no action"):
        lab.ready().run(object())


@pytest.mark.every_road
def test_joining_files_keeps_rows_numbers_and_marks(lab):
    table = lab.ready()
    for number in range(4):
        lab.put(table, "p", number)
    before, marks = sorted(lab.read(table), key=str), table.last_sequence(["p"])["p"].marks
    (partition,) = table.run(Survey())["partitions"].values()
    assert (len(partition.sizes), partition.rows) == (4, 12)
    figures = table.run(Compact(partition.filters, 1 << 20))
    assert (figures["files_added"], figures["files_removed"], figures["version"]) == (1, 4, 5)
    assert lab.open().stats().files == 1
    assert sorted(lab.read(table), key=str) == before
    assert table.last_sequence(["p"])["p"].sequence == 3
    assert table.last_sequence(["p"])["p"].marks == marks
    lab.put(table, "p", 4)
    assert table.stats().rows == 15


def test_sorting_puts_each_time_into_few_files(lab):
    table = lab.ready()
    for number in range(2):
        times = [MIDNIGHT + timedelta(hours=hour) for hour in (number, 10 + number)]
        lab.put(table, "p", number, lab.rows(2, start_time=pa.array(times, TIMESTAMP)))
    (partition,) = table.run(Survey("start_time"))["partitions"].values()
    assert sorted(partition.ranges) == [
        (MIDNIGHT + timedelta(hours=n), MIDNIGHT + timedelta(hours=10 + n)) for n in range(2)
    ]
    figures = table.run(Sort((), ("start_time",), 1 << 20))
    assert (figures["files_removed"], figures["bytes_rewritten"]) == (2, sum(partition.sizes))
    assert table.run(Survey())["partitions"][""].ranges == ()
    assert table.run(Survey("start_time"))["partitions"][""].ranges == ((MIDNIGHT, MIDNIGHT + timedelta(hours=11)),)
    assert table.run(Survey("error_message"))["partitions"][""].ranges == (None,)


def test_history_tells_the_newest_versions(lab):
    table = lab.ready()
    for number in range(3):
        lab.put(table, "p", number)
    versions = table.run(History(2))["versions"]
    assert [(entry.version, entry.operation, entry.rows) for entry in versions] == [(3, "WRITE", 9), (2, "WRITE", 6)]
    assert all(entry.size_bytes > 0 and entry.timestamp_ms > 0 for entry in versions)
    assert table.run(History(10))["versions"][-1].operation == "CREATE TABLE"


def test_vacuum_leaves_what_is_staged_and_what_is_seen(lab):
    table = lab.ready()
    lab.put(table, "p", 0)
    staged = lab.stage(table, "p", 1)
    for full in (False, True):
        assert table.run(Vacuum(84.0, full=full))["files_deleted"] == []
    table.commit(lab.group(lab.advance("p", 1), staged=[staged]))
    assert table.stats().rows == 6


@pytest.mark.every_road
def test_a_commit_that_replaces_leaves_its_own_rows_and_all_numbers(lab):
    table = lab.ready()
    lab.put(table, "p", 0)
    lab.put(table, "q", 0)
    staged = lab.stage(table, "p", 1)
    table.commit(replace(lab.group(lab.advance("p", 1), staged=[staged]), replaces=True))
    assert table.stats().rows == 3
    assert {name: mark.sequence for name, mark in lab.open().last_sequence(["p", "q"]).items()} == {"p": 1, "q": 0}
    table.commit(replace(lab.group(lab.advance("q", 1)), replaces=True))
    assert table.stats().rows == 0


def test_a_checkpoint_changes_nothing_that_is_seen(lab):
    table = lab.ready()
    lab.put(table, "p", 0)
    before = table.stats()
    table.run(Checkpoint())
    assert table.stats() == before
    lab.put(table, "p", 1)
    assert lab.open().stats().rows == 6


# ---------------------------------------------------------------- stage


def test_staged_rows_are_seen_by_nobody(lab):
    table = lab.ready()
    staged = lab.stage(table, "p", 0)
    assert staged.rows == 3
    assert staged.size_bytes > 0
    assert table.stats().rows == 0
    assert lab.read(lab.open()) == []


@pytest.mark.every_road
def test_committed_rows_come_back_as_they_went_in(lab):
    table = lab.ready()
    rows = lab.rows(5, metadata=['{"a": 1}', None, "日本", "😀", ""], duration_secs=[0.5, None, -0.0, 1e300, 3.0])
    lab.put(table, "p", 0, rows)
    found = lab.read(lab.open(), rows.column_names)
    assert sorted(found, key=lambda row: row["step_name"]) == rows.to_pylist()


def test_columns_of_the_spec_that_the_rows_lack_are_null(lab):
    table = lab.ready()
    lab.put(table, "p", 0)
    found = table.scan().read_all()
    assert found.schema.equals(LOG_SCHEMA)
    assert found.column("pipeline_id").null_count == 3


def test_batches_are_staged_together_in_their_order(lab):
    table = lab.ready()
    batches = [
        BatchToStage(Token("p", number), lab.rows(2, step_name=[f"{number}a", f"{number}b"])) for number in (0, 1)
    ]
    staged = table.stage([*batches, BatchToStage(Token("p", 2), lab.rows(0, step_name=pa.array([], pa.string())))])
    table.commit(lab.group(lab.advance("p", 2, None), staged=[staged]))
    assert [row["step_name"] for row in lab.read(table, ["step_name"])] == ["0a", "0b", "1a", "1b"]


def test_batches_of_different_columns_are_staged_together(lab):
    table = lab.ready()
    batches = [
        BatchToStage(Token("p", 0), lab.rows(1, one=[1])),
        BatchToStage(Token("p", 1), lab.rows(1, two=["2"])),
        BatchToStage(Token("p", 2), lab.rows(1, one=pa.nulls(1), phase=pa.nulls(1))),
    ]
    table.commit(lab.group(lab.advance("p", 2, None), staged=[table.stage(batches)]))
    found = {(row["one"], row["two"], row["phase"]) for row in lab.read(table, ["one", "two", "phase"])}
    assert found == {(1, None, "bronze"), (None, "2", "bronze"), (None, None, None)}


def test_batches_without_rows_give_no_files(lab):
    table = lab.ready()
    assert lab.stage(table, "p", 0, lab.rows(0)).files == ()
    assert table.stage([]).files == ()


def test_stamps_are_filled_by_staging(lab):
    clock = ManualClock()
    spec = lab.spec(name="logs.quarantine", schema=QUARANTINE_SCHEMA, stamps=QUARANTINE_STAMPS)
    table = lab.ready(spec, clock)
    rows = pa.table({"quarantine_id": ["a", "b"], "row": ["{}", "{}"], "reasons": [["x", "y"], []]})
    staged = table.stage([BatchToStage(Token("p", 7), rows), BatchToStage(Token("q", 1), rows.slice(0, 1))])
    table.commit(lab.group(lab.advance("p", 7, None), lab.advance("q", 1, None), staged=[staged]))
    found = lab.read(table, ["producer_id", "batch_id", "quarantined_at"])
    assert sorted((row["producer_id"], row["batch_id"]) for row in found) == [("p", "p:7"), ("p", "p:7"), ("q", "q:1")]
    assert {row["quarantined_at"] for row in found} == {clock.now()}


def test_lists_of_text_come_back(lab):
    table = lab.ready(lab.spec(name="logs.quarantine", schema=QUARANTINE_SCHEMA, stamps=QUARANTINE_STAMPS))
    reasons = [["phase: wrong", "日本"], [], None, [None, ""]]
    rows = pa.table({"quarantine_id": list("abcd"), "reasons": pa.array(reasons, pa.list_(pa.string()))})
    lab.put(table, "p", 0, rows)
    found = sorted(lab.read(table, ["quarantine_id", "reasons"]), key=lambda row: row["quarantine_id"])
    assert [row["reasons"] for row in found] == reasons


def test_a_column_of_two_types_is_refused_before_anything_is_written(lab):
    table = lab.ready()
    batches = [
        BatchToStage(Token("p", 0), lab.rows(1, extra=[1])),
        BatchToStage(Token("p", 1), lab.rows(1, extra=["x"])),
    ]
    with pytest.raises(WriterSchemaError, match="extra"):
        table.stage(batches)


@pytest.mark.parametrize(
    "values",
    [
        pa.array([1], pa.uint64()),
        pa.array([datetime(2024, 1, 1)], pa.timestamp("us")),  # noqa: DTZ001  naive is what is refused
        pa.array([1], pa.time64("us")),
        pa.array([1]).dictionary_encode(),
    ],
    ids=str,
)
def test_a_column_that_delta_cannot_hold_is_refused(lab, values):
    with pytest.raises(WriterSchemaError, match="extra"):
        lab.stage(lab.ready(), "p", 0, lab.rows(1, extra=values))


def test_texts_that_come_dictionary_encoded_are_texts_in_the_table(lab):
    table = lab.ready()
    steps = [["a", "b", None], ["b", "c", "c"], ["d", None, "a"]]
    batches = [
        BatchToStage(Token("a", 0), lab.rows(3, step_name=pa.array(steps[0]).dictionary_encode())),
        BatchToStage(Token("b", 0), lab.rows(3, step_name=steps[1])),
        BatchToStage(Token("c", 0), lab.rows(3, step_name=pa.array(steps[2]).dictionary_encode())),
    ]
    table.commit(lab.group(*[lab.advance(producer, 0) for producer in "abc"], staged=[table.stage(batches)]))
    found = lab.read(table, ["step_name"])
    assert sorted(row["step_name"] or "" for row in found) == sorted(text or "" for part in steps for text in part)


@pytest.mark.parametrize("name", ["a b", "a=b", "a;b", "a\nb", "Phase"])
def test_a_column_name_that_delta_cannot_hold_is_refused(lab, name):
    with pytest.raises(WriterSchemaError):
        lab.stage(lab.ready(), "p", 0, lab.rows(1, **{name: [1]}))


def test_a_file_that_reaches_its_size_is_closed(lab):
    table = lab.ready(lab.spec(max_file_bytes=200_000))
    rows = lab.rows(40_000, metadata=[f"{index * 7919 % 40_000:032x}" for index in range(40_000)])
    staged = lab.stage(table, "p", 0, rows)
    assert len(staged.files) > 2
    assert all(file.size_bytes < 400_000 for file in staged.files)
    assert staged.rows == 40_000
    table.commit(lab.group(lab.advance("p", 0), staged=[staged]))
    assert sorted(row["rows_written"] for row in lab.read(table, ["rows_written"])) == list(range(40_000))


def test_discarded_files_are_gone_and_may_be_discarded_again(lab):
    table = lab.ready()
    staged = lab.stage(table, "p", 0)
    table.discard(staged)
    table.discard(staged)
    with pytest.raises(StagedFilesLost):
        table.commit(lab.group(lab.advance("p", 0), staged=[staged]))


# ---------------------------------------------------------------- commit


def test_one_commit_takes_many_producers_and_is_one_version(lab):
    table = lab.ready()
    producers = [f"p{number}" for number in range(50)]
    staged = [lab.stage(table, producer, 0, lab.rows(1, run_id=[producer])) for producer in producers]
    receipt = table.commit(lab.group(*(lab.advance(producer, 0) for producer in producers), staged=staged))
    assert receipt.version == 1
    found = lab.open().last_sequence(producers)
    assert {watermark.sequence for watermark in found.values()} == {0}
    assert {watermark.version for watermark in found.values()} == {1}
    assert sorted(row["run_id"] for row in lab.read(table, ["run_id"])) == sorted(producers)


def test_receipts_count_the_versions(lab):
    table = lab.ready()
    assert [lab.put(table, "p", number).version for number in range(3)] == [1, 2, 3]
    assert table.stats().version == 3


@pytest.mark.every_road
def test_a_number_cannot_be_committed_twice(lab):
    table = lab.ready()
    lab.put(table, "p", 0)
    staged = lab.stage(table, "p", 0)
    with pytest.raises(CommitConflict):
        table.commit(lab.group(lab.advance("p", 0), staged=[staged]))
    assert table.stats().rows == 3


def test_a_lower_number_cannot_be_committed(lab):
    table = lab.ready()
    for number in range(4):
        lab.put(table, "p", number)
    with pytest.raises(CommitConflict):
        table.commit(lab.group(lab.advance("p", 2)))
    assert lab.sequence(lab.open(), "p") == 3


@pytest.mark.every_road
def test_a_plan_beyond_the_watermark_is_a_conflict(lab):
    table = lab.ready()
    with pytest.raises(CommitConflict):
        table.commit(lab.group(lab.advance("p", 1, 0)))
    assert lab.sequence(lab.open(), "p") is None


def test_one_producer_that_moved_fails_the_whole_group(lab):
    table = lab.ready()
    lab.put(table, "p", 0)
    staged = [lab.stage(table, "p", 0), lab.stage(table, "q", 0)]
    with pytest.raises(CommitConflict):
        table.commit(lab.group(lab.advance("p", 0), lab.advance("q", 0), staged=staged))
    assert lab.sequence(lab.open(), "q") is None
    assert table.stats().rows == 3


def test_committers_of_different_producers_pass_each_other(lab):
    one, other = lab.ready(), lab.ready()
    for number in range(3):
        lab.put(one, "p", number)
        lab.put(other, "q", number)
    assert lab.open().stats().rows == 18
    assert {name: mark.sequence for name, mark in one.last_sequence(["p", "q"]).items()} == {"p": 2, "q": 2}


@pytest.mark.every_road
def test_a_committer_that_slept_while_its_successor_went_on_is_refused(lab):
    sleeper, successor = lab.ready(), lab.ready()
    lab.put(sleeper, "p", 0)
    staged = lab.stage(sleeper, "p", 1)
    planned = lab.group(lab.advance("p", 1), staged=[staged])
    for number in (1, 2):
        lab.put(successor, "p", number)
    with pytest.raises(CommitConflict):
        sleeper.commit(planned)
    assert lab.sequence(lab.open(), "p") == 2
    assert lab.open().stats().rows == 9


@pytest.mark.every_road
def test_of_rivals_for_one_number_exactly_one_lands(lab):
    lab.ready()
    tables = [lab.open() for _ in range(4)]
    staged = [lab.stage(table, "p", 0, lab.rows(1, run_id=[str(index)])) for index, table in enumerate(tables)]
    gate = threading.Barrier(4)
    landed = []

    def work(index):
        gate.wait()
        try:
            tables[index].commit(lab.group(lab.advance("p", 0), staged=[staged[index]]))
        except CommitConflict:
            return
        landed.append(str(index))

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(landed) == 1
    assert [row["run_id"] for row in lab.read(lab.open(), ["run_id"])] == landed


@pytest.mark.every_road
def test_numbers_are_committed_without_files(lab):
    table = lab.ready()
    assert table.commit(lab.group(lab.advance("p", 4, None))).version == 1
    assert lab.sequence(lab.open(), "p") == 4
    assert table.stats().rows == 0


def test_several_numbers_are_one_step(lab):
    table = lab.ready()
    staged = [lab.stage(table, "p", number) for number in range(3)]
    table.commit(lab.group(lab.advance("p", 2, None), staged=staged))
    assert lab.sequence(lab.open(), "p") == 2
    assert table.stats().rows == 9


@pytest.mark.parametrize("producer", ["é", "日本 😀", 'a"b\\c', "a/b:c", " ", "x" * 2000, "key:2024-01-01T00:00", "{}"])
def test_a_producer_may_have_any_name(lab, producer):
    table = lab.ready()
    lab.put(table, producer, 0)
    lab.put(table, producer, 1)
    found = lab.open().last_sequence([producer])[producer]
    assert found.sequence == 1
    assert set(found.marks) == {0, 1}


def test_numbers_may_be_as_large_as_delta_allows(lab):
    table = lab.ready()
    largest = 2**63 - 1
    staged = lab.stage(table, "p", largest - 1)
    table.commit(lab.group(lab.advance("p", largest - 1, None, marks=False), staged=[staged]))
    table.commit(lab.group(lab.advance("p", largest, marks=True)))
    found = lab.open().last_sequence(["p"])["p"]
    assert found.sequence == largest
    assert set(found.marks) == {largest}


def test_a_commit_to_a_table_that_was_never_made_is_an_error(lab):
    with pytest.raises(WriterTableError):
        lab.open().commit(lab.group(lab.advance("p", 0)))


# ---------------------------------------------------------------- lost files


def test_lost_files_are_named_by_the_position_of_their_batch(lab):
    table = lab.ready()
    staged = [lab.stage(table, "p", number) for number in range(3)]
    for position in (0, 2):
        lab.lose(table.spec, staged[position].files[0].path)
    with pytest.raises(StagedFilesLost) as caught:
        table.commit(lab.group(lab.advance("p", 2, None), staged=staged))
    assert caught.value.positions == (0, 2)
    assert lab.sequence(table, "p") is None
    again = [lab.stage(table, "p", 0), staged[1], lab.stage(table, "p", 2)]
    table.commit(lab.group(lab.advance("p", 2, None), staged=again))
    assert table.stats().rows == 9


def test_a_file_of_another_size_is_lost(lab):
    table = lab.ready()
    staged = lab.stage(table, "p", 0)
    wrong = replace(staged, files=tuple(replace(file, size_bytes=file.size_bytes + 1) for file in staged.files))
    with pytest.raises(StagedFilesLost):
        table.commit(lab.group(lab.advance("p", 0), staged=[wrong]))


# ---------------------------------------------------------------- columns that come later


@pytest.mark.every_road
def test_a_new_column_is_added_by_the_commit_that_brings_it(lab):
    table = lab.ready()
    lab.put(table, "p", 0)
    lab.put(table, "p", 1, lab.rows(2, host=["a", "b"], cost=[1.5, None]))
    schema = lab.open().stats().schema
    assert schema.names[len(LOG_SCHEMA) :] == ["host", "cost"]
    assert all(column.nullable for column in schema)
    assert sorted(str(row["host"]) for row in lab.read(table, ["host"])) == ["None", "None", "None", "a", "b"]


def test_two_committers_may_bring_the_same_column(lab):
    one, other = lab.ready(), lab.ready()
    first, second = lab.stage(one, "p", 0, lab.rows(1, host=["a"])), lab.stage(other, "q", 0, lab.rows(1, host=["b"]))
    one.commit(lab.group(lab.advance("p", 0), staged=[first]))
    other.commit(lab.group(lab.advance("q", 0), staged=[second]))
    assert lab.open().stats().schema.names.count("host") == 1


def test_files_of_an_older_schema_are_still_committed(lab):
    table = lab.ready()
    old = lab.stage(table, "q", 0)
    lab.put(table, "p", 0, lab.rows(1, host=["a"]))
    table.commit(lab.group(lab.advance("q", 0), staged=[old]))
    assert lab.open().stats().rows == 4


def test_a_refusal_for_a_column_names_the_staged_batch_at_fault(lab):
    table = lab.ready()
    lab.put(table, "rival", 0, lab.rows(1, cores=["four"]))
    good = lab.stage(table, "a", 0, lab.rows(1, ready=[True]))
    empty = lab.stage(table, "b", 0, lab.rows(0))
    bad = lab.stage(table, "c", 0, lab.rows(1, cores=[4]))
    group = lab.group(*(lab.advance(name, 0) for name in "abc"), staged=[good, empty, bad])
    with pytest.raises(WriterSchemaError) as caught:
        table.commit(group)
    assert caught.value.context["positions"] == (2,)
    assert lab.sequence(table, "a") is None


@pytest.mark.every_road
def test_a_column_of_another_type_is_refused_and_nothing_lands(lab):
    table = lab.ready()
    lab.put(table, "p", 0, lab.rows(1, host=["a"]))
    with pytest.raises(WriterSchemaError, match="host") as caught:
        lab.put(table, "p", 1, lab.rows(1, host=[1]))
    assert caught.value.expected_schema["host"] == "string"
    assert caught.value.actual_schema["host"] == "int64"
    assert lab.sequence(table, "p") == 0
    lab.put(table, "p", 1)


# ---------------------------------------------------------------- unknown outcomes


@pytest.mark.every_road
def test_a_commit_that_landed_and_raised_is_found_by_looking(lab):
    faulty = FaultyEngine(lab.engine())
    table = faulty.open(lab.spec())
    table.ensure()
    faulty.inject("commit", LandAndRaise())
    with pytest.raises(CommitUnknown):
        lab.put(table, "p", 0)
    found = table.last_sequence(["p"])["p"]
    assert found.sequence == 0
    assert found.marks[0] == (Mark("digest-0", "stamp-0"), 1)


def test_a_commit_that_was_lost_is_found_missing_by_looking(lab):
    faulty = FaultyEngine(lab.engine())
    table = faulty.open(lab.spec())
    table.ensure()
    faulty.inject("commit", Fail(CommitUnknown("lost")))
    with pytest.raises(CommitUnknown):
        lab.put(table, "p", 0)
    assert lab.sequence(table, "p") is None
    lab.put(table, "p", 0)
    assert faulty.calls["commit"] == 2


def test_a_commit_that_arrives_after_its_repetition_is_refused(lab):
    faulty = FaultyEngine(lab.engine())
    table = faulty.open(lab.spec())
    table.ensure()
    faulty.inject("commit", LandLate())
    with pytest.raises(CommitUnknown):
        lab.put(table, "p", 0)
    lab.put(lab.ready(), "p", 0)
    (ended,) = faulty.release_late()
    assert isinstance(ended, CommitConflict)
    assert lab.open().stats().rows == 3


def test_a_commit_that_arrives_late_and_first_refuses_its_repetition(lab):
    faulty = FaultyEngine(lab.engine())
    table = faulty.open(lab.spec())
    table.ensure()
    faulty.inject("commit", LandLate())
    with pytest.raises(CommitUnknown):
        lab.put(table, "p", 0)
    assert faulty.release_late() == [None]
    with pytest.raises(CommitConflict):
        lab.put(lab.ready(), "p", 0)
    assert lab.open().stats().rows == 3


def test_a_look_does_not_wait_for_a_commit_that_hangs(lab):
    faulty = FaultyEngine(lab.engine())
    table = faulty.open(lab.spec())
    table.ensure()
    hang = Hang(threading.Event())
    faulty.inject("commit", hang)
    thread = threading.Thread(target=lab.put, args=(table, "p", 0))
    thread.start()
    assert hang.started.wait(10)
    assert lab.sequence(table, "p") is None
    hang.gate.set()
    thread.join()
    assert lab.sequence(table, "p") == 0


# ---------------------------------------------------------------- marks


@pytest.mark.every_road
def test_marks_are_remembered_by_the_table_and_not_by_the_process(lab):
    table = lab.ready()
    lab.put(table, "p", 0)
    staged = [lab.stage(table, "p", number) for number in (1, 2)]
    table.commit(lab.group(lab.advance("p", 2, 0), lab.advance("q", 0), staged=staged))
    expected = {
        0: (Mark("digest-0", "stamp-0"), 1),
        1: (Mark("digest-1", "stamp-1"), 2),
        2: (Mark("digest-2", "stamp-2"), 2),
    }
    for other in (table, lab.open()):
        found = other.last_sequence(["p", "q", "r"])
        assert found["p"].marks == expected
        assert set(found["q"].marks) == {0}
        assert (found["r"].sequence, dict(found["r"].marks)) == (None, {})


def test_marks_of_rivals_are_seen_by_a_handle_that_looked_before(lab):
    table, rival = lab.ready(), lab.ready()
    lab.put(table, "p", 0)
    assert set(table.last_sequence(["p"])["p"].marks) == {0}
    lab.put(rival, "p", 1)
    lab.put(rival, "q", 0)
    assert set(table.last_sequence(["p"])["p"].marks) == {0, 1}
    lab.put(table, "p", 2)
    assert set(table.last_sequence(["p"])["p"].marks) == {0, 1, 2}
    assert table.last_sequence(["p"])["p"].marks == lab.open().last_sequence(["p"])["p"].marks


def test_the_newest_marks_outlive_many_commits_and_checkpoints(lab):
    table = lab.ready()
    for number in range(45):
        table.commit(lab.group(lab.advance("p", number)))
    for other in (table, lab.open()):
        found = other.last_sequence(["p"])["p"]
        assert found.sequence == 44
        assert set(range(45)) <= set(found.marks)


def test_a_producer_that_expires_is_forgotten_after_its_retention(lab):
    now = datetime.now(timezone.utc)
    old = ManualClock(start=now - timedelta(days=2))
    spec = lab.spec(producer_retention_days=1)
    table = lab.ready(spec, old)
    table.commit(lab.group(lab.advance("key:old", 0, expires=True), lab.advance("stays", 0)))
    fresh = lab.ready(spec, ManualClock(start=now))
    fresh.commit(lab.group(lab.advance("key:new", 0, expires=True)))
    found = lab.open(spec, ManualClock(start=now)).last_sequence(["key:old", "key:new", "stays"])
    assert {name: watermark.sequence for name, watermark in found.items()} == {
        "key:old": None,
        "key:new": 0,
        "stays": 0,
    }
    fresh.commit(lab.group(lab.advance("key:old", 0, expires=True)))


# ---------------------------------------------------------------- partitions

PARTITIONED = pa.schema(
    [("step_name", pa.string()), ("day", pa.date32()), ("shard", pa.int64()), ("kind", pa.string())]
)


def partitioned(lab):
    return lab.spec(name="logs.days", schema=PARTITIONED, stamps={}, partition_columns=("day", "shard", "kind"),
                    statistics_columns=("step_name",))  # fmt: skip


def test_rows_go_to_their_partitions_and_come_back(lab):
    table = lab.ready(partitioned(lab))
    rows = pa.table(
        {
            "step_name": list("abcde"),
            "day": [date(2024, 1, 1), date(2024, 1, 1), None, date(2024, 1, 2), date(2024, 1, 1)],
            "shard": [1, 2, 1, -3, 1],
            "kind": ["x_Y-1", "x_Y-1", None, "y", "x_Y-1"],
        },
        schema=PARTITIONED,
    )
    staged = lab.stage(table, "p", 0, rows)
    assert [dict(file.partition_values) for file in staged.files] == [
        {"day": "2024-01-01", "shard": "1", "kind": "x_Y-1"},
        {"day": "2024-01-01", "shard": "2", "kind": "x_Y-1"},
        {"day": None, "shard": "1", "kind": None},
        {"day": "2024-01-02", "shard": "-3", "kind": "y"},
    ]
    table.commit(lab.group(lab.advance("p", 0), staged=[staged]))
    found = sorted(lab.read(lab.open(table.spec)), key=lambda row: row["step_name"])
    assert found == rows.to_pylist()
    assert table.stats().partition_columns == ("day", "shard", "kind")


@pytest.mark.parametrize("value", ["", "a/b", "..", "a b", "é", "a=b", "__HIVE_DEFAULT_PARTITION__", "a%20b"])
def test_a_partition_value_that_no_folder_can_be_named_by_is_refused_before_anything_is_written(lab, value):
    table = lab.ready(partitioned(lab))
    with pytest.raises((WriterValidationError, WriterSchemaError)):
        lab.stage(table, "p", 0, pa.table({"step_name": ["a", "b"], "kind": ["fine", value]}))
    assert not list(lab.folder.rglob("*.parquet*"))


def test_a_spec_without_partitions_takes_those_of_the_table(lab):
    lab.ready(partitioned(lab))
    table = lab.ready(replace(partitioned(lab), partition_columns=()))
    assert table.spec.partition_columns == ("day", "shard", "kind")
    lab.put(table, "p", 0, pa.table({"step_name": ["a"], "kind": ["k"]}))
    assert lab.read(table, ["step_name", "kind"]) == [{"step_name": "a", "kind": "k"}]


def test_a_spec_of_other_partitions_is_an_error_that_names_both(lab):
    lab.ready(partitioned(lab))
    with pytest.raises(WriterTableError, match=r"day, shard, kind, and was .* by kind\."):
        lab.open(replace(partitioned(lab), partition_columns=("kind",))).ensure()


# ---------------------------------------------------------------- scan and stats


@pytest.mark.every_road
def test_a_predicate_chooses_rows_and_columns_are_chosen_by_name(lab):
    table = lab.ready()
    lab.put(table, "p", 0, lab.rows(10))
    lab.put(table, "p", 1, lab.rows(2, phase=["gold", None]))
    assert len(lab.read(table, ["phase"], "\"phase\" = 'gold'")) == 1
    assert len(lab.read(table, ["run_id"], '"phase" IS NULL OR "rows_written" >= 8')) == 3
    assert len(lab.read(table, None, '"success" = TRUE AND NOT "rows_written" IN (1, 2)')) == 4
    later = "\"start_time\" > TIMESTAMP '2024-01-01T00:00:08Z'"
    assert lab.read(table, ["rows_written"], later) == [{"rows_written": 9}]


def test_a_column_that_is_not_there_is_named(lab):
    with pytest.raises(WriterSchemaError, match="nowhere"):
        lab.ready().scan(["nowhere"])


def test_statistics_never_hide_a_row(lab):
    table = lab.ready(lab.spec(max_file_bytes=60_000))
    count = 3_000
    rows = lab.rows(
        count,
        run_id=[("é" * 40 + str(index)) if index % 3 else None for index in range(count)],
        step_name=["\U0010ffff" * 33 + str(index) for index in range(count)],
        start_time=pa.array(
            [None if index % 5 == 0 else DAY_US + index * 333_333 for index in range(count)], TIMESTAMP
        ),
    )
    lab.put(table, "p", 0, rows)
    for index in (1, 7, 1499, 2999):
        row = rows.slice(index, 1).to_pylist()[0]
        checks = ['"step_name" = \'' + row["step_name"] + "'"]
        if row["run_id"]:
            checks.append('"run_id" = \'' + row["run_id"] + "'")
        if row["start_time"]:
            checks.append(f"\"start_time\" = TIMESTAMP '{row['start_time'].isoformat()}'")
        for check in checks:
            found = lab.read(table, ["rows_written"], f'{check} AND "rows_written" = {index}')
            assert found == [{"rows_written": index}], check


DAY_US = 1_704_067_200_000_000


def test_stats_count_rows_files_and_bytes_exactly(lab):
    table = lab.ready()
    sizes = []
    for number in range(3):
        staged = lab.stage(table, "p", number, lab.rows(number + 1))
        sizes += [file.size_bytes for file in staged.files]
        table.commit(lab.group(lab.advance("p", number), staged=[staged]))
    found = lab.open().stats()
    assert (found.rows, found.files, found.size_bytes, found.version) == (6, 3, sum(sizes), 3)
    age_ms = datetime.now(timezone.utc).timestamp() * 1000 - found.last_modified_ms
    assert -1_000 < age_ms < 60_000


def test_every_error_says_what_can_be_done(lab):
    table = lab.ready()
    for call in (lambda: table.run(object()), lambda: table.scan(["nowhere"]), lab.open(lab.spec(name="a.b")).scan):
        with pytest.raises(WriterError) as caught:
            call()
        assert caught.value.suggestions
        assert caught.value.retriable is False
