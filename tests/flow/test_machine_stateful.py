"""The machine against a small oracle: any order of events, any outcome."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sfwriter.flow.limits import FlowLimits, RetryPolicy
from sfwriter.flow.machine import Machine
from sfwriter.flow.vocabulary import (
    Acknowledged,
    Answer,
    Commit,
    CommitConflicted,
    CommitInDoubt,
    CommitLanded,
    CommitRefused,
    Fault,
    Flushed,
    Part,
    ReadWatermarks,
    Reason,
    Refused,
    Stage,
    Staged,
    StagingFailed,
    Submitted,
    Ticked,
    WatermarksFailed,
    WatermarksRead,
    Withdrawn,
)
from sfwriter.storage.engine import StagedBatch, Watermark

if TYPE_CHECKING:
    from sfwriter.flow.vocabulary import Event
    from sfwriter.storage.engine import CommitGroup, Mark

TABLE = "t.logs"
NOW = Fault(ConnectionError("for now"), retriable=True)
EVER = Fault(ValueError("for good"), retriable=False)
BUDGET = 40


class Oracle:
    """A table that compares and swaps, and remembers every mark."""

    def __init__(self) -> None:
        self.version = 0
        self.landed: dict[str, dict[int, tuple[Mark, int]]] = {}

    def watermark(self, producer: str) -> Watermark:
        numbers = self.landed.get(producer, {})
        return Watermark(max(numbers, default=None), self.version, dict(numbers))  # type: ignore[type-var]

    def commit(self, group: CommitGroup) -> bool:
        if any(self.watermark(step.producer_id).sequence != step.after for step in group.advances):
            return False
        self.version += 1
        for step in group.advances:
            numbers = self.landed.setdefault(step.producer_id, {})
            for number in range(0 if step.after is None else step.after + 1, step.upto + 1):
                assert number not in numbers, "a number landed twice"
                numbers[number] = (step.marks[number], self.version)
        return True


class TheMachine(RuleBasedStateMachine):
    """Rules give events; `answer` checks what the callers are told."""

    def __init__(self) -> None:
        super().__init__()
        retry = RetryPolicy(max_retries=2, delay_s=1.0)
        limits = FlowLimits(
            budget_bytes=BUDGET, stage_slots=2, max_job_bytes=12, min_part_bytes=4, stage_timeout_s=30.0, retry=retry
        )
        self.machine = Machine(limits, name="m-", seed=1)
        self.table = Oracle()
        self.now = 0.0
        self.given: dict[int, Submitted] = {}
        self.open: dict[int, Submitted] = {}
        self.refused: dict[str, Refused] = {}
        self.commands: list[Any] = []
        self.late: list[CommitGroup] = []

    def tell(self, event: Event) -> None:
        for command in self.machine.handle(event, self.now):
            if isinstance(command, Answer):
                self.answer(command)
            else:
                self.commands.append(command)

    def answer(self, command: Answer) -> None:
        given = self.open.pop(command.ticket)
        if isinstance(command.answer, Acknowledged):
            token = command.answer.token
            mark, version = self.table.landed[token.producer_id][token.sequence]
            assert command.answer.version >= version
            assert mark.stamp == given.stamp or (not given.assigned and mark.digest == given.digest)
        elif command.answer.reason is not Reason.OUTCOME_UNKNOWN:
            self.refused[given.stamp] = command.answer

    def take(self, kind: type, draw: int) -> Any:
        found = [command for command in self.commands if isinstance(command, kind)]
        command = found[draw % len(found)]
        self.commands.remove(command)
        return command

    def has(self, kind: type) -> bool:
        return any(isinstance(command, kind) for command in self.commands)

    @rule(
        producer=st.sampled_from("abc"),
        explicit=st.booleans(),
        ahead=st.integers(-2, 1),
        content=st.sampled_from("xy"),
        size=st.integers(0, 9),
        patient=st.booleans(),
        wait=st.none() | st.just(20.0),
    )
    def submit(  # noqa: PLR0917  Hypothesis names them all
        self, producer: str, explicit: bool, ahead: int, content: str, size: int, patient: bool, wait: float | None
    ) -> None:
        ticket = len(self.given)
        known = self.machine.producers.get(producer)
        next_number = (self.table.watermark(producer).sequence or 0) + (known.in_flight if known else 0) + ahead
        given = Submitted(
            ticket, producer, max(0, next_number) if explicit else None, content, str(ticket),
            (Part(TABLE, size, size),), size * 5 + 1, assigned=not explicit, patient=patient,
            wait_until=None if wait is None else self.now + wait,
        )  # fmt: skip
        self.given[ticket] = self.open[ticket] = given
        self.tell(given)

    @precondition(lambda self: self.has(ReadWatermarks))
    @rule(draw=st.integers(0, 9), ends=st.sampled_from(["well", "well", "now", "ever"]))
    def look(self, draw: int, ends: str) -> None:
        command = self.take(ReadWatermarks, draw)
        if ends == "well":
            self.tell(WatermarksRead(TABLE, {one: self.table.watermark(one) for one in command.producers}))
        else:
            self.tell(WatermarksFailed(TABLE, command.producers, NOW if ends == "now" else EVER))

    @precondition(lambda self: self.has(Stage))
    @rule(draw=st.integers(0, 9), ends=st.sampled_from(["well", "well", "well", "now", "ever", "dead"]))
    def stage(self, draw: int, ends: str) -> None:
        command = self.take(Stage, draw)
        if ends == "well":
            self.tell(Staged(command.job, StagedBatch((), str(command.job).encode())))
        else:
            self.tell(StagingFailed(command.job, EVER if ends == "ever" else NOW, worker_died=ends == "dead"))

    @precondition(lambda self: self.has(Commit))
    @rule(
        draw=st.integers(0, 9),
        ends=st.sampled_from(["well", "well", "well", "conflict", "doubt-landed", "doubt-lost", "late", "now", "ever"]),
    )
    def commit(self, draw: int, ends: str) -> None:
        group = self.take(Commit, draw).group
        if ends in {"well", "doubt-landed"}:
            if not self.table.commit(group):
                self.tell(CommitConflicted(group.group_id))
            elif ends == "well":
                self.tell(CommitLanded(group.group_id, self.table.version))
            else:
                self.tell(CommitInDoubt(group.group_id, NOW))
        elif ends == "conflict":
            self.tell(CommitConflicted(group.group_id))
        elif ends in {"now", "ever"}:
            self.tell(CommitRefused(group.group_id, NOW if ends == "now" else EVER))
        else:
            if ends == "late":
                self.late.append(group)
            self.tell(CommitInDoubt(group.group_id, NOW))

    @precondition(lambda self: self.late)
    @rule()
    def a_frozen_committer_wakes(self) -> None:
        self.table.commit(self.late.pop())

    @precondition(lambda self: self.open)
    @rule(draw=st.integers(0, 99))
    def withdraw(self, draw: int) -> None:
        self.tell(Withdrawn(sorted(self.open)[draw % len(self.open)]))

    @rule(seconds=st.sampled_from([0.0, 0.06, 3.0, 40.0]))
    def tick(self, seconds: float) -> None:
        self.now += seconds
        self.tell(Ticked())

    @rule()
    def flush(self) -> None:
        self.tell(Flushed())

    @invariant()
    def memory_is_within_the_budget_and_comes_back(self) -> None:
        assert 0 <= self.machine.budget.used <= BUDGET
        assert self.machine.in_flight == len(self.open)
        assert self.open or self.machine.budget.used == 0

    @invariant()
    def what_was_refused_is_not_there(self) -> None:
        stamps = {mark.stamp for numbers in self.table.landed.values() for mark, _ in numbers.values()}
        assert not stamps & set(self.refused)

    @invariant()
    def numbers_land_without_gaps(self) -> None:
        for numbers in self.table.landed.values():
            assert sorted(numbers) == list(range(len(numbers)))

    @invariant()
    def the_books_are_balanced(self) -> None:
        for producer in self.machine.producers.values():
            assert producer.accepted == producer.committed + producer.refused + producer.in_flight

    def teardown(self) -> None:
        """Everything that was taken is answered once nothing goes wrong any more."""
        for _ in range(2_000):
            if not self.open:
                break
            if self.has(ReadWatermarks):
                self.look(0, "well")
            elif self.has(Stage):
                self.stage(0, "well")
            elif self.has(Commit):
                self.commit(0, "well")
            else:
                wake = self.machine.wake_at()
                assert wake is not None, "it has open batches and waits for nothing"
                self.now = max(self.now, wake)
                self.tell(Ticked())
        assert not self.open


TestTheMachine = TheMachine.TestCase
TestTheMachine.settings = settings(
    max_examples=120, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck)
)
