"""Many batches in flight, settled in order: `write_batches`.

Receives: an iterable of batches, and the call that sends one on its way.
Produces: one result for all of them.
Guarantees: after a refusal nothing more is sent, and the error says which batch it was.
Never does: bound memory itself. The send blocks while there is none.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from sfwriter.exceptions import WriterError, WriterValidationError
from sfwriter.runtime.frame_job import is_frame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future

    from sfwriter.clock import Clock
    from sfwriter.results import BatchesResult, WriteResult


class BulkWrite:
    """One call of `write_batches`. One thread."""

    def __init__(
        self,
        send: Callable[[Any, int], Future[WriteResult]],
        hurry: Callable[[], object],
        progress: Callable[[BatchesResult], None] | None,
        clock: Clock,
        call: str = "write_batches",
    ) -> None:
        """Prepare a call.

        Args:
            send: takes a batch and its index, and gives the future of its result.
            hurry: says that nothing more comes for now.
            progress: told the result so far after each batch that is settled.
            clock: for the duration.
            call: what errors name.
        """
        if progress is not None and not callable(progress):
            raise WriterValidationError(
                f"progress of {call} is a {type(progress).__name__}, expected a function of the result so far",
                context={"field": "progress"},
                suggestions=["e.g. progress=lambda result: print(result['rows_written'])"],
            )
        self._call = call
        self._send = send
        self._hurry = hurry
        self._progress = progress
        self._clock = clock
        self._started = clock.monotonic()
        self._flying: deque[Future[WriteResult]] = deque()
        self._settled = 0
        self._batches = self._rows = self._already = self._quarantined = 0
        self._versions: tuple[int, int] | None = None

    def run(self, batches: Iterable[Any]) -> BatchesResult:
        """Send every batch and wait for all of them."""
        try:
            for index, batch in enumerate(_elements(batches)):
                sent = self._send(batch, index)
                self._flying.append(sent)
                del batch  # its rows are not to be held while the next ones are made
                while self._flying and self._flying[0].done():
                    self._settle()
                if sent.done() and sent.exception() is not None:
                    break  # refused at once: nothing behind it is sent, and those before it are waited for
            self._hurry()
            while self._flying:
                self._settle()
        except BaseException as error:
            self._let_land()
            if isinstance(error, WriterError):
                error.context["batches_written"] = self._batches
            raise
        return self._result()

    def _settle(self) -> None:
        future = self._flying.popleft()
        index = self._settled
        self._settled += 1
        try:
            result = future.result()
        except WriterError as error:
            error.message = f"batch {index} of {self._call}: {error.message}"
            error.context["batch_index"] = index
            raise
        self._count(result)
        if self._progress is not None:
            self._progress(self._result())

    def _count(self, result: WriteResult) -> None:
        if result["already_written"]:
            self._already += 1
        else:
            self._batches += 1
            version = result["version"]
            if version is not None:
                first, last = self._versions or (version, version)
                self._versions = (min(first, version), max(last, version))
        self._rows += result["rows_written"]
        self._quarantined += result["quarantined_rows"]

    def _let_land(self) -> None:
        """Wait for what is on its way already, so that nothing is written after the call has raised."""
        self._hurry()
        for future in self._flying:
            if future.exception() is None:
                self._count(future.result())

    def _result(self) -> BatchesResult:
        return {
            "success": True,
            "batches": self._batches,
            "rows_written": self._rows,
            "already_written": self._already,
            "quarantined_rows": self._quarantined,
            "versions": self._versions,
            "duration_secs": self._clock.monotonic() - self._started,
        }


def _elements(batches: Iterable[Any]) -> Iterator[Any]:
    """The batches of an iterable; the record batches of a table; a Spark DataFrame is one batch of any size."""
    if is_frame(batches):
        return iter([batches])
    if hasattr(batches, "to_batches"):
        return iter(batches.to_batches())
    if isinstance(batches, (str, bytes, dict)) or not hasattr(batches, "__iter__"):
        raise WriterValidationError(
            f"write_batches got a {type(batches).__name__}, expected an iterable of batches",
            suggestions=["give a list or generator whose elements are what write_log_rows takes"],
        )
    return _checked(iter(batches))


def _checked(batches: Iterator[Any]) -> Iterator[Any]:
    for index, batch in enumerate(batches):
        if isinstance(batch, dict):
            raise WriterValidationError(
                f"element {index} of write_batches is a single row, expected a batch of rows",
                context={"batch_index": index},
                suggestions=["use write_log_rows for one list of rows, or write_batches([rows])"],
            )
        yield batch
