"""Tables of a service on Spark, for everybody but the Spark actor: the log is read here, and changed there.

Receives: the seam's calls.
Produces: what the engines produce.
Guarantees: no process needs Java for it. A commit whose answer is lost is told as unknown only when the JVM that was
    at it is gone, so that a look at the log is then the last word.
Never does: commit beside the JVM.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError

from actors.calls import actor_of, answer_of
from actors.options import CALL_TIMEOUT_S
from actors.wire import cause_of
from sfwriter.clock import SystemClock
from sfwriter.exceptions import WriterError, WriterTableError
from sfwriter.storage.delta_features import unreadable_features
from sfwriter.storage.delta_rs import DeltaRsEngine
from sfwriter.storage.delta_spark import NAME, SparkLogTable
from sfwriter.storage.engine import (
    AddColumns,
    Checkpoint,
    CommitReceipt,
    CommitUnknown,
    Compact,
    Sort,
    Vacuum,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from deltalake import DeltaTable

    from sfwriter.config import WriterConfig
    from sfwriter.storage.engine import CommitGroup, Engine, TableSpec, TableStats

WAKE_S = 180.0
"""How long a call waits for a JVM that starts: 10 s as a rule, a minute on a machine that is busy otherwise."""

FIRST_WAKE_S = 660.0
"""The same at a service's start, which may have to fetch Delta's jars."""

ASK_AGAIN_S = 0.2
"""Between questions to an actor that Ray is starting again."""

TRIES_TO_TEND = 3
"""An action that the JVM's death cut off is carried out again so often: none does harm twice."""

_CHANGES = (AddColumns, Checkpoint, Compact, Sort, Vacuum)


def engine_of(service: str, config: WriterConfig) -> Engine:
    """What commits and maintains for a service."""
    return SparkServiceEngine(service) if config.engine == "spark" else DeltaRsEngine()


class SparkServiceEngine:
    """Opens tables that the Spark actor of a service changes."""

    name = NAME

    def __init__(self, service: str) -> None:
        """Look for nobody yet."""
        self._calls = SparkCalls(service)

    def open(self, spec: TableSpec) -> SparkServiceTable:
        """A handle on the table that the spec names. Touches nothing yet."""
        return SparkServiceTable(spec, self._calls)


class SparkCalls:
    """Calls on the Spark actor, through its restarts. Thread-safe; they block."""

    def __init__(self, service: str) -> None:
        """Look for nobody yet."""
        self._service = service
        self._clock = SystemClock()

    def actor(self) -> Any:
        """The actor.

        Raises:
            WriterTableError: the service was stopped.
        """
        try:
            return actor_of(self._service, "spark")
        except ValueError as error:
            raise WriterTableError(
                f"service {self._service!r} has no Spark actor: it was stopped",
                suggestions=["start it again: Service.start(config, name=…)"],
            ) from error

    def wait_for(self, method: str, patience_s: float = WAKE_S) -> Any:
        """What `awake` or `ping` says, as soon as there is somebody to say it.

        Raises:
            WriterTableError: nobody did for so many seconds.
            WriterConfigurationError: what Spark needs is missing where the actor runs.
        """
        deadline = self._clock.monotonic() + patience_s
        while True:
            left = deadline - self._clock.monotonic()
            try:
                return answer_of(self._service, getattr(self.actor(), method).remote, timeout=max(left, ASK_AGAIN_S))
            except RayTaskError as error:
                raise cause_of(error) from None
            except (RayActorError, GetTimeoutError) as error:
                if left <= 0:
                    raise WriterTableError(
                        f"the Spark actor of service {self._service!r} does not answer: {error}",
                        suggestions=["look at health(), and at the actor's log in Ray's folder"],
                        code="jvm_not_started",
                        retriable=True,
                    ) from error
                self._clock.sleep(ASK_AGAIN_S)

    def once(self, method: str, *args: Any) -> Any:
        """Call with the JVM awake, and give the answer, or raise as the call did; `RayActorError`: it was lost."""
        self.wait_for("awake")
        try:
            return answer_of(self._service, getattr(self.actor(), method).remote, *args)
        except RayTaskError as error:
            raise cause_of(error) from None

    def stream(self, method: str, *args: Any) -> Iterator[Any]:
        """The answers of a call that gives many, one at a time."""
        self.wait_for("awake")
        try:
            for reference in getattr(self.actor(), method).options(num_returns="streaming").remote(*args):
                yield ray.get(reference)
        except RayTaskError as error:
            raise cause_of(error) from None
        except RayActorError as error:
            raise self.lost(error) from error

    def lost(self, error: RayActorError) -> WriterTableError:
        """The error for a call that the JVM's end cut off."""
        return WriterTableError(
            f"the JVM of service {self._service!r} ended during the call: {_first_line(error)}",
            suggestions=["call again: another JVM is being started"],
            code="session_lost",
            retriable=True,
        )


class SparkServiceTable(SparkLogTable):
    """One table. As thread-safe as the other engines' tables."""

    def __init__(self, spec: TableSpec, calls: SparkCalls) -> None:
        """Touches nothing yet."""
        self._calls = calls
        super().__init__(spec)

    def commit(self, group: CommitGroup) -> CommitReceipt:
        """One Delta transaction in the JVM, ending as `sfwriter.storage.engine` says."""
        with self._commit_lock:
            try:
                version, road = self._calls.once("commit", self._spec, self._identity.table_id, group)
            except RayActorError as error:
                self._see_the_end()
                raise CommitUnknown(f"The JVM ended during a commit: {_first_line(error)}") from error
            self._take_road(road)
            return CommitReceipt(version)

    def _see_the_end(self) -> None:
        """Wait for the actor's next life, which begins with the end of the JVM of the one before."""
        try:
            self._calls.wait_for("ping")
        except WriterError as error:
            raise CommitUnknown(error.message) from error

    def run(self, action: Any) -> Mapping[str, Any]:
        """Carry out an action of `sfwriter.storage.engine`; what only looks is done here."""
        if not isinstance(action, _CHANGES):
            return super().run(action)
        for _ in range(TRIES_TO_TEND - 1):
            try:
                return self._run_once(action)
            except RayActorError:  # noqa: PERF203  it waits out a restart
                continue
        try:
            return self._run_once(action)
        except RayActorError as error:
            raise self._calls.lost(error) from error

    def _run_once(self, action: Any) -> Mapping[str, Any]:
        figures: Mapping[str, Any] = self._calls.once("run", self._spec, self._identity.table_id, action)
        return figures

    def scan(self, columns: Sequence[str] | None = None, predicate: str | None = None) -> pa.RecordBatchReader:
        """Stream the visible rows, in no particular order: as the embedded engine does, or as Spark where it must."""
        if not unreadable_features(self._readable()):
            return super().scan(columns, predicate)
        chosen = None if columns is None else list(columns)
        answers = self._calls.stream("scan", self._spec, self._identity.table_id, chosen, predicate)
        return pa.RecordBatchReader.from_batches(next(answers), answers)

    def _counted_by_spark(self, table: DeltaTable) -> TableStats:  # noqa: ARG002  Spark has its own look
        try:
            found: TableStats = self._calls.once("stats", self._spec, self._identity.table_id)
        except RayActorError as error:
            raise self._calls.lost(error) from error
        return found


def ask(service: str) -> dict[str, Any] | None:
    """What the Spark actor says of itself now; None where it does not answer in time."""
    try:
        found: dict[str, Any] = answer_of(service, SparkCalls(service).actor().ping.remote, timeout=CALL_TIMEOUT_S / 10)
    except (WriterError, RayActorError, GetTimeoutError):
        return None
    return found


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
