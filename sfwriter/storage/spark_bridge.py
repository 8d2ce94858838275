"""The way to a caller's SparkSession that leaves no trace on it.

Receives: the session, classic or Connect.
Produces: a session of the library's own beside it: the same Spark, its own settings.
Guarantees: settings, temporary views, current database and job descriptions of the caller's session stay as they
    are; results do not depend on its time zone. A session that was stopped is said so before Spark is asked.
Never does: stop anything.
"""

from __future__ import annotations

import subprocess
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from sfwriter.exceptions import WriterTableError
from sfwriter.spark import is_connect
from sfwriter.spark.readiness import is_stopped

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_END_S = 5.0
"""A JVM whose connections broke because it died is gone in milliseconds."""

_OWN_CONF: Mapping[str, str] = {
    # Delta reconstructs the table's state at every commit where the zone is another.
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    "spark.sql.ansi.enabled": "true",
    "spark.sql.caseSensitive": "false",
    # Staged files lie beside the table's own, and Delta would refuse to read them as what they are.
    "spark.databricks.delta.formatCheck.enabled": "false",
    # VACUUM lists folders in 10,000 tasks otherwise: 45 to 95 s instead of 3 to 5.
    "spark.sql.sources.parallelPartitionDiscovery.parallelism": "4",
    "spark.sql.execution.arrow.useLargeVarTypes": "false",
    "spark.sql.execution.arrow.maxRecordsPerBatch": "50000",
    # Without its native library Hadoop starts a program (`chmod`, `readlink`) to set a permission or follow a link,
    # 3 ms a time, and 20 of them for a commit to a local table. These two leave 7: no checksum files of Hadoop's own
    # beside the log's entries (delta-rs makes none either, and nobody flushes them), and Delta's `.crc` written without
    # a look for links.
    "fs.AbstractFileSystem.file.impl": "org.apache.hadoop.fs.local.RawLocalFs",
    "spark.sql.streaming.checkpointFileManagerClass": (
        "org.apache.spark.sql.execution.streaming.checkpointing.FileSystemBasedCheckpointFileManager"
    ),
}


class JvmNames:
    """What a commit uses of the JVM, looked up once: each part of a dotted name is a question to the JVM."""

    def __init__(self, jvm: Any) -> None:
        spark, delta = jvm.org.apache.spark, jvm.org.apache.spark.sql.delta
        self.get_active_session = spark.sql.SparkSession.getActiveSession
        self.set_active_session = spark.sql.SparkSession.setActiveSession
        self.clear_active_session = spark.sql.SparkSession.clearActiveSession
        self.log_for_table = delta.DeltaLog.forTable
        self.action_from_json = delta.actions.Action.fromJson
        self.write = getattr(delta, "DeltaOperations$Write")
        self.checkpoint_hook = getattr(getattr(delta.hooks, "CheckpointHook$"), "MODULE$")
        self.append_mode, self.overwrite_mode = spark.sql.SaveMode.Append, spark.sql.SaveMode.Overwrite
        self.array_list = jvm.java.util.ArrayList
        self.to_seq = spark.api.python.PythonUtils.toSeq
        self.some = jvm.scala.Option.apply
        self.none = jvm.scala.Option.empty()


class SparkBridge:
    """One caller's session, and the library's own beside it. Thread-safe."""

    def __init__(self, spark: Any) -> None:
        """Ask nothing yet."""
        self._given = spark
        self._lock = threading.Lock()
        self._own: Any = None
        self._names: JvmNames | None = None
        self.connect = is_connect(spark)
        # PySpark keeps it in the class, where the next session's takes its place.
        self._process = None if self.connect else getattr(spark.sparkContext._gateway, "proc", None)  # noqa: SLF001  no public way

    def check(self) -> None:
        """Raise `WriterTableError` where the session was stopped."""
        if is_stopped(self._given):
            raise WriterTableError(
                "The SparkSession of this writer was stopped, or its JVM is gone: nothing of this call was written.",
                suggestions=["Make a new session, and a new LogWriter with it."],
                code="session_stopped",
            )

    def has_died(self) -> bool:
        """Whether the session's JVM has ended, so that nothing it had begun goes on. False: nobody knows."""
        if self._process is None:
            return False
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            return False
        return True

    @property
    def session(self) -> Any:
        """The library's own session, made at its first use."""
        with self._lock:
            if self._own is None:
                self.check()
                self._own = self.private({})
            return self._own

    def private(self, conf: Mapping[str, str]) -> Any:
        """A further session with these settings on top."""
        self.check()
        given = self._given
        if self.connect:
            made = given.cloneSession()
        else:
            kind = type(given)
            made = kind(given.sparkContext, given._jsparkSession.cloneSession())  # noqa: SLF001  no public way
            if kind._instantiatedSession is made:  # noqa: SLF001  same
                # Where PySpark did not make the caller's session itself, the first that it makes becomes its default.
                kind._instantiatedSession = kind._activeSession = given  # noqa: SLF001  same
                holder = self.jvm.org.apache.spark.sql.SparkSession
                holder.setDefaultSession(given._jsparkSession)  # noqa: SLF001  same
                holder.setActiveSession(given._jsparkSession)  # noqa: SLF001  same
        for name, value in {**_OWN_CONF, **conf}.items():
            made.conf.set(name, value)
        return made

    @property
    def jvm(self) -> Any:
        """The JVM's names. Classic sessions only."""
        return self._given._jvm  # noqa: SLF001  there is no public way

    @property
    def names(self) -> JvmNames:
        """What commits use of the JVM. Classic sessions only."""
        names = self._names
        if names is None:  # twice at the same time does no harm
            names = self._names = JvmNames(self.jvm)
        return names

    @contextmanager
    def acting(self, session: Any = None) -> Iterator[Any]:
        """Let Delta's code of this thread see the library's session, and the caller's again afterwards."""
        own = session or self.session
        if self.connect:
            yield own
            return
        names = self.names
        before = names.get_active_session()
        names.set_active_session(own._jsparkSession)  # noqa: SLF001  there is no public way
        try:
            yield own
        finally:
            with suppress(Exception):  # of a JVM that has died; what is to be told of that is raised already
                if before.isDefined():
                    names.set_active_session(before.get())
                else:
                    names.clear_active_session()

    def log_of(self, location: str) -> Any:
        """Delta's own look at the log of a table, which its sessions share. Classic sessions only."""
        return self.names.log_for_table(self.session._jsparkSession, location)  # noqa: SLF001  no public way

    def sequence(self, objects: Any) -> Any:
        """Java objects as a Scala sequence."""
        held = self.names.array_list()
        for one in objects:
            held.add(one)
        return self.names.to_seq(held)
