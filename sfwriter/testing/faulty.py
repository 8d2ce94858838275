"""An engine that does as another engine does, until it is told to fail.

Every call goes to a real engine. Faults are put in a queue for one call each; a fault happens once, in
the order in which they were put there. So a test says exactly what goes wrong, and when.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar, Union

from sfwriter.storage.engine import CommitUnknown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pyarrow as pa

    from sfwriter.storage.engine import (
        BatchToStage,
        CommitGroup,
        CommitReceipt,
        Engine,
        StagedBatch,
        Table,
        TableSpec,
        TableStats,
        Watermark,
    )

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Fail:
    """Raise, and do nothing: what a lost commit looks like when the error is `CommitUnknown`."""

    error: BaseException


@dataclass(frozen=True, slots=True)
class LandAndRaise:
    """Do it, then raise: the answer was lost on the way."""

    error: BaseException = field(default_factory=lambda: CommitUnknown("told to raise after it landed"))


@dataclass(frozen=True, slots=True)
class LandLate:
    """Raise now; it is done when `FaultyEngine.release_late` is called, however much has happened since."""

    error: BaseException = field(default_factory=lambda: CommitUnknown("told to land later"))


@dataclass(frozen=True, slots=True)
class Hang:
    """Wait for `gate` before doing it, as a frozen process does."""

    gate: threading.Event
    started: threading.Event = field(default_factory=threading.Event)


Fault = Union[Fail, LandAndRaise, LandLate, Hang]


class FaultyEngine:
    """Wraps any engine; tables opened through it share its queues of faults. Thread-safe."""

    def __init__(self, inner: Engine) -> None:
        """Without faults it is `inner`."""
        self.inner = inner
        self.calls: Counter[str] = Counter()
        self._faults: dict[str, deque[Fault]] = {}
        self._late: list[Callable[[], object]] = []
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """The inner engine's."""
        return self.inner.name

    def open(self, spec: TableSpec) -> FaultyTable:
        """The inner engine's table, with this engine's faults."""
        return FaultyTable(self.inner.open(spec), self)

    def inject(self, call: str, *faults: Fault) -> None:
        """Let the next calls of this name ("stage", "commit", …) meet these faults, one each, in this order."""
        with self._lock:
            self._faults.setdefault(call, deque()).extend(faults)

    def release_late(self) -> list[BaseException | None]:
        """Do now what `LandLate` put off, in its order; for each one the error that it ended with, or None."""
        with self._lock:
            late, self._late = self._late, []
        return [_ending(work) for work in late]

    def carry_out(self, call: str, work: Callable[[], Result]) -> Result:
        """Do one call of a table, with the fault that is next in its queue."""
        with self._lock:
            self.calls[call] += 1
            queue = self._faults.get(call)
            fault = queue.popleft() if queue else None
        if isinstance(fault, Fail):
            raise fault.error
        if isinstance(fault, LandLate):
            with self._lock:
                self._late.append(work)
            raise fault.error
        if isinstance(fault, Hang):
            fault.started.set()
            fault.gate.wait()
        result = work()
        if isinstance(fault, LandAndRaise):
            raise fault.error
        return result


def _ending(work: Callable[[], object]) -> BaseException | None:
    try:
        work()
    except Exception as error:  # noqa: BLE001  how it ended is the answer
        return error
    return None


class FaultyTable:
    """A table whose calls ask the engine first whether they may."""

    def __init__(self, inner: Table, engine: FaultyEngine) -> None:
        """Touches nothing yet."""
        self.inner = inner
        self._engine = engine

    @property
    def spec(self) -> TableSpec:
        """The inner table's."""
        return self.inner.spec

    def stage(self, batches: Sequence[BatchToStage]) -> StagedBatch:
        """As the inner table, or as told."""
        return self._engine.carry_out("stage", lambda: self.inner.stage(batches))

    def commit(self, group: CommitGroup) -> CommitReceipt:
        """As the inner table, or as told."""
        return self._engine.carry_out("commit", lambda: self.inner.commit(group))

    def last_sequence(self, producers: Sequence[str]) -> dict[str, Watermark]:
        """As the inner table, or as told."""
        return self._engine.carry_out("last_sequence", lambda: self.inner.last_sequence(producers))

    def discard(self, staged: StagedBatch) -> None:
        """As the inner table, or as told."""
        self._engine.carry_out("discard", lambda: self.inner.discard(staged))

    def scan(self, columns: Sequence[str] | None = None, predicate: str | None = None) -> pa.RecordBatchReader:
        """As the inner table, or as told."""
        return self._engine.carry_out("scan", lambda: self.inner.scan(columns, predicate))

    def stats(self) -> TableStats:
        """As the inner table, or as told."""
        return self._engine.carry_out("stats", self.inner.stats)

    def ensure(self) -> TableStats:
        """As the inner table, or as told."""
        return self._engine.carry_out("ensure", self.inner.ensure)

    def run(self, action: Any) -> Mapping[str, Any]:
        """As the inner table, or as told."""
        return self._engine.carry_out("run", lambda: self.inner.run(action))
