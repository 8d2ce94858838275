"""Who waits for whom: batches that come together go together, and a lone one goes at once."""

from __future__ import annotations

import itertools
from typing import Any

from sfwriter.flow.limits import FlowLimits
from sfwriter.flow.machine import Machine
from sfwriter.flow.vocabulary import (
    Commit,
    CommitLanded,
    Part,
    ReadWatermarks,
    Stage,
    Staged,
    Submitted,
    WatermarksRead,
)
from sfwriter.storage.engine import StagedBatch, StagedFile, Watermark

TABLE = "t.logs"
LINGER_S = 0.05
FILE = StagedBatch((StagedFile("f.parquet", 1, 1, "{}", {}, 0),), b"")


class Table:
    """A machine and a table on which staging and a commit take 10 ms each."""

    def __init__(self) -> None:
        self.machine = Machine(FlowLimits(budget_bytes=1 << 30, stage_slots=2, linger_s=LINGER_S))
        self.now = 0.0
        self.tickets = itertools.count()
        self.numbers: dict[str, int] = {}
        self.jobs: list[list[str]] = []
        self.begun: list[Any] = []

    def give(self, *producers: str) -> None:
        self._handle(*(self._submitted(producer) for producer in producers))

    def wait(self, secs: float) -> None:
        """Let time pass, and the machine do what has its time."""
        until = self.now + secs
        while (wake_at := self.machine.wake_at()) is not None and wake_at <= until:
            self.now = max(self.now, wake_at)
            self._handle()
        self.now = until

    def finish(self) -> None:
        """Stage and commit what was begun."""
        while self.begun:
            command = self.begun.pop(0)
            self.now += 0.01
            if isinstance(command, Stage):
                self._handle(Staged(command.job, FILE))
            else:
                self._handle(CommitLanded(command.group.group_id, 1))

    def _submitted(self, producer: str) -> Submitted:
        ticket, number = next(self.tickets), self.numbers.get(producer, 0)
        self.numbers[producer] = number + 1
        return Submitted(ticket, producer, number, f"d{ticket}", f"s{ticket}", (Part(TABLE, 7, 100),), 100)

    def _handle(self, *events: Any) -> None:
        for command in self.machine.handle_all(events, self.now):
            if isinstance(command, ReadWatermarks):
                marks = {producer: Watermark(None, 0) for producer in command.producers}
                self._handle(WatermarksRead(command.table, marks))
            elif isinstance(command, Stage):
                self.jobs.append([token.producer_id for _, token in command.batches])
                self.begun.append(command)
            elif isinstance(command, Commit):
                self.begun.append(command)


def test_batches_that_come_together_share_a_job() -> None:
    table = Table()
    table.give("a", "b", "c")
    assert [sorted(job) for job in table.jobs] == [["a", "b", "c"]]


def test_a_lone_caller_never_waits_for_company() -> None:
    table = Table()
    for count in range(1, 4):
        table.give("a")
        assert table.jobs == [["a"]] * count
        table.finish()


def test_callers_that_were_answered_together_go_together_again() -> None:
    table = Table()
    table.give("a", "b", "c")
    table.finish()
    table.give("a")
    table.wait(0.002)
    table.give("c")
    assert len(table.jobs) == 1
    table.give("b")
    assert table.jobs[1:] == [["a", "c", "b"]]


def test_who_does_not_come_back_is_waited_for_half_of_what_a_commit_takes() -> None:
    table = Table()
    table.give("a", "b")
    table.finish()
    table.give("a")
    table.wait(0.009)
    assert len(table.jobs) == 1
    table.wait(0.002)
    assert table.jobs[1:] == [["a"]]
    table.finish()
    table.give("a")
    assert table.jobs[2:] == [["a"]]


def test_a_slow_table_makes_nobody_wait_longer_than_the_linger() -> None:
    table = Table()
    table.give("a", "b")
    table.now += 10.0
    table.finish()
    table.give("a")
    table.wait(LINGER_S + 0.001)
    assert table.jobs[1:] == [["a"]]


def one_whose_callers_came_too_late() -> Table:
    """Four were answered, came back after the time for which they were awaited, and are answered again."""
    table = Table()
    table.give("a", "b", "c", "d")
    table.finish()
    table.wait(0.02)
    table.give("a")
    table.give("b", "c", "d")
    table.finish()
    return table


def test_those_who_came_too_late_are_not_awaited_the_next_time() -> None:
    table = one_whose_callers_came_too_late()
    assert table.jobs[1:] == [["a"], ["b", "c", "d"]]
    table.give("b")
    assert table.jobs[3:] == [["b"]]


def test_those_who_come_in_time_are_awaited_again() -> None:
    table = one_whose_callers_came_too_late()
    table.give("b")
    table.give("c", "d")  # the three that were answered last are there in time, and so is the fourth expected to be
    table.finish()
    assert len(table.jobs) == 4
    table.give("b")
    assert table.jobs[4:] == [["c", "d", "b"]]
