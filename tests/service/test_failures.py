"""What dies, and what happens then: each line of the table in `docs/service.md`."""

from __future__ import annotations

import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
import ray

from actors import Service, connect
from actors.options import NAMESPACE, actor_name
from benchmarks.crash.load import wait_for
from benchmarks.live import look_at
from sfwriter.testing.rows import log_table
from tests.service.support import ROOT, counted, found_by

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [pytest.mark.ray, pytest.mark.kill]

ROWS = 2_000
PATIENCE_S = 120.0


def kill(pid: int) -> None:
    psutil.Process(pid).kill()


def test_a_writer_dies_and_another_one_gets_its_batches(start: Callable[..., Service]) -> None:
    service = start(parallel_write_threads=2, max_batch_mb=0.5)
    with connect(service.name) as client:
        futures = [client.submit_log_rows(log_table(ROWS, first=number * ROWS)) for number in range(60)]
        victim = wait_for(lambda: next((w["pid"] for w in service.health()["writers"] if w["pid"]), None), "a writer")
        kill(victim)
        assert sum(future.result(PATIENCE_S)["rows_written"] for future in futures) == 60 * ROWS
        table = client.get_table_info()["location"]
    assert counted(table) == (60 * ROWS, 60 * ROWS)
    assert victim not in [writer["pid"] for writer in service.health()["writers"]]
    assert service.reconcile()["consistent"]
    # What it had written and nobody has committed is an orphan, which no reader sees.
    live = {Path(path).name for path in look_at(Path(table)).files}
    assert live <= {path.name for path in Path(table).glob("*.parquet")}


def test_the_coordinator_dies_and_what_was_committed_answers_done(start: Callable[..., Service]) -> None:
    service = start()
    with connect(service.name, producer_id="p") as client:
        first = log_table(ROWS)
        client.write_log_rows(first, sequence=0)
        futures = [client.submit_log_rows(log_table(ROWS, first=n * ROWS), sequence=n) for n in range(1, 40)]
        kill(service.health()["coordinator"]["pid"])
        for future in futures:
            assert future.result(PATIENCE_S)["success"]
        again = client.write_log_rows(first, sequence=0)
        assert (again["already_written"], again["rows_written"]) == (True, 0)
        assert client.committed_sequence == 39
        table = client.get_table_info()["location"]
    assert counted(table) == (40 * ROWS, 40 * ROWS)
    assert service.health()["coordinator"]["restarts"] == 1
    assert service.reconcile()["consistent"]
    kill(service.health()["coordinator"]["pid"])
    wait_for(lambda: service.health()["coordinator"]["restarts"] == 2, "the third life")


CLIENT = """
import os
import sys
from actors import connect
from sfwriter.testing.rows import log_table
client = connect(sys.argv[1], producer_id="p")
for number in range(1000):
    client.submit_log_rows(log_table(50, first=number * 50), sequence=number).add_done_callback(
        lambda done, number=number: os.write(1, b"%d\\n" % number)
    )
client.flush()
"""


def test_a_client_dies_and_its_successor_goes_on_behind_what_it_wrote(start: Callable[..., Service]) -> None:
    service = start()
    command = [sys.executable, "-c", CLIENT, service.name]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as client:
        assert client.stdout is not None
        heard = [int(client.stdout.readline()) for _ in range(5)]
        client.send_signal(signal.SIGKILL)
        heard += [int(line) for line in client.stdout]
    with connect(service.name, producer_id="p") as successor:
        wait_for(lambda: all(e["in_flight"] == 0 for e in service.reconcile()["producers"].values()), "rest")
        committed = successor.committed_sequence
        assert committed is not None
        assert committed >= max(heard)
        result = successor.write_log_rows(log_table(50, first=(committed + 1) * 50), sequence=committed + 1)
        assert result["rows_written"] == 50
        table = successor.get_table_info()["location"]
    assert counted(table) == ((committed + 2) * 50,) * 2
    assert service.reconcile()["consistent"]


def test_the_maintenance_actor_dies_and_its_job_is_done_again(start: Callable[..., Service]) -> None:
    service = start(enable_optimization=False)
    with connect(service.name) as client, ThreadPoolExecutor(1) as threads:
        for number in range(4):
            client.write_log_rows(log_table(7, first=number * 7))
        # This process holds the table's lock, so the actor waits in the middle of its job.
        with client._log_table._maintainer._lock.held():  # type: ignore[attr-defined]
            job = threads.submit(service.maintain, {"optimize": True})
            actor = ray.get_actor(actor_name(service.name, "maintenance"), namespace=NAMESPACE)
            wait_for(lambda: ray.get(actor.look.remote())["running"] is not None, "a job")
            kill(ray.get(actor.ping.remote())["pid"])
            info = client.get_table_info()
            assert (info["num_files"], counted(info["location"])) == (4, (28, 28))
        assert job.result(60)["results"]["optimize"]["optimized"]
        assert (client.get_table_info()["num_files"], counted(info["location"])) == (1, (28, 28))
        assert service.health()["maintenance"]["restarts"] == 1


@pytest.mark.timeout(300)
def test_rays_head_dies_and_the_service_is_started_again(tmp_path: Path) -> None:
    found = found_by("tests.service.head_dies", tmp_path / "warehouse")
    assert found["committed"] >= found["acknowledged"]
    assert found["already_written"] <= found["unknown"]
    assert found["consistent"]
    assert counted(tmp_path / "warehouse/analytics/pipeline_logs") == (found["batches"] * 50,) * 2
