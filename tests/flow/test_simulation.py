"""The core lives through every fault that the simulator knows, and is quick enough."""

from __future__ import annotations

import pytest

from sfwriter.testing.simulator import replay, simulate
from sfwriter.testing.throughput import core_throughput

STEPS = 200_000

SEEN = (
    "refused for good", "refused for now", "resent", "spurious conflict", "staged after abandon", "staging fails",
    "staging fails for now", "staging hangs", "table restored", "worker dies",
)  # fmt: skip


@pytest.mark.timeout(300)
def test_every_promise_holds_through_every_fault() -> None:
    outcome = simulate(STEPS, seed=1_000_000)
    assert outcome.steps >= STEPS
    missing = [name for name in SEEN if not outcome.counts[name]]
    assert not missing, outcome.counts
    assert len(outcome.counts) >= 20, outcome.counts


def test_an_episode_is_the_same_each_time_that_it_is_lived_through() -> None:
    assert [replay(seed) for seed in range(20)] == [replay(seed) for seed in range(20)]


@pytest.mark.parametrize(("producers", "window"), [(1, 1), (1, 64), (50, 500)])
def test_the_core_alone_lands_every_number_once(producers: int, window: int) -> None:
    assert core_throughput(5_000, producers, window) > 0
