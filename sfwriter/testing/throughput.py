"""How many batches a second the core alone decides, with the outcome checked."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from sfwriter.clock import SystemClock
from sfwriter.flow.limits import FlowLimits
from sfwriter.flow.machine import Machine
from sfwriter.flow.vocabulary import (
    Acknowledged,
    Answer,
    Commit,
    CommitLanded,
    Part,
    ReadWatermarks,
    Stage,
    Staged,
    Submitted,
    Ticked,
    WatermarksRead,
)
from sfwriter.storage.engine import StagedBatch, Watermark

if TYPE_CHECKING:
    from sfwriter.flow.vocabulary import Command, Event

_TABLE = "bench.logs"
_NO_FILES = StagedBatch((), b"")


def core_throughput(  # noqa: C901, PLR0912, PLR0915  one loop, kept whole: calls would be measured too
    batches: int, producers: int, window: int
) -> float:
    """Batches a second from submission to acknowledgement, everything else taking no time at all.

    Args:
        batches: to send.
        producers: that send them in turn.
        window: batches that are unanswered at once.

    Raises:
        AssertionError: a number did not land exactly once and in order.
    """
    clock = SystemClock()
    machine = Machine(FlowLimits(budget_bytes=1 << 40, stage_slots=2))
    landed: dict[str, int] = {}
    waiting: deque[Command] = deque()
    sent = answered = version = 0
    now = 0.0
    began = clock.monotonic()
    while answered < batches:
        event: Event
        if sent < batches and sent - answered < window:
            part = Part(_TABLE, 7, 2000)
            event = Submitted(sent, f"p{sent % producers}", None, "digest", str(sent), (part,), 8096)
            sent += 1
        elif not waiting:
            now = machine.wake_at() or now
            event = Ticked()
        else:
            command = waiting.popleft()
            if isinstance(command, Stage):
                event = Staged(command.job, _NO_FILES)
            elif isinstance(command, Commit):
                version += 1
                for step in command.group.advances:
                    if landed.get(step.producer_id) != step.after:
                        raise AssertionError(f"{step} on {landed.get(step.producer_id)}")
                    landed[step.producer_id] = step.upto
                event = CommitLanded(command.group.group_id, version)
            elif isinstance(command, ReadWatermarks):
                marks = {producer: Watermark(landed.get(producer), version) for producer in command.producers}
                event = WatermarksRead(_TABLE, marks)
            else:
                raise AssertionError(f"unexpected {command}")
        for command in machine.handle(event, now):
            if isinstance(command, Answer):
                if not isinstance(command.answer, Acknowledged):
                    raise AssertionError(f"refused: {command}")
                answered += 1
            else:
                waiting.append(command)
    seconds = clock.monotonic() - began
    if sum(upto + 1 for upto in landed.values()) != batches or machine.budget.used:
        raise AssertionError(f"{batches} batches were sent, {landed} landed, {machine.budget.used} bytes are held")
    return batches / seconds
