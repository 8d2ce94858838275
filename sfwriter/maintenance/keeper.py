"""Maintenance that starts by itself: `enable_optimization`.

Receives: word of each write of this process.
Produces: compactions, off the path of writing.
Guarantees: one at a time; writing never waits for it; a failure is logged once and changes nothing else.
Never does: sort, delete, or act on fewer files than `sfwriter.maintenance.plan` says.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from sfwriter.exceptions import WriterError
from sfwriter.maintenance.plan import compactions, pays
from sfwriter.storage.engine import Survey

if TYPE_CHECKING:
    from collections.abc import Callable

    from sfwriter.runtime.telling import Teller
    from sfwriter.storage.engine import Table

WRITES_PER_LOOK = 100
"""A look reads the log once: about what two commits cost."""


def join_small_files(
    table: Table, is_over: Callable[[], bool] = lambda: False, tell: Callable[[str], object] = lambda _: None
) -> tuple[int, int]:
    """Join the small files of a table if that pays.

    Args:
        table: it.
        is_over: asked between two partitions whether to stop.
        tell: told what is being done.

    Returns:
        How many files were joined, and into how many; 0 and 0 where it does not pay.
    """
    jobs = compactions(table.run(Survey())["partitions"], table.spec.max_file_bytes)
    if not pays(jobs):
        return 0, 0
    before = after = 0
    for number, job in enumerate(jobs, 1):
        if is_over():
            break
        tell(f"joining {job.files_before} files: partition {number} of {len(jobs)}")
        figures = table.run(job.action)
        before, after = before + figures["files_removed"], after + figures["files_added"]
    return before, after


class Keeper:
    """Looks after one table now and then. Thread-safe."""

    def __init__(self, table: Table, log: Teller) -> None:
        """Begin without a thread."""
        self._table = table
        self._log = log
        self._lock = threading.Lock()
        self._writes = 0
        self._thread: threading.Thread | None = None
        self._ended = self._failed = False

    def written(self) -> None:
        """A write was committed: every so often look whether maintenance pays."""
        with self._lock:
            self._writes += 1
            busy = self._thread is not None and self._thread.is_alive()
            if self._ended or self._failed or busy or self._writes < WRITES_PER_LOOK:
                return
            self._writes = 0
            self._thread = threading.Thread(target=self._look, name="sfwriter-maintenance")
            self._thread.start()

    def close(self) -> None:
        """Begin nothing more, and wait for what has begun."""
        with self._lock:
            self._ended = True
            thread = self._thread
        if thread is not None:
            thread.join()

    def _look(self) -> None:
        name = self._table.spec.name
        try:
            before, after = join_small_files(self._table, lambda: self._ended)
            if before:
                self._log.info("{}: {} small files joined into {}", name, before, after)
        except WriterError as error:
            self._failed = True
            self._log.warning("{}: maintenance is off for this writer: {}", name, error.message)
