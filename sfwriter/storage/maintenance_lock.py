"""Who maintains a table: one at a time, across the processes of a machine, and who makes room for it.

Receives: the spec of a table.
Produces: turns; a short pause of each commit while a rewriting asks for it.
Guarantees: a turn ends with its process; so does what it asked of the committers.
Never does: hold a commit up for longer than the pause.

delta-rs tries fifteen times to commit a rewriting, each time after a look at the whole log. Where somebody commits
every few milliseconds it is never fast enough, and the table that needs it most is never compacted.

Tables in an object store have no such lock: there delta-rs itself refuses the second of two rewritings of the same
files.
"""

from __future__ import annotations

import fcntl
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sfwriter.exceptions import WriterTableError
from sfwriter.storage.faults import reported
from sfwriter.storage.place import LOG_FOLDER, local_root

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sfwriter.clock import Clock
    from sfwriter.storage.engine import TableSpec

LOCK_NAME = ".maintenance.lock"
"""In the log's folder, where neither VACUUM nor a reader looks. Not empty while committers are asked to give way."""

LOCK_PATIENCE_S = 30.0
_LOCK_PAUSE_S = 0.05
_WAY_S = 0.05
"""Three times what delta-rs takes for a try at a log of some thousand entries."""


class MaintenanceLock:
    """That of one table. Thread-safe."""

    def __init__(self, spec: TableSpec, clock: Clock) -> None:
        """Touch nothing yet."""
        root = local_root(spec.location)
        self._spec = spec
        self._clock = clock
        self._path = None if root is None else root / LOG_FOLDER / LOCK_NAME
        self._threads = threading.Lock()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Be the only one.

        Raises:
            WriterTableError: others are, for longer than `LOCK_PATIENCE_S`.
        """
        with self._threads:
            if self._path is None:
                yield
                return
            with reported("maintain", self._spec), self._path.open("a") as file:
                self._wait_for(file)
                file.truncate(0)  # what somebody left who was killed while he asked
                yield  # the lock goes with the file, and with the process

    @contextmanager
    def asking_for_way(self) -> Iterator[None]:
        """Have every commit wait a little. For who holds the lock."""
        if self._path is None:
            yield
            return
        with reported("maintain", self._spec):
            self._path.write_text("give way")
        try:
            yield
        finally:
            with reported("maintain", self._spec):
                self._path.write_text("")

    def give_way(self) -> None:
        """Wait a little where it is asked for. For who is about to commit."""
        try:
            if self._path is None or not self._path.stat().st_size:
                return
            with self._path.open("r") as file:
                asked = not _locked(file, fcntl.LOCK_SH)
        except OSError:  # nobody has maintained it yet; a table that is gone is the commit's to tell
            return
        if asked:
            self._clock.sleep(_WAY_S)

    def _wait_for(self, file: Any) -> None:
        until = self._clock.monotonic() + LOCK_PATIENCE_S
        while not _locked(file, fcntl.LOCK_EX):
            if self._clock.monotonic() >= until:
                raise WriterTableError(
                    f"{self._spec.name} has been maintained by another process for {LOCK_PATIENCE_S:g} s and more.",
                    context={"table": self._spec.name},
                    suggestions=["Wait for it to end; one at a time is enough."],
                    code="maintained_elsewhere",
                    retriable=True,
                )
            self._clock.sleep(_LOCK_PAUSE_S)


def _locked(file: Any, how: int) -> bool:
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
