"""A clock that stands still until it is moved."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta, timezone

START = datetime(2024, 1, 1, 12, tzinfo=timezone.utc)
"""Where a `ManualClock` begins unless told otherwise."""


class ManualClock:
    """A `Clock` for tests. Thread-safe.

    `sleep` returns at once and moves the clock by what was asked for, so code that waits runs in no
    time and still sees time pass; `slept` keeps what it asked for, in order.
    """

    def __init__(self, start: datetime = START) -> None:
        """Stand at `start` (aware; kept in UTC), with a monotonic time of 0."""
        if start.tzinfo is None:
            raise ValueError("start must be an aware datetime")
        self._lock = threading.Lock()
        self._start = start.astimezone(timezone.utc)
        self._elapsed = 0.0
        self._jumped = timedelta()
        self.slept: list[float] = []

    def now(self) -> datetime:
        """The time of day, aware, UTC."""
        with self._lock:
            return self._start + timedelta(seconds=self._elapsed) + self._jumped

    def monotonic(self) -> float:
        """Seconds that have passed since it was made."""
        with self._lock:
            return self._elapsed

    def sleep(self, seconds: float) -> None:
        """Move on by `seconds`; zero and less change nothing."""
        with self._lock:
            self.slept.append(seconds)
            self._elapsed += max(seconds, 0.0)

    def advance(self, seconds: float) -> None:
        """Let `seconds` (not negative) pass."""
        if seconds < 0:
            raise ValueError("monotonic time does not go back; use jump() for the time of day")
        with self._lock:
            self._elapsed += seconds

    def jump(self, seconds: float) -> None:
        """Set the time of day forward or, negative, back; monotonic time does not notice."""
        with self._lock:
            self._jumped += timedelta(seconds=seconds)
