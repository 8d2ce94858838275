"""`LogWriter`: joins the parts of a batch's path, with no policy of its own.

Receives: rows and results from callers, on any thread.
Produces: result dicts, or the exceptions of `sfwriter.exceptions`.
Guarantees: a call returns when its rows are durable and visible; one that raises has written nothing,
    unless the error says that its outcome is unknown.
Never does: decide about order, memory, retries (`flow`), or rows (`ingest`).
"""

from __future__ import annotations

import os
import threading
import uuid
import weakref
from concurrent.futures import Future, wait
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

from sfwriter.anomaly.watches import Watches
from sfwriter.clock import SystemClock
from sfwriter.config import WriterConfig
from sfwriter.exceptions import WriterConfigurationError, WriterError, WriterValidationError
from sfwriter.frames import MOST_WATCHED, Frames
from sfwriter.ingest.gate import Gate
from sfwriter.ingest.routes import Router
from sfwriter.ingest.rows import execution_result_rows, step_result_rows
from sfwriter.intake import Intake
from sfwriter.maintenance.keeper import Keeper
from sfwriter.maintenance.maintainer import Maintainer
from sfwriter.metrics import WriterMetrics
from sfwriter.modes import WriteMode
from sfwriter.quality.verdict import Judged
from sfwriter.questions import check_limit
from sfwriter.runtime.blueprint import (
    flow_limits,
    log_table_spec,
    quarantine_table_spec,
)
from sfwriter.runtime.bulk import BulkWrite
from sfwriter.runtime.channel import Delivery, MadeFiles, Series
from sfwriter.runtime.examining import Examiner, Findings, rules_of
from sfwriter.runtime.executions import ExecutionBatch, ExecutionCalls
from sfwriter.runtime.frame_job import FrameGated
from sfwriter.runtime.identity import Identity, check_producer_id, identity_of
from sfwriter.runtime.local import LocalChannel
from sfwriter.runtime.replay import QuarantineReplay
from sfwriter.runtime.routing import replaced_tables, rows_by_table, tables_of
from sfwriter.runtime.tables import table_opener
from sfwriter.runtime.telling import Teller

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping
    from types import TracebackType

    import pyarrow as pa
    from typing_extensions import Self

    from sfwriter.clock import Clock
    from sfwriter.ingest.gate import Gated
    from sfwriter.results import (
        AnomalyResult,
        BatchesResult,
        ExecutionBatchResult,
        ReplayResult,
        WriteResult,
    )
    from sfwriter.runtime.channel import Channel, Receipt
    from sfwriter.storage.engine import Engine

_LOGGED = ("run_id", "batch_id", "version", "rows_written", "quarantined_rows", "already_written", "duration_secs")
"""Keys of a result that its log record has as structured fields."""

INTERRUPT_GRACE_S = 30.0
"""How long an interrupted call waits to learn whether its commit, already under way, has landed."""


class Call(Future["WriteResult"]):
    """The future of one call's result, and its delivery's, by which the call can be withdrawn. Can be awaited."""

    delivery: Future[Receipt] | None = None

    def __await__(self) -> Generator[Any, None, WriteResult]:
        """The result, without holding up the event loop."""
        import asyncio  # whoever awaits has it; for all others it is a tenth of this module's import

        return asyncio.wrap_future(self).__await__()


class LogWriter(Intake):
    """Writes log rows to one Delta table, each acknowledged row exactly once. Thread-safe.

    Example:
        >>> with LogWriter(config=WriterConfig(warehouse="warehouse")) as writer:  # doctest: +SKIP
        ...     writer.write_log_rows([{"phase": "bronze", "step_name": "extract"}])["rows_written"]
        1
    """

    def __init__(
        self,
        spark: Any = None,
        config: WriterConfig | None = None,
        logger: Any = None,
    ) -> None:
        """Open a writer on the configured table, which is created by the first write where it is missing.

        Args:
            spark: a SparkSession, classic or Connect, for the Spark engine; None for the embedded one. Where the
                configuration gives no `warehouse`, tables are then those of the session's catalog.
            config: the options; None for the defaults.
            logger: used instead of the logger `sfwriter`; any object with `info(text)` and `warning(text)`.

        Raises:
            WriterConfigurationError: `spark` is no session, was stopped, or lacks what Delta needs.
            WriterTableError: the table is there and cannot be read.
        """
        config = _given_config(spark, config)
        self._begin(config, logger, None if spark is None else _spark_engine(spark, config), None)

    @classmethod
    def start(
        cls,
        config: WriterConfig | None = None,
        *,
        engine: Engine | None = None,
        clock: Clock | None = None,
        logger: Any = None,
        spark: Any = None,
    ) -> LogWriter:
        """As the constructor; also with another engine or clock than the configuration's own (tests, tools)."""
        config = _given_config(spark, config)
        if spark is not None and engine is None:
            engine = _spark_engine(spark, config)
        writer = cls.__new__(cls)
        writer._begin(config, logger, engine, clock)  # noqa: SLF001  this class
        return writer

    def _begin(self, config: WriterConfig, logger: Any, engine: Engine | None, clock: Clock | None) -> None:
        self.config = config
        self._clock: Clock = clock or SystemClock()
        self._engine = engine or own_engine(config)
        self._log = Teller(logger)
        self._producer_id = config.producer_id or uuid.uuid4().hex
        # A chosen id is for coming back, however late; one made here never comes back.
        self._expires = config.producer_id is None
        self._process = os.getpid()
        self._metrics = WriterMetrics(self._clock)
        self._retries_before = 0
        self._reading = threading.Lock()
        self._gating = threading.Lock()
        self._log_table = self._engine.open(log_table_spec(config))
        self._quarantine_table = self._engine.open(quarantine_table_spec(config))
        self._router = Router(config, self._clock) if config.is_routed else None
        stats = self._stats()
        self._by_spark = getattr(self._engine, "column_rules", None)
        self._rules = rules_of(config, stats.schema, self._clock.now, self._by_spark)
        self._examiner = Examiner(config, self._rules)
        self._partition_columns = stats.partition_columns if stats.exists else tuple(config.partition_columns)
        self._gate = Gate(
            config.schema_validation_mode,
            evolution=config.enable_schema_evolution,
            more_rules=self._more_rules(config.schema_validation_mode),
            rules=self._rules,
        )
        self._columns: pa.Schema | None = None
        self._know_columns(stats)
        self._watches = Watches(table_opener(self._engine, config, self._log_table), self._clock)
        self._maintainer = Maintainer(
            self._log_table,
            self._clock,
            evolution=config.enable_schema_evolution,
            sorting=config.auto_optimize_schema,
        )
        self._keeper = self._open_keeper()
        self._channel = self._open_channel()
        usage = self._channel.usage()
        self._budget_bytes = usage.budget_bytes
        self._max_bytes = usage.budget_bytes if usage.max_batch_bytes is None else usage.max_batch_bytes
        self._frames = Frames(config, self._log_table, self._clock, self._max_bytes)

    def _open_channel(self) -> Channel:
        """The way to the flow; the service's client has another one."""
        config, engine = self.config, self._engine
        channel = LocalChannel(
            flow_limits(config),
            self._log_table,
            self._quarantine_table,
            table_opener(engine, config, self._log_table),
            clock=self._clock,
        )
        # Threads hold the channel and not the writer: one that is forgotten takes them along.
        weakref.finalize(self, channel.let_go).atexit = False
        return channel

    def _open_keeper(self) -> Keeper | None:
        """What starts maintenance by itself; in the service that is not the clients' business."""
        return Keeper(self._log_table, self._log) if self.config.enable_optimization else None

    # ------------------------------------------------------------ writing

    def write_log_rows(
        self,
        log_rows: Any,
        run_id: str | None = None,
        *,
        sequence: int | None = None,
        idempotency_key: str | None = None,
    ) -> WriteResult:
        """Write rows as one batch and return when they are durable.

        Args:
            log_rows: mappings, `LogRecord`s, an Arrow table, record batches, a pandas or polars frame.
            run_id: for rows that have none.
            sequence: the batch's number, for callers that number their own.
            idempotency_key: commits this call at most once while the key is remembered.

        Raises:
            WriterValidationError: rows or arguments are refused.
            WriterSchemaError: rows do not fit the columns.
            WriterPerformanceError: larger than the memory budget, or waited too long for memory.
            WriterTableError: the table cannot be written.
        """
        return self._write(lambda: self._encode(log_rows, run_id), sequence, idempotency_key)

    def write_step_results(
        self,
        step_results: Any,
        execution_context: Any,
        run_id: str | None = None,
        *,
        sequence: int | None = None,
        idempotency_key: str | None = None,
    ) -> WriteResult:
        """Write one row for each step result, as one batch. See `write_log_rows`."""
        encode = self._encoder_of_steps(step_results, execution_context, run_id)
        return self._write(encode, sequence, idempotency_key)

    def write_execution_result(
        self,
        execution_result: Any,
        run_id: str | None = None,
        *,
        sequence: int | None = None,
        idempotency_key: str | None = None,
    ) -> WriteResult:
        """Write one row for each step of a run, or one for the run where it has none. See `write_log_rows`."""
        return self._write(self._encoder_of_run(execution_result, run_id), sequence, idempotency_key)

    def write_batches(
        self,
        batches: Iterable[Any],
        *,
        progress: Callable[[BatchesResult], None] | None = None,
        sequence: int | None = None,
        idempotency_key: str | None = None,
    ) -> BatchesResult:
        """Write an iterable of batches in bounded memory, many of them in flight.

        Args:
            batches: each element is one batch, of any kind that `write_log_rows` takes.
            progress: called with the result so far, after each batch that is settled, on this thread.
            sequence: number of the first batch; the others follow. Numbers that are committed are skipped.
            idempotency_key: numbers the batches 0, 1, 2, … under the key, so that the call can be repeated.

        Raises:
            WriterError: a batch was refused. Those before it are committed, none behind it is, and
                `context["batch_index"]` says which it was.
        """
        producer_id, number, checked, expires = self._identity(sequence, idempotency_key)
        series = Series()

        def send(rows: Any, index: int) -> Future[WriteResult]:
            place = None if number is None else number + index
            return self._submit(
                lambda: self._encode(rows, None),
                producer_id,
                place,
                checked=checked,
                expires=expires,
                patient=True,
                series=series,
                replaces=index == 0,
            )

        result = BulkWrite(send, lambda: self._channel.flush(0), progress, self._clock).run(batches)
        self._log.info(
            "{}: {} rows in {} batches written, {} batches were there already",
            self._log_table.spec.name, result["rows_written"], result["batches"], result["already_written"],
        )  # fmt: skip
        return result

    def write_execution_result_batch(
        self,
        execution_results: Iterable[Any],
        run_id: str | None = None,
        batch_size: int | None = None,
        *,
        sequence: int | None = None,
        idempotency_key: str | None = None,
    ) -> ExecutionBatchResult:
        """Write many runs, `batch_size` of them in one write; a bad one fails alone.

        Args:
            execution_results: runs, as `write_execution_result` takes them.
            run_id: for all of them; else each has its own, and those that have none share a new one.
            batch_size: runs in one write; None for the option of this name. With `write_mode` OVERWRITE all
                of them are one write, which replaces the table's rows.
            sequence: number of the first write; the others follow.
            idempotency_key: numbers the writes 0, 1, 2, … under the key, so that the call can be repeated.

        Raises:
            WriterError: `fail_fast` is on and a run was refused. Those before it are written (none with
                OVERWRITE), none behind it is, and `context["execution_index"]` says which it was.
        """
        size = _checked_batch_size(self.config.batch_size if batch_size is None else batch_size)
        producer_id, number, checked, expires = self._identity(sequence, idempotency_key)
        made_run_id = str(uuid.uuid4())
        series = Series() if self.config.fail_fast else None

        def send(gated: Gated, index: int) -> Future[WriteResult]:
            place = None if number is None else number + index
            return self._submit(
                lambda: gated, producer_id, place, checked=checked, expires=expires, patient=True, series=series
            )

        calls = ExecutionCalls(
            rows_of=lambda execution: execution_result_rows(execution, run_id),
            encode=lambda rows: self._encode(rows, run_id, made_run_id),
            send=send,
            hurry=lambda: self._channel.flush(0),
        )
        whole = self.config.write_mode is WriteMode.OVERWRITE
        batch = ExecutionBatch(calls, self._clock, size=None if whole else size, fail_fast=self.config.fail_fast)
        result = batch.run(execution_results)
        told = self._log.warning if result["failed_writes"] else self._log.info
        told(
            "{}: {} of {} executions written, {} rows",
            self._log_table.spec.name, result["successful_writes"], result["total_executions"], result["rows_written"],
        )  # fmt: skip
        return result

    def prepare(self, rows: Any) -> Gated:
        """Pass rows through the gate, for `submit`: threads may do so side by side.

        Raises:
            WriterError: they are refused.
        """
        self._check_process()
        return self._encode(rows, None)

    def submit(
        self,
        rows: Any,
        *,
        producer_id: str,
        sequence: int,
        patient: bool = True,
    ) -> Future[WriteResult]:
        """Give a numbered batch of any producer and do not wait for it: what bulk loads are made of.

        Blocks while there is no memory for it. Refusals come through the future.

        Args:
            rows: as `write_log_rows` takes them, or a future of what `prepare` makes of them.
            producer_id: whose.
            sequence: its number.
            patient: whether it waits for company, and for memory as long as it takes.

        Raises:
            WriterValidationError: `producer_id` or `sequence` is none.
        """
        check_producer_id(producer_id)
        return self._submit(
            rows.result if isinstance(rows, Future) else lambda: self._encode(rows, None),
            producer_id,
            identity_of(sequence, None, producer_id, expires=False).number,
            checked=True,
            expires=False,
            patient=patient,
        )

    def watermark(self, producer_id: str) -> int | None:
        """The highest committed number of any producer, read from the table."""
        self._check_process()
        check_producer_id(producer_id)
        return self._channel.committed(producer_id)

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until everything that was submitted is settled; False where `timeout` seconds were too few."""
        return self._channel.flush(timeout)

    @property
    def committed_sequence(self) -> int | None:
        """The highest committed number of this writer's producer, read from the table; None where it has none."""
        return self.watermark(self._producer_id)

    @property
    def producer_id(self) -> str:
        """The configured producer id, or the random one of this writer."""
        return self._producer_id

    # ------------------------------------------------------------ judging

    def replay_quarantine(
        self, repair: Callable[[dict[str, Any], list[str]], Any] | None = None, limit: int | None = None
    ) -> ReplayResult:
        """Send quarantined rows through the gate again, the oldest first; none is ever written twice.

        Rows are judged as `lenient` does. Those that stay invalid stay where they are.

        Args:
            repair: called with the row as it was given and the reasons; gives the row to write, or None to
                keep it in quarantine.
            limit: rows to send at most; None for all.

        Raises:
            WriterValidationError: `repair` or `limit` is none, or gave something that is no row.
        """
        if limit is not None:
            check_limit(limit)
        self._check_process()
        if repair is not None and not callable(repair):
            raise WriterValidationError(
                f"repair is a {type(repair).__name__}, expected a function of a row and its reasons",
                suggestions=["e.g. repair=lambda row, reasons: {**row, 'phase': 'bronze'}"],
            )
        gate = Gate(
            "lenient",
            evolution=self.config.enable_schema_evolution,
            extra_fields=self._columns,
            more_rules=self._more_rules("lenient"),
            rules=self._rules,
        )

        def encode(row: Any) -> Gated | None:
            gated = gate.admit([row], max_bytes=self._max_bytes)
            return None if gated.quarantined else self._addressed(gated)

        def send(gated: Gated, producer_id: str) -> Future[WriteResult]:
            return self._submit(
                lambda: gated, producer_id, 0, checked=False, expires=False, patient=True, replaces=False
            )

        replay = QuarantineReplay(
            self._quarantine_table,
            self._log_table,
            encode=encode,
            send=send,
            hurry=lambda: self._channel.flush(0),
            clock=self._clock,
        )
        return replay.run(repair, limit)

    # ------------------------------------------------------------ the end

    def close(self) -> None:
        """Settle what was submitted and let go of threads and handles. A second call does nothing."""
        if os.getpid() == self._process:
            self._channel.close()
            if self._keeper is not None:
                self._keeper.close()

    def __enter__(self) -> Self:
        """The writer itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def __reduce__(self) -> NoReturn:
        """Refused: threads and handles stay in the process that opened them."""
        raise TypeError(
            f"a {type(self).__name__} can be neither pickled nor copied; hand on its config, and open a writer from it"
        )

    def __repr__(self) -> str:
        """The table and the producer."""
        return f"{type(self).__name__}({self._log_table.spec.name!r}, producer_id={self._producer_id!r})"

    # ------------------------------------------------------------ the path of a call

    def _write(self, encode: Callable[[], Gated], sequence: int | None, idempotency_key: str | None) -> WriteResult:
        try:
            result = self._wait(self._send_off(encode, sequence, idempotency_key, waited=True))
        except WriterError as error:
            name = self._log_table.spec.name
            self._log.info("{}: a call failed: {}", name, error.message, table=name, error=type(error).__name__)
            raise
        if self._keeper is not None:
            self._keeper.written()
        told = self._log.warning if result["quarantined_rows"] else self._log.info
        told(
            "{}: {} rows written as version {} (batch {}), {} quarantined{}",
            result["table_fqn"] or ", ".join(result["tables"]),
            result["rows_written"], result["version"], result["batch_id"], result["quarantined_rows"],
            ", it was there already" if result["already_written"] else "",
            table=self._log_table.spec.name,
            **{name: result[name] for name in _LOGGED},  # type: ignore[literal-required]  # keys of the result
        )  # fmt: skip
        return result

    def _send_off(
        self,
        encode: Callable[[], Gated],
        sequence: int | None,
        idempotency_key: str | None,
        *,
        waited: bool = False,
    ) -> Call:
        producer_id, number, checked, expires = self._identity(sequence, idempotency_key)
        return self._submit(encode, producer_id, number, checked=checked, expires=expires, waited=waited)

    def _encoder_of_steps(self, step_results: Any, context: Any, run_id: str | None) -> Callable[[], Gated]:
        return lambda: self._encode(step_result_rows(step_results, context, run_id), run_id)

    def _encoder_of_run(self, execution_result: Any, run_id: str | None) -> Callable[[], Gated]:
        return lambda: self._encode(execution_result_rows(execution_result, run_id), run_id)

    def _wait(self, future: Call) -> WriteResult:
        """Wait for a result. An interrupt gives the call up, and waits until that is settled."""
        try:
            return future.result()
        except BaseException:
            if not future.done():
                if future.delivery is not None:
                    self._channel.withdraw(future.delivery)
                wait([future], INTERRUPT_GRACE_S)
            raise

    def _submit(
        self,
        encode: Callable[[], Gated],
        producer_id: str,
        number: int | None,
        *,
        checked: bool,
        expires: bool,
        patient: bool = False,
        series: Series | None = None,
        replaces: bool = True,
        waited: bool = False,
    ) -> Call:
        """Send one batch on its way. Everything that goes wrong comes through the future."""
        self._check_process()
        started = self._clock.monotonic()
        future = Call()
        future.set_running_or_notify_cancel()
        try:
            gated = encode()
            gate_secs = gated.secs - self._clock.monotonic()
            findings = self._findings_of(gated)
            gate_secs += self._clock.monotonic()
        except WriterError as error:
            self._metrics.failed(self._clock.monotonic() - started)
            future.set_exception(error)
            return future
        except BaseException:
            # Out of the caller's own iterator, or an interrupt.
            self._metrics.failed(self._clock.monotonic() - started)
            raise
        if not gated.given and number is None:
            future.set_result(self._result(gated, findings, None, started))
            return future
        # What was judged is all rows that were given: nobody is to keep those beside the batch's own.
        batch = gated.batch
        if findings.beside:
            batch = replace(batch, beside={**batch.beside, **findings.beside})
        gated = replace(gated, batch=batch, judged=Judged(batch.rows))
        delivery = Delivery(
            gated.batch,
            producer_id,
            number,
            uuid.uuid4().hex[:16],
            checked=checked,
            expires=expires,
            patient=patient,
            alone=series is None,
            wait_secs=None if patient else self.config.queue_timeout_secs,
            series=series,
            replaces=replaced_tables(self.config, gated.batch) if replaces else frozenset(),
            gate_secs=gate_secs,
            made=_made_files(gated),
            waited=waited,
        )
        try:
            inner = self._channel.submit(delivery)
        except BaseException:
            self._metrics.failed(self._clock.monotonic() - started)
            raise
        future.delivery = inner
        inner.add_done_callback(lambda done: self._settle(future, done, gated, findings, started))
        return future

    def _findings_of(self, gated: Gated) -> Findings:
        """What the configuration asks for about the rows; a refusal leaves no file of a frame behind."""
        known = gated.quality if isinstance(gated, FrameGated) else None
        try:
            findings = self._examiner.findings(gated.judged, gated.batch.run_id, known)
        except WriterError:
            if isinstance(gated, FrameGated):
                self._frames.discard(gated)
            raise
        if self.config.enable_anomaly_detection:
            findings = replace(findings, anomalies=self._anomalies_of(gated))
        return findings

    def _anomalies_of(self, gated: Gated) -> AnomalyResult | None:
        """What is unusual about the rows; None where that could not be found out, which fails no write."""
        tables = self._watched_rows(gated)
        if tables is None:
            self._log.warning(
                "{}: anomalies not looked for: the frame has more than {} rows", self._log_table.spec.name, MOST_WATCHED
            )
            return None
        try:
            return self._watches.check(tables)
        except WriterError as error:
            self._log.warning("{}: anomalies not looked for: {}", self._log_table.spec.name, error.message)
            return None

    def _watched_rows(self, gated: Gated) -> Mapping[str, pa.Table] | None:
        """The accepted rows as those see them who look for anomalies, by table; None where they are too many."""
        if isinstance(gated, FrameGated):
            return None if gated.watched is None else {self.config.table_fqn: gated.watched}
        return rows_by_table(self.config, gated.batch)

    def _settle(self, future: Call, done: Future[Receipt], gated: Gated, findings: Findings, started: float) -> None:
        # The two futures hold each other, and the rows: whoever keeps the result must not keep those.
        future.delivery = None
        error = done.exception()
        if error is None:
            tables = self._watched_rows(gated)
            if findings.anomalies is not None and tables is not None:
                self._watches.remember(tables)
            future.set_result(self._result(gated, findings, done.result(), started))
            return
        self._metrics.failed(self._clock.monotonic() - started)
        future.set_exception(error)

    def _result(self, gated: Gated, findings: Findings, receipt: Receipt | None, started: float) -> WriteResult:
        duration = self._clock.monotonic() - started
        already = receipt is not None and receipt.already
        batch = gated.batch
        rows = 0 if already else gated.accepted
        quarantined = 0 if already or batch.quarantined is None else batch.quarantined.num_rows
        self._metrics.succeeded(
            duration, rows=rows, quarantined=quarantined, valid=_valid_rows(gated), judged=gated.given
        )
        result: WriteResult = {
            "success": True,
            "rows_written": rows,
            "run_id": batch.run_id,
            "batch_id": None if receipt is None else str(receipt.token),
            "table_fqn": self._log_table.spec.name,
            "version": None if receipt is None else receipt.version,
            "duration_secs": duration,
            "quarantined_rows": quarantined,
            "quality_results": findings.quality,
            "anomalies": findings.anomalies,
            "already_written": already,
        }
        if self._router is not None:
            result.update(tables_of(self.config, batch, receipt))  # type: ignore[typeddict-item]  # some of its keys
        return result

    def _identity(self, sequence: int | None, idempotency_key: str | None) -> Identity:
        try:
            return identity_of(sequence, idempotency_key, self._producer_id, expires=self._expires)
        except WriterError:
            self._metrics.failed(0.0)
            raise


def _given_config(spark: Any, config: WriterConfig | None) -> WriterConfig:
    """The configuration of a call to the constructor, or what is wrong with the call."""
    if isinstance(spark, WriterConfig):
        raise WriterConfigurationError(
            "the first argument of LogWriter is a SparkSession, and a WriterConfig was given",
            suggestions=["write LogWriter(config=config)"],
        )
    if config is not None and not isinstance(config, WriterConfig):
        raise WriterConfigurationError(
            f"config is a {type(config).__name__}, expected a WriterConfig",
            suggestions=["write WriterConfig(table_schema=…, table_name=…)"],
        )
    config = config or WriterConfig()
    if spark is not None and config.is_given("engine") and config.engine != "spark":
        raise WriterConfigurationError(
            f"engine is {config.engine!r}, and a SparkSession was given",
            suggestions=["leave engine out: a session says it", "or leave the session out"],
        )
    return config


def _made_files(gated: Gated) -> MadeFiles | None:
    """Files that hold the accepted rows already."""
    if not isinstance(gated, FrameGated) or gated.staged is None:
        return None
    return MadeFiles(gated.staged, gated.staged_rows)


def own_engine(config: WriterConfig) -> Engine:
    """The engine of a writer that is given neither a session nor an engine."""
    # Imported here: deltalake takes as long to load as all the rest, and clients may never need it.
    if config.engine == "spark":
        from sfwriter.spark import session
        from sfwriter.storage.delta_spark import DeltaSparkEngine

        return DeltaSparkEngine(session(**config.spark_conf))
    from sfwriter.storage.delta_rs import DeltaRsEngine

    return DeltaRsEngine()


def _spark_engine(spark: Any, config: WriterConfig) -> Engine:
    from sfwriter.storage.delta_spark import DeltaSparkEngine

    return DeltaSparkEngine(spark, by_name=not config.is_given("warehouse"))


def _checked_batch_size(size: Any) -> int:
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise WriterValidationError(
            f"batch_size is {size!r}, expected a whole number from 1 on", suggestions=["e.g. batch_size=1000"]
        )
    return size


def _valid_rows(gated: Gated) -> int:
    """Rows that keep the built-in rules: those accepted, less those that `ignore` let pass all the same."""
    if isinstance(gated, FrameGated):
        return gated.valid
    return gated.accepted - len({breach.row for breach in gated.breaches})
