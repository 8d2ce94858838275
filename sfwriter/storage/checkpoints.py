"""Keeps a table's log short to open: a checkpoint every so many versions, beside the commits.

Receives: word of each commit.
Produces: checkpoints, on the disk before any entry that they replace is dropped.
Guarantees: one at a time; a commit neither waits for one nor fails with it; the process does not end in the middle
    of one. Those that later ones stand for go, but for one in a thousand versions.
Never does: tidy away an entry that has not expired: to whoever began a commit before it and stood still since, its name
    would look free.
"""

from __future__ import annotations

import atexit
import logging
import threading
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING

from sfwriter.storage.delta_log import open_table
from sfwriter.storage.faults import first_words, is_foreign
from sfwriter.storage.log_tail import checkpoint_name, last_checkpoint
from sfwriter.storage.place import LOG_FOLDER, local_root, place_of
from sfwriter.storage.short_log import short_log

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from deltalake import DeltaTable

    from sfwriter.clock import Clock
    from sfwriter.storage.delta_log import TableIdentity
    from sfwriter.storage.engine import TableSpec
    from sfwriter.storage.short_log import ShortLog

_log = logging.getLogger(__name__)

VERSIONS_PER_CHECKPOINT = 50
"""A table is opened by 0.65 ms for each entry after the checkpoint; one of 5,000 files takes 50 ms. Whoever wrote the
versions: processes that each commit once would write none otherwise."""

_VERSIONS_PER_TIDYING = 1_000
"""Dropping expired log entries looks at the whole log: 0.45 s at 66,000 entries."""

READ_FOR_S = 600.0
"""So long after it was written somebody may still be about to read a checkpoint that he found as the newest."""

VERSIONS_PER_KEPT = 1_000
"""Of the older ones one in so many versions stays, for whoever reads an old version. All of them would be more than
the rows: a table with thousands of producers has a megabyte in each."""

_BEGUN: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
_ENDS = threading.Event()


@atexit.register
def _end() -> None:
    """An interpreter that ends while delta-rs works crashes. Commits that the end waits for may begin one, too."""
    _ENDS.set()
    for thread in list(_BEGUN):
        thread.join()


class Checkpoints:
    """Those of one table. For one thread at a time."""

    def __init__(
        self,
        spec: TableSpec,
        identity: TableIdentity,
        clock: Clock,
        write: Callable[[DeltaTable, ShortLog | None], None],
    ) -> None:
        """Touch nothing yet.

        Args:
            spec: the table.
            identity: of the table.
            clock: for the age of checkpoints.
            write: makes one of a handle's version, from a short log; or from the whole one, which it then tidies.
        """
        self._spec = spec
        self._identity = identity
        self._clock = clock
        self._place = place_of(spec)
        self._is_local = local_root(spec.location) is not None
        self._write = write
        self._written: dict[int, float] = {}
        self._newest = 0
        self._new = True
        self._thread: threading.Thread | None = None

    def has_new(self) -> bool:
        """Whether one was written since this was last asked; True at first."""
        new, self._new = self._new, False
        return new

    def landed(self, version: int) -> None:
        """A commit has landed: begin a checkpoint where it is time for one."""
        if version - self._newest < VERSIONS_PER_CHECKPOINT or self._is_busy() or _ENDS.is_set():
            return
        self._newest = version
        self._thread = threading.Thread(target=self._quietly, args=(version,), name="sfwriter-checkpoint", daemon=True)
        try:
            self._thread.start()
            _BEGUN.add(self._thread)
        except RuntimeError as error:  # too many threads, or the interpreter is about to end
            self._thread = None
            _log.debug("No checkpoint of %s: %s", self._spec.name, error)

    def begin_anew(self, version: int) -> None:
        """One of this version has just been written, by whatever means."""
        self._newest = version
        self._new = True

    def wait(self) -> None:
        """Until none is being written."""
        if self._is_busy() and self._thread is not None:
            self._thread.join()

    def _is_busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _quietly(self, version: int) -> None:
        """The commits have landed: nothing that fails here may turn them into errors."""
        try:
            found = last_checkpoint(self._place) or 0
            if version - found < VERSIONS_PER_CHECKPOINT:
                self.begin_anew(found)  # another writer's
                return
            if not self._is_local or version // _VERSIONS_PER_TIDYING > found // _VERSIONS_PER_TIDYING:
                table = self._opened(self._spec, version)
                self._write(table, None)
            else:
                with short_log(self._spec) as short:
                    table = self._opened(short.spec, version)
                    self._write(table, short)
            self.begin_anew(int(table.version()))
            self._thin_out(self._newest)
        except BaseException as error:
            if not is_foreign(error):
                raise
            _log.warning("Checkpoint of %s failed; its log is only slower to open: %s", self._spec.name,
                         first_words(error))  # fmt: skip

    def _opened(self, spec: TableSpec, version: int) -> DeltaTable:
        table = open_table(spec, with_files=False)
        self._identity.check(table)
        if table is None or table.version() < version:  # the commit has landed: an entry before it is gone
            raise FileNotFoundError(2, f"The log does not lead to version {version}", spec.location)
        return table

    def _thin_out(self, newest: int) -> None:
        """Remove those of this writer's own that later ones stand for."""
        now = self._clock.monotonic()
        self._written[newest] = now
        for version in expendable(self._written, now):
            del self._written[version]
            with suppress(OSError):  # gone already, or left to stay
                self._place.remove(f"{LOG_FOLDER}/{checkpoint_name(version)}")


def expendable(written: Mapping[int, float], now: float) -> list[int]:
    """The versions whose checkpoints may go.

    Args:
        written: version to the time of its checkpoint, in seconds.
        now: the time.
    """
    found: list[int] = []
    kept: int | None = None
    for version in sorted(written)[:-1]:
        if kept is None or version - kept >= VERSIONS_PER_KEPT:
            kept = version
        elif now - written[version] > READ_FOR_S:
            found.append(version)
    return found
