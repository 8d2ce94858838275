"""Real processes die by SIGKILL while they work; every row is there once all the same.

One service and two clients are under load through the whole file: starting them takes longer than killing them.
"""

from __future__ import annotations

import random
import time

import pytest

from actors import Service
from benchmarks.crash.load import batch, frozen, load, wait_for
from benchmarks.crash.run import crash
from benchmarks.crash.steps import STEPS
from sfwriter import LogWriter, WriterConfig

pytestmark = [pytest.mark.ray, pytest.mark.kill, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """Of the service; short waits before a repetition."""
    warehouse = tmp_path_factory.mktemp("kills")
    return WriterConfig(
        warehouse=str(warehouse), memory_fraction=0.02, parallel_write_threads=2, retry_delay_secs=0.1, max_retries=8
    )


@pytest.fixture(scope="module")
def working(ray_address, config, tmp_path_factory):
    """A service under load."""
    table = tmp_path_factory.getbasetemp() / config.warehouse / "analytics/pipeline_logs"
    with Service.start(config, name="kills") as service, load(service, tmp_path_factory.mktemp("clients"), table) as it:
        yield it


def test_all_of_them_may_die_at_once(working):
    client = working.clients[0]
    for pid in (working.writer_pids()[0], working.coordinator_pid(), client.pid):
        working.kill(pid)
    client.begin()
    working.wait_for_progress()
    working.check()


def test_a_coordinator_that_was_frozen_goes_on_where_it_stood(working):
    with frozen(working.coordinator_pid()):
        time.sleep(2)
    working.wait_for_progress()
    working.check()


def test_a_frozen_coordinator_that_wakes_up_writes_nothing_that_a_successor_has_written(working, config):
    client = working.clients[0]
    with frozen(working.coordinator_pid()):
        time.sleep(0.5)  # it takes nothing any more, and its client has sent more
        working.kill(client.pid)
        with LogWriter(config=config.replace(producer_id=client.producer_id)) as successor:
            first = successor.committed_sequence + 1
            for number in range(first, first + 30):
                successor.write_log_rows(batch(client.producer_id, number), sequence=number)
    # Awake, it still holds batches of the dead client whose numbers are taken by now.
    wait_for(lambda: working.service.health()["coordinator"]["state"] == "ok", "a coordinator that answers")
    working.check({client.producer_id: first + 29})
    client.begin()
    working.wait_for_progress()
    working.check()


def test_in_the_end_all_is_settled_and_reconciled(working):
    working.finish()

    assert working.check() > 0
    reconciled = working.service.reconcile()
    assert reconciled["consistent"], reconciled
    assert all(entry["in_flight"] == 0 for entry in reconciled["producers"].values())


def test_sixty_kills_and_freezes_lose_no_row_and_double_none(ray_address, tmp_path):
    seed = random.SystemRandom().randrange(2**31)
    print(f"repeat with: python -m benchmarks crash --kills 60 --seed {seed}")
    counts = crash(60, seed, tmp_path)
    assert sum(counts["kills"].values()) == 60
    assert min(counts["kills"][step] for step in STEPS) >= 4
    assert counts["rows"] > counts["acknowledged_batches"] > 0
