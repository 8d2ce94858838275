"""A table without the past of its log, and rewritings that are made there."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from sfwriter.exceptions import WriterTableError
from sfwriter.storage import delta_maintain, short_log
from sfwriter.storage.delta_log import LogDisk, open_table
from sfwriter.storage.engine import Checkpoint, Compact, Sort, Vacuum
from sfwriter.storage.log_tail import checkpoint_name, entry_name, tail_of
from sfwriter.storage.rewriting import land

HOUR_S = 3600


@pytest.fixture
def table(delta):
    """Seven versions behind a checkpoint of version 3."""
    table = delta.ready()
    for number in range(7):
        delta.put(table, "p", number, delta.rows(run_id=[f"run-{number}"] * 3))
        if number == 2:
            table.run(Checkpoint())
    return table


@pytest.fixture
def root(table):
    return Path(table.spec.location)


@pytest.fixture
def log(root):
    return root / "_delta_log"


def names(*versions):
    return [entry_name(version) for version in versions]


# ---------------------------------------------------------------- what is needed of a log


def test_the_tail_begins_at_the_last_checkpoint(root):
    tail = tail_of(root)
    assert (tail.checkpoints, tail.entries, tail.hinted) == ([checkpoint_name(3)], names(3, 4, 5, 6, 7), True)


def test_a_checkpoint_stands_for_its_own_entry(root, log):
    (log / entry_name(3)).unlink()
    assert tail_of(root).entries == names(4, 5, 6, 7)


@pytest.mark.parametrize("hint", [None, "", "{", '{"version": 2}', '{"version": 99}', "[]"])
def test_the_tail_is_listed_where_nothing_tells_of_it(root, log, hint):
    (log / "_last_checkpoint").unlink()
    if hint is not None:
        (log / "_last_checkpoint").write_text(hint)
    tail = tail_of(root)
    assert (tail.checkpoints, tail.entries, tail.hinted) == ([checkpoint_name(3)], names(3, 4, 5, 6, 7), False)


def test_an_old_entry_is_not_trusted_to_be_the_newest(root, log):
    """Whoever wrote a newer checkpoint, and tidied what it stands for, died before he said so."""
    shutil.copy(log / checkpoint_name(3), log / checkpoint_name(6))
    (log / entry_name(5)).unlink()
    old = time.time() - HOUR_S
    os.utime(log / entry_name(4), (old, old))
    tail = tail_of(root)
    assert (tail.checkpoints, tail.entries) == ([checkpoint_name(6)], names(6, 7))


def test_a_log_without_a_checkpoint_is_needed_whole(delta):
    table = delta.ready()
    delta.put(table, "p", 0)
    tail = tail_of(Path(table.spec.location))
    assert (tail.checkpoints, tail.entries) == ([], names(0, 1))


def test_checkpoints_of_other_kinds_are_kept_beside(root, log):
    for name in (f"{5:020}.checkpoint.{1:010}.{2:010}.parquet", f"{2:020}.checkpoint.{1:010}.{2:010}.parquet"):
        (log / name).touch()
    (log / "_last_checkpoint").write_text('{"version": 5, "parts": 2}')
    tail = tail_of(root)
    assert sorted(tail.checkpoints) == [checkpoint_name(3), f"{5:020}.checkpoint.{1:010}.{2:010}.parquet"]
    assert tail.entries == names(3, 4, 5, 6, 7)


def test_an_empty_entry_behind_a_checkpoint_is_told(table, log):
    (log / entry_name(2)).write_bytes(b"")
    assert open_table(table.spec, with_files=False).version() == 7
    (log / entry_name(6)).write_bytes(b"")
    with pytest.raises(WriterTableError, match="entry 6 of its log is empty") as caught:
        open_table(table.spec, with_files=False)
    assert caught.value.context["entries"] == names(6)


# ---------------------------------------------------------------- a folder of links


def test_a_short_log_is_the_newest_version_and_leaves_nothing(delta, table, root, log):
    before = sorted(root.iterdir())
    with short_log.short_log(table.spec) as short:
        found = open_table(short.spec, with_files=True)
        assert found.version() == 7
        assert found.metadata().id == table.identity.table_id
        assert not (short.folder / "_delta_log" / entry_name(2)).exists()
        assert delta.open().stats().rows == 21
    assert sorted(root.iterdir()) == before


def test_a_short_log_stays_whole_while_others_write_newer_checkpoints(table):
    with short_log.short_log(table.spec) as short:
        DeltaTable(table.spec.location, version=5).create_checkpoint()
        found = open_table(short.spec, with_files=True)
        assert found.version() == 7
        assert len(found.file_uris()) == 7


def test_readers_and_vacuum_look_past_one(delta, table, root):
    """As a process leaves it that is killed."""
    begun = short_log.short_log(table.spec)
    short = begun.__enter__()
    short.show_files(file.name for file in root.glob("*.parquet"))
    assert delta.open().stats().rows == 21
    assert table.run(Vacuum(0, full=True, dry_run=True))["files_deleted"] == [short.folder.name]
    assert table.run(Vacuum(1, full=True))["files_deleted"] == []
    old = time.time() - 2 * HOUR_S
    os.utime(short.folder, (old, old))
    assert table.run(Vacuum(1, full=True))["files_deleted"] == [short.folder.name]
    assert not short.folder.exists()
    assert len(delta.read(delta.open())) == 21


def test_a_table_that_is_gone_is_not_made_anew(delta, table):
    delta.remove(table.spec)
    with pytest.raises(FileNotFoundError), short_log.short_log(table.spec):
        pass
    assert not Path(table.spec.location).exists()


def test_a_table_in_an_object_store_has_none(delta):
    with pytest.raises(ValueError, match="not on a local disk"), short_log.short_log(delta.spec(location="s3://b/t")):
        pass


def test_checkpoints_are_those_of_the_whole_log(delta, checkpoints_written):
    table = delta.ready()
    for number in range(120):
        table.commit(delta.group(delta.advance(f"producer-{number % 7}", number // 7)))
        if number % 50 == 49:
            checkpoints_written()
    root = Path(table.spec.location)
    assert tail_of(root).checkpoints == [checkpoint_name(100)]
    for version in range(100):  # as after a tidying
        (root / "_delta_log" / entry_name(version)).unlink()
    found = DeltaTable(table.spec.location)
    assert found.version() == 120
    assert {found.transaction_version(f"producer-{number}") for number in range(7)} == {16, 17}


@pytest.mark.parametrize("hinted", [True, False])
def test_a_checkpoint_that_is_there_is_not_harmed_by_another_of_its_version(delta, table, log, hinted):
    table.run(Checkpoint())
    content = (log / checkpoint_name(7)).read_bytes()
    if not hinted:
        (log / "_last_checkpoint").unlink()
    with short_log.short_log(table.spec) as short:
        found = open_table(short.spec, with_files=False)
        found.create_checkpoint()
        short.move_checkpoint(found.version())
    assert not (log / checkpoint_name(7)).is_symlink()
    assert (log / checkpoint_name(7)).read_bytes() == content
    assert not (log / "_last_checkpoint").is_symlink()
    assert tail_of(log.parent).hinted is hinted
    assert len(delta.read(delta.open())) == 21


# ---------------------------------------------------------------- rewritings


@pytest.fixture
def meanwhile(monkeypatch):
    """Have something done between a rewriting and its landing, the first so many times."""

    def put(rival, times=1):
        left = [times]

        def landing(*args):
            if left[0]:
                left[0] -= 1
                rival()
            return land(*args)

        monkeypatch.setattr(delta_maintain, "land", landing)

    return put


def live(table):
    return {Path(uri).name for uri in DeltaTable(table.spec.location).file_uris()}


def test_a_rewriting_lands_behind_those_that_append_meanwhile(delta, table, root, meanwhile):
    def rivals():
        other = delta.open()
        for number in range(120):
            delta.put(other, "q", number)

    meanwhile(rivals)
    result = table.run(Compact((), 1 << 20))
    assert (result["files_removed"], result["files_added"], result["version"]) == (7, 1, 128)
    assert len(live(table)) == 121
    assert len(delta.read(delta.open())) == 21 + 360
    assert (delta.sequence(delta.open(), "p"), delta.sequence(delta.open(), "q")) == (6, 119)
    assert DeltaTable(str(root)).history(1)[0]["operation"] == "OPTIMIZE"


def test_a_rewriting_whose_files_somebody_removed_is_made_anew(delta, table, root, meanwhile):
    meanwhile(lambda: DeltaTable(str(root)).delete("run_id = 'run-4'"))
    assert table.run(Compact((), 1 << 20))["files_removed"] == 6
    assert len(delta.read(delta.open())) == 18
    assert len(live(table)) == 1
    orphans = {file.name for file in root.glob("*.parquet")} - live(table)
    tombstones = {Path(str(path)).name for path in table.run(Vacuum(0, dry_run=True))["files_deleted"]}
    assert orphans == tombstones  # nothing of the first try is left


def test_a_rewriting_that_another_has_made_meanwhile_is_not_made_twice(delta, table, meanwhile):
    meanwhile(DeltaTable(table.spec.location).optimize.compact)
    result = table.run(Compact((), 1 << 20))
    assert (result["files_removed"], result["files_added"]) == (0, 0)
    assert len(live(table)) == 1
    assert len(delta.read(delta.open())) == 21


def test_a_rewriting_of_a_table_that_gets_columns_is_made_anew(delta, table, meanwhile):
    meanwhile(lambda: delta.put(delta.open(), "q", 0, delta.rows(extra=pa.array([1, 2, 3], pa.int64()))))
    assert table.run(Compact((), 1 << 20))["files_removed"] == 8
    found = delta.read(delta.open())
    assert sorted(row["extra"] or 0 for row in found)[-3:] == [1, 2, 3]


def test_rivals_that_never_end_are_told_and_nothing_is_left(delta, table, root, meanwhile):
    runs = iter(range(3))
    meanwhile(lambda: DeltaTable(str(root)).delete(f"run_id = 'run-{next(runs)}'"), times=3)
    with pytest.raises(WriterTableError, match="could not be optimized: others changed it meanwhile, 3") as caught:
        table.run(Compact((), 1 << 20))
    assert caught.value.retriable
    assert len(delta.read(delta.open())) == 12
    assert not list(root.glob(".*.tmp"))
    known = live(table) | {Path(str(path)).name for path in table.run(Vacuum(0, dry_run=True))["files_deleted"]}
    assert {file.name for file in root.glob("*.parquet")} == known


def test_an_answer_that_is_lost_is_looked_up(delta, table, monkeypatch):
    publish = LogDisk.publish

    def lost(self, hidden, version):
        publish(self, hidden, version)
        raise OSError(5, "the disk's answer was lost")

    monkeypatch.setattr(LogDisk, "publish", lost)
    assert table.run(Compact((), 1 << 20))["version"] == 8
    monkeypatch.undo()
    assert len(live(table)) == 1
    assert len(delta.read(delta.open())) == 21


def test_files_whose_entry_may_have_landed_stay(delta, table, root, monkeypatch):
    def fails(self, hidden, version):
        raise OSError(5, "the disk's answer was lost")

    before = live(table)
    monkeypatch.setattr(LogDisk, "publish", fails)
    with pytest.raises(WriterTableError, match="the disk's answer was lost"):
        table.run(Compact((), 1 << 20))
    monkeypatch.undo()
    assert live(table) == before
    assert len({file.name for file in root.glob("*.parquet")} - before) == 1
    assert len(delta.read(delta.open())) == 21


def test_files_of_a_rewriting_are_flushed_before_its_entry(table, root, fsynced, monkeypatch):
    publish = LogDisk.publish
    before = []

    def watched(self, hidden, version):
        before.extend(fsynced)
        return publish(self, hidden, version)

    monkeypatch.setattr(LogDisk, "publish", watched)
    del fsynced[:]
    table.run(Compact((), 1 << 20))
    (name,) = live(table)
    assert before[-1].name.endswith(".json.tmp")
    assert set(before[:-1]) == {root / name, root}
    assert fsynced[-2:] == [root / "_delta_log" / entry_name(8), root / "_delta_log"]


@pytest.mark.parametrize("action", [Compact((), 1 << 20), Sort((), ("rows_written",), 1 << 20)])
def test_partitions_of_any_name_are_rewritten(delta, action):
    """Others write names that this library refuses."""
    values = ["plain", "with space", "ü/%25", None, "a=b"]
    table = delta.ready(delta.spec(partition_columns=("run_id",)))
    for _ in range(4):
        rows = delta.rows(len(values), run_id=pa.array(values, pa.string()))
        write_deltalake(table.spec.location, rows, mode="append", schema_mode="merge")
    before = sorted(map(repr, delta.read(table)))
    assert table.run(action)["files_removed"] == 20
    assert sorted(map(repr, delta.read(delta.open(table.spec)))) == before
    assert len(live(table)) == 5


def test_what_would_gain_nothing_makes_no_version(table):
    first = table.run(Compact((), 1 << 20))
    second = table.run(Compact((), 1 << 20))
    assert (second["files_removed"], second["version"]) == (0, first["version"])
