"""How jobs become staged files: slots by turns, tries again, blame found by splitting."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sfwriter.flow.batches import Job, JobState
from sfwriter.flow.vocabulary import Abandon, Discard, Fault, Reason, Stage

if TYPE_CHECKING:
    from sfwriter.flow.batches import Piece
    from sfwriter.flow.core import Core
    from sfwriter.flow.lane import Lane
    from sfwriter.flow.vocabulary import Staged, StagingFailed


class Staging:
    """Gives sealed jobs to workers."""

    def __init__(self, core: Core) -> None:
        """Work on a machine's state."""
        self._core = core
        self._running: dict[int, Job] = {}
        self._abandoned: dict[int, str] = {}

    def begin(self) -> None:
        """Give free slots to sealed jobs, one of each lane in turn."""
        core = self._core
        passed = 0
        while passed < len(core.turns) and len(self._running) < core.slots:
            table, lane = next(iter(core.turns.items()))
            core.turns.move_to_end(table)
            job = lane.next_ready(core.now)
            if job is not None:
                passed = 0
                self._begin(lane, job)
            else:
                passed += 1  # its jobs wait for their delays
            if not lane.sealed:
                del core.turns[table]

    def _begin(self, lane: Lane, job: Job) -> None:
        core = self._core
        if job.tidy() and not job.has_rows:
            if job.pieces:
                lane.queue(job)
            else:
                job.state = JobState.GONE
            core.touch(lane)
            return
        attempt = next(core.numbers)
        job.attempt = attempt
        job.state = JobState.STAGING
        if core.limits.stage_timeout_s is not None:
            job.deadline = (
                core.now + core.limits.stage_timeout_s + core.limits.stage_timeout_s_per_mib * job.nbytes / 2**20
            )
            core.ring_at(job.deadline, job)
        self._running[attempt] = job
        lane.staging += 1
        batches = tuple((piece.batch.given.ticket, piece.batch.token) for piece in job.pieces if piece.rows)
        core.out.append(Stage(attempt, lane.table, batches, job.nbytes))

    def _end(self, attempt: int) -> Job | None:
        """Free the slot of an attempt. None: it was abandoned earlier."""
        job = self._running.pop(attempt, None)
        if job is not None:
            job.lane.staging -= 1
            job.deadline = None
            self._core.touch(job.lane)
        return job

    def staged(self, event: Staged) -> None:
        """A job has its files: they wait for a commit."""
        job = self._end(event.job)
        if job is None:
            table = self._abandoned.pop(event.job, None)
            if table is not None:
                self._core.out.append(Discard(table, event.staged))
            return
        job.state = JobState.STAGED
        job.staged = event.staged
        job.lane.staged.append(job)
        self._core.untidy[job] = None

    def failed(self, event: StagingFailed) -> None:
        """A try has ended badly."""
        self._abandoned.pop(event.job, None)
        job = self._end(event.job)
        if job is not None:
            self.again_or_refuse(job, event.fault, worker_died=event.worker_died)

    def overdue(self, job: Job) -> None:
        """A try takes too long: give it up, and the worker with it."""
        if job.attempt is None:
            raise ValueError("a job without an attempt is overdue")
        self._end(job.attempt)
        self._abandoned[job.attempt] = job.lane.table
        self._core.out.append(Abandon(job.attempt))
        error = TimeoutError(f"staging {job.nbytes} bytes for {job.lane.table} took too long")
        self.again_or_refuse(job, Fault(error, retriable=True), worker_died=True)

    def again_or_refuse(self, job: Job, fault: Fault, *, worker_died: bool) -> None:
        """Try a job again that has no files, in parts where one of them may be at fault, or refuse its batch."""
        core, retry = self._core, self._core.limits.retry
        job.state = JobState.GONE  # unless a branch below queues it again
        if job.tidy():  # the fault may be that of those who have gone: the others are not judged by it
            if job.pieces:
                self._queue(job)
        elif worker_died and job.deaths + 1 < core.limits.max_worker_deaths:
            job.deaths += 1
            if job.deaths > 1 and len(job.pieces) > 1:
                self.split(job)
            else:
                self._queue(job)
        elif fault.retriable and not worker_died and job.failures < retry.max_retries:
            job.failures += 1
            job.not_before = core.retry_at(job.failures)
            core.ring_at(job.not_before, job.lane)
            self._queue(job)
        elif len(job.pieces) > 1:
            self.split(job)
        else:
            core.refuse(job.pieces[0].batch, Reason.STAGING_FAILED, fault)

    def split(self, job: Job) -> None:
        """Make a job of each piece, at the job's place: one of them may be at fault, not all."""
        self.discard(job)
        for index, piece in enumerate(job.pieces):
            if piece.open:
                self._queue_part(job, (*job.order, index), [piece])

    def tidy(self) -> None:
        """Stage anew what is left of staged jobs of which some pieces are not to be committed any more."""
        core = self._core
        while core.untidy:
            job, _ = core.untidy.popitem()
            if job.state is JobState.STAGED and any(not piece.open for piece in job.pieces):
                job.lane.remove_staged([job])
                self.discard(job)
                left = [piece for piece in job.pieces if piece.open]
                if left:
                    self._queue_part(job, job.order, left)

    def _queue_part(self, job: Job, order: tuple[int, ...], pieces: list[Piece]) -> None:
        part = Job(job.lane, order, pieces)
        part.failures, part.deaths = job.failures, job.deaths
        self._queue(part)

    def _queue(self, job: Job) -> None:
        job.lane.queue(job)
        self._core.requeue(job.lane)

    def discard(self, job: Job) -> None:
        """Give up a job's files; they are deleted if no commit that may still land has named them."""
        job.state = JobState.GONE
        if job.staged is not None and not job.uncertain:
            self._core.out.append(Discard(job.lane.table, job.staged))
        job.staged = None
