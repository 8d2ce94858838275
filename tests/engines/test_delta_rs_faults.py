"""What goes wrong on a real disk and in a real log, and what is said of it."""

from __future__ import annotations

import errno
import itertools
import json
import os
import resource
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, Field, write_deltalake
from deltalake.exceptions import CommitFailedError, TableNotFoundError

from sfwriter.exceptions import WriterSchemaError, WriterTableError
from sfwriter.storage import delta_commit, delta_log
from sfwriter.storage.delta_log import LogDisk
from sfwriter.storage.engine import CommitConflict, CommitUnknown
from sfwriter.testing import ManualClock

ROOT = Path(__file__).parents[2]


def names(location):
    return sorted(str(path.relative_to(location)) for path in Path(location).rglob("*") if path.is_file())


# ---------------------------------------------------------------- the disk


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 2 MiB, where the system lets us mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("no right to mount a small disk; the limit of a file's size is tested all the same")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def fill(folder):
    with (folder / "filler").open("wb", buffering=0) as filler, pytest.raises(OSError, match="No space"):
        filler.writelines(itertools.repeat(b"x" * 4096))


def test_a_full_disk_is_said_and_can_be_mended(delta, small_disk):
    spec = delta.spec(location=str(small_disk / "logs" / "runs"))
    table = delta.ready(spec)
    delta.put(table, "p", 0)
    staged = delta.stage(table, "p", 1)
    before = names(spec.location)
    fill(small_disk)
    group = delta.group(delta.advance("p", 1), staged=[staged])
    other = delta.open(delta.spec(location=str(small_disk / "logs" / "other")))
    for call in (
        lambda: table.commit(group),
        lambda: delta.stage(table, "p", 2),
        lambda: delta.stage(table, "p", 2, delta.rows(50_000)),
        other.ensure,
    ):
        with pytest.raises(WriterTableError, match="no space") as caught:
            call()
        assert caught.value.retriable
        assert caught.value.code == "disk_full"
    assert names(spec.location) == before
    (small_disk / "filler").unlink()
    assert table.commit(group).version == 2
    assert other.ensure().version == 0
    assert delta.open(spec).stats().rows == 6


def test_a_disk_that_cannot_be_written_is_said(delta, small_disk):
    spec = delta.spec(location=str(small_disk / "logs" / "runs"))
    table = delta.ready(spec)
    staged = delta.stage(table, "p", 0)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    for call in (
        lambda: table.commit(delta.group(delta.advance("p", 0), staged=[staged])),
        lambda: delta.stage(table, "p", 0),
        delta.open(delta.spec(location=str(small_disk / "other"))).ensure,
    ):
        with pytest.raises(WriterTableError, match="may not write") as caught:
            call()
        assert not caught.value.retriable
    assert table.stats().rows == 0
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    assert table.commit(delta.group(delta.advance("p", 0), staged=[staged])).version == 1


LIMITED = """
import resource, signal, sys
sys.path.insert(0, "tests/engines")
from conftest import DeltaRsLab
from pathlib import Path
from sfwriter.exceptions import WriterTableError
lab = DeltaRsLab(Path(sys.argv[1]))
table = lab.ready()
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    lab.stage(table, "p", 0, lab.rows(100_000))
except WriterTableError as error:
    print(error.code, error.retriable)
lab.put(table, "p", 0)
print(table.stats().rows)
"""


def test_a_limit_on_file_sizes_is_said_and_leaves_nothing(delta):
    ended = subprocess.run([sys.executable, "-c", LIMITED, delta.folder], cwd=ROOT, capture_output=True, text=True,
                           env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=60, check=False)  # fmt: skip
    assert (ended.stdout.split(), ended.stderr) == (["file_too_large", "False", "3"], "")
    assert len([name for name in names(delta.spec().location) if "part-" in name]) == 1


@pytest.mark.parametrize("where", ["", "logs", "logs/runs"])
def test_a_warehouse_that_is_a_file_is_said(delta, where):
    in_the_way = delta.folder / "warehouse" / where
    in_the_way.parent.mkdir(parents=True, exist_ok=True)
    in_the_way.write_text("a file")
    table = delta.open(delta.spec(location=str(delta.folder / "warehouse" / "logs" / "runs")))
    for call in (table.ensure, table.stats, lambda: table.last_sequence(["p"])):
        with pytest.raises(WriterTableError, match="no folder") as caught:
            call()
        assert str(in_the_way) in str(caught.value)


def test_a_folder_that_cannot_be_made_is_said(delta):
    # /sys takes no folders, not even from root.
    with pytest.raises(WriterTableError, match="may not write"):
        delta.open(delta.spec(location="/sys/sfwriter/logs")).ensure()


def test_a_folder_of_other_things_is_no_table_and_stays_as_it_is(delta):
    spec = delta.spec()
    Path(spec.location).mkdir(parents=True)
    Path(spec.location, "notes.txt").write_text("mine")
    with pytest.raises(WriterTableError, match="no Delta table"):
        delta.open(spec).ensure()
    assert names(spec.location) == ["notes.txt"]


def test_a_creation_that_was_cut_short_is_finished_by_the_next(delta):
    spec = delta.spec()
    Path(spec.location, "_delta_log").mkdir(parents=True)
    Path(spec.location, "_delta_log", f"{0:020}.json#1").write_text('{"protocol"')
    assert delta.open(spec).ensure().version == 0


def test_a_table_that_appears_while_it_is_opened_is_not_taken_for_a_damaged_one(delta, monkeypatch):
    real = delta_log.DeltaTable
    opened = []

    def listing_too_early(*arguments, **named):
        opened.append(arguments)
        if len(opened) == 1:
            delta.ready()  # a rival makes it between our look at the log and our look at the folder
            raise TableNotFoundError("No files in log segment")
        return real(*arguments, **named)

    Path(delta.spec().location).mkdir(parents=True)
    table = delta.open()
    with monkeypatch.context() as patch:
        patch.setattr(delta_log, "DeltaTable", listing_too_early)
        assert table.ensure().version == 0


@pytest.mark.parametrize("when", ["write", "fsync", "rename", "folder"])
@pytest.mark.parametrize("error", [OSError(errno.EIO, "broken"), KeyboardInterrupt()], ids=["error", "interrupt"])
def test_staging_that_breaks_off_leaves_nothing(delta, monkeypatch, when, error):
    table = delta.ready(delta.spec(max_file_bytes=20_000))
    before = names(table.spec.location)
    calls = []

    def breaking(real, at):
        def call(*arguments, **named):
            calls.append(at)
            if len(calls) == (2 if at != "folder" else 1):
                raise error
            return real(*arguments, **named)

        return call

    from sfwriter.storage import place, staging

    target = {
        "write": (staging.pq.ParquetWriter, "write_table"),
        "fsync": (place, "fsync_path"),
        "rename": (Path, "rename"),
        "folder": (place.LocalPlace, "settle"),
    }[when]
    with monkeypatch.context() as patch:
        patch.setattr(*target, breaking(getattr(*target), when))
        with pytest.raises(KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else WriterTableError):
            delta.stage(table, "p", 0, delta.rows(5_000, metadata=[f"{index:040}" for index in range(5_000)]))
    assert names(table.spec.location) == before


KILLED = """
import os, signal, sys
sys.path.insert(0, "tests/engines")
from conftest import DeltaRsLab
from pathlib import Path
lab = DeltaRsLab(Path(sys.argv[1]))
table = lab.ready()
lab.put(table, "p", 0)
Path.rename = lambda *paths: os.kill(os.getpid(), signal.SIGKILL)
lab.stage(table, "p", 1)
"""


def test_a_process_killed_while_it_stages_leaves_nothing_that_is_seen(delta):
    ended = subprocess.run([sys.executable, "-c", KILLED, delta.folder], cwd=ROOT, timeout=60, check=False,
                           env={**os.environ, "PYTHONPATH": str(ROOT)})  # fmt: skip
    assert ended.returncode == -9
    table = delta.ready()
    assert table.stats().rows == 3
    left = [path for path in Path(table.spec.location).iterdir() if path.name.endswith(".tmp")]
    assert len(left) == 1
    assert left[0].name.startswith(".")
    delta.put(table, "p", 1)


def test_files_left_open_are_none(delta, checkpoints_written):
    table = delta.ready()
    delta.put(table, "p", 0)
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)

    def opened():
        return len(list(Path("/proc/self/fd").iterdir()))

    before = opened()
    for number in range(1, 60):
        delta.put(table, "p", number)
        delta.sequence(table, "p")
    checkpoints_written()
    # delta-rs's own threads close what they have read a moment after the call.
    until = time.monotonic() + 10
    while opened() > before + 5 and time.monotonic() < until:
        time.sleep(0.01)
    assert opened() <= before + 5 < limit


# ---------------------------------------------------------------- the log


def entry(location, version):
    return Path(location, "_delta_log", f"{version:020}.json")


@pytest.mark.parametrize("damage", ["{not json", "\x00" * 100, ""])
def test_a_damaged_log_is_said_and_nothing_is_written(delta, damage):
    table = delta.ready()
    delta.put(table, "p", 0)
    staged = delta.stage(table, "p", 1)
    before = names(table.spec.location)
    entry(table.spec.location, 1).write_text(damage)
    fresh = delta.open()
    for call in (
        fresh.ensure,
        fresh.stats,
        lambda: fresh.last_sequence(["p"]),
        lambda: fresh.commit(delta.group(delta.advance("p", 1), staged=[staged])),
    ):
        with pytest.raises(WriterTableError) as caught:
            call()
        assert caught.value.suggestions
        assert "\n   0:" not in str(caught.value)
    assert names(table.spec.location) == before


def test_a_log_with_a_gap_is_said(delta):
    table = delta.ready()
    for number in range(3):
        delta.put(table, "p", number)
    entry(table.spec.location, 1).unlink()
    with pytest.raises(WriterTableError, match="entry 1 of its log is missing"):
        delta.open().ensure()


def test_a_log_that_grows_while_it_is_opened_has_no_gap(delta):
    """A listing of a folder may show an entry that was made meanwhile, and not the one before it."""
    table = delta.ready()
    for number in range(30_000):  # a listing takes longer than a commit
        Path(table.spec.location, "_delta_log", f"other-{number}").touch()
    over = threading.Event()

    def write():
        number = 0
        while not over.is_set():
            delta.put(table, "p", number)
            number += 1

    with ThreadPoolExecutor(1) as threads:
        written = threads.submit(write)
        try:
            for _ in range(8):
                assert delta.open().stats().exists
        finally:
            over.set()
        written.result()


def test_a_log_without_its_first_entry_is_not_taken_for_a_new_table(delta):
    table = delta.ready()
    delta.put(table, "p", 0)
    entry(table.spec.location, 0).unlink()
    with pytest.raises(WriterTableError):
        delta.open().ensure()
    assert not entry(table.spec.location, 0).exists()


FEATURES = ["clustering", "domainMetadata", "rowTracking", "inCommitTimestamp", "typeWidening", "vacuumProtocolCheck",
            "identityColumns", "allowColumnDefaults", "checkpointProtection", "deletionVectors", "v2Checkpoint",
            "columnMapping", "somethingNew", "somethingNewToRead"]  # fmt: skip
BOTH_SIDES = (
    "somethingNewToRead",
    "deletionVectors",
    "v2Checkpoint",
    "columnMapping",
    "typeWidening",
    "vacuumProtocolCheck",
)


def set_protocol(location, features, reader=()):
    path = entry(location, 0)
    actions = [json.loads(line) for line in path.read_text().splitlines()]
    for action in actions:
        if "protocol" in action:
            action["protocol"] = {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": list(reader),
                                  "writerFeatures": [*features, *reader]}  # fmt: skip
    path.write_text("\n".join(map(json.dumps, actions)) + "\n")


@pytest.mark.parametrize("feature", FEATURES)
def test_a_table_feature_that_delta_rs_cannot_write_is_named(delta, feature):
    table = delta.ready()
    reader = [feature] if feature in BOTH_SIDES else []
    set_protocol(table.spec.location, [] if reader else [feature], reader)
    before = names(table.spec.location)
    fresh = delta.open()
    for call in (fresh.ensure, lambda: fresh.commit(delta.group(delta.advance("p", 0)))):
        with pytest.raises(WriterTableError, match=feature):
            call()
    with pytest.raises(WriterTableError, match="Spark"):
        fresh.ensure()
    assert names(table.spec.location) == before


def test_harmless_features_are_no_obstacle(delta):
    table = delta.ready()
    set_protocol(table.spec.location, ["appendOnly", "invariants"])
    delta.put(delta.ready(), "p", 0)
    assert delta.open().stats().rows == 3


def test_a_check_constraint_is_not_gone_past(delta):
    table = delta.ready()
    DeltaTable(table.spec.location).alter.add_constraint({"good": "rows_written >= 0"})
    with pytest.raises(WriterTableError, match="CHECK constraints"):
        delta.open().ensure()


def test_a_column_that_may_not_be_null_is_kept_so(delta):
    strict = pa.schema([pa.field("step_name", pa.string(), nullable=False), pa.field("phase", pa.string())])
    spec = delta.spec(schema=pa.schema([("step_name", pa.string()), ("phase", pa.string())]), stamps={})
    Path(spec.location).parent.mkdir(parents=True)
    DeltaTable.create(spec.location, strict)
    table = delta.ready(spec)
    delta.put(table, "p", 0, pa.table({"step_name": ["a"]}))
    with pytest.raises(WriterSchemaError, match="step_name"):
        delta.put(table, "p", 1, pa.table({"step_name": ["a", None]}))
    assert table.stats().rows == 1


def test_a_table_that_another_program_made_is_written_and_counted(delta):
    spec = delta.spec(schema=pa.schema([("n", pa.int64())]), stamps={}, statistics_columns=("n",))
    write_deltalake(spec.location, pa.table({"n": [1, 2], "mine": ["x", "y"]}))
    table = delta.ready(spec)
    delta.put(table, "p", 0, pa.table({"n": [3]}))
    assert table.stats().rows == 3
    assert sorted(str(row["mine"]) for row in delta.read(table)) == ["None", "x", "y"]
    DeltaTable(spec.location).delete("n = 1")
    assert delta.put(table, "p", 1, pa.table({"n": [4]})).version == 3
    assert table.stats().rows == 3


# ---------------------------------------------------------------- outcomes of a commit that raises


class Making:
    """One of the two ways by which an entry is made, to be broken."""

    def __init__(self, delta, target, *, replaces):
        self.delta, self._target, self._replaces = delta, target, replaces

    def group(self, table, number=0):
        """Three rows of `p`, which go this way."""
        staged = self.delta.stage(table, "p", number)
        return replace(self.delta.group(self.delta.advance("p", number), staged=[staged]), replaces=self._replaces)

    def breaks(self, patch, call):
        """From here on the entry is made by this instead, which is given what does it in truth."""
        real = getattr(*self._target)
        patch.setattr(*self._target, lambda *arguments, **named: call(lambda: real(*arguments, **named)))


@pytest.fixture(params=["our own entry", "delta-rs"])
def making(request, delta):
    if request.param == "delta-rs":
        return Making(delta, (DeltaTable, "create_write_transaction"), replaces=True)
    return Making(delta, (LogDisk, "publish"), replaces=False)


def raising(error):
    def call(_real):
        raise error

    return call


def test_a_commit_that_raised_before_anything_landed_is_an_error_and_not_unknown(delta, making, monkeypatch):
    table = delta.ready()
    group = making.group(table)
    with monkeypatch.context() as patch:
        making.breaks(patch, raising(OSError("Generic error: code: 28, StorageFull")))
        with pytest.raises(WriterTableError, match="no space"):
            table.commit(group)
    assert table.commit(group).version == 1


def test_a_commit_that_raised_after_landing_gives_its_receipt(delta, making, monkeypatch):
    table, rival = delta.ready(), delta.ready()
    group = making.group(table)

    def landing_then_raising(real):
        real()
        patch.undo()
        rival.commit(delta.group(delta.advance("q", 0)))
        raise RuntimeError("after landing")

    with monkeypatch.context() as patch:
        making.breaks(patch, landing_then_raising)
        assert table.commit(group).version == 1
    assert delta.open().stats().version == 2
    assert delta.open().stats().rows == 3
    assert table.commit(making.group(table, 1)).version == 3


def test_a_refusal_by_delta_rs_is_a_conflict(delta, making, monkeypatch):
    table = delta.ready()
    group = making.group(table)
    with monkeypatch.context() as patch:
        making.breaks(patch, raising(CommitFailedError("Metadata changed")))
        with pytest.raises(CommitConflict):
            table.commit(group)


def test_a_lost_answer_is_no_refusal_whatever_its_class(delta, making, monkeypatch):
    table = delta.ready()
    group = making.group(table)
    lost = CommitFailedError("Error interacting with the object store: the request timed out")
    with monkeypatch.context() as patch:
        making.breaks(patch, raising(lost))
        with pytest.raises(WriterTableError, match="timed out"):
            table.commit(group)
        # In an object store the request may still arrive.
        patch.setattr(delta_commit, "local_root", lambda location: None)
        with pytest.raises(CommitUnknown, match="timed out"):
            table.commit(group)


def test_a_commit_that_cannot_be_looked_up_is_unknown(delta, making, monkeypatch):
    table = delta.ready()
    group = making.group(table)
    log = entry(table.spec.location, 1)

    def damaging(_real):
        log.write_text("{")
        raise OSError("lost the answer")

    with monkeypatch.context() as patch:
        making.breaks(patch, damaging)
        with pytest.raises(CommitUnknown):
            table.commit(group)
    log.unlink()
    assert table.commit(group).version == 1


def test_a_panic_is_unknown(delta, making, monkeypatch):
    panic = type("PanicException", (BaseException,), {})
    table = delta.ready()
    group = making.group(table)
    with monkeypatch.context() as patch:
        making.breaks(patch, raising(panic("index out of bounds")))
        with pytest.raises(CommitUnknown):
            table.commit(group)
    assert table.commit(group).version == 1


def test_an_interrupt_passes_as_it_is(delta, making, monkeypatch):
    table = delta.ready()
    group = making.group(table)
    with monkeypatch.context() as patch:
        making.breaks(patch, raising(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            table.commit(group)
    assert table.commit(group).version == 1


# ---------------------------------------------------------------- an entry of our own


@pytest.mark.parametrize("when", ["write", "fsync", "link"])
@pytest.mark.parametrize("error", [OSError(errno.EIO, "broken"), KeyboardInterrupt()], ids=["error", "interrupt"])
def test_an_entry_that_breaks_off_leaves_nothing(delta, monkeypatch, when, error):
    table = delta.ready()
    group = delta.group(delta.advance("p", 0), staged=[delta.stage(table, "p", 0)])
    before = names(table.spec.location)

    def breaking(*_arguments, **_named):
        raise error

    target = {"write": (Path, "open"), "fsync": (os, "fsync"), "link": (os, "link")}[when]
    with monkeypatch.context() as patch:
        patch.setattr(*target, breaking)
        with pytest.raises(KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else WriterTableError):
            table.commit(group)
    assert names(table.spec.location) == before
    assert table.commit(group).version == 1


def test_a_disk_without_hard_links_is_said(delta, monkeypatch):
    table = delta.ready()
    before = names(table.spec.location)

    def without(*_paths):
        raise OSError(errno.EPERM, "Operation not permitted")

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", without)
        with pytest.raises(WriterTableError, match="no hard links") as caught:
            table.commit(delta.group(delta.advance("p", 0)))
    assert (caught.value.code, caught.value.retriable) == ("no_hard_links", False)
    assert names(table.spec.location) == before


@pytest.mark.parametrize("number", [errno.EIO, errno.EEXIST])
def test_an_entry_whose_answer_was_lost_is_there(delta, monkeypatch, number):
    table = delta.ready()
    real = os.link

    def losing(*paths):
        real(*paths)
        raise OSError(number, "the file server did not answer, or was asked twice")

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", losing)
        assert delta.put(table, "p", 0).version == 1
    assert delta.put(table, "p", 1).version == 2
    assert delta.open().stats().rows == 6


@pytest.mark.parametrize("changes", [False, True], ids=["rows", "columns"])
def test_rivals_that_are_always_faster_are_a_conflict(delta, monkeypatch, changes):
    table, rival = delta.ready(), delta.ready()
    monkeypatch.setattr(delta_commit, "_RIVALS_MET", 5)
    real = LogDisk.publish
    made = itertools.count()

    def too_late(self, hidden, version):
        patch.undo()
        if changes:
            DeltaTable(table.spec.location).alter.set_table_properties(
                {"delta.logRetentionDuration": f"interval {30 + next(made)} days"}
            )
        else:
            rival.commit(delta.group(delta.advance("q", next(made))))
        patch.setattr(LogDisk, "publish", too_late)
        return real(self, hidden, version)

    with monkeypatch.context() as patch:
        patch.setattr(LogDisk, "publish", too_late)
        with pytest.raises(CommitConflict, match="faster"):
            delta.put(table, "p", 0)
    assert delta.sequence(delta.open(), "p") is None
    assert delta.put(table, "p", 0).version == next(made) + 1


def test_whatever_a_rival_changes_is_seen_by_the_next_entry(delta):
    """Between entries of ours the handle stays where it was: what changes the table must bring it up to date."""
    table = delta.ready()
    delta.put(table, "p", 0)
    other = DeltaTable(table.spec.location)
    other.alter.add_columns([Field("host", "string")])
    delta.put(table, "p", 1, delta.rows(host=["a"] * 3))
    DeltaTable(table.spec.location).alter.add_constraint({"good": "rows_written >= 0"})
    with pytest.raises(WriterTableError, match="CHECK constraints"):
        delta.put(table, "p", 2)
    DeltaTable(table.spec.location).alter.drop_constraint("good")
    delta.put(table, "p", 2)
    DeltaTable(table.spec.location).delete("host = 'a'")
    delta.put(table, "p", 3)
    assert delta.open().stats().rows == 9
    assert delta.sequence(delta.open(), "p") == 3


def test_an_entry_made_by_an_old_look_is_looked_up(delta, monkeypatch):
    """A process stood still for so long that the log may have been tidied around it."""
    clock = ManualClock()
    table = delta.ready(clock=clock)
    group = delta.group(delta.advance("p", 0), staged=[delta.stage(table, "p", 0)])
    real = LogDisk.publish

    def sleeping(self, hidden, version):
        clock.advance(3600)
        return real(self, hidden, version)

    with monkeypatch.context() as patch:
        patch.setattr(LogDisk, "publish", sleeping)
        with pytest.raises(CommitUnknown, match="old"):
            table.commit(group)
    found = table.last_sequence(["p"])["p"]
    assert (found.sequence, found.marks[0][1]) == (0, 1)
    assert delta.put(table, "p", 1).version == 2


def test_other_readers_take_our_entries_for_deltas_own(delta):
    table = delta.ready(delta.spec(partition_columns=("phase",)))
    delta.put(table, "p", 0, delta.rows(phase=["bronze", "silver", None]), expires=True)
    delta.put(table, "q", 0)
    told = DeltaTable(table.spec.location)
    newest = told.history(1)[0]
    assert (newest["operation"], newest["operationParameters"]["mode"]) == ("WRITE", "Append")
    assert json.loads(newest["operationParameters"]["partitionBy"]) == ["phase"]
    assert {told.transaction_version(name) for name in "pq"} == {0}
    actions = pa.RecordBatchReader.from_stream(told.get_add_actions(flatten=True)).read_all().to_pylist()
    assert sum(action["num_records"] for action in actions) == 6
    assert sorted(str(action["partition.phase"]) for action in actions) == ["None", "bronze", "bronze", "silver"]
    assert all(Path(uri.removeprefix("file://")).is_file() for uri in told.file_uris())


def test_an_entry_that_may_not_be_on_the_disk_is_unknown(delta, monkeypatch):
    table = delta.ready()
    staged = delta.stage(table, "p", 0)

    def broken(path):
        raise OSError(errno.EIO, "broken", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(delta_log, "fsync_path", broken)
        with pytest.raises(CommitUnknown, match="not on the disk"):
            table.commit(delta.group(delta.advance("p", 0), staged=[staged]))
        with pytest.raises(WriterTableError):
            table.last_sequence(["p"])
    assert delta.sequence(table, "p") == 0


def test_a_file_near_its_deletion_by_vacuum_is_not_committed(delta):
    from sfwriter.storage.engine import StagedFilesLost

    table = delta.ready()
    staged = delta.stage(table, "p", 0)
    path = Path(table.spec.location, staged.files[0].path)
    old = path.stat().st_mtime - 4 * 86_400
    os.utime(path, (old, old))
    with pytest.raises(StagedFilesLost):
        table.commit(delta.group(delta.advance("p", 0), staged=[staged]))


def test_commits_of_many_threads_through_handles_of_their_own_are_all_there(delta):
    delta.ready()

    def work(name):
        table = delta.open()
        for number in range(8):
            staged = delta.stage(table, name, number)
            # delta-rs gives up after fifteen rivals: the seam says so, and who commits tries again.
            while True:
                try:
                    table.commit(delta.group(delta.advance(name, number), staged=[staged]))
                except CommitConflict:
                    continue
                break

    threads = [threading.Thread(target=work, args=(f"p{index}",)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert delta.open().stats().rows == 4 * 8 * 3
