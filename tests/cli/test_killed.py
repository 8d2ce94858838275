"""Real processes, killed at any moment: every row is there once, by another reader's count."""

import random
import signal
import time

import duckdb
import pytest

from tests.cli.support import backfill, kill_at_work, live_files, numbers, once, started, write_jsonl, write_parquet

pytestmark = [pytest.mark.kill, pytest.mark.timeout(600)]

COMMAND = ("--table", "ops.runs", "--json")


def kill_again_and_again(folder, rng, *arguments, kills):
    """Start the command, kill it some files into its work, and so on; how often it was hit at work."""
    hits = 0
    for number in range(kills):
        wanted = files_of(folder) + (rng.randrange(1, 3) if number else 0)  # the first one is hit in any case
        process = started(folder, "backfill", *arguments, *COMMAND, SFWRITER_MAX_BATCH_MB="1")
        while process.poll() is None and files_of(folder) < wanted:
            time.sleep(0.005)
        hits += kill_at_work(process, rng.uniform(0, 0.1))
        process.communicate()
    return hits


def files_of(folder):
    """How many files are in the table's folders, committed or not."""
    return sum(1 for _ in folder.rglob("warehouse/**/*.parquet"))


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_a_run_that_is_killed_again_and_again_goes_on_exactly(tmp_path, name):
    rng = random.Random(name)
    count = 150_000
    if name == "a.parquet":
        write_parquet(tmp_path / name, 1_500_000, row_group_size=40_000)
        count = 1_500_000
    else:
        write_jsonl(tmp_path / name, range(count))
    hits = kill_again_and_again(tmp_path, rng, name, kills=4)
    ended = backfill(tmp_path, name)
    assert ended.code == 0, ended.err
    assert hits, "no kill hit it at work"
    assert ended.json["rows_written"] + ended.json["already_written"] == count
    found = duckdb.sql(
        "select count(*), count(distinct rows_written), min(rows_written), max(rows_written) from read_parquet("
        f"{[str(path) for path in live_files(tmp_path)]})"
    ).fetchall()
    assert found == [(count, count, 0, count - 1)]
    again = backfill(tmp_path, name)
    assert (again.json["rows_written"], again.json["already_written"]) == (0, count)


def test_a_file_that_grows_between_kills_has_every_row_once(tmp_path):
    rng = random.Random(11)
    path = tmp_path / "a.jsonl"
    count = 0
    for _ in range(4):
        size = rng.choice([1, 50, 30_000])
        write_jsonl(path, range(count, count + size), append=True)
        count += size
        process = started(tmp_path, "backfill", path, *COMMAND)
        kill_at_work(process, rng.uniform(0, 1.5))
        process.communicate()
    ended = backfill(tmp_path, path)
    assert ended.code == 0, ended.err
    assert numbers(tmp_path) == once(count)


def test_a_change_after_a_kill_is_an_error_and_no_mixture(tmp_path):
    path = tmp_path / "a.jsonl"
    write_jsonl(path, range(100_000))
    for _ in range(5):
        process = started(tmp_path, "backfill", path, *COMMAND, SFWRITER_MAX_BATCH_MB="1")
        kill_at_work(process, 1.0)
        process.communicate()
        if 0 < len(numbers(tmp_path)) < 100_000:
            break
    before = numbers(tmp_path)
    write_jsonl(path, range(500_000, 500_010))
    ended = backfill(tmp_path, path)
    if not before:
        assert ended.json["rows_written"] == 10
        return
    assert ended.code == 1
    assert f"{path} was changed after a part of it was written" in ended.err
    assert "--as-new" in ended.err
    assert numbers(tmp_path) == before
    ended = backfill(tmp_path, path, "--as-new")
    assert ended.json["rows_written"] == 10
    assert numbers(tmp_path) == before + once(10, 500_000)


def test_two_at_once_write_every_row_once_and_the_second_one_says_so(tmp_path):
    write_jsonl(tmp_path / "a.jsonl", range(60_000))
    both = [started(tmp_path, "backfill", "a.jsonl", *COMMAND) for _ in range(2)]
    ends = [(process.communicate(), process.returncode) for process in both]
    codes = sorted(code for _, code in ends)
    assert codes in ([0, 0], [0, 1])
    for (_, err), code in ends:
        if code:
            assert "is being backfilled into this table by another process" in err
    assert numbers(tmp_path) == once(60_000)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("after", [0, 0.5])
def test_an_interrupt_exits_with_130_says_how_to_go_on_and_loses_nothing(tmp_path, after, number):
    write_jsonl(tmp_path / "a.jsonl", range(120_000))
    process = started(tmp_path, "backfill", "a.jsonl", *COMMAND)
    alive = kill_at_work(process, after, number)
    _, err = process.communicate(timeout=60)
    ended = backfill(tmp_path, "a.jsonl")
    assert ended.json["rows_written"] + ended.json["already_written"] == 120_000
    if alive and process.returncode == -number:
        # The work was done, and Python itself was ending: it takes its hands off signals before that.
        assert ended.json["rows_written"] == 0
    elif alive and process.returncode != 0:
        assert process.returncode == 130, err
        assert "interrupted" in err
    assert "Traceback" not in err
    assert numbers(tmp_path) == once(120_000)
