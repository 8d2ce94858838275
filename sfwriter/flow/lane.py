"""One table's way through the machine: what is collected, sealed, staged, and committed next."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from sfwriter.flow.batches import Job, JobState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sfwriter.flow.batches import Piece
    from sfwriter.flow.limits import FlowLimits
    from sfwriter.flow.plan import Plan
    from sfwriter.flow.producers import Stand

NEVER = float("inf")

COMPANY_SHARE = 0.5
"""Of the time that the last job took from its seal to its commit: how long those are awaited that it answered."""

COMPANY_CAME = 0.75
"""Of those that were awaited: where fewer came in time, the next ones are not awaited. Of callers who come at random
times half come in that time: a commit answers as many as came while it, and the wait before it, took."""


class Lane:
    """The accumulator and the jobs of one table.

    Attributes:
        open: pieces that are collected for the next job, dropped ones among them.
        open_bytes, open_count: of those that were not dropped.
        open_until: when they are sealed whatever comes; NEVER where there are none.
        eager: one of them is not patient, so an idle table takes them at once.
        expected: batches that the last commit acknowledged and that were not patient, less those that came since:
            whoever waited for those is soon back with the next ones, and they are worth waiting for until
            `expected_until`; `expected_of` is how many they were.
        faithful: most of those that were expected the last time came in time.
        busy_since: when the lane ceased to be idle.
        sealed: jobs that wait for a staging slot, in order.
        staging: how many are being staged.
        staged: jobs that wait for a commit.
        committing: the commit that runs, if one does.
        not_before: no commit begins earlier (after a failure).
        failures, conflicts: commits in a row that failed, or met a conflict.
        wanted: identities that are to be looked up, and whose stands; `reading`: those of the look that runs.
        read_failures: looks in a row that failed.
        read_not_before: no look begins earlier.
    """

    __slots__ = (
        "busy_since", "committing", "conflicts", "eager", "expected", "expected_of", "expected_until", "failures",
        "faithful", "not_before", "open", "open_bytes", "open_count", "open_until", "read_failures",
        "read_not_before", "reading", "seal_count", "sealed", "staged", "staging", "table", "wanted",
    )  # fmt: skip

    def __init__(self, table: str) -> None:
        """Begin an idle lane."""
        self.table = table
        self.open: list[Piece] = []
        self.open_bytes = 0
        self.open_count = 0
        self.open_until = NEVER
        self.eager = False
        self.expected = 0
        self.expected_of = 0
        self.expected_until = float("-inf")
        self.faithful = True
        self.busy_since = float("-inf")
        self.seal_count = 0
        self.sealed: deque[Job] = deque()
        self.staging = 0
        self.staged: list[Job] = []
        self.committing: Plan | None = None
        self.not_before = float("-inf")
        self.failures = 0
        self.conflicts = 0
        self.wanted: dict[str, Stand] = {}
        self.reading: dict[str, Stand] | None = None
        self.read_failures = 0
        self.read_not_before = float("-inf")

    @property
    def idle(self) -> bool:
        """Whether nothing of this table is on its way."""
        return not (self.sealed or self.staging or self.staged or self.committing is not None)

    def collect(self, piece: Piece, now: float, limits: FlowLimits) -> None:
        """Add a piece to the open ones."""
        patient = piece.batch.patient
        self.open.append(piece)
        self.open_count += 1
        self.open_bytes += piece.nbytes
        if not patient:
            self.eager = True
            self.expected -= now < self.expected_until
        until = now + (limits.patient_linger_s if patient else limits.linger_s)
        self.open_until = min(self.open_until, until)

    def drop(self, piece: Piece) -> None:
        """Forget an open piece that is dead or landed; it leaves the list when that is sealed."""
        self.open_bytes -= piece.nbytes
        self.open_count -= 1
        if not self.open_count:
            self._begin_anew()

    def full(self, limits: FlowLimits) -> bool:
        """Whether the open pieces fill a job."""
        return self.open_bytes >= limits.max_job_bytes

    def due(self, now: float) -> bool:
        """Whether the open pieces should wait no longer: they are old, or the table is idle and no company is near."""
        if not self.open_count:
            return False
        return now >= self.open_until or (self.eager and self.idle and not self.expects(now))

    def expects(self, now: float) -> bool:
        """Whether batches are awaited that will likely come very soon."""
        return self.faithful and self.expected > 0 and now < self.expected_until

    def expect(self, count: int, now: float, limits: FlowLimits) -> None:
        """Note that a commit has answered so many callers who waited for it.

        What a commit without them would cost the others is what the last one took, so half of that is waited.
        """
        if self.expected_of:
            self.faithful = self.expected_of - self.expected >= COMPANY_CAME * self.expected_of
        self.expected = self.expected_of = count
        self.expected_until = now + min(limits.linger_s, COMPANY_SHARE * (now - self.busy_since))

    def seal(self, parts: int = 1) -> None:
        """Make jobs of the open pieces. One without rows needs no staging and is staged at once.

        Args:
            parts: how many jobs at most; neighbours stay together, and each has about as many bytes.
        """
        pieces = self.open if self.open_count == len(self.open) else [piece for piece in self.open if piece.open]
        if parts > 1 and any(piece.replaces for piece in pieces):
            parts = 1  # what stands in the place of all rows lands in one commit
        shares = _shared_out(pieces, self.open_bytes, parts) if parts > 1 else [pieces]
        self._begin_anew()
        for share in shares:
            self.queue(Job(self, (self.seal_count,), share))
            self.seal_count += 1

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

    def next_ready(self, now: float) -> Job | None:
        """Take the first sealed job that may be tried now."""
        for index, job in enumerate(self.sealed):
            if job.not_before <= now:
                del self.sealed[index]
                return job
        return None

    def remove_staged(self, jobs: Iterable[Job]) -> None:
        """Take jobs out of those that wait for a commit."""
        gone = set(map(id, jobs))
        self.staged = [job for job in self.staged if id(job) not in gone]

    def _begin_anew(self) -> None:
        self.open = []
        self.open_bytes = 0
        self.open_count = 0
        self.open_until = NEVER
        self.eager = False


def _shared_out(pieces: list[Piece], nbytes: int, parts: int) -> list[list[Piece]]:
    """Neighbouring pieces in at most so many shares of about as many bytes, none of them empty."""
    shares: list[list[Piece]] = [[]]
    reached = 0
    for piece in pieces:
        # The middle of a piece decides where it belongs.
        if shares[-1] and (reached + piece.nbytes / 2) * parts >= nbytes * len(shares):
            shares.append([])
        shares[-1].append(piece)
        reached += piece.nbytes
    return shares
