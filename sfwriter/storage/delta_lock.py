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
import logging
import os
from typing import TYPE_CHECKING, Any

from sfwriter.storage.place import local_root
from sfwriter.storage.spark_faults import first_words_of, is_answer

if TYPE_CHECKING:
    from pathlib import Path

    from sfwriter.storage.engine import TableSpec
    from sfwriter.storage.spark_bridge import SparkBridge

_log = logging.getLogger(__name__)

_CREATE_LINK = "(Ljava/nio/file/Path;Ljava/nio/file/Path;)Ljava/nio/file/Path;"
"""The type of `Files.createLink(link, existing)`."""

_LOCKING = "spark.databricks.delta.commitLock.enabled"

_UNDER_LOCK = "withSnapshotLockInterruptibly"
"""The method of Delta's `DeltaLog` that runs a function under the lock."""


def usable_lock(spec: TableSpec, bridge: SparkBridge) -> DeltaLock | None:
    """The lock of a table that is there, where Delta's own commits to it hold it and links can be made inside it.

    None in object stores, where this Delta, or the session, does without the lock, and where the JVM lets nobody call
    what it takes.
    """
    root = local_root(spec.location)
    if root is None:
        return None
    try:
        if str(bridge.session.conf.get(_LOCKING, "true")).lower() != "true":
            return None
        log = bridge.log_of(str(root))
        if _UNDER_LOCK not in dir(log):
            return None
        if not log.store().isPartialWriteVisible(log.logPath(), log.newDeltaHadoopConf()):
            return None
        return DeltaLock(str(root), bridge, _Linking(bridge.jvm.java))
    except Exception as error:
        if not is_answer(error):
            raise
        _log.info("Every commit to %s is Delta's own: %s", spec.name, first_words_of(error))
        return None


class DeltaLock:
    """The lock of one table's commits in the JVM of a session."""

    def __init__(self, location: str, bridge: SparkBridge, linking: _Linking) -> None:
        """See `usable_lock`."""
        self._location = location
        self._bridge = bridge
        self._linking = linking

    def link(self, hidden: Path, entry: Path) -> None:
        """Give a prepared entry its name.

        Raises:
            FileExistsError: there is an entry of that name.
            Exception: of py4j. Where the JVM gave no answer, the entry may have its name all the same.
        """
        # Delta may have made itself another object for the table since, which its commits lock now.
        log = self._bridge.log_of(self._location)
        try:
            getattr(log, _UNDER_LOCK)(self._linking.task(hidden, entry))
        except Exception as error:
            if is_answer(error) and entry.exists():
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(entry)) from error
            raise


class _Linking:
    """`() => Files.createLink(entry, hidden)`, of method handles: no Java of our own has to be compiled for it."""

    def __init__(self, java: Any) -> None:
        invoke, named = java.lang.invoke, java.lang.Class.forName
        kind = invoke.MethodType.fromMethodDescriptorString(_CREATE_LINK, None)
        self._file = java.io.File
        self._create = invoke.MethodHandles.publicLookup().findStatic(named("java.nio.file.Files"), "createLink", kind)
        self._as_instance = invoke.MethodHandleProxies.asInterfaceInstance
        self._function = named("scala.Function0")

    def task(self, hidden: Path, entry: Path) -> Any:
        """The function that makes this link."""
        bound = self._create.bindTo(self._path(entry)).bindTo(self._path(hidden))
        return self._as_instance(self._function, bound)

    def _path(self, path: Path) -> Any:
        return self._file(str(path)).toPath()
