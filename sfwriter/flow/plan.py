"""Which staged files may be committed now: for each producer the contiguous prefix, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sfwriter.storage.engine import Advance, CommitGroup, Mark

if TYPE_CHECKING:
    from sfwriter.flow.batches import Job
    from sfwriter.flow.lane import Lane
    from sfwriter.flow.limits import FlowLimits
    from sfwriter.flow.producers import Stand


def plan_group(lane: Lane, limits: FlowLimits) -> list[Job]:
    """Choose the staged jobs of a lane that can share the next commit, in order.

    A job is taken if each of its pieces is the next one of its producer in this table, counting those
    taken before it, if each producer's stand is known, and if each batch that answers here has landed
    everywhere else. Jobs that cannot go yet hold up only the producers in them.
    """
    lane.staged.sort(key=_order)
    taken: list[Job] = []
    ahead: dict[Stand, int] = {}
    batches = 0
    for job in lane.staged:
        if len(taken) == limits.max_group_jobs or (taken and batches + len(job.pieces) > limits.max_group_batches):
            break
        steps = _steps(job, ahead)
        if steps is not None:
            ahead.update(steps)
            taken.append(job)
            batches += len(job.pieces)
    return taken


def make_group(group_id: str, jobs: list[Job], limits: FlowLimits) -> CommitGroup:
    """Write down what committing these jobs means for each producer."""
    last: dict[str, tuple[Stand, int, dict[int, Mark], bool]] = {}
    for job in jobs:
        for piece in job.pieces:
            batch = piece.batch
            identity = batch.producer.identity
            step = last.get(identity)
            if step is None:
                marks: dict[int, Mark] = {}
                start = -1 if piece.stand.committed is None else piece.stand.committed
            else:
                _, start, marks, _ = step
            marks[batch.number] = Mark(batch.given.digest, batch.given.stamp)
            last[identity] = (piece.stand, max(start, batch.number), marks, batch.given.expires)
    advances = tuple(
        Advance(identity, stand.committed, upto, _newest(marks, limits.remembered_marks), expires)
        for identity, (stand, upto, marks, expires) in last.items()
    )
    return CommitGroup(group_id, tuple(job.staged for job in jobs if job.staged is not None), advances)


def _order(job: Job) -> tuple[int, ...]:
    return job.order


def _steps(job: Job, ahead: dict[Stand, int]) -> dict[Stand, int] | None:
    steps: dict[Stand, int] = {}
    for piece in job.pieces:
        stand = piece.stand
        due = steps.get(stand)
        if due is None:
            due = ahead.get(stand, stand.landed)
        waits = piece is piece.batch.pieces[-1] and piece.batch.open_parts
        if piece.ordinal != due or not stand.known or waits:
            return None
        steps[stand] = due + 1
    return steps


def _newest(marks: dict[int, Mark], keep: int) -> dict[int, Mark]:
    return marks if len(marks) <= keep else dict(list(marks.items())[-keep:])
