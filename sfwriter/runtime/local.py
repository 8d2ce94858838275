"""The flow in this process: threads that stage, one that commits, one that watches the clock.

Receives: deliveries, from any thread.
Produces: futures of receipts.
Guarantees: the machine is used by one thread at a time and never while anything blocks; a delivery's
    rows are held until it is settled, and no longer.
Never does: decide. What happens next is the machine's word.
"""

from __future__ import annotations

import itertools
import threading
import uuid
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

from sfwriter.clock import SystemClock
from sfwriter.flow.machine import Machine
from sfwriter.flow.vocabulary import (
    Acknowledged,
    Answer,
    Closed,
    Commit,
    Discard,
    Fault,
    Flushed,
    Part,
    ReadWatermarks,
    Reason,
    Stage,
    Staged,
    StagingFailed,
    Submitted,
    Ticked,
    Withdrawn,
)
from sfwriter.runtime.channel import Receipt, Usage
from sfwriter.runtime.refusals import refusal_error
from sfwriter.runtime.tables import TRIED_AGAIN, TableCalls, fault_of
from sfwriter.storage.engine import BatchToStage

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sfwriter.batch import Token
    from sfwriter.clock import Clock
    from sfwriter.flow.limits import FlowLimits
    from sfwriter.flow.vocabulary import Command, Event, Refused
    from sfwriter.runtime.channel import Delivery
    from sfwriter.storage.engine import Table

STAGING_FACTOR = 2
"""Memory of a batch in flight over its Arrow bytes: the rows themselves, and what Parquet's writer holds of them."""

SMALL_BATCH_BYTES = 4096
"""What a batch costs at the least: Python objects, futures and one table's Arrow headers."""


def cost_of(nbytes: int) -> int:
    """Bytes that a batch of so many Arrow bytes reserves."""
    return STAGING_FACTOR * nbytes + SMALL_BATCH_BYTES


class _Held:
    """A delivery that is not settled."""

    __slots__ = ("delivery", "future", "given")

    def __init__(self, delivery: Delivery, given: Submitted, future: Future[Receipt]) -> None:
        self.delivery = delivery
        self.given = given
        self.future = future


class LocalChannel:
    """A `Channel` whose machine, staging and commits are in this process."""

    def __init__(
        self,
        limits: FlowLimits,
        log_table: Table,
        quarantine_table: Table,
        *,
        clock: Clock | None = None,
    ) -> None:
        """Begin without threads; they come with the first delivery.

        Args:
            limits: of the machine.
            log_table: answers for producers.
            quarantine_table: takes the rows that the gate set aside.
            clock: for lingering, delays and deadlines.
        """
        self._limits = limits
        self._clock: Clock = clock or SystemClock()
        self._machine = Machine(limits, name=f"{uuid.uuid4().hex[:12]}-", seed=uuid.uuid4().int)
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._alarm = threading.Condition(self._lock)
        self._held: dict[int, _Held] = {}
        self._tickets: dict[Future[Receipt], int] = {}
        self._count = itertools.count()
        self._log_table, self._quarantine_table = log_table.spec.name, quarantine_table.spec.name
        self._tables = {table.spec.name: TableCalls(table) for table in (log_table, quarantine_table)}
        self._stagers: ThreadPoolExecutor | None = None
        self._committer = ThreadPoolExecutor(1, thread_name_prefix="sfwriter-commit")
        self._watch: threading.Thread | None = None
        self._wake_at: float | None = None
        self._asleep_until: float | None = None
        self._closed = False
        self._peak = 0
        self._retries = 0

    # ------------------------------------------------------------ the channel's calls

    def submit(self, delivery: Delivery) -> Future[Receipt]:
        """Take a delivery over; a patient one only when there is memory for it (see `Channel.submit`)."""
        future: Future[Receipt] = Future()
        future.set_running_or_notify_cancel()  # a delivery is given up by `withdraw`, which asks the machine
        ticket = self._submit(delivery, future)
        if delivery.patient:
            with self._changed:
                self._changed.wait_for(lambda: not self._machine.is_waiting(ticket))
        return future

    def withdraw(self, future: Future[Receipt]) -> None:
        """Ask the machine to drop the delivery of this future."""
        with self._lock:
            ticket = self._tickets.get(future)
        if ticket is not None:
            self._feed(Withdrawn(ticket))

    def committed(self, producer_id: str) -> int | None:
        """Read the log table afresh, in the committer's turn."""
        table = self._tables[self._log_table].table
        marks = self._committer.submit(table.last_sequence, [producer_id]).result()
        return marks[producer_id].sequence

    def flush(self, timeout: float | None = None) -> bool:
        """Stage what is collected, and wait until nothing is unsettled."""
        self._feed(Flushed())
        with self._changed:
            return self._changed.wait_for(lambda: not self._held, timeout)

    def usage(self) -> Usage:
        """What is held now."""
        with self._lock:
            budget = self._machine.budget
            return Usage(budget.used, self._peak, budget.total, self._retries)

    def close(self) -> None:
        """Settle everything, end the threads."""
        with self._lock:
            if self._closed:
                return
        self._feed(Closed())
        with self._changed:
            self._changed.wait_for(lambda: not self._held)
            self._closed = True
            self._alarm.notify_all()
        if self._stagers is not None:
            self._stagers.shutdown()
        self._committer.shutdown()
        if self._watch is not None:
            self._watch.join()

    # ------------------------------------------------------------ the machine

    def _submit(self, delivery: Delivery, future: Future[Receipt]) -> int:
        ticket = next(self._count)
        batch = delivery.batch
        parts = [Part(self._log_table, batch.rows.num_rows, batch.rows.nbytes)]
        if batch.quarantined is not None:
            parts.insert(0, Part(self._quarantine_table, batch.quarantined.num_rows, batch.quarantined.nbytes))
        given = Submitted(
            ticket,
            delivery.producer_id,
            delivery.sequence,
            batch.digest,
            delivery.stamp,
            tuple(parts),
            cost_of(batch.nbytes),
            assigned=delivery.sequence is None,
            checked=delivery.checked,
            expires=delivery.expires,
            patient=delivery.patient,
            wait_until=None if delivery.wait_secs is None else self._clock.monotonic() + delivery.wait_secs,
        )
        with self._lock:
            self._held[ticket] = _Held(delivery, given, future)
            self._tickets[future] = ticket
        self._feed(given)
        return ticket

    def _feed(self, event: Event) -> None:
        """Give the machine an event and carry out what it says."""
        settled: list[tuple[_Held, Acknowledged | Refused]] = []
        with self._lock:
            self._retries += isinstance(event, TRIED_AGAIN)
            commands = self._machine.handle(event, self._clock.monotonic())
            self._peak = max(self._peak, self._machine.budget.used)
            for command in commands:
                if isinstance(command, Answer):
                    held = self._held.pop(command.ticket)
                    self._tickets.pop(held.future, None)
                    settled.append((held, command.answer))
            self._set_alarm()
            self._changed.notify_all()
        for command in commands:
            if not isinstance(command, Answer):
                self._carry_out(command)
        for held, answer in settled:
            self._settle(held, answer)

    def _carry_out(self, command: Command) -> None:
        if isinstance(command, Stage):
            if self._stagers is None:
                self._stagers = ThreadPoolExecutor(self._limits.stage_slots, thread_name_prefix="sfwriter-stage")
            self._stagers.submit(self._stage, command)
        elif isinstance(command, Commit):
            self._committer.submit(lambda: self._feed(self._tables[command.table].commit(command.group)))
        elif isinstance(command, ReadWatermarks):
            self._committer.submit(lambda: self._feed(self._tables[command.table].read(command.producers)))
        elif isinstance(command, Discard):
            self._committer.submit(self._tables[command.table].discard, command.staged)

    def _stage(self, command: Stage) -> None:
        rows = self._rows(command.table, command.batches)
        if not rows:
            self._feed(
                StagingFailed(command.job, Fault(RuntimeError("every batch of the job was given up"), retriable=True))
            )
            return
        try:
            staged = self._tables[command.table].table.stage(rows)
        except Exception as error:  # noqa: BLE001  every fault is the machine's to judge
            self._feed(StagingFailed(command.job, fault_of(error)))
        else:
            self._feed(Staged(command.job, staged))

    def _rows(self, table: str, batches: Iterable[tuple[int, Token]]) -> list[BatchToStage]:
        rows: list[BatchToStage] = []
        with self._lock:
            for ticket, token in batches:
                held = self._held.get(ticket)
                if held is None:
                    continue  # refused since: the machine will ask for the job anew
                batch = held.delivery.batch
                part = batch.quarantined if table == self._quarantine_table else batch.rows
                if part is not None:
                    rows.append(BatchToStage(token, part))
        return rows

    def _settle(self, held: _Held, answer: Acknowledged | Refused) -> None:
        if isinstance(answer, Acknowledged):
            held.future.set_result(Receipt(answer.token, answer.version, answer.already))
        elif answer.reason is Reason.PREDECESSOR and held.delivery.alone and held.delivery.sequence is None:
            self._submit(replace(held.delivery), held.future)
        else:
            held.future.set_exception(refusal_error(answer, held.given, self._limits.budget_bytes))

    # ------------------------------------------------------------ the clock

    def _set_alarm(self) -> None:
        """Have the watching thread wake when the machine wants a tick. The lock is held."""
        self._wake_at = self._machine.wake_at()
        if self._wake_at is not None and self._watch is None and not self._closed:
            # A daemon: it must not keep a process alive that has nothing else to do.
            self._watch = threading.Thread(target=self._keep_watch, name="sfwriter-clock", daemon=True)
            self._watch.start()
        elif self._wake_at is not None and (self._asleep_until is None or self._wake_at < self._asleep_until):
            self._alarm.notify()

    def _keep_watch(self) -> None:
        while True:
            with self._alarm:
                if self._closed:
                    return
                wait = None if self._wake_at is None else self._wake_at - self._clock.monotonic()
                if wait is None or wait > 0:
                    self._asleep_until = self._wake_at
                    self._alarm.wait(wait)
                    continue
            self._feed(Ticked())
