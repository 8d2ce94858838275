"""Who maintains a table: one at a time, across the processes of a machine.

Receives: the spec of a table.
Produces: turns.
Guarantees: a turn ends with its process.
Never does: hold a commit up.

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
"""In the log's folder, where neither VACUUM nor a reader looks."""

LOCK_PATIENCE_S = 30.0
_LOCK_PAUSE_S = 0.05


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
                yield  # the lock goes with the file, and with the process

    def _wait_for(self, file: Any) -> None:
        until = self._clock.monotonic() + LOCK_PATIENCE_S
        while not _locked(file):
            if self._clock.monotonic() >= until:
                raise WriterTableError(
                    f"{self._spec.name} has been maintained by another process for {LOCK_PATIENCE_S:g} s and more.",
                    context={"table": self._spec.name},
                    suggestions=["Wait for it to end; one at a time is enough."],
                    code="maintained_elsewhere",
                    retriable=True,
                )
            self._clock.sleep(_LOCK_PAUSE_S)


def _locked(file: Any) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
