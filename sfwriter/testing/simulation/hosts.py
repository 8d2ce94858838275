"""A process with one machine in it: carries out commands when it is told to, and watches every answer."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from sfwriter.flow.batches import BatchState
from sfwriter.flow.machine import Machine
from sfwriter.flow.vocabulary import (
    Abandon,
    Acknowledged,
    Answer,
    Commit,
    Discard,
    ReadWatermarks,
    Reason,
    Refused,
    Stage,
    Submitted,
    WatermarksRead,
)
from sfwriter.testing.simulation.promises import promise

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sfwriter.flow.limits import FlowLimits
    from sfwriter.flow.vocabulary import Command, Event
    from sfwriter.storage.engine import Watermark
    from sfwriter.testing.simulation.tables import Call
    from sfwriter.testing.simulation.world import World

CAUSES: dict[Reason, tuple[str, ...]] = {
    Reason.STAGING_FAILED: ("staging", "lost files"),
    Reason.COMMIT_FAILED: ("refused", "conflict", "in doubt"),
    Reason.OUTCOME_UNKNOWN: ("in doubt", "resent"),
    Reason.WITHDRAWN: ("withdrawn",),
}
"""Refusals that need a fault of the batch's own: the names of those that may be behind each."""

LARGEST = 100
"""Bytes of the largest batch that anybody gives."""


class Host:
    """One machine and what it has asked for."""

    def __init__(self, world: World, index: int, limits: FlowLimits, name: str) -> None:
        """Start an empty machine."""
        self.world = world
        self.index = index
        self.limits = limits
        self.name = name
        self.machine = Machine(limits, name=name, seed=index)
        self.now = world.now
        self.calls: dict[int, Call] = {}
        self.jobs: dict[int, Stage] = {}
        self.late: dict[int, Stage] = {}
        self.commits: dict[str, Commit] = {}
        self.reads: dict[str, tuple[ReadWatermarks, Mapping[str, Watermark] | None]] = {}
        self.troubles: dict[str, None] = {}
        self.blamed: dict[tuple[str, str], None] = {}
        self.let_in: dict[int, None] = {}
        self.waiting: dict[str, dict[int, None]] = {}
        self.pairs: dict[tuple[str, str], tuple[int, int]] = {}

    def tell(self, event: Event) -> None:
        """Hand the machine one event, take its commands, and check what must hold after every step."""
        if isinstance(event, Submitted):
            self.calls[event.ticket] = self.world.calls[event.ticket]
        commands = self.machine.handle(event, self.now)
        self.world.record(self, event, commands)
        for command in commands:
            self._take(command)
        self._check()

    def blame(self, call: Call, name: str) -> None:
        """Note a fault that may be why a call, or one that joined it, is refused."""
        call.troubles[name] = None
        self.blamed[call.given.producer_id, name] = None

    def answer_read(self, table: str) -> None:
        """Say what the table looked like at some moment since it was asked for."""
        command, seen = self.reads.pop(table)
        marks = self.world.tables[table].look(command.producers) if seen is None else seen
        self.tell(WatermarksRead(table, marks))

    def _take(self, command: Command) -> None:
        if isinstance(command, Answer):
            self._answered(command.ticket, command.answer)
        elif isinstance(command, Stage):
            promise(bool(command.batches), "a job has something to stage", command)
            promise(len(self.jobs) < self.machine.slots, "no more jobs than slots", command)
            for ticket, token in command.batches:
                promise(ticket in self.calls, "the rows of an answered batch are not asked for", ticket)
                promise(self.calls[ticket].given.producer_id == token.producer_id, "tokens name their producer", token)
            self.jobs[command.job] = command
        elif isinstance(command, Commit):
            promise(command.table not in self.commits, "one commit at a time for each table", command)
            for file in (file for staged in command.group.staged for file in staged.files):
                promise(file.path not in self.world.deleted, "a deleted file is not committed", file.path)
            self.commits[command.table] = command
        elif isinstance(command, ReadWatermarks):
            promise(command.table not in self.reads, "one look at a time for each table", command)
            early = self.world.random.random() < self.world.settings.early_looks
            seen = self.world.tables[command.table].look(command.producers) if early else None
            self.reads[command.table] = (command, seen)
        elif isinstance(command, Abandon):
            self.late[command.job] = self.jobs.pop(command.job)
            for ticket, _ in self.late[command.job].batches:
                self.blame(self.world.calls[ticket], "staging")
        elif isinstance(command, Discard):
            self.world.discard(command)

    def _answered(self, ticket: int, answer: Acknowledged | Refused) -> None:
        promise(ticket in self.calls, "a submission is answered once", ticket, answer)
        call = self.calls.pop(ticket)
        call.answer = answer
        self.world.count_answer(answer)
        if isinstance(answer, Acknowledged):
            self._acknowledged(call, answer)
        else:
            self._refused(call, answer)
        self.world.heard(call)

    def _acknowledged(self, call: Call, answer: Acknowledged) -> None:
        given, token = call.given, answer.token
        table = self.world.tables[given.parts[-1].table]
        key = (token.producer_id, token.sequence)
        if key in table.undone:
            return  # restored away: what a machine remembers of it is beyond anybody's promise
        promise(token.producer_id == given.producer_id, "an answer names the producer", call)
        promise(given.sequence in {None, token.sequence}, "an answer names the number", call)
        committed = table.state.watermarks.get(token.producer_id, -1)
        promise(token.sequence <= committed, "what is acknowledged is committed", call, answer, committed)
        mark = table.state.marks[token.producer_id].get(token.sequence)
        there = table.state.calls.get(key)
        if there is not None:
            promise(answer.version >= there[0][1], "the version holds the batch", call, answer, there)
        promise(answer.version <= table.version, "the version exists", call, answer)
        if mark is None or self._forgotten(call, token.sequence):
            return
        if any(producer == given.producer_id for producer, _ in table.undone):
            return  # until the next look, a machine judges by marks from before the restoration
        brought = mark[0]
        own = brought.stamp == given.stamp
        promise(answer.already != own, "already written means that another call brought it", call, answer, brought)
        if given.assigned:
            promise(own, "a number chosen for a caller is its own", call, answer, brought)
        if given.checked:
            promise(brought.digest == given.digest, "other content under a number is told", call, answer, brought)
            if there is not None and own:
                promise(there[0][0].content == call.content, "the acknowledged rows are there", call, answer, there)
            self._check_sides(call, key)

    def _check_sides(self, call: Call, key: tuple[str, int]) -> None:
        for part in call.given.parts[:-1]:
            side = self.world.tables[part.table]
            if key in side.undone:
                continue
            copies = [other for other, _ in side.state.calls.get(key, ()) if other.content == call.content]
            promise(len(copies) == 1, "an acknowledged batch's part is there once", part.table, key, call, copies)

    def _forgotten(self, call: Call, number: int) -> bool:
        tables = [self.world.tables[part.table] for part in call.given.parts]
        return any(table.forgotten(call.given.producer_id, number) for table in tables)

    def _refused(self, call: Call, answer: Refused) -> None:
        reason, given = answer.reason, call.given
        causes = CAUSES.get(reason)
        if causes is not None:
            # A call that joined another one shares what befalls that one's rows.
            troubled = any(cause in call.troubles or (given.producer_id, cause) in self.blamed for cause in causes)
            promise(troubled, "a refusal has a cause", call, answer)
        elif reason is Reason.TOO_LARGE:
            promise(given.cost > self.limits.budget_bytes, "only what is too large is too large", call)
        elif reason is Reason.QUEUE_TIMEOUT:
            late = given.wait_until is not None and self.world.latest >= given.wait_until
            promise(late, "nobody is timed out early", call)
        elif reason is Reason.CLOSED:
            promise(self.machine.closed, "a machine that is open takes batches", call)
        elif reason is Reason.TABLE_FAILED:
            promise("looking" in self.troubles, "a refusal has a cause", call, answer)
        elif reason is Reason.CONTENT_MISMATCH:
            promise(given.checked and not given.assigned, "only chosen numbers can mismatch", call)
        elif reason is Reason.NUMBER_TAKEN:
            promise(given.assigned, "only assigned numbers can be taken", call)
        elif reason is Reason.GAP:
            restored = self.world.settings.restores
            promise(given.sequence is not None or restored, "a number that the machine chose leaves no gap", call)
        table = self.world.tables[given.parts[-1].table]
        if call.refused_for_good and answer.sequence is not None:
            there = table.state.calls.get((given.producer_id, answer.sequence), ())
            promise(all(other is not call for other, _ in there), "a refused batch is not there", call, answer)

    def _check(self) -> None:
        machine = self.machine
        promise(0 <= machine.budget.used <= machine.budget.total, "the budget is kept", machine.budget.used)
        flowing = in_flight = 0
        waiting: dict[str, dict[int, None]] = {}
        weights: dict[str, float] = {}
        let_in: dict[str, dict[int, int]] = {}
        for producer in machine.producers.values():
            balance = producer.committed + producer.refused + producer.in_flight
            promise(producer.accepted == balance, "accepted = committed + refused + in flight", producer.identity)
            in_flight += producer.in_flight
            for batch in producer.flight.values():
                given = batch.given
                client = given.client or given.producer_id
                weights[client] = given.weight
                if batch.state is BatchState.WAITING:
                    waiting.setdefault(client, {})[given.ticket] = None
                elif batch.state is BatchState.FLOWING:
                    flowing += given.cost
                    if given.ticket not in self.let_in:
                        self.let_in[given.ticket] = None
                        let_in.setdefault(client, {})[given.ticket] = given.cost
        promise(flowing == machine.budget.used, "bytes are conserved", flowing, machine.budget.used)
        promise(machine.in_flight == len(self.calls), "every submission is answered", machine.in_flight)
        promise(in_flight <= len(self.calls), "a batch in flight has a caller", in_flight)
        self._check_turns(waiting, weights, let_in)

    def _check_turns(
        self, waiting: dict[str, dict[int, None]], weights: dict[str, float], let_in: dict[str, dict[int, int]]
    ) -> None:
        """While two clients wait, what each is let in, by its weight, differs by one batch of each at most."""
        own = {}
        for client, before in self.waiting.items():
            let = let_in.get(client, {})
            # What left without having been let in may have been let in and answered at once.
            if client in waiting and all(ticket in waiting[client] or ticket in let for ticket in before):
                own[client] = sum(let.values())
        pairs = {}
        for one, other in itertools.combinations(sorted(waiting), 2):
            if one not in own or other not in own:
                continue
            mine, theirs = self.pairs.get((one, other), (0, 0))
            mine, theirs = pairs[one, other] = (mine + own[one], theirs + own[other])
            apart = abs(mine / weights[one] - theirs / weights[other])
            allowed = LARGEST / weights[one] + LARGEST / weights[other]
            promise(apart <= allowed, "nobody gets more than its share", one, mine, other, theirs)
        self.waiting, self.pairs = waiting, pairs
