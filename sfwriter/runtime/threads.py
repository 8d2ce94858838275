"""Threads that do work one piece at a time, and keep no process alive.

Daemons on purpose: an executor of the standard library takes nothing more once the main thread has
ended, though other threads of the program may still write then.
"""

from __future__ import annotations

import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Workers:
    """Up to `most` threads, begun when there is work for them. `run` and `end` are for one thread."""

    def __init__(self, most: int, name: str) -> None:
        """Begin without threads."""
        self._most = most
        self._name = name
        self._queue: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._threads: list[threading.Thread] = []

    def run(self, work: Callable[[], object]) -> None:
        """Have the work done; it must not raise."""
        self._queue.put(work)
        if not self._idle.acquire(blocking=False) and len(self._threads) < self._most:
            thread = threading.Thread(target=self._work, name=f"{self._name}-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def end(self) -> None:
        """Have every thread end after the work that it was given."""
        for _ in self._threads:
            self._queue.put(None)

    def join(self, timeout: float | None = None) -> None:
        """Wait for the end of each thread, `timeout` seconds at most."""
        for thread in list(self._threads):
            thread.join(timeout)

    def _work(self) -> None:
        while (work := self._queue.get()) is not None:
            work()
            del work  # its rows are not to be held while there is nothing to do
            self._idle.release()
