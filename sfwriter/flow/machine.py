"""The machine that decides: events in, commands out.

Receives: events of `sfwriter.flow.vocabulary`, with the time at which they happened.
Produces: the commands that follow, in the order in which they are to be begun.
Guarantees: every submission is answered once; an acknowledged batch is in its table once; each
    producer's numbers land without gaps; reserved bytes never exceed the budget and all come back;
    what waits for memory is let in by turns, one producer after the other.
Never does: I/O, waiting, locking, reading a clock. One thread at a time.

The theory. A commit carries, for each producer in it, the highest number that it brings (`upto`) and
the one that it was planned on (`after`); the engine refuses it where the table has another one. So of
two commits that were planned on the same state only one lands, and a commit that comes late, from a
committer that was frozen, meets a table that has gone on and is refused. What is left is the commit of
which nobody knows how it ended: the machine looks at the table before it does anything else with those
producers, and the marks kept with each commit tell its own batches from a rival's.

A refused batch takes those behind it with it (`PREDECESSOR`), and its number is free again. The other
way, committing the number without its rows, would make a caller who numbers its own batches read
"already written" when it tries the refused one again.
"""

from __future__ import annotations

import heapq
import itertools
from collections import OrderedDict, deque
from random import Random
from typing import TYPE_CHECKING, Callable

from sfwriter.batch import Token
from sfwriter.flow.batches import Batch, BatchState, Job, JobState, Piece
from sfwriter.flow.budget import Budget
from sfwriter.flow.lane import NEVER, Lane
from sfwriter.flow.plan import make_group, plan_group
from sfwriter.flow.producers import Producer, Verdict, judge
from sfwriter.flow.vocabulary import (
    Abandon,
    Acknowledged,
    Answer,
    Closed,
    Commit,
    CommitConflicted,
    CommitInDoubt,
    CommitLanded,
    CommitRefused,
    Discard,
    Fault,
    Flushed,
    ReadWatermarks,
    Reason,
    Refused,
    SlotsChanged,
    Stage,
    Staged,
    StagedLost,
    StagingFailed,
    Submitted,
    Ticked,
    WatermarksFailed,
    WatermarksRead,
    Withdrawn,
)
from sfwriter.storage.engine import Mark

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sfwriter.flow.limits import FlowLimits
    from sfwriter.flow.producers import Stand
    from sfwriter.flow.vocabulary import Command, Event
    from sfwriter.storage.engine import StagedBatch, Watermark


class Machine:
    """The state of everything that was submitted and is not answered. See the module's docstring."""

    def __init__(self, limits: FlowLimits, *, name: str = "", seed: int = 0) -> None:
        """Begin empty.

        Args:
            limits: the bounds to keep to.
            name: begins the ids of commit groups; unique to this machine's life, so that a group in
                the log is never taken for another's.
            seed: of the jitter of retries.
        """
        self.limits = limits
        self.budget = Budget(limits.budget_bytes)
        self.slots = limits.stage_slots
        self.closed = False
        self.producers: OrderedDict[str, Producer] = OrderedDict()
        self.lanes: dict[str, Lane] = {}
        self._name = name
        self._random = Random(seed)  # noqa: S311  jitter, no secret
        self._now = float("-inf")
        self._out: list[Command] = []
        self._tickets: dict[int, Batch] = {}
        self._queue: OrderedDict[str, Producer] = OrderedDict()
        self._jobs: dict[int, Job] = {}
        self._abandoned: dict[int, str] = {}
        self._groups: dict[str, Lane] = {}
        self._staging = 0
        self._turn: deque[Lane] = deque()
        self._dirty: dict[str, Lane] = {}
        self._timers: list[tuple[float, int, Lane | Batch | Job]] = []
        self._count = itertools.count()
        self._handlers: dict[type, Callable[..., None]] = {
            Submitted: self._submitted,
            Withdrawn: self._withdrawn,
            Staged: self._staged,
            StagingFailed: self._staging_failed,
            CommitLanded: self._landed,
            CommitConflicted: self._conflicted,
            CommitInDoubt: self._in_doubt,
            CommitRefused: self._commit_refused,
            StagedLost: self._lost,
            WatermarksRead: self._read,
            WatermarksFailed: self._read_failed,
            SlotsChanged: self._slots_changed,
            Ticked: self._ticked,
            Flushed: self._flushed,
            Closed: self._close,
        }

    # ------------------------------------------------------------ what the shell calls

    def handle(self, event: Event, now: float) -> list[Command]:
        """Take one event and return the commands that follow from it.

        Args:
            event: what happened.
            now: when, in seconds of any clock; one that goes backwards is taken to stand still.
        """
        self._now = max(now, self._now)
        self._handlers[type(event)](event)
        self._ring()
        self._pump()
        out, self._out = self._out, []
        return out

    def wake_at(self) -> float | None:
        """When the machine wants a `Ticked` at the latest; None: not before the next event."""
        while self._timers and not self._pending(self._timers[0]):
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    @property
    def in_flight(self) -> int:
        """Submissions that are not answered."""
        return len(self._tickets)

    # ------------------------------------------------------------ a batch comes in

    def _submitted(self, event: Submitted) -> None:
        if event.ticket in self._tickets:
            raise ValueError(f"ticket {event.ticket} is in use")
        if self.closed:
            self._answer(event.ticket, Refused(Reason.CLOSED, event.sequence))
            return
        if event.cost > self.budget.total:
            self._answer(event.ticket, Refused(Reason.TOO_LARGE, event.sequence))
            return
        producer = self._producer(event.producer_id)
        batch = Batch(event, producer)
        self._tickets[event.ticket] = batch
        producer.accepted += 1
        producer.placing.append(batch)
        self._place(producer)

    def _place(self, producer: Producer) -> None:
        """Settle the numbers of those batches whose tables' watermarks are known, in order."""
        while producer.placing:
            batch = producer.placing[0]
            unknown = [part.table for part in batch.given.parts if not producer.stand(part.table).known]
            for table in unknown:
                self._want(table, producer)
            if unknown or not self._number(batch):
                return

    def _number(self, batch: Batch) -> bool:
        """Give the first placing batch its number, or its answer. False: its gap is being looked at again."""
        producer = batch.producer
        answering = producer.stand(batch.given.parts[-1].table)
        expected = producer.expected(answering)
        number = expected if batch.sequence is None else batch.sequence
        if number > expected and not batch.looked_again and not producer.flight:
            # Another process may have gone on with this producer since the table was read.
            batch.looked_again = True
            answering.known = False
            self._want(batch.given.parts[-1].table, producer)
            return False
        producer.placing.popleft()
        if number > expected:
            self._finish(batch, Refused(Reason.GAP, number, expected))
        elif number == expected:
            batch.sequence = number
            producer.flight[number] = batch
            batch.state = BatchState.WAITING
            self._let_in_or_queue(batch)
        elif number in producer.flight:
            self._join(batch, producer.flight[number])
        else:
            batch.sequence = number
            self._finish(batch, self._found(batch, answering, expected))
        return True

    def _join(self, batch: Batch, twin: Batch) -> None:
        """Let a batch share the answer of the one in flight under its number, if it is the same."""
        mark = Mark(twin.given.digest, twin.given.stamp)
        if judge(batch, mark) is Verdict.OURS:
            batch.producer.accepted -= 1
            twin.tickets.update(batch.tickets)
            for ticket in batch.tickets:
                self._tickets[ticket] = twin
        else:
            self._finish(batch, self._clash(batch, batch.producer.expected(self._answering(batch))))

    def _found(self, batch: Batch, answering: Stand, expected: int) -> Acknowledged | Refused:
        """The answer to a batch whose number is committed."""
        mark, version = answering.marks.get(batch.number, (None, answering.version))
        if judge(batch, mark) is Verdict.OTHERS:
            return self._clash(batch, expected)
        own = batch.in_doubt or batch.given.resent or (mark is not None and mark.stamp == batch.given.stamp)
        return Acknowledged(Token(batch.producer.identity, batch.number), version, already=not own)

    def _clash(self, batch: Batch, expected: int) -> Refused:
        reason = Reason.NUMBER_TAKEN if batch.assigned else Reason.CONTENT_MISMATCH
        return Refused(reason, batch.sequence, expected)

    # ------------------------------------------------------------ memory

    def _let_in_or_queue(self, batch: Batch) -> None:
        if not self._queue and self.budget.fits(batch.given.cost):
            self._let_in(batch)
            return
        producer = batch.producer
        producer.waiting.append(batch)
        self._queue.setdefault(producer.identity, producer)
        if batch.given.wait_until is not None:
            self._ring_at(batch.given.wait_until, batch)

    def _let_in_waiting(self) -> None:
        """Let in what fits, one batch of each producer in turn. The first that does not fit holds up all: else
        a large batch would starve behind small ones."""
        while self._queue:
            identity, producer = next(iter(self._queue.items()))
            batch = producer.waiting[0]
            if not self.budget.fits(batch.given.cost):
                return
            producer.waiting.popleft()
            if producer.waiting:
                self._queue.move_to_end(identity)
            else:
                del self._queue[identity]
            self._let_in(batch)

    def _let_in(self, batch: Batch) -> None:
        self.budget.reserve(batch.given.cost)
        batch.state = BatchState.FLOWING
        last = len(batch.given.parts) - 1
        for index, part in enumerate(batch.given.parts):
            lane = self._lane(part.table)
            stand = batch.producer.stand(part.table)
            until = lane.open_until
            if index < last and self._is_there(batch, stand):
                continue
            piece = Piece(batch, lane, stand, part.rows, part.nbytes)
            batch.pieces.append(piece)
            batch.open_parts += index < last
            stand.enter(piece)
            lane.collect(piece, self._now, self.limits)
            if lane.full(self.limits):
                self._seal(lane)
            elif lane.open_until < until:
                self._ring_at(lane.open_until, lane)
            self._dirty[lane.table] = lane

    def _is_there(self, batch: Batch, stand: Stand) -> bool:
        """Whether a part beside the answering one landed in an earlier try of the same batch."""
        if stand.committed is None or batch.number > stand.committed:
            return False
        mark = stand.marks.get(batch.number)
        return judge(batch, mark[0] if mark else None) is Verdict.OURS

    # ------------------------------------------------------------ staging

    def _seal(self, lane: Lane) -> None:
        lane.seal()
        self._dirty[lane.table] = lane

    def _begin_staging(self) -> None:
        """Give free slots to sealed jobs, one lane after the other."""
        for _ in range(len(self._turn)):
            if self._staging >= self.slots:
                return
            lane = self._turn[0]
            self._turn.rotate(-1)
            for job in [job for job in lane.sealed if job.not_before <= self._now][: self.slots - self._staging]:
                lane.sealed.remove(job)
                self._stage(lane, job)

    def _stage(self, lane: Lane, job: Job) -> None:
        attempt = next(self._count)
        job.attempt = attempt
        job.state = JobState.STAGING
        if self.limits.stage_timeout_s is not None:
            span = self.limits.stage_timeout_s + self.limits.stage_timeout_s_per_mib * job.nbytes / 2**20
            job.deadline = self._now + span
            self._ring_at(job.deadline, job)
        self._jobs[attempt] = job
        self._staging += 1
        lane.staging += 1
        batches = tuple(
            (next(iter(piece.batch.tickets)), Token(piece.batch.producer.identity, piece.batch.number))
            for piece in job.pieces
            if piece.rows
        )
        self._out.append(Stage(attempt, lane.table, batches, job.nbytes))

    def _end_staging(self, attempt: int) -> Job | None:
        """Free the slot of an attempt. None: it was abandoned earlier."""
        job = self._jobs.pop(attempt, None)
        if job is None:
            return None
        self._staging -= 1
        job.lane.staging -= 1
        job.deadline = None
        self._dirty[job.lane.table] = job.lane
        return job

    def _staged(self, event: Staged) -> None:
        job = self._end_staging(event.job)
        if job is None:
            table = self._abandoned.pop(event.job, None)
            if table is not None:
                self._out.append(Discard(table, event.staged))
            return
        job.state = JobState.STAGED
        job.staged = event.staged
        job.lane.staged.append(job)
        self._tidy(job)

    def _staging_failed(self, event: StagingFailed) -> None:
        self._abandoned.pop(event.job, None)
        job = self._end_staging(event.job)
        if job is not None:
            self._stage_again_or_refuse(job, event.fault, worker_died=event.worker_died)

    def _stage_again_or_refuse(self, job: Job, fault: Fault, *, worker_died: bool) -> None:
        retry = self.limits.retry
        job.state = JobState.GONE  # unless a branch below queues it again
        job.keep(piece for piece in job.pieces if not (piece.dead or piece.landed))
        if not job.pieces:
            return
        if worker_died and job.deaths + 1 < self.limits.max_worker_deaths:
            job.deaths += 1
            if job.deaths > 1 and len(job.pieces) > 1:
                self._split(job)  # one of them may be what kills
            else:
                job.lane.queue(job)
        elif fault.retriable and not worker_died and job.failures < retry.max_retries:
            job.failures += 1
            job.not_before = self._now + retry.delay(job.failures, self._random.random())
            self._ring_at(job.not_before, job.lane)
            job.lane.queue(job)
        elif len(job.pieces) > 1:
            self._split(job)  # one of them may be at fault, not all
        else:
            self._refuse_from(job.pieces[0].batch, Reason.STAGING_FAILED, fault)

    def _split(self, job: Job) -> None:
        """Make a job of each piece, at the job's place."""
        self._discard(job)
        for index, piece in enumerate(job.pieces):
            if not (piece.dead or piece.landed):
                self._queue_part(job, (*job.order, index), [piece])

    def _tidy(self, job: Job) -> None:
        """Bundle a staged job anew where some of its pieces are no longer to be committed with it."""
        left = [piece for piece in job.pieces if not (piece.dead or piece.landed)]
        if len(left) == len(job.pieces):
            return
        if job in job.lane.staged:
            job.lane.staged.remove(job)
        self._discard(job)
        if left:
            self._queue_part(job, job.order, left)

    def _queue_part(self, job: Job, order: tuple[int, ...], pieces: list[Piece]) -> None:
        part = Job(job.lane, order, pieces)
        part.failures, part.deaths = job.failures, job.deaths
        job.lane.queue(part)
        self._dirty[job.lane.table] = job.lane

    def _discard(self, job: Job) -> None:
        job.state = JobState.GONE
        if job.staged is not None and not job.uncertain:
            self._out.append(Discard(job.lane.table, job.staged))
        job.staged = None

    # ------------------------------------------------------------ committing

    def _begin_commit(self, lane: Lane) -> None:
        if lane.group_id is not None or not lane.staged or lane.not_before > self._now:
            return
        jobs = plan_group(lane, self.limits)
        if not jobs:
            return
        group = make_group(f"{self._name}{next(self._count)}", jobs, self.limits)
        taken = set(map(id, jobs))
        lane.staged = [job for job in lane.staged if id(job) not in taken]
        lane.committing = jobs
        lane.group_id = group.group_id
        for job in jobs:
            job.state = JobState.COMMITTING
        self._groups[group.group_id] = lane
        self._out.append(Commit(lane.table, group))

    def _end_commit(self, group_id: str) -> tuple[Lane, list[Job]]:
        """Take the jobs of a commit back into the lane, staged."""
        lane = self._groups.pop(group_id)
        jobs, lane.committing, lane.group_id = lane.committing, [], None
        for job in jobs:
            job.state = JobState.STAGED
        lane.staged.extend(jobs)
        self._dirty[lane.table] = lane
        return lane, jobs

    def _landed(self, event: CommitLanded) -> None:
        lane = self._groups.pop(event.group_id)
        jobs, lane.committing, lane.group_id = lane.committing, [], None
        lane.failures = lane.conflicts = 0
        self._dirty[lane.table] = lane
        for job in jobs:
            job.state = JobState.GONE
            for piece in job.pieces:
                batch, stand = piece.batch, piece.stand
                number = batch.number
                stand.committed = number if stand.committed is None else max(stand.committed, number)
                stand.version = event.version
                mark = Mark(batch.given.digest, batch.given.stamp)
                stand.remember({number: (mark, event.version)}, self.limits.remembered_marks)
                if not piece.dead:
                    stand.land(piece)
                    self._answer_landed(piece, event.version, already=False)

    def _answer_landed(self, piece: Piece, version: int, *, already: bool) -> None:
        """Acknowledge the batch of a landed piece, or let its answering piece go on."""
        batch = piece.batch
        if piece is batch.pieces[-1]:
            self._finish(batch, Acknowledged(Token(batch.producer.identity, batch.number), version, already))
            return
        batch.open_parts -= 1
        answering = batch.pieces[-1].lane
        self._dirty[answering.table] = answering

    def _conflicted(self, event: CommitConflicted) -> None:
        lane, jobs = self._end_commit(event.group_id)
        lane.conflicts += 1
        if lane.conflicts > self.limits.max_conflicts:
            lane.conflicts = 0
            error = RuntimeError(f"{self.limits.max_conflicts} commits in a row met a conflict")
            self._refuse_jobs(lane, jobs, Fault(error, retriable=True))
            return
        self._look_again(lane, jobs)

    def _in_doubt(self, event: CommitInDoubt) -> None:
        lane, jobs = self._end_commit(event.group_id)
        lane.failures += 1
        spent = lane.failures > self.limits.retry.max_retries
        for job in jobs:
            job.uncertain = True
            job.spent = event.fault if spent else None
            for piece in job.pieces:
                piece.batch.in_doubt = True
        if spent:
            lane.failures = 0
        else:
            self._pause(lane)
        self._look_again(lane, jobs)

    def _look_again(self, lane: Lane, jobs: Iterable[Job]) -> None:
        for job in jobs:
            for piece in job.pieces:
                piece.stand.known = False
                self._want(lane.table, piece.batch.producer)
            self._tidy(job)

    def _commit_refused(self, event: CommitRefused) -> None:
        lane, jobs = self._end_commit(event.group_id)
        retry = self.limits.retry
        if event.fault.retriable and lane.failures < retry.max_retries:
            lane.failures += 1
            self._pause(lane)
            for job in jobs:
                self._tidy(job)
            return
        lane.failures = 0
        if not event.positions:
            self._refuse_jobs(lane, jobs, event.fault)
            return
        for job in self._at(jobs, event.positions):
            if len(job.pieces) > 1:
                lane.staged.remove(job)
                self._split(job)  # one of them may be at fault, not all
            else:
                self._refuse_jobs(lane, [job], event.fault)
        for job in jobs:
            if job.state is JobState.STAGED:
                self._tidy(job)

    def _pause(self, lane: Lane) -> None:
        """Begin no commit before the delay that the lane's failures give."""
        lane.not_before = self._now + self.limits.retry.delay(lane.failures, self._random.random())
        self._ring_at(lane.not_before, lane)

    def _lost(self, event: StagedLost) -> None:
        lane, jobs = self._end_commit(event.group_id)
        at_fault = self._at(jobs, event.positions)
        for job in jobs:
            if job not in at_fault:
                self._tidy(job)
        error = FileNotFoundError(f"staged files of {lane.table} are gone or changed")
        for job in at_fault:
            lane.staged.remove(job)
            job.staged = None
            self._stage_again_or_refuse(job, Fault(error, retriable=True), worker_died=False)

    def _at(self, jobs: list[Job], positions: Iterable[int]) -> list[Job]:
        with_files = [job for job in jobs if job.staged is not None]
        return [with_files[position] for position in positions]

    def _refuse_jobs(self, lane: Lane, jobs: list[Job], fault: Fault) -> None:
        """Refuse every batch of these staged jobs."""
        for job in jobs:
            lane.staged.remove(job)
            self._discard(job)
        for piece in [piece for job in jobs for piece in job.pieces]:
            if piece.batch.state is not BatchState.DONE:
                self._refuse_from(piece.batch, Reason.COMMIT_FAILED, fault)

    # ------------------------------------------------------------ looking at the table

    def _want(self, table: str, producer: Producer) -> None:
        stand = producer.stand(table)
        if not stand.asked:
            stand.asked = True
            lane = self._lane(table)
            lane.wanted[producer.identity] = None
            self._dirty[table] = lane

    def _begin_reading(self, lane: Lane) -> None:
        if lane.wanted and not lane.reading and lane.read_not_before <= self._now:
            lane.reading = True
            producers, lane.wanted = tuple(lane.wanted), {}
            self._out.append(ReadWatermarks(lane.table, producers))

    def _read(self, event: WatermarksRead) -> None:
        lane = self.lanes[event.table]
        lane.reading = False
        lane.read_failures = 0
        self._dirty[lane.table] = lane
        for identity, watermark in event.marks.items():
            producer = self.producers.get(identity)
            if producer is not None:
                self._settle(producer.stand(event.table), watermark)
                self._place(producer)

    def _settle(self, stand: Stand, watermark: Watermark) -> None:
        """Compare what is pending with what the table says."""
        stand.read(watermark, self.limits.remembered_marks)
        for piece in list(stand.pending):
            batch = piece.batch
            if piece.landed or piece.dead or batch.state is BatchState.DONE:
                continue
            answers = piece is batch.pieces[-1]
            if stand.committed is None or batch.number > stand.committed:
                if piece.job is not None and piece.job.spent is not None:
                    self._refuse_from(batch, Reason.OUTCOME_UNKNOWN, piece.job.spent)
                elif answers and batch.number != stand.next_number() and piece is stand.pending[0]:
                    # The table went back behind what it had acknowledged.
                    self._refuse_from(batch, Reason.GAP, None, expected=stand.next_number())
                break
            self._settle_committed(piece, stand)

    def _settle_committed(self, piece: Piece, stand: Stand) -> None:
        """Settle a pending piece whose number the table has."""
        batch = piece.batch
        if piece is batch.pieces[-1]:
            answer = self._found(batch, stand, stand.next_number())
            if isinstance(answer, Acknowledged):
                stand.land(piece)
                self._take_out(piece)
                self._answer_landed(piece, answer.version, already=answer.already)
            else:
                self._refuse_from(batch, answer.reason, None, expected=answer.expected)
        elif piece is stand.pending[0] and self._is_there(batch, stand):
            stand.land(piece)
            self._take_out(piece)
            self._answer_landed(piece, stand.version, already=False)

    def _read_failed(self, event: WatermarksFailed) -> None:
        lane = self.lanes[event.table]
        lane.reading = False
        self._dirty[lane.table] = lane
        if event.fault.retriable and lane.read_failures < self.limits.retry.max_retries:
            lane.read_failures += 1
            lane.read_not_before = self._now + self.limits.retry.delay(lane.read_failures, self._random.random())
            self._ring_at(lane.read_not_before, lane)
            lane.wanted.update(dict.fromkeys(event.producers))  # they stay asked for
            return
        lane.read_failures = 0
        for identity in event.producers:
            producer = self.producers.get(identity)
            if producer is not None:
                self._give_up(producer, event.table, event.fault)

    def _give_up(self, producer: Producer, table: str, fault: Fault) -> None:
        """Answer what depends on a look at a table that cannot be had."""
        producer.stand(table).asked = False
        for piece in list(producer.stand(table).pending):
            if piece.batch.state is not BatchState.DONE:
                self._refuse_from(piece.batch, Reason.TABLE_FAILED, fault)
        for batch in [b for b in producer.placing if any(part.table == table for part in b.given.parts)]:
            producer.placing.remove(batch)
            self._finish(batch, Refused(Reason.TABLE_FAILED, batch.sequence, None, fault))
        self._place(producer)

    # ------------------------------------------------------------ answers

    def _refuse_from(self, batch: Batch, reason: Reason, fault: Fault | None, *, expected: int | None = None) -> None:
        """Refuse a batch that has a number, and those of its producer behind it."""
        producer = batch.producer
        number = batch.number
        for late in reversed([other for n, other in producer.flight.items() if n >= number]):
            first = late is batch
            self._take_back(late)
            why = reason if first else Reason.PREDECESSOR
            if late.in_doubt and reason is not Reason.NUMBER_TAKEN and reason is not Reason.CONTENT_MISMATCH:
                why = Reason.OUTCOME_UNKNOWN
            due = number if expected is None else expected
            self._finish(late, Refused(why, late.number, due, fault))

    def _take_back(self, batch: Batch) -> None:
        """Remove a batch from wherever it is, its pieces from the ends of their stands."""
        if batch.state is BatchState.WAITING:
            producer = batch.producer
            producer.waiting.remove(batch)
            if not producer.waiting:
                self._queue.pop(producer.identity, None)
        for piece in batch.pieces:
            if not piece.landed:
                piece.dead = True
                piece.stand.leave(piece)
                self._take_out(piece)

    def _take_out(self, piece: Piece) -> None:
        """Remove a piece from the lane's open ones or from its job, which is bundled anew."""
        lane, job = piece.lane, piece.job
        self._dirty[lane.table] = lane
        if job is None:
            if piece in lane.open:
                lane.drop(piece)
        elif job.state is JobState.SEALED:
            job.keep(other for other in job.pieces if other is not piece)
            if not job.has_rows:
                lane.sealed.remove(job)
                if job.pieces:
                    lane.queue(job)
                else:
                    job.state = JobState.GONE
        elif job.state is JobState.STAGED:
            self._tidy(job)

    def _finish(self, batch: Batch, answer: Acknowledged | Refused) -> None:
        producer = batch.producer
        if batch.state is BatchState.FLOWING:
            self.budget.release(batch.given.cost)
        if batch.sequence is not None and producer.flight.get(batch.sequence) is batch:
            del producer.flight[batch.sequence]
        batch.state = BatchState.DONE
        if isinstance(answer, Acknowledged):
            producer.committed += 1
        else:
            producer.refused += 1
        for ticket, stamp in batch.tickets.items():
            del self._tickets[ticket]
            if isinstance(answer, Acknowledged) and stamp != batch.given.stamp:
                self._answer(ticket, Acknowledged(answer.token, answer.version, already=True))
            else:
                self._answer(ticket, answer)

    def _answer(self, ticket: int, answer: Acknowledged | Refused) -> None:
        self._out.append(Answer(ticket, answer))

    def _answering(self, batch: Batch) -> Stand:
        return batch.producer.stand(batch.given.parts[-1].table)

    def _withdrawn(self, event: Withdrawn) -> None:
        batch = self._tickets.get(event.ticket)
        if batch is None:
            return
        if len(batch.tickets) > 1:
            del batch.tickets[event.ticket], self._tickets[event.ticket]
            self._answer(event.ticket, Refused(Reason.WITHDRAWN, batch.sequence))
        elif batch.state is BatchState.PLACING:
            batch.producer.placing.remove(batch)
            self._finish(batch, Refused(Reason.WITHDRAWN, batch.sequence))
            self._place(batch.producer)
        elif not batch.in_doubt and not self._is_committing(batch):
            self._refuse_from(batch, Reason.WITHDRAWN, None)

    def _is_committing(self, batch: Batch) -> bool:
        job = batch.pieces[-1].job if batch.pieces else None
        return job is not None and job.state is JobState.COMMITTING

    # ------------------------------------------------------------ time and turns

    def _slots_changed(self, event: SlotsChanged) -> None:
        self.slots = event.slots

    def _ticked(self, _: Ticked) -> None:
        """Nothing but the timers, which every event rings."""

    def _flushed(self, _: Flushed | Closed) -> None:
        for batch in self._tickets.values():
            batch.patient = False
        for lane in self.lanes.values():
            if lane.open:
                self._seal(lane)

    def _close(self, event: Closed) -> None:
        self.closed = True
        self._flushed(event)

    def _ring_at(self, when: float, what: Lane | Batch | Job) -> None:
        if when < NEVER:
            heapq.heappush(self._timers, (when, next(self._count), what))

    def _pending(self, timer: tuple[float, int, Lane | Batch | Job]) -> bool:
        when, _, what = timer
        if isinstance(what, Batch):
            return what.state is BatchState.WAITING
        if isinstance(what, Job):
            return what.state is JobState.STAGING and what.deadline == when
        return True

    def _ring(self) -> None:
        while self._timers and self._timers[0][0] <= self._now:
            timer = heapq.heappop(self._timers)
            what = timer[2]
            if not self._pending(timer):
                continue
            if isinstance(what, Lane):
                self._dirty[what.table] = what
            elif isinstance(what, Batch):
                self._refuse_from(what, Reason.QUEUE_TIMEOUT, None)
            elif what.attempt is not None:
                self._abandon(what, what.attempt)

    def _abandon(self, job: Job, attempt: int) -> None:
        self._end_staging(attempt)
        self._abandoned[attempt] = job.lane.table
        self._out.append(Abandon(attempt))
        error = TimeoutError(f"staging {job.nbytes} bytes for {job.lane.table} took too long")
        self._stage_again_or_refuse(job, Fault(error, retriable=True), worker_died=True)

    def _pump(self) -> None:
        """Begin whatever can begin now."""
        while True:
            if self._queue:
                self._let_in_waiting()
                if self._queue:
                    self._make_room()
            if not self._dirty:
                return
            dirty, self._dirty = self._dirty, {}
            for lane in dirty.values():
                if lane.due(self._now):
                    self._seal(lane)
            self._begin_staging()
            for lane in dirty.values():
                self._begin_reading(lane)
                self._begin_commit(lane)

    def _make_room(self) -> None:
        """Seal the fullest open lane where batches wait for memory and nothing that holds it is moving."""
        if any(not lane.idle for lane in self.lanes.values()):
            return
        fullest = max(self.lanes.values(), key=lambda lane: lane.open_bytes, default=None)
        if fullest is not None and fullest.open:
            self._seal(fullest)

    def _lane(self, table: str) -> Lane:
        lane = self.lanes.get(table)
        if lane is None:
            lane = self.lanes[table] = Lane(table)
            self._turn.append(lane)
        return lane

    def _producer(self, identity: str) -> Producer:
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
