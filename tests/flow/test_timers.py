"""Timers that mean nothing any more are not kept until their time comes."""

from __future__ import annotations

import gc
import weakref

from sfwriter.flow.batches import Job, JobState
from sfwriter.flow.core import Core
from sfwriter.flow.lane import Lane
from sfwriter.flow.limits import FlowLimits


class Staged:
    """A job cannot be referred to weakly; this can, and goes with it."""


def test_a_job_that_met_its_deadline_is_let_go_before_it() -> None:
    core = Core(FlowLimits(budget_bytes=1 << 20, stage_slots=1, max_job_bytes=1 << 20), "m-", 0)
    lane = Lane("t.logs")
    jobs = [Job(lane, (number,), []) for number in range(1000)]
    known: weakref.WeakSet[Staged] = weakref.WeakSet()
    for number, job in enumerate(jobs):
        known.add(staged := Staged())
        job.staged = staged
        job.state, job.deadline = JobState.STAGING, 60.0 + number
        core.ring_at(job.deadline, job)
        job.state, job.deadline = JobState.GONE, None
    slow = Job(lane, (1000,), [])
    slow.state, slow.deadline = JobState.STAGING, 99.0
    core.ring_at(99.0, slow)
    jobs.clear()
    del job, staged
    gc.collect()
    assert len(known) < 200
    assert core.next_timer() == 99.0
    core.now = 100.0
    assert list(core.due_timers()) == [slow]
