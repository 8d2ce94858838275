"""Files into a table, exactly once: the engine behind `sfwriter backfill`.

Receives: sources, and a writer (`LogWriter`, or the client of a service).
Produces: one result; progress and notes on the way.
Guarantees: each row of each source is written once, however often a run is killed and started again.
    After a refusal everything before it in its source is committed, nothing behind it is.
Never does: bound memory by itself (the writer's `submit` blocks); print.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, wait
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, TypedDict

from sfwriter.clock import SystemClock
from sfwriter.exceptions import WriterConfigurationError, WriterError
from sfwriter.metrics import MIB
from sfwriter.modes import WriteMode
from sfwriter.sources import SourceReading, journal_of, types_of
from sfwriter.sources.ahead import prepared_ahead, read_ahead
from sfwriter.sources.blame import blamed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sfwriter.clock import Clock
    from sfwriter.config import WriterConfig
    from sfwriter.ingest.gate import Gated
    from sfwriter.results import MemoryUsage, TableInfo, WriteResult
    from sfwriter.sources import Limits, Source, SourceChunk
    from sfwriter.sources.journal import Journal
    from sfwriter.sources.typed_text import Types

GATES = 2
"""Threads that pass chunks through the gate: each takes twice as long as the one that reads."""

MAX_FLYING = 512
PATIENCE_S = 1.0
"""A full window that does not move for so long holds chunks that wait for company: they are sent on."""

LOOK_S = 0.2
"""How often progress is told, and looked whether to stop, while nothing else happens."""

LANDING_S = 60.0
"""How long an interrupted run waits for commits that are under way."""


class BackfillWriter(Protocol):
    """What a writer must be able to do."""

    @property
    def config(self) -> WriterConfig:
        """Its options."""

    def prepare(self, rows: Any) -> Gated:
        """Pass rows through the gate, on any thread."""

    def submit(self, rows: Future[Gated], *, producer_id: str, sequence: int) -> Future[WriteResult]:
        """Take a numbered batch that is being prepared; block while there is no memory for it."""

    def watermark(self, producer_id: str) -> int | None:
        """The highest committed number of a producer."""

    def flush(self, timeout: float | None = None) -> bool:
        """Send on what waits for company, and wait for what is under way."""

    def get_table_info(self) -> TableInfo:
        """What the log says of the table."""

    def get_memory_usage(self) -> MemoryUsage:
        """Among others the budget."""


class BackfillResult(TypedDict):
    """What a backfill answers.

    `rows_written` and `quarantined_rows` are this run's, `already_written` are rows of earlier runs
    (quarantined ones among them), `sources` is how many files were read.
    """

    rows_written: int
    already_written: int
    quarantined_rows: int
    sources: int
    version: int | None
    duration_secs: float
    rows_per_sec: float


@dataclass(frozen=True, slots=True)
class BackfillProgress:
    """Where a run stands.

    Attributes:
        sources: files in all.
        finished: files that are committed whole.
        bytes_total: of all files, as they lie on the disk.
        bytes_done: of those, committed by this run or an earlier one.
        bytes_skipped: of those, by an earlier one.
        rows_written: by this run.
        already_written: rows of earlier runs.
        quarantined_rows: by this run.
        elapsed_secs: since the run began.
    """

    sources: int = 0
    finished: int = 0
    bytes_total: int = 0
    bytes_done: int = 0
    bytes_skipped: int = 0
    rows_written: int = 0
    already_written: int = 0
    quarantined_rows: int = 0
    elapsed_secs: float = 0.0

    @property
    def rows_per_sec(self) -> float:
        """Rows that this run settled in a second."""
        settled = self.rows_written + self.quarantined_rows
        return settled / self.elapsed_secs if self.elapsed_secs > 0 else 0.0

    @property
    def eta_secs(self) -> float | None:
        """Seconds that are left at this run's speed; None while there is none."""
        done = self.bytes_done - self.bytes_skipped
        return (self.bytes_total - self.bytes_done) * self.elapsed_secs / done if done > 0 else None


@dataclass(slots=True)
class _Flight:
    """A chunk without its rows, until its answer is there."""

    source: _SourceRun
    chunk: SourceChunk
    nbytes: int
    future: Future[WriteResult]


class _SourceRun:
    """One source of the run."""

    def __init__(self, reading: SourceReading, size: int) -> None:
        self.reading = reading
        self.size = size
        self.flying = 0
        self.read = False
        self.share = 0.0


def backfill(
    writer: BackfillWriter,
    sources: Sequence[Source],
    *,
    as_new: bool = False,
    limits: Limits | None = None,
    progress: Callable[[BackfillProgress], None] | None = None,
    note: Callable[[str], None] | None = None,
    check: Callable[[], None] | None = None,
    clock: Clock | None = None,
) -> BackfillResult:
    """Write what the table does not have of these sources, one after the other.

    Args:
        writer: of the table.
        sources: what to read.
        as_new: take a source that was changed after a part was written as another one.
        limits: of the chunks of sources that are met for the first time.
        progress: called often, on this thread.
        note: told sentences for people.
        check: called a few times a second where it is safe to stop; what it raises ends the run as a
            refusal does. (A signal that raises anywhere may hit the writer in the middle of its work.)
        clock: for durations.

    Raises:
        WriterConfigurationError: the writer overwrites.
        WriterError: a source cannot be read or was changed, or rows were refused. What is committed
            stays; `context` has `rows_written` and `quarantined_rows` of this run.
    """
    if writer.config.write_mode is WriteMode.OVERWRITE:
        raise WriterConfigurationError(
            "write_mode is OVERWRITE, and a backfill appends: its parts would replace one another",
            suggestions=["leave write_mode out (SFWRITER_WRITE_MODE for the command line)"],
        )
    info = writer.get_table_info()
    run = _Run(
        writer=writer,
        journal=journal_of(info["table_fqn"], info["location"], writer.config.storage_options),
        types=types_of(info["schema"]),
        progress=progress or (lambda _: None),
        note=note or (lambda _: None),
        check=check or (lambda: None),
        clock=clock or SystemClock(),
    )
    return run.run(sources, as_new, limits)


class _Run:
    def __init__(
        self,
        *,
        writer: BackfillWriter,
        journal: Journal,
        types: Types,
        progress: Callable[[BackfillProgress], None],
        note: Callable[[str], None],
        check: Callable[[], None],
        clock: Clock,
    ) -> None:
        self._writer = writer
        self._journal = journal
        self._types = types
        self._tell = progress
        self._note = note
        self._check = check
        self._clock = clock
        self._started = clock.monotonic()
        self._flying: deque[_Flight] = deque()
        self._flying_bytes = 0
        # A full job for each staging thread, and the one that is collected: more would only touch fresh memory.
        # Through a service, 192 MiB for two writers took 6.9 s of the client's processor where 512 took 10.5.
        config = writer.config
        self._most_flying_bytes = int((config.parallel_write_threads + 1) * config.max_batch_mb * MIB)
        self._budget_bytes = int(writer.get_memory_usage()["budget_mb"] * MIB)
        self._open: dict[_SourceRun, ExitStack] = {}
        self._version: int | None = None
        self._now = BackfillProgress()

    def run(self, sources: Sequence[Source], as_new: bool, limits: Limits | None) -> BackfillResult:
        sizes = [_size(source) for source in sources]
        self._now = replace(self._now, sources=len(sources), bytes_total=sum(sizes))
        try:
            for source, size in zip(sources, sizes, strict=True):
                reading = SourceReading(
                    source,
                    self._journal,
                    self._writer.watermark,
                    types=self._types,
                    as_new=as_new,
                    limits=limits,
                    check=self._check,
                    budget_bytes=self._budget_bytes,
                )
                self._read(_SourceRun(reading, size))
            self._drain()
        except BaseException as error:
            self._let_land(error)
            raise
        finally:
            for cleanup in self._open.values():
                cleanup.close()
        return self._result()

    # ------------------------------------------------------------ out

    def _read(self, source: _SourceRun) -> None:
        """Send the chunks of one source; it stays open until the last one is answered."""
        with ExitStack() as cleanup:
            cleanup.enter_context(source.reading)
            self._open[source] = cleanup.pop_all()
        chunks = 0
        gates = min(GATES, self._writer.config.parallel_write_threads)
        with (
            read_ahead(source.reading.chunks(), self._check) as coming,
            prepared_ahead(coming, lambda chunk: self._writer.prepare(chunk.rows), gates) as ready,
        ):
            for chunk, gated in ready:
                if not chunks:
                    self._skipped(source, chunk)
                chunks += 1
                self._send(source, chunk, gated)
        source.read = True
        if not chunks:
            self._skipped(source, None)
        if not source.flying:
            self._finished(source)
        self._report()

    def _skipped(self, source: _SourceRun, first: SourceChunk | None) -> None:
        """Count what earlier runs have written: everything before the first chunk."""
        earlier = source.reading.earlier_rows
        if first is None and earlier == 0:
            self._note(f"{source.reading.source} is empty: it has no rows")
        rows = earlier if first is None else first.start.row
        share = 1.0 if first is None else first.progress * first.start.row / max(first.end.row, 1)
        self._now = replace(
            self._now,
            already_written=self._now.already_written + rows,
            bytes_skipped=self._now.bytes_skipped + int(source.size * share),
        )
        self._advance(source, share)

    def _send(self, source: _SourceRun, chunk: SourceChunk, gated: Future[Gated]) -> None:
        nbytes = getattr(chunk.rows, "nbytes", 1000 * chunk.count)
        while self._flying and (
            self._flying_bytes + nbytes > self._most_flying_bytes or len(self._flying) >= MAX_FLYING
        ):
            self._wait_for_oldest()
        try:
            future = self._writer.submit(gated, producer_id=source.reading.producer_id, sequence=chunk.sequence)
        except WriterError as error:
            raise blamed(error, source.reading.source, chunk) from error.__cause__
        source.flying += 1
        self._flying.append(_Flight(source, replace(chunk, rows=[]), nbytes, _answer_of(future)))
        self._flying_bytes += nbytes
        while self._flying and self._flying[0].future.done():
            self._settle()

    # ------------------------------------------------------------ back

    def _wait_for_oldest(self) -> None:
        waited = 0.0
        while not wait([self._flying[0].future], LOOK_S).done:
            waited += LOOK_S
            if waited >= PATIENCE_S:
                self._writer.flush(0)
            self._check()
            self._report()
        self._settle()

    def _drain(self) -> None:
        """Everything is sent: nothing that comes is worth waiting for."""
        if self._flying:
            self._writer.flush(0)
        while self._flying:
            self._wait_for_oldest()

    def _settle(self) -> None:
        """Take the oldest answer in."""
        flight = self._flying.popleft()
        self._flying_bytes -= flight.nbytes
        source, chunk = flight.source, flight.chunk
        source.flying -= 1
        try:
            result = flight.future.result()
        except WriterError as error:
            raise blamed(error, source.reading.source, chunk) from error.__cause__
        source.reading.acknowledged(chunk.sequence)
        already = chunk.count if result["already_written"] else 0
        if result["version"] is not None:
            self._version = max(result["version"], self._version or 0)
        self._now = replace(
            self._now,
            rows_written=self._now.rows_written + result["rows_written"],
            already_written=self._now.already_written + already,
            quarantined_rows=self._now.quarantined_rows + result["quarantined_rows"],
        )
        self._advance(source, chunk.progress)
        if source.read and not source.flying:
            self._finished(source)
        self._report()

    def _finished(self, source: _SourceRun) -> None:
        source.reading.finished()
        self._open.pop(source).close()
        self._advance(source, 1.0)
        self._now = replace(self._now, finished=self._now.finished + 1)

    def _let_land(self, error: BaseException) -> None:
        """Wait for what is under way, so that nothing is written after the run has ended; keep what landed."""
        self._writer.flush(0)
        wait([flight.future for flight in self._flying], LANDING_S)
        while self._flying:
            future = self._flying[0].future
            if future.done() and future.exception() is None:
                self._settle()
            else:
                self._flying.popleft()
        if isinstance(error, WriterError):
            error.context["rows_written"] = self._now.rows_written
            error.context["quarantined_rows"] = self._now.quarantined_rows

    # ------------------------------------------------------------ told

    def _advance(self, source: _SourceRun, share: float) -> None:
        done = int(source.size * share) - int(source.size * source.share)
        source.share = share
        self._now = replace(self._now, bytes_done=self._now.bytes_done + done)

    def _report(self) -> None:
        self._now = replace(self._now, elapsed_secs=self._clock.monotonic() - self._started)
        self._tell(self._now)

    def _result(self) -> BackfillResult:
        self._report()
        now = self._now
        version = self._version
        if version is None:
            version = self._writer.get_table_info()["version"]
        return {
            "rows_written": now.rows_written,
            "already_written": now.already_written,
            "quarantined_rows": now.quarantined_rows,
            "sources": now.sources,
            "version": version,
            "duration_secs": now.elapsed_secs,
            "rows_per_sec": now.rows_per_sec,
        }


def _answer_of(future: Future[WriteResult]) -> Future[WriteResult]:
    """The same answer without what the writer's future holds on to: the rows, until nobody has it any more."""
    answer: Future[WriteResult] = Future()
    answer.set_running_or_notify_cancel()

    def settle(done: Future[WriteResult]) -> None:
        error = done.exception()
        if error is None:
            answer.set_result(done.result())
        else:
            answer.set_exception(error)

    future.add_done_callback(settle)
    return answer


def _size(source: Source) -> int:
    try:
        return source.path.stat().st_size
    except OSError:
        return 0  # opening it says what is wrong
