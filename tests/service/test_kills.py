"""Real processes die by SIGKILL while they work; every row is there once all the same."""

from __future__ import annotations

import time

import pytest

from sfwriter import LogWriter, WriterConfig
from tests.service.harness import batch, check_exact, frozen, load, wait_for

pytestmark = [pytest.mark.ray, pytest.mark.kill, pytest.mark.timeout(180)]

TABLE = "analytics/pipeline_logs"


@pytest.fixture
def working(start, tmp_path):
    """A service under load, with short waits before a repetition."""
    service = start(parallel_write_threads=2, retry_delay_secs=0.1, max_retries=8)
    with load(service, tmp_path / "clients", tmp_path / "warehouse" / TABLE) as running:
        yield running


def settle(running):
    """End the load and look at everything once more."""
    running.finish()
    rows = running.check()
    reconciled = running.service.reconcile()
    assert reconciled["consistent"], reconciled
    assert all(entry["in_flight"] == 0 for entry in reconciled["producers"].values())
    return rows


def test_writers_that_die_lose_no_row_and_double_none(working):
    for _ in range(6):
        working.kill(working.writer_pids()[0])
        working.wait_for_progress()
        working.check()

    settle(working)
    assert working.kills == 6


def test_a_coordinator_that_dies_forgets_nothing_that_was_acknowledged(working):
    for _ in range(5):
        working.kill(working.coordinator_pid())
        working.wait_for_progress()
        working.check()

    settle(working)
    assert working.kills == 5


def test_a_client_that_dies_goes_on_behind_what_is_committed(working):
    for turn in range(5):
        client = working.clients[turn % 2]
        client.kill()
        working.kills += 1
        client.begin()
        working.wait_for_progress()
        working.check()

    settle(working)
    assert working.kills == 5


def test_all_of_them_may_die_at_once(working):
    for _ in range(2):
        writer, coordinator, client = working.writer_pids()[0], working.coordinator_pid(), working.clients[0]
        client.kill()
        working.kill(writer)
        working.kill(coordinator)
        working.kills += 1
        client.begin()
        working.wait_for_progress()
        working.check()

    settle(working)
    assert working.kills == 6


def test_a_coordinator_that_was_frozen_goes_on_where_it_stood(working):
    for _ in range(2):
        with frozen(working.coordinator_pid()):
            time.sleep(2)
        working.wait_for_progress()

    settle(working)


def test_a_frozen_coordinator_that_wakes_up_writes_nothing_that_a_successor_has_written(working, tmp_path):
    client = working.clients[0]
    with frozen(working.coordinator_pid()):
        time.sleep(0.5)  # it has taken nothing since, and its client has sent more
        client.kill()
        config = WriterConfig(warehouse=str(tmp_path / "warehouse"), producer_id=client.producer_id)
        with LogWriter(config=config) as successor:
            first = successor.committed_sequence + 1
            for number in range(first, first + 40):
                successor.write_log_rows(batch(client.producer_id, number), sequence=number)
    # The woken coordinator still holds batches of the dead client, with numbers that are taken by now.
    coordinator = wait_for(lambda: working.service.health()["status"] == "ok", "a coordinator that answers")
    assert coordinator
    client.begin()
    working.wait_for_progress()
    settle(working)
    check_exact(working.table, {client.producer_id: first + 39})
