"""A log entry that is made while Delta in the JVM makes none of its own.

Receives: an entry that is whole on a local disk, and the name that it is to have.
Produces: a hard link, made by the JVM inside the lock that each commit of its Delta holds while it looks whether a
    version is free, and takes it.
Guarantees: no commit of that JVM renames its entry over this one. The lock is taken and given back within one
    call: a process that is interrupted or killed meanwhile leaves it free.
Never does: hold the lock for longer than a link takes.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

from sfwriter.storage.place import local_root
from sfwriter.storage.spark_faults import is_answer

if TYPE_CHECKING:
    from pathlib import Path

    from sfwriter.storage.engine import TableSpec
    from sfwriter.storage.spark_bridge import SparkBridge

_LOCKING = "spark.databricks.delta.commitLock.enabled"

_UNDER_LOCK = "withSnapshotLockInterruptibly"
"""The method of Delta's `DeltaLog` that runs a function under the lock."""


class DeltaLock:
    """The lock of one table's commits in the JVM of a session. For one thread at a time."""

    def __init__(self, spec: TableSpec, bridge: SparkBridge) -> None:
        """Ask nothing yet."""
        self._root = local_root(spec.location)
        self._bridge = bridge

    def is_held_by_commits(self) -> bool:
        """Whether Delta's own commits to the table, which is there, hold it.

        False in object stores, and where this Delta, or the session, does without.
        """
        locking = str(self._bridge.session.conf.get(_LOCKING, "true")).lower()
        if self._root is None or locking != "true":
            return False
        log = self._log()
        return _UNDER_LOCK in dir(log) and bool(
            log.store().isPartialWriteVisible(log.logPath(), log.newDeltaHadoopConf())
        )

    def link(self, hidden: Path, entry: Path) -> None:
        """Give a prepared entry its name.

        Raises:
            FileExistsError: there is an entry of that name.
            Exception: of py4j. Where the JVM gave no answer, the entry may have its name all the same.
        """
        names, file = self._bridge.names, self._bridge.names.file
        bound = names.create_link.bindTo(file(str(entry)).toPath()).bindTo(file(str(hidden)).toPath())
        task = names.as_instance(names.function, bound)
        try:
            getattr(self._log(), _UNDER_LOCK)(task)
        except Exception as error:
            if is_answer(error) and entry.exists():
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(entry)) from error
            raise

    def _log(self) -> Any:
        return self._bridge.log_of(str(self._root))
