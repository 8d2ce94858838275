from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone

import pytest

from sfwriter.clock import Clock, SystemClock
from sfwriter.testing import ManualClock


def test_the_system_s_clock_tells_utc_and_waits():
    clock: Clock = SystemClock()
    before = time.monotonic()
    clock.sleep(0.01)
    clock.sleep(0)
    clock.sleep(-1)
    assert time.monotonic() - before >= 0.01
    assert clock.now().utcoffset() == timedelta(0)
    assert clock.monotonic() >= before


def test_a_manual_clock_moves_only_when_it_is_moved():
    clock: Clock = ManualClock()
    assert clock.now() == clock.now()
    assert clock.monotonic() == clock.monotonic() == 0.0


def test_sleeping_on_a_manual_clock_lets_time_pass_at_once():
    clock = ManualClock(datetime(2024, 1, 1, tzinfo=timezone.utc))
    clock.sleep(90)
    clock.sleep(-5)
    assert clock.now() == datetime(2024, 1, 1, 0, 1, 30, tzinfo=timezone.utc)
    assert clock.monotonic() == 90
    assert clock.slept == [90, -5]


def test_the_time_of_day_may_jump_back_and_monotonic_time_does_not():
    clock = ManualClock()
    begun = clock.now()
    clock.advance(10)
    clock.jump(-3600)
    assert clock.now() == begun + timedelta(seconds=10) - timedelta(hours=1)
    assert clock.monotonic() == 10
    with pytest.raises(ValueError, match="does not go back"):
        clock.advance(-1)


def test_a_manual_clock_starts_at_an_aware_time():
    with pytest.raises(ValueError, match="aware"):
        ManualClock(datetime(2024, 1, 1))  # noqa: DTZ001  the mistake under test
    noon = ManualClock(datetime(2024, 1, 1, 14, tzinfo=timezone(timedelta(hours=2))))
    assert noon.now().isoformat() == "2024-01-01T12:00:00+00:00"
