"""What the parts of the machine share: its books, its timers, and the answers that settle a batch.

Every part may end a batch (`acknowledge`, `refuse`), ask for a look at a table (`want`), or note that
something may go on (`touch`). What follows from a note is done once for each event, at its end, by
`sfwriter.flow.machine`: so no part calls another one.
"""

from __future__ import annotations

import heapq
import itertools
from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING, Union

from sfwriter.flow.batches import Batch, BatchState, Job, JobState
from sfwriter.flow.budget import Budget
from sfwriter.flow.lane import NEVER, Lane
from sfwriter.flow.producers import Producer, Stand, Verdict, is_there, judge, single_identity
from sfwriter.flow.turns import Turns
from sfwriter.flow.vocabulary import Acknowledged, Answer, Reason, Refused

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sfwriter.flow.batches import Piece
    from sfwriter.flow.limits import FlowLimits
    from sfwriter.flow.vocabulary import Command, Fault

Timed = Union[Lane, Batch, Job]
"""What can have a timer: a lane begins something, a batch has waited too long, a job has taken too long."""

CERTAIN = frozenset({Reason.NUMBER_TAKEN, Reason.CONTENT_MISMATCH})
"""Another batch has the number: a commit that would bring this one finds the producer moved on, whenever it comes."""

GOLDEN = 0.6180339887498949
"""Multiples of the golden ratio, without their whole parts, are spread evenly however many there are."""

_FEW_TIMERS = 64
"""So many timers, and twice those that mean something, are kept before the others are thrown out."""


class Core:
    """The state of one machine. See `sfwriter.flow.machine`.

    Attributes:
        now: time of the event that is being handled.
        out: commands of the event that is being handled.
        tickets: submissions that are not answered.
        producers: those that are remembered, the longest idle first.
        lanes: one for each table.
        queue: producers with batches that wait for memory, in the order of their turns.
        turns: lanes with sealed jobs, in the order of their turns.
        dirty: lanes of which something may go on.
        untidy: staged jobs with pieces that are not to be committed with them.
        unplaced: producers with a batch that may get its number now.
    """

    def __init__(self, limits: FlowLimits, name: str, seed: int) -> None:
        """Begin empty."""
        self.limits = limits
        self.name = name
        self.budget = Budget(limits.budget_bytes)
        self.slots = limits.stage_slots
        self.closed = False
        self.now = -NEVER
        self.out: list[Command] = []
        self.tickets: dict[int, Batch] = {}
        self.producers: OrderedDict[str, Producer] = OrderedDict()
        self.lanes: dict[str, Lane] = {}
        self.queue = Turns()
        self.turns: OrderedDict[str, Lane] = OrderedDict()
        self.dirty: dict[str, Lane] = {}
        self.untidy: dict[Job, None] = {}
        self.unplaced: dict[Producer, None] = {}
        self.numbers = itertools.count()
        self._timers: list[tuple[float, int, Timed]] = []
        self._most_timers = _FEW_TIMERS
        self._jitter = seed * GOLDEN % 1.0

    # ------------------------------------------------------------ books

    def lane(self, table: str) -> Lane:
        """The lane of a table, begun if need be."""
        lane = self.lanes.get(table)
        if lane is None:
            lane = self.lanes[table] = Lane(table)
        return lane

    def producer(self, identity: str) -> Producer:
        """The producer of an id, begun if need be; idle ones are forgotten where there are too many."""
        producer = self.producers.get(identity)
        if producer is not None:
            self.producers.move_to_end(identity)
            return producer
        producer = self.producers[identity] = Producer(identity)
        if len(self.producers) > self.limits.remembered_producers:
            for oldest in list(itertools.islice(self.producers, 8)):
                if self.producers[oldest].in_flight or oldest == identity:
                    self.producers.move_to_end(oldest)
                else:
                    del self.producers[oldest]
        return producer

    def touch(self, lane: Lane) -> None:
        """Note that something of a lane may go on."""
        self.dirty[lane.table] = lane

    def want(self, stand: Stand) -> None:
        """Have a stand looked up."""
        if not stand.asked:
            stand.asked = True
            stand.lane.wanted[stand.identity] = stand
            self.touch(stand.lane)

    def seal(self, lane: Lane, parts: int = 1) -> None:
        """Make a job of what is open in a lane, or so many jobs at most."""
        if lane.idle:
            lane.busy_since = self.now
        lane.seal(parts)
        self.requeue(lane)

    def requeue(self, lane: Lane) -> None:
        """Note that a lane has got a job that may be staged or committed."""
        if lane.sealed and lane.table not in self.turns:
            self.turns[lane.table] = lane
        self.touch(lane)

    # ------------------------------------------------------------ time

    def ring_at(self, when: float, what: Timed) -> None:
        """Have something done at a time."""
        if when < NEVER:
            if len(self._timers) >= self._most_timers:
                # Deadlines that were met lie far ahead, and would keep what they were for: all jobs of a minute.
                self._timers = [timer for timer in self._timers if _means_something(timer[2], timer[0])]
                heapq.heapify(self._timers)
                self._most_timers = 2 * len(self._timers) + _FEW_TIMERS
            heapq.heappush(self._timers, (when, next(self.numbers), what))

    @property
    def rings(self) -> bool:
        """Whether a timer's time has come."""
        return bool(self._timers) and self._timers[0][0] <= self.now

    def due_timers(self) -> Iterator[Timed]:
        """Take those whose time has come, one by one: what is done about one may make the next one mean nothing."""
        while self.rings:
            when, _, what = heapq.heappop(self._timers)
            if _means_something(what, when):
                yield what

    def next_timer(self) -> float | None:
        """When the next one rings that means something now."""
        while self._timers and not _means_something(self._timers[0][2], self._timers[0][0]):
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    def retry_at(self, retry: int) -> float:
        """When to try again what has failed `retry` times."""
        self._jitter = (self._jitter + GOLDEN) % 1.0
        return self.now + self.limits.retry.delay(retry, self._jitter)

    # ------------------------------------------------------------ answers

    def land(self, piece: Piece, version: int, *, already: bool) -> None:
        """Acknowledge the batch of a piece that has landed, or let its answering piece go on."""
        batch = piece.batch
        if piece.answers:
            self.finish(batch, Acknowledged(batch.token, version, already, batch.beside or {}))
        else:
            batch.open_parts -= 1
            batch.beside = {**(batch.beside or {}), piece.lane.table: version}
            self.touch(batch.pieces[-1].lane)

    def verdict(self, batch: Batch, answering: Stand, expected: int) -> Acknowledged | Refused:
        """The answer to a batch whose number is committed; `expected` is the number that would be taken."""
        given = batch.given
        mark, version = answering.marks.get(batch.number, (None, answering.version))
        if judge(given, mark, doubtful=batch.in_doubt) is Verdict.OTHERS:
            return clash(batch, expected)
        own = batch.in_doubt if mark is None else mark.stamp == given.stamp
        return Acknowledged(batch.token, version, already=not own)

    def settle(self, batch: Batch, answering: Stand) -> None:
        """End a batch in flight whose number turned out to be committed, or to leave a gap."""
        if not answering.has(batch.number):
            self.refuse(batch, Reason.GAP, expected=answering.next_number())
            return
        answer = self.verdict(batch, answering, answering.next_number())
        if isinstance(answer, Refused):
            self.refuse(batch, answer.reason, expected=answering.next_number())
            return
        for piece in batch.pieces[:-1]:
            if not piece.landed:
                self._kill(piece)  # whoever brought the batch has brought its parts
        for piece in batch.pieces[-1:]:
            answering.land(piece)
            self._take_out(piece)
        self.finish(batch, answer)

    def settle_parts(self, stand: Stand) -> None:
        """Strike off the parts that a table beside the answering one has; see to those whose number is another's."""
        for piece in list(stand.pending):
            if not stand.has(piece.number):
                return
            if is_there(piece, self.limits.remembered_marks):
                stand.land(piece)
                self._take_out(piece)
                self.land(piece, stand.version, already=False)
            else:
                self.make_single(piece)

    def make_single(self, piece: Piece) -> None:
        """Give a part a stand of its own, since its number is used up. See `Stand`."""
        piece.stand.leave(piece)
        stand = Stand(piece.batch.producer, piece.lane, single_identity(piece), single=True)
        piece.stand = stand
        piece.number = 0
        stand.enter(piece)
        self.want(stand)

    def refuse(self, batch: Batch, reason: Reason, fault: Fault | None = None, *, expected: int | None = None) -> None:
        """Refuse a batch that has a number, and those of its producer behind it, which come after a gap now."""
        flight, number = batch.producer.flight, batch.number
        behind = []
        for other in reversed(flight):
            if other < number:
                break
            behind.append(flight[other])
        due = number if expected is None else expected
        for late in behind:
            self._take_back(late)
            if late is batch:
                certain, why = reason in CERTAIN, reason
            else:
                certain, why = False, Reason.PREDECESSOR
                answering = late.producer.stands[late.given.parts[-1].table]
                if reason in CERTAIN and answering.has(late.number):
                    self.finish(late, self.verdict(late, answering, due))  # an earlier try may have brought it
                    continue
            if late.in_doubt and not certain:
                why = Reason.OUTCOME_UNKNOWN
            self.finish(late, Refused(why, late.number, due, fault))

    def finish(self, batch: Batch, answer: Acknowledged | Refused) -> None:
        """Answer a batch, and give its memory back."""
        producer, given, state = batch.producer, batch.given, batch.state
        if state is BatchState.FLOWING:
            self.budget.release(batch.given.cost)
        if state is not BatchState.PLACING:
            del producer.flight[batch.token.sequence]
        batch.state = BatchState.DONE
        batch.pieces.clear()  # pieces know their batch: without the circle both go at once, not at a collection
        if isinstance(answer, Acknowledged):
            producer.committed += 1
        else:
            producer.refused += 1
        del self.tickets[given.ticket]
        self.out.append(Answer(given.ticket, answer))
        if batch.joined is not None:
            others = replace(answer, already=True) if isinstance(answer, Acknowledged) else answer
            for ticket, stamp in batch.joined.items():
                del self.tickets[ticket]
                self.answer(ticket, answer if stamp == given.stamp else others)

    def answer(self, ticket: int, answer: Acknowledged | Refused) -> None:
        """Tell a caller."""
        self.out.append(Answer(ticket, answer))

    def _take_back(self, batch: Batch) -> None:
        """Remove a batch from wherever it is."""
        if batch.state is BatchState.WAITING:
            producer = batch.producer
            if producer.waiting[-1] is batch:
                producer.waiting.pop()
            else:
                producer.waiting.remove(batch)
            if not producer.waiting:
                self.queue.leave(producer)
        for piece in batch.pieces:
            if not piece.landed:
                self._kill(piece)

    def _kill(self, piece: Piece) -> None:
        """Have a piece not committed any more."""
        piece.dead = True
        piece.stand.leave(piece)
        self._take_out(piece)

    def _take_out(self, piece: Piece) -> None:
        """Let the lane or the job that holds a piece know that it is dead or landed."""
        job = piece.job
        if job is None:
            piece.lane.drop(piece)
        elif job.state is JobState.STAGED:
            self.untidy[job] = None
        self.touch(piece.lane)


def clash(batch: Batch, expected: int) -> Refused:
    """The refusal of a batch whose number another one has."""
    chosen = not (batch.given.assigned or batch.given.sequence is None)
    return Refused(Reason.CONTENT_MISMATCH if chosen else Reason.NUMBER_TAKEN, batch.sequence, expected)


def _means_something(what: Timed, when: float) -> bool:
    if isinstance(what, Batch):
        return what.state is BatchState.WAITING and what.wait_until == when
    if isinstance(what, Job):
        return what.state is JobState.STAGING and what.deadline == when
    return True
