"""One table's way through the machine: what is collected, sealed, staged, and committed next."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from sfwriter.flow.batches import Job, JobState

if TYPE_CHECKING:
    from sfwriter.flow.batches import Piece
    from sfwriter.flow.limits import FlowLimits

NEVER = float("inf")


class Lane:
    """The accumulator and the jobs of one table.

    Attributes:
        open: pieces that are collected for the next job.
        open_until: when they are sealed whatever comes; NEVER where there are none.
        eager: one of them is not patient, so an idle table takes them at once.
        sealed: jobs that wait for a staging slot, in order.
        staging: how many are being staged.
        staged: jobs that wait for a commit.
        committing: jobs of the commit that runs, and its group's id.
        not_before: no commit begins earlier (after a failure).
        failures, conflicts: commits in a row that failed, or met a conflict.
        wanted: producers whose watermarks are to be read; `reading`: those that are being read.
        read_failures: looks in a row that failed.
        read_not_before: no look begins earlier.
    """

    __slots__ = (
        "committing", "conflicts", "eager", "failures", "group_id", "not_before", "open", "open_bytes", "open_until",
        "read_failures", "read_not_before", "reading", "seal_count", "sealed", "staged", "staging", "table", "wanted",
    )  # fmt: skip

    def __init__(self, table: str) -> None:
        """Begin an idle lane."""
        self.table = table
        self.open: list[Piece] = []
        self.open_bytes = 0
        self.open_until = NEVER
        self.eager = False
        self.seal_count = 0
        self.sealed: deque[Job] = deque()
        self.staging = 0
        self.staged: list[Job] = []
        self.committing: list[Job] = []
        self.group_id: str | None = None
        self.not_before = float("-inf")
        self.failures = 0
        self.conflicts = 0
        self.wanted: dict[str, None] = {}
        self.reading = False
        self.read_failures = 0
        self.read_not_before = float("-inf")

    @property
    def idle(self) -> bool:
        """Whether nothing of this table is on its way."""
        return not (self.sealed or self.staging or self.staged or self.group_id is not None)

    def collect(self, piece: Piece, now: float, limits: FlowLimits) -> None:
        """Add a piece to the open ones."""
        patient = piece.batch.patient
        self.open.append(piece)
        self.open_bytes += piece.nbytes
        self.eager = self.eager or not patient
        self.open_until = min(self.open_until, now + (limits.patient_linger_s if patient else limits.linger_s))

    def drop(self, piece: Piece) -> None:
        """Take an open piece out again."""
        self.open.remove(piece)
        self.open_bytes -= piece.nbytes
        if not self.open:
            self._begin_anew()

    def full(self, limits: FlowLimits) -> bool:
        """Whether the open pieces fill a job."""
        return self.open_bytes >= limits.max_job_bytes

    def due(self, now: float) -> bool:
        """Whether the open pieces should wait no longer: they are old, or the table is idle."""
        return bool(self.open) and (now >= self.open_until or (self.eager and self.idle))

    def seal(self) -> Job:
        """Make a job of the open pieces. One without rows needs no staging and is staged at once."""
        job = Job(self, (self.seal_count,), self.open)
        self.seal_count += 1
        self.open = []
        self._begin_anew()
        self.queue(job)
        return job

    def queue(self, job: Job) -> None:
        """Let a job wait for a slot, at its place."""
        if not job.has_rows:
            job.state = JobState.STAGED
            self.staged.append(job)
            return
        job.state = JobState.SEALED
        place = len(self.sealed)
        while place and self.sealed[place - 1].order > job.order:
            place -= 1
        self.sealed.insert(place, job)

    def _begin_anew(self) -> None:
        self.open_bytes = 0
        self.open_until = NEVER
        self.eager = False
