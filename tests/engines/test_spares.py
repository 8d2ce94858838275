"""Files that are made before they are needed: they are as others, and nothing is left of those that are not used."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from sfwriter.batch import Token
from sfwriter.exceptions import WriterTableError
from sfwriter.storage import place, spares
from sfwriter.storage.delta_log import LogDisk
from sfwriter.storage.engine import BatchToStage
from sfwriter.storage.log_tail import entry_path
from sfwriter.storage.place import get_ready
from sfwriter.storage.spares import Spares
from sfwriter.storage.staging import stage_batches
from sfwriter.testing import ManualClock

pytestmark = pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="Linux alone has files without names")


@pytest.fixture(autouse=True)
def own(monkeypatch):
    """Spares of this test alone."""
    found = Spares()
    for module in (spares, place):
        monkeypatch.setattr(module, "SPARES", found)
    monkeypatch.setattr("sfwriter.storage.delta_log.SPARES", found)
    return found


@pytest.fixture
def spec(delta):
    """A table's folder with a log's, and nothing in them."""
    found = delta.spec()
    Path(found.location, "_delta_log").mkdir(parents=True)
    return found


def stage(spec, rows):
    (file,) = stage_batches(spec, [BatchToStage(Token("p", 0), rows)], ManualClock()).files
    return Path(spec.location, file.path), file


def open_files():
    return len(list(Path("/proc/self/fd").iterdir()))


def files_in(spec):
    return sorted(path.name for path in Path(spec.location).rglob("*") if path.is_file())


def test_what_is_staged_into_a_spare_is_as_what_is_not(delta, spec, own, fsynced):
    plain, _ = stage(spec, delta.rows(100))
    get_ready(spec, to_commit=False)
    assert len(files_in(spec)) == 1, "a spare has no name"
    before = open_files()
    path, facts = stage(spec, delta.rows(100))
    assert own.take(Path(spec.location)) is None, "it is used"
    assert open_files() == before - 1
    assert pq.read_table(path).equals(pq.read_table(plain))
    assert facts.size_bytes == path.stat().st_size
    assert (path.stat().st_mode, path.stat().st_nlink) == (plain.stat().st_mode, 1)
    assert files_in(spec) == sorted([plain.name, path.name])
    assert str(fsynced[-2]).endswith("(deleted)"), "its rows are on the disk before it has a name"
    assert fsynced[-1] == path.parent


def test_a_partitions_file_is_staged_into_a_spare_of_the_table(delta, own):
    spec = delta.spec(partition_columns=("phase",))
    Path(spec.location).mkdir(parents=True)
    get_ready(spec, to_commit=False)
    files = stage_batches(spec, [BatchToStage(Token("p", 0), delta.rows(100))], ManualClock()).files
    assert own.take(Path(spec.location)) is None
    assert sum(pq.ParquetFile(Path(spec.location, file.path)).metadata.num_rows for file in files) == 100


@pytest.mark.parametrize("when", ["link", "fsync"])
def test_a_spare_that_cannot_be_kept_leaves_nothing_and_the_next_try_needs_none(delta, spec, own, monkeypatch, when):
    get_ready(spec, to_commit=False)
    before = open_files()

    def breaking(*_arguments, **_named):
        raise OSError(errno.EIO, "broken")

    with monkeypatch.context() as patch:
        patch.setattr(os, when, breaking)
        with pytest.raises(WriterTableError):
            stage(spec, delta.rows(10))
    assert (open_files(), files_in(spec)) == (before - 1, [])
    get_ready(spec, to_commit=False)
    assert (own.take(Path(spec.location)) is None) == (when == "link")
    stage(spec, delta.rows(10))


def test_an_entry_written_into_a_spare_excludes_others(spec, own):
    disk = LogDisk(spec)
    get_ready(spec, to_commit=True)
    with disk.prepared(b'{"a":1}\n') as entry:
        assert own.take(entry.parent) is None
        assert files_in(spec) == []
        assert disk.publish(entry, 0)
        assert disk.publish(entry, 0), "asked twice, it is ours"
    assert json.loads(Path(spec.location, entry_path(0)).read_text()) == {"a": 1}
    get_ready(spec, to_commit=True)
    with disk.prepared(b'{"b":1}\n') as entry:
        assert not disk.publish(entry, 0), "another one's is there"
        assert disk.publish(entry, 1)
    assert files_in(spec) == [f"{version:020}.json" for version in (0, 1)]
    get_ready(spec, to_commit=True)
    assert disk.has_links()


def test_a_table_commits_into_spares(delta):
    table = delta.ready()
    for number in range(5):
        get_ready(table.spec, to_commit=False)
        get_ready(table.spec, to_commit=True)
        assert delta.put(table, "p", number).version == number + 1
    assert delta.open().stats().rows == 15
    assert not list(Path(table.spec.location).rglob("*.tmp"))


def test_one_spare_for_each_folder_and_a_bound_on_all(tmp_path, own, monkeypatch):
    monkeypatch.setattr(spares, "_MOST", 3)
    before = open_files()
    folders = [tmp_path / str(number) for number in range(5)]
    for folder in folders:
        folder.mkdir()
        own.make(folder)
        own.make(folder)
    assert open_files() == before + 3
    assert [own.take(folder) is not None for folder in folders] == [False, False, True, True, True]


def test_a_spare_is_not_used_where_its_folder_is_gone_or_in_a_fork(tmp_path, own):
    own.make(tmp_path / "missing")
    assert own.take(tmp_path / "missing") is None
    folder = tmp_path / "folder"
    folder.mkdir()
    own.make(folder)
    folder.rmdir()
    before = open_files()
    assert own.take(folder) is None
    assert open_files() == before - 1
    folder.mkdir()
    own.make(folder)
    child = os.fork()
    if not child:
        os._exit(own.take(folder) is not None)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert own.take(folder) is not None


def test_nothing_is_made_ahead_in_an_object_store(own, delta):
    get_ready(delta.spec(location="s3://bucket/table"), to_commit=True)
    assert not own._of


def test_where_such_files_cannot_be_named_files_are_made_as_ever(delta, own, monkeypatch):
    table, link = delta.ready(), os.link

    def refusing(*paths, **how):
        if how:
            raise OSError(errno.EPERM, "Operation not permitted")
        link(*paths)

    monkeypatch.setattr(os, "link", refusing)
    before = open_files(), files_in(table.spec)
    for to_commit in (False, True):
        get_ready(table.spec, to_commit=to_commit)
    assert (open_files(), files_in(table.spec)) == before
    assert not own._of
    assert delta.put(table, "p", 0).version == 1
