"""How staged files become visible: one commit at a time for each table, and what follows from how it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sfwriter.flow.batches import BatchState, JobState
from sfwriter.flow.plan import choose_jobs, make_plan
from sfwriter.flow.vocabulary import Commit, Fault, Reason

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sfwriter.flow.batches import Job
    from sfwriter.flow.core import Core
    from sfwriter.flow.lane import Lane
    from sfwriter.flow.producers import Stand
    from sfwriter.flow.staging import Staging
    from sfwriter.flow.vocabulary import CommitConflicted, CommitInDoubt, CommitLanded, CommitRefused, StagedLost


class Committing:
    """Begins commits, and settles what was in them."""

    def __init__(self, core: Core, staging: Staging) -> None:
        """Work on a machine's state; `staging` makes files anew."""
        self._core = core
        self._staging = staging
        self._lanes: dict[str, Lane] = {}

    def begin(self, lane: Lane) -> None:
        """Begin a commit if one may begin and there is something for it."""
        core = self._core
        if lane.committing is not None or not lane.staged or lane.not_before > core.now:
            return
        jobs = choose_jobs(lane, core.limits)
        if not jobs:
            return
        plan = make_plan(f"{core.name}{next(core.numbers)}", jobs, core.limits)
        lane.remove_staged(jobs)
        lane.committing = plan
        for job in jobs:
            job.state = JobState.COMMITTING
        self._lanes[plan.group.group_id] = lane
        core.out.append(Commit(lane.table, plan.group))

    def landed(self, event: CommitLanded) -> None:
        """Acknowledge what was in it."""
        core, lane = self._core, self._lanes.pop(event.group_id)
        plan, lane.committing = lane.committing, None
        if plan is None:
            raise ValueError(f"no commit of {lane.table} is under way")
        lane.failures = lane.conflicts = 0
        core.touch(lane)
        for stand, step in zip(plan.stands, plan.group.advances, strict=True):
            stand.advance(step, event.version, core.limits.remembered_marks)
        passed: dict[Stand, None] = {}
        lane.expect(_waited_for(plan.jobs), core.now, core.limits)
        core.ring_at(lane.expected_until, lane)
        for job in plan.jobs:
            job.state = JobState.GONE
            for piece in job.pieces:
                if piece.dead or piece.landed:
                    passed[piece.stand] = None
                else:
                    piece.stand.land(piece)
                    core.land(piece, event.version, already=False)
            job.pieces = []  # they know their job: see `Core.finish`
        for stand in passed:
            core.settle_parts(stand)  # the number of a refused batch, which may be another's by now, is used up

    def conflicted(self, event: CommitConflicted) -> None:
        """Look at the table and plan anew."""
        core = self._core
        lane, jobs = self._back_to_staged(event.group_id)
        lane.conflicts += 1
        if lane.conflicts > core.limits.max_conflicts:
            lane.conflicts = 0
            error = RuntimeError(f"{core.limits.max_conflicts} commits in a row met a conflict")
            self._refuse(lane, jobs, Fault(error, retriable=True))
        self._look_again(jobs)

    def in_doubt(self, event: CommitInDoubt) -> None:
        """Look at the table before anything else is done with those producers."""
        core = self._core
        lane, jobs = self._back_to_staged(event.group_id)
        lane.failures += 1
        spent = lane.failures > core.limits.retry.max_retries
        for job in jobs:
            job.uncertain = True
            job.spent = event.fault if spent else None
            for piece in job.pieces:
                piece.in_doubt = True
        if spent:
            lane.failures = 0
        else:
            self._pause(lane)
        self._look_again(jobs)

    def refused(self, event: CommitRefused) -> None:
        """Try again, or refuse those at fault."""
        core = self._core
        lane, jobs = self._back_to_staged(event.group_id)
        if event.fault.retriable and lane.failures < core.limits.retry.max_retries:
            lane.failures += 1
            self._pause(lane)
            return
        lane.failures = 0
        at_fault = _at(jobs, event.positions) if event.positions else jobs
        alone = [job for job in at_fault if len(job.pieces) == 1 or not event.positions]
        for job in at_fault:
            if job not in alone:
                lane.remove_staged([job])
                self._staging.split(job)
        self._refuse(lane, alone, event.fault)

    def lost(self, event: StagedLost) -> None:
        """Make the files anew that are gone."""
        lane, jobs = self._back_to_staged(event.group_id)
        at_fault = _at(jobs, event.positions)
        lane.remove_staged(at_fault)
        error = FileNotFoundError(f"staged files of {lane.table} are gone or changed")
        for job in at_fault:
            job.staged = None
            job.uncertain = False
        for job in at_fault:
            self._staging.again_or_refuse(job, Fault(error, retriable=True), worker_died=False)

    def _back_to_staged(self, group_id: str) -> tuple[Lane, list[Job]]:
        """Take the jobs of a commit that did not land back into the lane."""
        lane = self._lanes.pop(group_id)
        plan, lane.committing = lane.committing, None
        if plan is None:
            raise ValueError(f"no commit of {lane.table} is under way")
        for job in plan.jobs:
            job.state = JobState.STAGED
            self._core.untidy[job] = None
        lane.staged.extend(plan.jobs)
        self._core.touch(lane)
        return lane, plan.jobs

    def _look_again(self, jobs: Iterable[Job]) -> None:
        for job in jobs:
            for piece in job.pieces:
                piece.stand.known = False
                self._core.want(piece.stand)

    def _pause(self, lane: Lane) -> None:
        """Begin no commit before the delay that the lane's failures give."""
        lane.not_before = self._core.retry_at(lane.failures)
        self._core.ring_at(lane.not_before, lane)

    def _refuse(self, lane: Lane, jobs: list[Job], fault: Fault) -> None:
        """Refuse every batch of these staged jobs."""
        lane.remove_staged(jobs)
        for job in jobs:
            self._staging.discard(job)
        for piece in [piece for job in jobs for piece in job.pieces]:
            if piece.batch.state is not BatchState.DONE:
                self._core.refuse(piece.batch, Reason.COMMIT_FAILED, fault)


def _waited_for(jobs: Iterable[Job]) -> int:
    """Batches whose callers wait for them."""
    return sum(not (piece.dead or piece.landed or piece.batch.patient) for job in jobs for piece in job.pieces)


def _at(jobs: list[Job], positions: Iterable[int]) -> list[Job]:
    """The jobs whose files have these positions in the commit's group."""
    with_files = [job for job in jobs if job.staged is not None]
    return [with_files[position] for position in positions]
