"""Processes that do the same at the same time."""

from __future__ import annotations

import time
from typing import Any

import pytest

from benchmarks.crew import crew, wait_for_go

HERE = "tests.benchmarks.test_crew"


def say(number: int, length: int) -> dict[str, Any]:
    """In a member."""
    wait_for_go()
    return {"ended": time.time(), "said": "x" * length, "number": number}


def fail(number: int) -> dict[str, Any]:
    """In a member."""
    wait_for_go()
    raise ValueError(f"number {number}")


@pytest.mark.timeout(60)
def test_what_members_say_may_be_longer_than_a_pipe_is_wide() -> None:
    with crew(f"{HERE}:say", 2, length=1_000_000) as all_:
        all_.go()
        while all_.working:
            time.sleep(0.01)
        assert [(found["number"], len(found["said"])) for found in all_.figures()] == [(0, 1_000_000), (1, 1_000_000)]


def test_a_member_that_fails_is_told() -> None:
    with crew(f"{HERE}:fail", 1) as all_, pytest.raises(RuntimeError, match="number 0"):
        all_.run()
