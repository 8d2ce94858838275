"""Time as an argument: the one module that reads the clock and sleeps."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from typing import Protocol


class Clock(Protocol):
    """Tells the time and waits. `sfwriter.testing.ManualClock` is the one for tests."""

    def now(self) -> datetime:
        """The time of day, aware, UTC. It may jump."""

    def monotonic(self) -> float:
        """Seconds since some fixed moment. It never goes back."""

    def sleep(self, seconds: float) -> None:
        """Block the calling thread; zero and less return at once."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """The time of day, aware, UTC."""
        return datetime.now(timezone.utc)

    def monotonic(self) -> float:
        """Seconds since some fixed moment of this machine's run."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Block the calling thread; zero and less return at once."""
        if seconds > 0:
            time.sleep(seconds)
