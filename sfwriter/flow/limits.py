"""The numbers that the machine keeps to, and the delays between its tries."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When what a retry may mend is tried again.

    Attributes:
        max_retries: tries after the first one; 0 for none (`fail_fast`).
        delay_s: before the first retry.
        exponential: whether each delay is twice the one before.
        max_delay_s: no delay is longer, however many tries came before it.
    """

    max_retries: int = 3
    delay_s: float = 1.0
    exponential: bool = True
    max_delay_s: float = 60.0

    def delay(self, retry: int, jitter: float) -> float:
        """Seconds to wait before retry number `retry` (1, 2, …).

        With back-off the wait is spread over the upper half of its span by `jitter` in [0, 1), so
        that many writers that failed together do not come back together ("equal jitter", M. Brooker,
        "Exponential Backoff And Jitter", 2015). Without back-off it is `delay_s`.
        """
        if not self.exponential:
            return min(self.delay_s, self.max_delay_s)
        span = min(self.delay_s * 2.0 ** min(retry - 1, 32), self.max_delay_s)
        return span * (0.5 + jitter / 2)


@dataclass(frozen=True, slots=True)
class FlowLimits:
    """Bounds of one machine.

    Attributes:
        budget_bytes: Σ cost of the batches that are admitted and not answered.
        stage_slots: staging jobs at once.
        max_job_bytes: Arrow bytes at which a staging job is full.
        min_part_bytes: what a flush finds is shared out among the slots in jobs of so many Arrow bytes at least:
            the end of a backfill would wait for one thread else.
        linger_s: how long a batch waits for company while its table is busy.
        patient_linger_s: the same for patient batches, which also wait where the table is idle.
        max_group_jobs: staging jobs that one commit takes. A thousand files in one commit cost it 24 to 76 ms.
        max_group_batches: batches that one commit takes; bounds the log entry's marks.
        stage_timeout_s: after which a staging job is given up; None never (threads cannot be killed).
        stage_timeout_s_per_mib: added to it for each MiB of the job.
        retry: for staging, committing and looking up.
        max_worker_deaths: a batch whose job killed so many workers is refused.
        max_conflicts: commits in a row that may end in conflict on one table before its batches are refused.
        remembered_marks: newest batches of each producer whose content is remembered. A look at a table
            gives as many at least.
        remembered_producers: producers that are remembered, each in 3 KB; the longest idle ones are looked up again.
            An idempotency key is one, too, and hardly any comes back.
    """

    budget_bytes: int
    stage_slots: int
    max_job_bytes: int = 64 << 20
    min_part_bytes: int = 8 << 20
    linger_s: float = 0.05
    patient_linger_s: float = 2.0
    max_group_jobs: int = 256
    max_group_batches: int = 10_000
    stage_timeout_s: float | None = None
    stage_timeout_s_per_mib: float = 1.0
    retry: RetryPolicy = RetryPolicy()
    max_worker_deaths: int = 4
    max_conflicts: int = 20
    remembered_marks: int = 256
    remembered_producers: int = 4_000
