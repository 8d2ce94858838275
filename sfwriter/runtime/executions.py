"""Many runs in few writes, each good or bad by itself: `write_execution_result_batch`.

Receives: an iterable of execution results.
Produces: one result: how many were written, and which were not, and why.
Guarantees: a run that cannot be written takes none of the others along, unless the call is to fail fast:
    then it raises, and nothing behind it is written.
Never does: hold more runs than one write has, beside what is in flight.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sfwriter.exceptions import WriterError, WriterValidationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import Future

    from sfwriter.clock import Clock
    from sfwriter.ingest.gate import Gated
    from sfwriter.results import ExecutionBatchResult, FailedExecution, WriteResult

    Rows = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class ExecutionCalls:
    """What the writer does for a batch of runs.

    Attributes:
        rows_of: a run's rows; raises `WriterError` for one that is none.
        encode: passes rows through the gate, which raises `WriterError` where it refuses them.
        send: sends what came through as the write of this index.
        hurry: says that nothing more comes for now.
    """

    rows_of: Callable[[Any], Rows]
    encode: Callable[[Rows], Gated]
    send: Callable[[Gated, int], Future[WriteResult]]
    hurry: Callable[[], object]


class ExecutionBatch:
    """One call of `write_execution_result_batch`. One thread."""

    def __init__(self, calls: ExecutionCalls, clock: Clock, *, size: int | None, fail_fast: bool) -> None:
        """Prepare a call.

        Args:
            calls: of the writer.
            clock: for the duration.
            size: runs of one write; None for all of them in one.
            fail_fast: raise for the first bad run.
        """
        self._calls = calls
        self._clock = clock
        self._size = size
        self._fail_fast = fail_fast
        self._started = clock.monotonic()
        self._pending: list[tuple[int, Rows]] = []
        self._flying: deque[tuple[list[int], Future[WriteResult]]] = deque()
        self._failed: list[FailedExecution] = []
        self._total = self._written = self._rows = self._writes = 0

    def run(self, executions: Iterable[Any]) -> ExecutionBatchResult:
        """Send every run and wait for all of them."""
        try:
            for index, execution in enumerate(_runs(executions)):
                self._total += 1
                self._take(index, execution)
                if len(self._pending) == self._size:
                    self._send()
                while self._flying and self._flying[0][1].done():
                    self._settle()
            self._send()
            self._calls.hurry()
            while self._flying:
                self._settle()
        except BaseException:
            # What is on its way is waited for: nothing is written after the call has raised.
            self._calls.hurry()
            for _, future in self._flying:
                future.exception()
            raise
        return {
            "total_executions": self._total,
            "successful_writes": self._written,
            "failed_writes": len(self._failed),
            "rows_written": self._rows,
            "failed_executions": sorted(self._failed, key=lambda failed: failed["index"]),
            "batch_duration_secs": self._clock.monotonic() - self._started,
        }

    def _take(self, index: int, execution: Any) -> None:
        try:
            self._pending.append((index, self._calls.rows_of(execution)))
        except WriterError as error:
            if self._fail_fast and self._size is not None:
                self._send()
            self._refused(index, error)

    def _send(self) -> None:
        """Send what is pending as one write; where it would be refused, without those who are to blame."""
        runs, self._pending = self._pending, []
        if not runs:
            return
        try:
            self._send_off(runs)
        except WriterError:
            good: list[tuple[int, Rows]] = []
            for index, rows in runs:
                try:
                    self._calls.encode(rows)
                except WriterError as error:  # noqa: PERF203  each run is judged by itself
                    if self._fail_fast and self._size is not None and good:
                        self._send_off(good)
                    self._refused(index, error)
                else:
                    good.append((index, rows))
            if good:
                self._send_off(good)

    def _send_off(self, runs: list[tuple[int, Rows]]) -> None:
        gated = self._calls.encode([row for _, rows in runs for row in rows])
        self._flying.append(([index for index, _ in runs], self._calls.send(gated, self._writes)))
        self._writes += 1

    def _refused(self, index: int, error: WriterError) -> None:
        """Note a bad run, or raise for it."""
        if self._fail_fast:
            error.message = f"execution {index} of write_execution_result_batch: {error.message}"
            error.context["execution_index"] = index
            raise error
        self._failed.append({"index": index, "error": str(error)})

    def _settle(self) -> None:
        indices, future = self._flying.popleft()
        try:
            result = future.result()
        except WriterError as error:
            if self._fail_fast:
                error.context["execution_index"] = indices[0]
                raise
            self._failed.extend({"index": index, "error": str(error)} for index in indices)
            return
        self._written += len(indices)
        self._rows += result["rows_written"]


def _runs(executions: Any) -> Iterable[Any]:
    if isinstance(executions, (str, bytes, dict)) or not hasattr(executions, "__iter__"):
        raise WriterValidationError(
            f"execution_results is a {type(executions).__name__}, expected a list of execution results",
            suggestions=["give a list; a single one goes to write_execution_result"],
        )
    return executions  # type: ignore[no-any-return]  # it can be iterated over
