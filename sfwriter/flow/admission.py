"""How a batch comes in: its number is settled, then its memory is reserved, then its pieces are collected."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sfwriter.flow.batches import Batch, BatchState, Piece
from sfwriter.flow.core import clash
from sfwriter.flow.producers import Verdict, is_there, judge
from sfwriter.flow.vocabulary import Reason, Refused
from sfwriter.storage.engine import Mark

if TYPE_CHECKING:
    from sfwriter.flow.core import Core
    from sfwriter.flow.producers import Producer
    from sfwriter.flow.vocabulary import Closed, Flushed, Submitted, Withdrawn


class Admission:
    """Takes batches in, and lets those go that are given up before they are committed."""

    def __init__(self, core: Core) -> None:
        """Work on a machine's state."""
        self._core = core

    def submitted(self, event: Submitted) -> None:
        """Take a batch, or say why not."""
        core = self._core
        if event.ticket in core.tickets:
            raise ValueError(f"ticket {event.ticket} is in use")
        if core.closed or event.cost > core.limits.budget_bytes:
            reason = Reason.CLOSED if core.closed else Reason.TOO_LARGE
            core.answer(event.ticket, Refused(Reason.OUTCOME_UNKNOWN if event.resent else reason, event.sequence))
            return
        producer = core.producer(event.producer_id)
        batch = Batch(event, producer)
        core.tickets[event.ticket] = batch
        producer.accepted += 1
        producer.placing.append(batch)
        if len(producer.placing) == 1:
            self.place(producer)

    def place(self, producer: Producer) -> None:
        """Settle the numbers of those batches whose tables' watermarks are known, in order."""
        while producer.placing:
            batch = producer.placing[0]
            ready = True
            for part in batch.given.parts:
                stand = producer.stands.get(part.table) or producer.stand(self._core.lane(part.table))
                if not stand.known:
                    ready = False
                    self._core.want(stand)
            if not ready or not self._number(batch):
                return

    def _number(self, batch: Batch) -> bool:
        """Give the first placing batch its number, or its answer. False: its gap is being looked at again."""
        core, producer = self._core, batch.producer
        answering = producer.stands[batch.given.parts[-1].table]
        expected = producer.expected(answering)
        number = expected if batch.sequence is None else batch.sequence
        if number > expected and not batch.looked_again and not producer.flight:
            # Another process may have gone on with this producer since the table was read.
            batch.looked_again = True
            answering.known = False
            core.want(answering)
            return False
        producer.placing.popleft()
        batch.place(number)
        if number == expected:
            producer.flight[number] = batch
            batch.state = BatchState.WAITING
            self._let_in_or_queue(batch)
        elif number > expected:
            reason = Reason.OUTCOME_UNKNOWN if batch.in_doubt else Reason.GAP
            core.finish(batch, Refused(reason, number, expected))
        elif number in producer.flight:
            self._join(batch, producer.flight[number], expected)
        else:
            core.finish(batch, core.verdict(batch, answering, expected))
        return True

    def _join(self, batch: Batch, twin: Batch, expected: int) -> None:
        """Let a batch share the answer of the one in flight under its number, if it is the same."""
        core, given = self._core, batch.given
        mark = Mark(twin.given.digest, twin.given.stamp)
        if judge(given, mark, doubtful=False) is Verdict.OTHERS:
            unknown = Refused(Reason.OUTCOME_UNKNOWN, batch.sequence, expected)
            # The other one has not landed: an earlier try of this one may yet.
            core.finish(batch, unknown if batch.in_doubt else clash(batch, expected))
            return
        batch.producer.accepted -= 1
        twin.joined = {**(twin.joined or {}), given.ticket: given.stamp}
        core.tickets[given.ticket] = twin
        if twin.wait_until is not None:
            twin.wait_until = None if given.wait_until is None else max(twin.wait_until, given.wait_until)
            if twin.wait_until is not None:
                core.ring_at(twin.wait_until, twin)

    # ------------------------------------------------------------ memory

    def _let_in_or_queue(self, batch: Batch) -> None:
        core = self._core
        if not core.queue and core.budget.fits(batch.given.cost):
            self._let_in(batch)
            return
        producer = batch.producer
        producer.waiting.append(batch)
        core.queue.join(producer)
        if batch.wait_until is not None:
            core.ring_at(batch.wait_until, batch)

    def let_in_waiting(self) -> None:
        """Let in what fits, by turns.

        The first that does not fit holds up all: else a large batch would starve behind small ones.
        """
        core = self._core
        while core.queue:
            producer = core.queue.first()
            if not core.budget.fits(producer.waiting[0].given.cost):
                self._make_room()
                return
            batch = producer.waiting.popleft()
            core.queue.took(producer, batch.given)
            self._let_in(batch)

    def _make_room(self) -> None:
        """Seal the fullest open lane where batches wait for memory and nothing that holds it is moving."""
        core = self._core
        if any(not lane.idle for lane in core.lanes.values()):
            return
        fullest = max(core.lanes.values(), key=lambda lane: lane.open_bytes, default=None)
        if fullest is not None and fullest.open_count:
            core.seal(fullest)

    def _let_in(self, batch: Batch) -> None:
        """Reserve a batch's memory and collect its pieces."""
        core, producer, parts = self._core, batch.producer, batch.given.parts
        core.budget.reserve(batch.given.cost)
        batch.state = BatchState.FLOWING
        answering = producer.stands[parts[-1].table]
        if answering.known and not answering.pending and batch.sequence != answering.next_number():
            core.settle(batch, answering)  # a look at the table found it moved while the batch waited
            return
        for part in parts:
            stand = producer.stands[part.table]
            piece = Piece(batch, stand, part, answers=stand is answering)
            if not piece.answers:
                if is_there(piece, core.limits.remembered_marks):
                    continue
                batch.open_parts += 1
            batch.pieces.append(piece)
            self._collect(piece)

    def _collect(self, piece: Piece) -> None:
        core, lane, stand = self._core, piece.lane, piece.stand
        stand.enter(piece)
        if not stand.known:
            core.want(stand)
        elif not piece.answers and stand.has(piece.number):
            core.make_single(piece)
        if piece.replaces and lane.open_count:
            core.seal(lane)  # what came before it is not in its files
        until = lane.open_until
        lane.collect(piece, core.now, core.limits)
        if lane.open_bytes >= core.limits.max_job_bytes:
            core.seal(lane)
        elif lane.due(core.now):
            core.touch(lane)
        elif lane.open_until < until:
            core.ring_at(lane.open_until, lane)

    # ------------------------------------------------------------ who gives up, and who goes

    def withdrawn(self, event: Withdrawn) -> None:
        """Refuse what a caller gave up, if that is still possible."""
        core = self._core
        batch = core.tickets.get(event.ticket)
        if batch is None:
            return
        if batch.joined:
            if event.ticket == batch.given.ticket:
                return  # another call is answered by this one's rows, so they are written
            del batch.joined[event.ticket], core.tickets[event.ticket]
            core.answer(event.ticket, Refused(Reason.WITHDRAWN, batch.sequence))
        elif batch.state is BatchState.PLACING:
            first = batch.producer.placing[0] is batch
            batch.producer.placing.remove(batch)
            reason = Reason.OUTCOME_UNKNOWN if batch.in_doubt else Reason.WITHDRAWN
            core.finish(batch, Refused(reason, batch.sequence))
            if first:
                self.place(batch.producer)
        elif not batch.committing:
            core.refuse(batch, Reason.WITHDRAWN)

    def flushed(self, _: Flushed | Closed) -> None:
        """Seal what is open, and make nobody wait for company. What is much is staged by all slots: nothing follows."""
        core = self._core
        for batch in core.tickets.values():
            batch.patient = False
        for lane in core.lanes.values():
            if lane.open_count:
                core.seal(lane, min(core.slots, lane.open_bytes // core.limits.min_part_bytes))

    def closed(self, event: Closed) -> None:
        """Take nothing more."""
        self._core.closed = True
        self.flushed(event)
