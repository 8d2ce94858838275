"""Who maintains a table."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from sfwriter.exceptions import WriterTableError
from sfwriter.storage import maintenance_lock
from sfwriter.storage.engine import Compact
from sfwriter.storage.maintenance_lock import MaintenanceLock
from sfwriter.testing import ManualClock


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def lock(delta, clock):
    return MaintenanceLock(delta.ready().spec, clock)


def test_a_second_one_waits_and_then_says_so(delta, lock, clock):
    second = MaintenanceLock(delta.spec(), clock).held()
    with lock.held(), pytest.raises(WriterTableError, match="maintained by another process") as caught:
        second.__enter__()
    assert caught.value.retriable
    assert sum(clock.slept) >= maintenance_lock.LOCK_PATIENCE_S


def test_a_table_whose_writers_never_rest_is_compacted(delta):
    """delta-rs alone gives up after fifteen rivals, which these writers are within a tenth of a second."""
    table = delta.ready()
    for number in range(200):
        table.commit(delta.group(delta.advance("old", number), staged=[delta.stage(table, "old", number)]))
    stop = threading.Event()

    def write(name):
        own = delta.open()
        number = 0
        while not stop.is_set():
            delta.put(own, name, number)
            number += 1
        return number

    with ThreadPoolExecutor(2) as threads:
        written = [threads.submit(write, name) for name in ("busy", "too")]
        try:
            for _ in range(3):
                assert table.run(Compact((), 1 << 20))["files_removed"] > 1
        finally:
            stop.set()
    assert delta.open().stats().rows == 3 * (200 + sum(future.result() for future in written))
