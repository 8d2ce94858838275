"""Interrupts, kills, forks and exits: what a process may do in the middle of it all."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
import time

import pyarrow as pa
import pytest

from sfwriter import LogWriter
from sfwriter.exceptions import WriterError
from sfwriter.storage.checkpoints import VERSIONS_PER_CHECKPOINT
from sfwriter.testing.rows import log_table

WRITER = """
import os, signal, sys, threading, time
from sfwriter import LogWriter, WriterConfig
row = {"run_id": "r", "phase": "gold", "step_name": "s"}
config = WriterConfig(warehouse=sys.argv[1], producer_id="p")
"""


@pytest.mark.kill
def test_what_was_acknowledged_survives_a_kill_right_after(begin_python, count) -> None:
    process = begin_python(
        WRITER
        + """
writer = LogWriter(config=config)
while True:
    writer.write_log_rows([row])
    print(writer.committed_sequence)
"""
    )
    acknowledged = [int(process.stdout.readline()) for _ in range(5)][-1]
    process.kill()
    acknowledged = max([acknowledged, *map(int, process.stdout.read().split())])
    process.wait()
    # One more may have been committed and not told.
    assert acknowledged + 1 <= count() <= acknowledged + 2


@pytest.mark.parametrize("ending", ["writer.close()", "pass", "atexit.register(writer.write_log_rows, [row])"])
def test_a_process_may_end_while_a_checkpoint_is_written(python, count, location, ending) -> None:
    done = python(
        WRITER
        + f"""
import atexit
from sfwriter.storage.checkpoints import VERSIONS_PER_CHECKPOINT
writer = LogWriter(config=config)
for _ in range(VERSIONS_PER_CHECKPOINT - {"atexit" in ending:d}):
    writer.write_log_rows([row])
{ending}
"""
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert count() == VERSIONS_PER_CHECKPOINT
    assert len(list((location() / "_delta_log").glob("*.checkpoint.parquet"))) == 1


def test_a_process_that_never_closes_ends_promptly_and_loses_nothing(python, count) -> None:
    done = python(
        WRITER
        + """
writer = LogWriter(config=config)
writer.write_log_rows([row])
wanted = {"pandas", "ray", "pyspark", "duckdb", "rich", "typer", "polars", "matplotlib", "hypothesis"}
print(sorted(wanted & set(sys.modules)))
def work():
    time.sleep(0.5)  # the main thread has ended by then
    for _ in range(3):
        writer.write_log_rows([row])
    global late
    late = writer.submit([row], producer_id="q", sequence=0)
    print(time.time(), flush=True)
threading.Thread(target=work).start()
"""
    )
    ended = time.time()
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    loaded, last_work = done.stdout.splitlines()
    # A first write loads neither pandas nor what only people look at.
    assert loaded == "[]"
    assert ended - float(last_work) < 4
    assert count() == 5


def test_maintenance_loads_no_pandas(python) -> None:
    done = python(
        WRITER
        + """
from datetime import datetime
with LogWriter(config=config) as writer:
    for second in range(3):
        writer.write_log_rows([{**row, "start_time": datetime(2024, 1, 1, 0, 0, second)}])
    print(writer.optimize_table()["optimized"], writer.get_table_history()["total_versions"], "pandas" in sys.modules)
""",
    )
    assert (done.returncode, done.stdout) == (0, "True 5 False\n"), done.stderr


INTERRUPTED = (
    WRITER
    + """
import random
from sfwriter.storage.delta_rs import DeltaRsEngine
from sfwriter.testing import FaultyEngine, Hang
from sfwriter.testing.rows import log_table

def in_flight():
    return writer.get_memory_usage()["in_flight_mb"]

def interrupt_after(seconds):
    threading.Timer(seconds, lambda: os.kill(os.getpid(), signal.SIGINT)).start()

# A call that waits for memory.
engine = FaultyEngine(DeltaRsEngine())
writer = LogWriter.start(config.replace(memory_fraction=0.0005, table_name="memory"), engine=engine)
writer.write_log_rows([row])
rows = log_table(int(writer._max_bytes * 0.7 / (log_table(100).nbytes / 100)))
hang = Hang(threading.Event())
engine.inject("stage", hang)
other = threading.Thread(target=writer.write_log_rows, args=(rows,))
other.start()
hang.started.wait(10)
interrupt_after(0.2)
begun = time.monotonic()
try:
    writer.write_log_rows(rows)
except KeyboardInterrupt:
    print("memory", time.monotonic() - begun < 5, writer._channel._machine.in_flight)
hang.gate.set()
other.join()
print(rows.num_rows, in_flight(), writer.write_log_rows([row])["batch_id"])

# A call whose commit is under way.
engine = FaultyEngine(DeltaRsEngine())
writer = LogWriter.start(config.replace(table_name="committing"), engine=engine)
writer.write_log_rows([row])
hang = Hang(threading.Event())
engine.inject("commit", hang)
def interrupt():
    hang.started.wait(10)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.2)
    hang.gate.set()
threading.Thread(target=interrupt).start()
try:
    writer.write_log_rows([row, row])
except KeyboardInterrupt:
    print("commit", writer.committed_sequence, in_flight(), writer.write_log_rows([row])["batch_id"])

# Many batches.
writer = LogWriter(config=config.replace(table_name="batches"))
def batches():
    for number in range(1_000_000):
        if number == 300:
            interrupt_after(0.05)
        yield [{**row, "step_name": str(number)}]
try:
    writer.write_batches(batches())
except KeyboardInterrupt:
    print("batches", writer.committed_sequence, in_flight())

# Any moment.
writer = LogWriter(config=config.replace(table_name="anywhen"))
writer.write_log_rows([row])
over = threading.Event()
def pester():
    while not over.wait(random.uniform(0, 0.03)):
        os.kill(os.getpid(), signal.SIGINT)
thread = threading.Thread(target=pester)
acknowledged, interrupted, started, until = 1, 0, False, time.monotonic() + 2
try:
    while time.monotonic() < until:
        try:
            if not started:
                started = True
                thread.start()
            writer.write_log_rows([row])
            acknowledged += 1
        except KeyboardInterrupt:
            interrupted += 1
finally:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    over.set()
    thread.join()
writer.flush()
print("anywhen", acknowledged, interrupted, writer.committed_sequence, in_flight())
print(writer.write_log_rows([row])["rows_written"])
writer.close()
"""
)


def test_interrupts_leave_nothing_half_done_and_a_writer_that_works(python, read, count) -> None:
    done = python(INTERRUPTED)
    assert done.returncode == 0, done.stderr
    memory, after_memory, commit, batches, anywhen, last = (line.split() for line in done.stdout.splitlines())

    assert memory == ["memory", "True", "1"]
    assert after_memory[1:] == ["0.0", "p:2"]
    assert count("memory") == int(after_memory[0]) + 2

    # The commit was under way, so its end was waited for.
    assert commit == ["commit", "1", "0.0", "p:2"]
    assert count("committing") == 4

    assert batches[2] == "0.0"
    names = sorted(map(int, read("batches")["step_name"].to_pylist()))
    assert names == list(range(int(batches[1]) + 1))

    acknowledged, interrupted, sequence = map(int, anywhen[1:4])
    assert interrupted > 5
    assert anywhen[4] == "0.0"
    # What was interrupted may be there or not; what was acknowledged is.
    assert acknowledged - 1 <= sequence < acknowledged + interrupted
    assert last == ["1"]
    assert count("anywhen") == sequence + 2


def test_closing_twice_is_harmless_and_writing_afterwards_says_how_to_go_on(open_writer, row, count) -> None:
    writer = open_writer()
    writer.write_log_rows([row()])
    writer.close()
    writer.close()
    for call in (writer.write_log_rows, lambda rows: writer.write_batches([rows])):
        with pytest.raises(WriterError, match="closed") as caught:
            call([row()])
        assert caught.value.suggestions
    assert count() == 1


def test_closing_a_writer_that_wrote_nothing_is_prompt(open_writer) -> None:
    begun = time.monotonic()
    open_writer().close()
    assert time.monotonic() - begun < 10


def test_closing_waits_for_what_is_on_its_way(open_writer, row, count) -> None:
    writer = open_writer(producer_id="p")
    futures = [writer.submit([row()], producer_id="p", sequence=number) for number in range(20)]
    writer.close()
    assert all(future.result(0)["rows_written"] == 1 for future in futures)
    assert count() == 20


def test_threads_end_with_the_writer_also_where_nobody_closes_it(config, row) -> None:
    before = set(threading.enumerate())
    for closes in (True, False):
        writer = LogWriter(config=config())
        writer.write_log_rows([row()])
        if closes:
            writer.close()
        del writer  # nothing that it did may keep it, not even until the next round of garbage collection
        until = time.monotonic() + 10
        while set(threading.enumerate()) - before:
            assert time.monotonic() < until, set(threading.enumerate()) - before
            time.sleep(0.01)


def test_a_forked_process_is_told_to_open_a_writer_of_its_own_and_may(python, count) -> None:
    done = python(
        WRITER
        + """
writer = LogWriter(config=config)
writer.write_log_rows([row])
child = os.fork()
if child == 0:
    told = 0
    calls = (
        lambda: writer.write_log_rows([row]), lambda: writer.write_batches([[row]]), lambda: writer.committed_sequence,
        writer.get_table_info, writer.show_logs, writer.quarantined,
    )
    for call in calls:
        try:
            call()
        except Exception as error:
            told += "fork" in str(error) and bool(error.suggestions)
    writer.close()
    print(told, flush=True)
    try:
        with LogWriter(config=config.replace(producer_id="child")) as own:
            print(own.write_log_rows([row])["rows_written"], flush=True)
    except Exception as error:
        print("spawn" in str(error) and bool(error.suggestions), flush=True)
    sys.exit(0)
begun = time.monotonic()
while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
    if time.monotonic() - begun > 30:
        os.kill(child, 9)
    time.sleep(0.02)
writer.write_log_rows([row])
print(ended[1])
"""
    )
    told, own, status = done.stdout.split()
    assert told == "6", done.stderr
    assert own in {"1", "True"}, done.stderr
    assert status == "0"
    assert count() == (3 if own == "1" else 2)


def test_spawned_processes_write_to_the_same_table(python, open_writer, row, count) -> None:
    writer = open_writer()
    writer.write_log_rows([row()])
    done = python(
        """
        import multiprocessing, sys
        from sfwriter import LogWriter, WriterConfig
        def write(number):
            with LogWriter(config=WriterConfig(warehouse=sys.argv[1])) as writer:
                return writer.write_log_rows([{"phase": "gold", "step_name": str(number)}])["rows_written"]
        if __name__ == "__main__":
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                print(sum(pool.map(write, range(4))))
        """,
        timeout=90,
    )
    assert done.stdout.split() == ["4"], done.stderr
    writer.write_log_rows([row()])
    assert count() == 6


def test_rows_that_were_written_are_not_kept(open_writer) -> None:
    writer = open_writer(parallel_write_threads=1)
    table = log_table(20_000)
    gc.disable()
    try:
        writer.write_log_rows(table)
        before = pa.total_allocated_bytes()
        results = [writer.write_log_rows(table) for _ in range(5)]
        writer.write_batches([table] * 5)
        kept = pa.total_allocated_bytes() - before
    finally:
        gc.enable()
    assert len(results) == 5
    assert kept < table.nbytes


COPIES = [pickle.dumps, copy.copy, copy.deepcopy]


@pytest.mark.parametrize("make", COPIES, ids=["pickle", "copy", "deepcopy"])
def test_a_writer_is_neither_pickled_nor_copied_and_its_config_is(open_writer, row, make) -> None:
    writer = open_writer()

    with pytest.raises(TypeError, match="hand on its config"):
        make(writer)

    make(writer.config)
    assert writer.write_log_rows([row()])["rows_written"] == 1


CTRL_C = """
import os, signal, threading
from sfwriter.runtime.query import rows_of
from sfwriter.testing.rows import log_table

endless = "SELECT sum(a.range * b.range) FROM range(10000000) a, range(1000000) b"
table = log_table(10)
with rows_of(table.to_reader(), table.schema.names) as log:
    for _ in range(3):
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        try:
            log.tuples(endless)
        except KeyboardInterrupt:
            print("told")
    print(log.tuples("SELECT 7"))
"""


def test_ctrl_c_in_a_report_is_a_keyboard_interrupt(python) -> None:
    done = python(CTRL_C)
    assert done.stdout.split("\n") == ["told", "told", "told", "[(7,)]", ""], done.stderr
