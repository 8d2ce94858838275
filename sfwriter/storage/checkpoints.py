"""Keeps a table's log short to open: a checkpoint every so many commits, beside the commits.

Receives: word of each commit.
Produces: checkpoints, on the disk before any entry that they replace is dropped.
Guarantees: one at a time; a commit neither waits for one nor fails with it; the process does not end in the middle
    of one.
Never does: tidy away what has not expired.
"""

from __future__ import annotations

import atexit
import logging
import threading
import weakref
from typing import TYPE_CHECKING

from sfwriter.storage.delta_log import open_table
from sfwriter.storage.faults import first_words, is_foreign

if TYPE_CHECKING:
    from collections.abc import Callable

    from sfwriter.storage.delta_log import TableIdentity
    from sfwriter.storage.engine import TableSpec

_log = logging.getLogger(__name__)

COMMITS_PER_CHECKPOINT = 50
"""A table is opened by 0.65 ms for each entry after the checkpoint; one of 5,000 files takes 50 ms."""

_COMMITS_PER_TIDYING = 1_000
"""Dropping expired log entries lists the whole log: up to 50 ms."""

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

    def __init__(self, spec: TableSpec, identity: TableIdentity, write: Callable[..., None]) -> None:
        """`write`: makes a checkpoint of a handle's version, and tidies the log where it is given `tidy`."""
        self._spec = spec
        self._identity = identity
        self._write = write
        self._commits = 0
        self._commits_at_last = 0
        self._new = True
        self._thread: threading.Thread | None = None

    def has_new(self) -> bool:
        """Whether one was written since this was last asked; True at first."""
        new, self._new = self._new, False
        return new

    def landed(self) -> None:
        """A commit has landed: begin a checkpoint where it is time for one."""
        self._commits += 1
        if self._commits - self._commits_at_last < COMMITS_PER_CHECKPOINT or self._is_busy() or _ENDS.is_set():
            return
        tidy = self._commits // _COMMITS_PER_TIDYING > self._commits_at_last // _COMMITS_PER_TIDYING
        self._commits_at_last = self._commits
        self._thread = threading.Thread(
            target=self._quietly, kwargs={"tidy": tidy}, name="sfwriter-checkpoint", daemon=True
        )
        try:
            self._thread.start()
            _BEGUN.add(self._thread)
        except RuntimeError as error:  # too many threads, or the interpreter is about to end
            self._thread = None
            _log.debug("No checkpoint of %s: %s", self._spec.name, error)

    def begin_anew(self) -> None:
        """Somebody has just written one by other means."""
        self._commits_at_last = self._commits
        self._new = True

    def wait(self) -> None:
        """Until none is being written."""
        if self._is_busy() and self._thread is not None:
            self._thread.join()

    def _is_busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _quietly(self, *, tidy: bool) -> None:
        """The commits have landed: nothing that fails here may turn them into errors."""
        try:
            table = open_table(self._spec, with_files=False)
            self._identity.check(table)
            if table is not None:
                self._write(table, tidy=tidy)
                self._new = True
        except BaseException as error:
            if not is_foreign(error):
                raise
            _log.warning("Checkpoint of %s failed; its log is only slower to open: %s", self._spec.name,
                         first_words(error))  # fmt: skip
