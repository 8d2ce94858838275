"""Which staged files may be committed now: for each producer the contiguous prefix, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sfwriter.storage.engine import Advance, CommitGroup, Mark

if TYPE_CHECKING:
    from sfwriter.flow.batches import Job, Piece
    from sfwriter.flow.lane import Lane
    from sfwriter.flow.limits import FlowLimits
    from sfwriter.flow.producers import Stand


@dataclass(frozen=True, slots=True)
class Plan:
    """A commit, and what the machine remembers of it.

    Attributes:
        group: for the engine.
        jobs: whose files are in it, in order; one without rows has none.
        stands: one for each of the group's advances, in the same order.
    """

    group: CommitGroup
    jobs: list[Job]
    stands: list[Stand]


def choose_jobs(lane: Lane, limits: FlowLimits) -> list[Job]:
    """Choose the staged jobs of a lane that can share the next commit, in order.

    A job is taken if each of its pieces is the next one of its stand, counting those taken before it,
    if each stand is known, and if each batch that answers here has landed everywhere else. Jobs that
    cannot go yet hold up only the producers in them. One that replaces the table's rows begins a commit.
    """
    lane.staged.sort(key=_order)
    taken: list[Job] = []
    ahead: dict[Stand, int] = {}
    batches = 0
    for job in lane.staged:
        if len(taken) == limits.max_group_jobs or (taken and batches + len(job.pieces) > limits.max_group_batches):
            break
        steps = _steps(job, ahead)
        if steps is not None and taken and job.replaces:
            break
        if steps is not None:
            ahead.update(steps)
            taken.append(job)
            batches += len(job.pieces)
    return taken


def make_plan(group_id: str, jobs: list[Job], limits: FlowLimits) -> Plan:
    """Write down what committing these jobs means for each producer."""
    runs: dict[Stand, list[Piece]] = {}
    for job in jobs:
        for piece in job.pieces:
            run = runs.get(piece.stand)
            if run is None:
                runs[piece.stand] = [piece]
            else:
                run.append(piece)
    advances = tuple(_advance(stand, run, limits.remembered_marks) for stand, run in runs.items())
    staged = tuple(job.staged for job in jobs if job.staged is not None)
    return Plan(CommitGroup(group_id, staged, advances, replaces=jobs[0].replaces), jobs, list(runs))


def _advance(stand: Stand, run: list[Piece], keep: int) -> Advance:
    marks = {piece.number: Mark(piece.batch.given.digest, piece.batch.given.stamp) for piece in run[-keep:]}
    return Advance(stand.identity, stand.committed, run[-1].number, marks, run[-1].batch.given.expires or stand.single)


def _order(job: Job) -> tuple[int, ...]:
    return job.order


def _steps(job: Job, ahead: dict[Stand, int]) -> dict[Stand, int] | None:
    """Where the job brings the stands of its pieces; None if it cannot go yet."""
    steps: dict[Stand, int] = {}
    for piece in job.pieces:
        stand = piece.stand
        due = steps.get(stand)
        if due is None:
            due = ahead.get(stand, stand.landed)
        if piece.ordinal != due or not stand.known or (piece.answers and piece.batch.open_parts):
            return None
        steps[stand] = due + 1
    return steps
