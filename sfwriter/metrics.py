"""What a writer has done since it began or was reset: counts, durations, memory."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

from sfwriter.limits import resident_bytes

if TYPE_CHECKING:
    from sfwriter.clock import Clock
    from sfwriter.results import WriterMetricsResult

MIB = 2**20
KEPT_DURATIONS = 4096
"""Percentiles are over the newest calls: enough for a p99, 32 KiB."""
MEMORY_EVERY_S = 1.0
"""Reading /proc costs 20 to 100 µs: a twentieth of what a small call costs its client, at ten times a second."""


class WriterMetrics:
    """Counts of one writer. Thread-safe."""

    def __init__(self, clock: Clock) -> None:
        """Begin at zero."""
        self._clock = clock
        self._lock = threading.Lock()
        self._durations: deque[float] = deque(maxlen=KEPT_DURATIONS)
        self.reset()

    def reset(self) -> None:
        """Begin at zero again."""
        with self._lock:
            self._successful = self._failed = 0
            self._rows = self._quarantined = self._valid = self._judged = 0
            self._seconds = 0.0
            self._durations.clear()
            self._peak_bytes = 0
            self._memory_read_at = float("-inf")

    def succeeded(self, duration_secs: float, *, rows: int, quarantined: int, valid: int, judged: int) -> None:
        """Count a call that was acknowledged: `valid` of its `judged` rows keep the built-in rules."""
        with self._lock:
            self._successful += 1
            self._rows += rows
            self._quarantined += quarantined
            self._valid += valid
            self._judged += judged
            self._took(duration_secs)

    def failed(self, duration_secs: float) -> None:
        """Count a call that raised."""
        with self._lock:
            self._failed += 1
            self._took(duration_secs)

    def read(self, *, retries: int) -> WriterMetricsResult:
        """Everything as `get_metrics` gives it; `retries` are counted where they happen."""
        with self._lock:
            total = self._successful + self._failed
            ordered = sorted(self._durations)
            return {
                "total_writes": total,
                "successful_writes": self._successful,
                "failed_writes": self._failed,
                "success_rate_percent": 100.0 * self._successful / total if total else 0.0,
                "total_rows_written": self._rows,
                "total_duration_secs": self._seconds,
                "average_duration_secs": self._seconds / total if total else 0.0,
                "average_validation_rate": 100.0 * self._valid / self._judged if self._judged else 0.0,
                "memory_usage_peak_mb": self._peak_bytes / MIB,
                "retries": retries,
                "quarantined_rows": self._quarantined,
                "latency_p50_secs": percentile(ordered, 50),
                "latency_p95_secs": percentile(ordered, 95),
                "latency_p99_secs": percentile(ordered, 99),
            }

    def _took(self, duration_secs: float) -> None:
        self._seconds += duration_secs
        self._durations.append(duration_secs)
        if self._clock.monotonic() - self._memory_read_at >= MEMORY_EVERY_S:
            self._look_at_memory()

    def _look_at_memory(self) -> None:
        self._memory_read_at = self._clock.monotonic()
        self._peak_bytes = max(self._peak_bytes, resident_bytes())


def percentile(ordered: list[float], percent: float) -> float:
    """The smallest of the ordered values that `percent` of them do not exceed (nearest rank); 0.0 for none."""
    if not ordered:
        return 0.0
    rank = -(-len(ordered) * percent // 100)
    return ordered[max(0, int(rank) - 1)]
