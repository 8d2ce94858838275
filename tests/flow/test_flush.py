"""What a flush finds is staged by all slots, and small things stay together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from sfwriter.flow.limits import FlowLimits
from sfwriter.flow.machine import Machine
from sfwriter.flow.vocabulary import Flushed, Part, ReadWatermarks, Stage, Submitted, WatermarksRead
from sfwriter.storage.engine import Watermark

if TYPE_CHECKING:
    from collections.abc import Sequence

TABLE = "t.logs"


def flushed_jobs(sizes: Sequence[int], *, first_replaces: bool = False, slots: int = 4) -> list[list[int]]:
    """Sizes of the batches of each job that a flush begins, after these patient batches were given."""
    limits = FlowLimits(budget_bytes=1 << 30, stage_slots=slots, max_job_bytes=1000, min_part_bytes=100)
    machine = Machine(limits)
    commands: list[Any] = []
    for number, nbytes in enumerate(sizes):
        part = Part(TABLE, 1, nbytes, first_replaces and number == 0)
        given = Submitted(
            number, "p", number, f"d{number}", f"s{number}", (part,), nbytes, assigned=False, patient=True
        )  # fmt: skip
        commands += machine.handle(given, 0.0)
    for look in [command for command in commands if isinstance(command, ReadWatermarks)]:
        commands += machine.handle(WatermarksRead(look.table, {"p": Watermark(None, 0)}), 0.0)
    commands += machine.handle(Flushed(), 0.0)
    return [[sizes[ticket] for ticket, _ in command.batches] for command in commands if isinstance(command, Stage)]


def test_much_is_shared_out_among_the_slots() -> None:
    assert flushed_jobs([60] * 8) == [[60, 60]] * 4


def test_shares_have_about_as_many_bytes() -> None:
    assert flushed_jobs([300, 50, 50, 50, 50, 100], slots=2) == [[300], [50, 50, 50, 50, 100]]


@pytest.mark.parametrize("sizes", [[10], [10, 20, 30], [90, 90], [500]])
def test_what_is_small_or_one_batch_stays_one_job(sizes: list[int]) -> None:
    assert flushed_jobs(sizes) == [sizes]


def test_there_are_no_more_shares_than_their_least_size_allows() -> None:
    assert flushed_jobs([50] * 5) == [[50, 50], [50, 50, 50]]


def test_what_replaces_a_table_is_not_shared_out() -> None:
    assert flushed_jobs([200, 200, 200], first_replaces=True) == [[200, 200, 200]]
