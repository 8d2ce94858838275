"""The Spark actor: the one process that owns the service's one JVM. It commits, and it maintains.

Receives: commit groups and actions, each with the spec of its table.
Produces: versions, figures, rows that only Spark can read.
Guarantees: at any time one JVM at most acts for its service: the process ends with its JVM, and its next life ends
    the JVM of the one before, if that is still there, before it answers anything.
Never does: stage, or remember what its tables do not know.
"""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psutil
import ray

from actors.lives import restarts
from actors.priority import come_to_the_front
from sfwriter.exceptions import WriterError, WriterTableError
from sfwriter.limits import process_memory
from sfwriter.runtime.telling import Teller
from sfwriter.spark import session
from sfwriter.storage.delta_spark import DeltaSparkTable
from sfwriter.storage.engine import CommitUnknown
from sfwriter.storage.spark_bridge import SparkBridge
from sfwriter.storage.spark_faults import is_lost

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator, Mapping

    import pyarrow as pa

    from sfwriter.config import WriterConfig
    from sfwriter.storage.engine import CommitGroup, TableSpec, TableStats
    from sfwriter.storage.road import Road

MARK = "spark.sfwriter.host"
"""A setting that is on the JVM's command line, by which the next life finds it."""


class SparkHost:
    """Several threads may call it at once; commits to one table take turns."""

    def __init__(self, service: str, config: WriterConfig) -> None:
        """End the JVM of the life before, and begin to start one."""
        come_to_the_front()
        self._service = service
        self._config = config
        self._log = Teller(None)
        # The same in every life, and nobody else's.
        self._mark = str(ray.get_runtime_context().get_actor_id())
        end_jvms(self._mark)
        self._opening = threading.Lock()
        self._lock = threading.Lock()
        self._bridge: SparkBridge | None = None
        self._jvm: int | None = None
        self._retired = False
        self._commits = 0
        self._tables: dict[str, list[tuple[TableSpec, DeltaSparkTable]]] = {}
        threading.Thread(target=self._begin, name="jvm", daemon=True).start()

    def awake(self) -> int:
        """The pid of the JVM, which is started where it does not run yet.

        Raises:
            WriterConfigurationError: Java, Spark or Delta are missing here, or do not go together.
            WriterTableError: it did not start this time.
        """
        self._opened()
        return self._jvm or 0

    def commit(self, spec: TableSpec, table_id: str | None, group: CommitGroup) -> tuple[int, Road]:
        """Commit, ending as `sfwriter.storage.engine` says: the version, and the way that the rows took."""
        with self._counted(), self._lasting():
            table = self._table(spec, table_id)
            return table.commit(group).version, table.road

    def run(self, spec: TableSpec, table_id: str | None, action: Any) -> Mapping[str, Any]:
        """Carry out an action of `sfwriter.storage.engine`."""
        with self._lasting():
            return self._table(spec, table_id).run(action)

    def stats(self, spec: TableSpec, table_id: str | None) -> TableStats:
        """Of a table whose list of files does not tell how many rows it has."""
        with self._lasting():
            return self._table(spec, table_id).stats()

    def scan(
        self, spec: TableSpec, table_id: str | None, columns: list[str] | None, predicate: str | None
    ) -> Iterator[pa.Schema | pa.RecordBatch]:
        """The rows' schema, and then the rows."""
        with self._lasting():
            reader = self._table(spec, table_id).scan(columns, predicate)
            yield reader.schema
            for batch in reader:  # noqa: UP028  Ray talks to a generator, which a reader is not
                yield batch

    def ping(self) -> dict[str, Any]:
        """Who and where it is, how many commits are under way, and its own memory with that of its JVM."""
        context = ray.get_runtime_context()
        return {
            "pid": os.getpid(),
            "jvm_pid": self._jvm,
            "node_id": context.get_node_id(),
            "state": "starting" if self._bridge is None else "ok",
            "commits": self._commits,
            "memory_bytes": process_memory().own + _memory_of(self._jvm),
            "restarts": restarts(),
        }

    def retire(self) -> None:
        """End the JVM, as the service ends; the caller kills this actor next."""
        self._retired = True
        end_jvms(self._mark)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        with self._lock:
            self._commits += 1
        try:
            yield
        finally:
            with self._lock:
                self._commits -= 1

    @contextmanager
    def _lasting(self) -> Iterator[None]:
        """Give no answer that the JVM's death has made: this process is about to end, which says more."""
        try:
            yield
        except Exception as error:
            lost = is_lost(error) or isinstance(error, CommitUnknown)
            if lost and self._bridge is not None and self._bridge.has_died():
                threading.Event().wait()
            raise

    # ------------------------------------------------------------ the JVM

    def _begin(self) -> None:
        try:
            self._opened()
        except WriterError as error:  # which whoever calls is told, too
            self._log.warning("service {}: Spark does not start: {}", self._service, error.message)

    def _opened(self) -> SparkBridge:
        with self._opening:
            if self._bridge is None:
                spark = self._started()
                spark.sparkContext.setLogLevel("ERROR")
                process = spark.sparkContext._gateway.proc  # noqa: SLF001  PySpark has no public way
                self._jvm = int(process.pid)
                threading.Thread(target=self._end_with, args=(process,), name="jvm-end", daemon=True).start()
                self._bridge = SparkBridge(spark)
            return self._bridge

    def _started(self) -> Any:
        try:
            return session(f"sfwriter-{self._service}", **{**self._config.spark_conf, MARK: self._mark})
        except WriterError:
            raise
        except Exception as error:
            raise WriterTableError(
                f"The JVM of service {self._service!r} did not start: {error}",
                suggestions=["It is tried again with the next call; Ray's log of this actor has what the JVM said."],
                code="jvm_not_started",
                retriable=True,
            ) from error

    def _end_with(self, process: subprocess.Popen[bytes]) -> None:
        """Without its JVM this process is of no use: PySpark keeps to it. Ray makes another."""
        process.wait()
        if not self._retired:
            os._exit(1)

    def _table(self, spec: TableSpec, table_id: str | None) -> DeltaSparkTable:
        bridge = self._opened()
        with self._lock:
            held = self._tables.setdefault(spec.name, [])
            table = next((table for known, table in held if known == spec), None)
            if table is None:
                table = DeltaSparkTable(spec, bridge)
                held.append((spec, table))
        table.identity.expect(table_id)
        return table


def end_jvms(mark: str) -> None:
    """Kill the JVMs that have this mark, and wait until they are gone: what they had begun will not land any more."""
    text = f"{MARK}={mark}"
    found = [process for process in psutil.process_iter(["cmdline"]) if text in (process.info["cmdline"] or ())]
    for process in found:
        try:
            process.kill()
        except psutil.NoSuchProcess:  # noqa: PERF203  it went by itself, as it does without its Python
            continue
    psutil.wait_procs(found)


def _memory_of(pid: int | None) -> int:
    try:
        return 0 if pid is None else int(psutil.Process(pid).memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


SparkActor = ray.remote(SparkHost)
