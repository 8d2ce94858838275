"""The traps of delta-rs: each is shown with delta-rs alone, and then that this engine is past it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import CommitProperties, DeltaTable, PostCommitHookProperties, QueryBuilder, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError

from sfwriter.storage.checkpoints import VERSIONS_PER_CHECKPOINT
from sfwriter.storage.engine import CommitConflict

ROOT = Path(__file__).parents[2]
NO_HOOKS = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)
ROWS = pa.table({"success": [True, False, True], "n": [1, 2, 3]})


def bare_commit(table, producer, sequence, *, hooks=NO_HOOKS):
    table.create_write_transaction(
        [],
        "append",
        table.schema(),
        commit_properties=CommitProperties(app_transactions=[Transaction(producer, sequence)]),
        post_commithook_properties=hooks,
    )


def run_all(script, times, *arguments):
    """Exit code and stderr of so many processes that run side by side."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    processes = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) for _ in range(times)]
    ended = [process.communicate(timeout=100)[1] for process in processes]
    return [(process.returncode, said) for process, said in zip(processes, ended, strict=True)]


# ---------------------------------------------------------------- 1: two compactions


def test_the_pinned_delta_rs_refuses_the_second_of_two_compactions(tmp_path):
    for _ in range(10):
        write_deltalake(tmp_path / "t", ROWS, mode="append")
    first, second = DeltaTable(tmp_path / "t"), DeltaTable(tmp_path / "t")
    first.optimize.compact()
    with pytest.raises(CommitFailedError):
        second.optimize.compact()
    rows = QueryBuilder().register("t", DeltaTable(tmp_path / "t")).execute("SELECT * FROM t").read_all()
    assert pa.table(rows).num_rows == 30


def test_the_versions_that_double_rows_cannot_be_installed():
    required = next(text for text in metadata.requires("sfwriter") if text.startswith("deltalake"))
    assert "<1.6.4" in required
    assert metadata.version("deltalake") == "1.6.3"


# ---------------------------------------------------------------- 2: rows that a filter loses


def table_with_statistics_in_some_files(path):
    write_deltalake(path, ROWS, configuration={"delta.dataSkippingStatsColumns": "n"})
    DeltaTable(path).alter.set_table_properties({"delta.dataSkippingStatsColumns": "n,success"})
    write_deltalake(path, ROWS, mode="append")


def test_a_pyarrow_dataset_of_delta_rs_loses_rows(tmp_path):
    table_with_statistics_in_some_files(tmp_path / "t")
    dataset = DeltaTable(tmp_path / "t").to_pyarrow_dataset()
    assert dataset.count_rows() == 6
    assert dataset.count_rows(filter=pc.equal(pc.field("success"), pc.scalar(True))) == 2  # of 4


def test_our_scan_loses_none(delta, tmp_path):
    spec = delta.spec(name="logs.t", schema=ROWS.schema, stamps={}, statistics_columns=("n", "success"))
    table_with_statistics_in_some_files(spec.location)
    table = delta.ready(spec)
    delta.put(table, "p", 0, ROWS)
    assert len(delta.read(table, ["n"], '"success" = TRUE')) == 6
    assert len(delta.read(table, ["n"], '"success" = FALSE')) == 3


# ---------------------------------------------------------------- 3: an exception after landing


def block_checkpoint(location, version):
    """A folder where the checkpoint's file is to be, so that it cannot be written."""
    (Path(location) / "_delta_log" / f"{version:020}.checkpoint.parquet" / "in the way").mkdir(parents=True)


def test_a_checkpoint_hook_raises_out_of_a_commit_that_landed(tmp_path):
    write_deltalake(tmp_path / "t", ROWS, configuration={"delta.checkpointInterval": "1"})
    block_checkpoint(tmp_path / "t", 1)
    with pytest.raises(Exception, match="Is a directory"):
        bare_commit(DeltaTable(tmp_path / "t"), "p", 0, hooks=None)
    assert DeltaTable(tmp_path / "t").transaction_version("p") == 0


def test_our_commit_has_no_hook_that_could_raise(delta):
    table = delta.ready()
    DeltaTable(table.spec.location).alter.set_table_properties({"delta.checkpointInterval": "1"})
    block_checkpoint(table.spec.location, 2)
    assert delta.put(table, "p", 0).version == 2
    assert delta.sequence(table, "p") == 0


def test_our_own_checkpoint_may_fail_and_the_receipt_still_comes(delta, caplog, checkpoints_written):
    table = delta.ready()
    block_checkpoint(table.spec.location, VERSIONS_PER_CHECKPOINT)
    for number in range(VERSIONS_PER_CHECKPOINT):
        assert table.commit(delta.group(delta.advance("p", number))).version == number + 1
    checkpoints_written()
    assert table.commit(delta.group(delta.advance("p", VERSIONS_PER_CHECKPOINT))).version == VERSIONS_PER_CHECKPOINT + 1
    assert "Checkpoint of logs.runs failed" in caplog.text


# ---------------------------------------------------------------- 4: the interpreter aborts at exit

ABORTING = """
import resource, sys
from deltalake import DeltaTable
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
assert DeltaTable(sys.argv[1]).to_pyarrow_table().num_rows
"""

OURS = """
import sys
import pyarrow as pa
from sfwriter.schema import LOG_SCHEMA
from sfwriter.storage.delta_rs import DeltaRsEngine
from sfwriter.storage.engine import TableSpec
table = DeltaRsEngine().open(TableSpec("logs.runs", sys.argv[1], LOG_SCHEMA))
assert table.scan().read_all().num_rows == table.stats().rows > 0
table.scan().read_next_batch()
"""


def test_our_scan_never_aborts_the_interpreter(delta, record_property):
    table = delta.ready()
    for number in range(8):
        delta.put(table, "p", number)
    ended = run_all(OURS, 4, table.spec.location)
    assert ended == [(0, "")] * 4
    # Whether the trap itself shows depends on the machine's timing, so it is recorded, not asserted.
    shown = [code for code, _ in run_all(ABORTING, 3, table.spec.location)]
    record_property("to_pyarrow_table_exit_codes", shown)
    assert set(shown) <= {0, -signal.SIGABRT}


def test_nobody_calls_what_loses_rows_or_aborts():
    banned = re.compile(r"\.(to_pyarrow_table|to_pyarrow_dataset|to_pandas)\(")
    shown_here = {Path(__file__)}
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for folder in ("sfwriter", "actors", "benchmarks", "deploy", "tests")
        for path in (ROOT / folder).rglob("*.py")
        if path not in shown_here
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if banned.search(line) and "DeltaTable" in path.read_text()
    ]
    assert found == []


# ---------------------------------------------------------------- versions of a producer are not compared


def test_delta_rs_takes_a_number_twice_and_a_lower_one(tmp_path):
    write_deltalake(tmp_path / "t", ROWS)
    for sequence in (5, 5, 3):
        bare_commit(DeltaTable(tmp_path / "t"), "p", sequence)
    assert DeltaTable(tmp_path / "t").transaction_version("p") == 3


def test_delta_rs_refuses_a_stale_rival_of_the_same_producer_only(tmp_path):
    write_deltalake(tmp_path / "t", ROWS)
    stale, rival = DeltaTable(tmp_path / "t"), DeltaTable(tmp_path / "t")
    bare_commit(rival, "p", 5)
    with pytest.raises(CommitFailedError, match="Concurrent transaction"):
        bare_commit(stale, "p", 5)
    bare_commit(stale, "q", 1)
    assert DeltaTable(tmp_path / "t").version() == 2


def test_our_commit_refuses_both(delta):
    table = delta.ready()
    table.commit(delta.group(delta.advance("p", 5, None)))
    for after, upto in ((None, 5), (4, 5), (2, 3), (6, 7)):
        with pytest.raises(CommitConflict):
            table.commit(delta.group(delta.advance("p", upto, after)))
    assert delta.sequence(table, "p") == 5


# ---------------------------------------------------------------- the frozen committer

FROZEN = """
import os, signal, sys
from deltalake import DeltaTable
from sfwriter.schema import LOG_SCHEMA
from sfwriter.storage.delta_log import LogDisk
from sfwriter.storage.delta_rs import DeltaRsEngine
from sfwriter.storage.engine import Advance, CommitConflict, CommitGroup, TableSpec

def freezing(owner, name):
    real = getattr(owner, name)
    def frozen(*arguments, **named):
        # The snapshot is taken and compared; nothing is written yet. This is where a process can sleep.
        setattr(owner, name, real)
        os.kill(os.getpid(), signal.SIGSTOP)
        return real(*arguments, **named)
    setattr(owner, name, frozen)

table = DeltaRsEngine().open(TableSpec("logs.runs", sys.argv[1], LOG_SCHEMA))
table.ensure()
replaces = sys.argv[3] == "delta-rs"
freezing(*(DeltaTable, "create_write_transaction") if replaces else (LogDisk, "publish"))
try:
    print("landed", table.commit(CommitGroup("frozen", (), (Advance(sys.argv[2], 0, 1, {}),), replaces)).version)
except CommitConflict as error:
    print("conflict", error)
"""


@pytest.mark.parametrize(("producer", "outcome"), [("p", "conflict"), ("q", "landed")])
@pytest.mark.parametrize("road", ["our own entry", "delta-rs"])
def test_a_frozen_process_that_wakes_up_after_its_successor_cannot_commit(delta, producer, outcome, road):
    table = delta.ready()
    table.commit(delta.group(delta.advance("p", 0), delta.advance("q", 0)))
    process = subprocess.Popen(
        [sys.executable, "-c", FROZEN, table.spec.location, producer, road],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        for number in (1, 2, 3):
            delta.put(table, "p", number)
        process.send_signal(signal.SIGCONT)
        said, _ = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert said.startswith(outcome), said
    assert delta.sequence(delta.open(), "p") == 3
    assert delta.open().stats().rows == 9


def test_the_log_keeps_what_tells_a_batch_from_any_other(delta):
    table = delta.ready()
    delta.put(table, "p", 0)
    entries = Path(table.spec.location, "_delta_log", f"{1:020}.json").read_text().splitlines()
    info = next(json.loads(entry)["commitInfo"] for entry in entries if "commitInfo" in entry)
    told = json.loads(info["userMetadata"])["sfwriter"]
    assert told["marks"] == {"p": {"0": ["digest-0", "stamp-0"]}}
