"""The JVM of a writer's own session is killed in the middle of its commits. See `jvm_dies`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.spark, pytest.mark.kill, pytest.mark.timeout(280)]

DONE = {"written": 3, "already": False}
THERE = {"written": 0, "already": True}


@pytest.fixture(scope="module")
def told(spark, tmp_path_factory):
    """What the program says of its life."""
    folder = tmp_path_factory.mktemp("dies")
    program = Path(__file__).with_name("jvm_dies.py")
    done = subprocess.run(
        [sys.executable, str(program), str(folder)],
        capture_output=True, text=True, timeout=250, check=False, env={**os.environ, "PYTHONPATH": str(Path.cwd())},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_a_commit_that_the_jvm_did_not_live_to_make_is_told_and_nothing_of_it_is_there(told):
    assert told["before"]["code"] in {"session_lost", "session_stopped"}
    assert told["before"]["unknown"] is False
    assert "new session" in told["before"]["advice"][0]
    assert told["committed_before"] == 0
    assert told["same_writer"]["code"] == "session_stopped"


def test_a_new_session_of_the_same_process_and_a_new_writer_go_on(told):
    assert told["again"] == DONE


def test_a_commit_in_whose_middle_the_jvm_died_is_looked_up(told):
    if told["committed_middle"] == 2:  # it had landed, and the writer knows although nobody told it
        assert told["middle"] == DONE
    else:
        assert (told["middle"]["code"], told["middle"]["unknown"]) == ("session_lost", False)
        assert "nothing of this call was written" in told["middle"]["said"]


def test_a_jvm_that_dies_while_spark_writes_the_rows_leaves_nothing_that_is_seen(told):
    assert (told["dataframe"]["code"], told["dataframe"]["unknown"]) == ("session_lost", False)


def test_whatever_was_told_every_row_is_there_once_in_the_end(told):
    assert told["all"][:3] == [THERE] * 3
    assert told["all"][3] == DONE
    assert told["rows"] == {f"s{number}": 3 for number in range(4)}
