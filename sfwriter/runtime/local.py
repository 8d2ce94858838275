"""The flow in this process: one thread that runs the machine, some that stage, one that commits.

Receives: deliveries, from any thread.
Produces: futures of receipts.
Guarantees: only one thread ever touches the machine, and it never blocks; a delivery's rows are held
    until it is settled, and no longer. Callers only put events into a queue, so an interrupt in the
    middle of a call leaves nothing half done.
Never does: decide. What happens next is the machine's word.
"""

from __future__ import annotations

import atexit
import itertools
import logging
import os
import threading
import uuid
import weakref
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Union

from sfwriter.clock import SystemClock
from sfwriter.exceptions import WriterTableError
from sfwriter.flow.machine import Machine
from sfwriter.flow.vocabulary import (
    Acknowledged,
    Answer,
    Closed,
    Commit,
    Discard,
    Event,
    Fault,
    Flushed,
    Part,
    ReadWatermarks,
    Reason,
    Refused,
    Stage,
    Staged,
    StagingFailed,
    Submitted,
    Ticked,
    Withdrawn,
)
from sfwriter.runtime.channel import EXIT_GRACE_S, Receipt, Usage
from sfwriter.runtime.refusals import refusal_error
from sfwriter.runtime.tables import TRIED_AGAIN, OpenTables, fault_of
from sfwriter.runtime.threads import Workers
from sfwriter.storage.engine import BatchToStage
from sfwriter.storage.staging import merged_batches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sfwriter.batch import Token
    from sfwriter.clock import Clock
    from sfwriter.flow.limits import FlowLimits
    from sfwriter.flow.vocabulary import Command
    from sfwriter.runtime.channel import Delivery
    from sfwriter.storage.engine import StagedBatch, Table

log = logging.getLogger(__name__)

STAGING_FACTOR = 2
"""Memory of a batch in flight over its Arrow bytes: the rows themselves, and what Parquet's writer holds of them."""

SMALL_BATCH_BYTES = 4096
"""What a batch costs at the least: Python objects, futures and one table's Arrow headers."""


def cost_of(nbytes: int) -> int:
    """Bytes that a batch of so many Arrow bytes reserves."""
    return STAGING_FACTOR * nbytes + SMALL_BATCH_BYTES


def room_of(budget_bytes: int) -> int:
    """Arrow bytes of the largest batch that a budget has room for."""
    return max(0, budget_bytes - SMALL_BATCH_BYTES) // STAGING_FACTOR


@dataclass(slots=True, eq=False)
class _Held:
    """A delivery that is not settled; `let_in` is for a caller who waits until there is memory for it."""

    delivery: Delivery
    future: Future[Receipt]
    given: Submitted
    let_in: threading.Event | None = None


@dataclass(frozen=True, slots=True)
class _GivenUp:
    """The caller of this future no longer wants its rows written."""

    future: Future[Receipt]


@dataclass(slots=True)
class _Books:
    """What is held, by ticket. For the thread that runs the machine."""

    held: dict[int, _Held] = field(default_factory=dict)
    tickets: dict[Future[Receipt], int] = field(default_factory=dict)
    waiting: dict[int, threading.Event] = field(default_factory=dict)


_Message = Union[Event, _Held, _GivenUp, None]
"""What the queue holds; None ends the thread."""


class LocalChannel:
    """A `Channel` whose machine, staging and commits are in this process."""

    def __init__(
        self,
        limits: FlowLimits,
        log_table: Table,
        quarantine_table: Table,
        open_table: Callable[[str], Table],
        *,
        clock: Clock | None = None,
    ) -> None:
        """Begin without threads; they come with the first delivery.

        Args:
            limits: of the machine.
            log_table: answers for producers.
            quarantine_table: takes the rows that the gate set aside.
            open_table: opens the other tables that batches have rows for, by name.
            clock: for lingering, delays and deadlines.
        """
        self._limits = limits
        self._clock: Clock = clock or SystemClock()
        self._machine = Machine(limits, name=f"{uuid.uuid4().hex[:12]}-", seed=uuid.uuid4().int)
        self._log_table, self._quarantine_table = log_table.spec.name, quarantine_table.spec.name
        self._tables = OpenTables((log_table, quarantine_table), open_table)
        self._queue: SimpleQueue[_Message] = SimpleQueue()
        self._books = _Books()
        self._again: deque[_Held] = deque()
        self._count = itertools.count()
        self._driver: threading.Thread | None = None
        self._stagers = Workers(limits.stage_slots, "sfwriter-stage")
        self._committer = Workers(1, "sfwriter-commit")
        self._changed = threading.Condition()
        self._unsettled = 0
        self._closed = False
        self._process = os.getpid()
        self._usage = Usage(0, 0, limits.budget_bytes, 0, room_of(limits.budget_bytes))
        _OPEN.add(self)

    # ------------------------------------------------------------ the channel's calls

    def submit(self, delivery: Delivery) -> Future[Receipt]:
        """Take a delivery over; a patient one only when there is memory for it (see `Channel.submit`)."""
        future: Future[Receipt] = Future()
        future.set_running_or_notify_cancel()  # a delivery is given up by `withdraw`, which asks the machine
        try:
            held = _Held(delivery, future, self._given(delivery), threading.Event() if delivery.patient else None)
            self._give(held)
            if held.let_in is not None:
                held.let_in.wait()
        except BaseException:
            self.withdraw(future)
            raise
        return future

    def withdraw(self, future: Future[Receipt]) -> None:
        """Ask the machine to drop the delivery of this future."""
        self._queue.put(_GivenUp(future))

    def committed(self, producer_id: str) -> int | None:
        """Read the log table afresh."""
        return self._tables.of(self._log_table).table.last_sequence([producer_id])[producer_id].sequence

    def flush(self, timeout: float | None = None) -> bool:
        """Stage what is collected, and wait until nothing is unsettled."""
        self._queue.put(Flushed())
        with self._changed:
            return self._changed.wait_for(lambda: not self._unsettled, timeout)

    def tick(self) -> None:
        """Look at the clock now: for clocks that do not run by themselves."""
        self._queue.put(Ticked())

    def usage(self) -> Usage:
        """What is held now."""
        return self._usage

    def close(self) -> None:
        """Settle everything, end the threads."""
        self._queue.put(Closed())
        with self._changed:
            self._changed.wait_for(lambda: not self._unsettled or self._closed)
        self.let_go()
        if self._driver is not None:
            self._driver.join()
        self._stagers.join()
        self._committer.join()

    def let_go(self) -> None:
        """Take nothing more and let the threads end by themselves. What is not settled is not waited for."""
        if os.getpid() != self._process:
            return  # a fork has none of the threads
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._queue.put(None)
            self._changed.notify_all()
        _OPEN.discard(self)

    def finish(self, timeout: float) -> None:
        """As the process ends: settle what can be settled in time, and leave no thread in foreign code."""
        self.flush(timeout)
        self.let_go()
        for threads in (self._stagers, self._committer):
            threads.join(timeout)

    # ------------------------------------------------------------ towards the machine

    def _given(self, delivery: Delivery) -> Submitted:
        batch = delivery.batch
        tables = batch.by_table(self._log_table, self._quarantine_table)
        parts = [
            Part(name, rows.num_rows, batch.nbytes if len(tables) == 1 else rows.nbytes, name in delivery.replaces)
            for name, rows in tables.items()
        ]
        if delivery.made is not None:
            parts[-1] = replace(parts[-1], rows=delivery.made.rows)
        return Submitted(
            -1,  # the machine's thread numbers it
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

    def _give(self, held: _Held) -> None:
        with self._changed:
            if not self._closed:
                self._unsettled += 1
                self._queue.put(held)
                if self._driver is None:
                    self._driver = threading.Thread(target=self._drive, name="sfwriter-flow", daemon=True)
                    self._driver.start()
                return
        self._refuse(held, Refused(Reason.CLOSED, held.delivery.sequence))

    # ------------------------------------------------------------ the thread that runs the machine

    def _drive(self) -> None:
        try:
            while (message := self._next()) is not None:
                if isinstance(message, _Held):
                    self._arrived(message)
                elif isinstance(message, _GivenUp):
                    ticket = self._books.tickets.get(message.future)
                    if ticket is not None:
                        self._feed(Withdrawn(ticket))
                else:
                    self._feed(message)
                while self._again:
                    self._arrived(self._again.popleft())
                del message
        except Exception as error:
            log.exception("the flow of %s broke down", self._log_table)
            self._break_down(error)
        finally:
            self._stagers.end()
            self._committer.end()

    def _next(self) -> _Message:
        """The next message, or a tick when the machine wants one."""
        wake_at = self._machine.wake_at()
        wait = None if wake_at is None else wake_at - self._clock.monotonic()
        try:
            # What is there already comes first: a tick that is late by one message does no harm.
            return self._queue.get(timeout=wait) if wait is None or wait > 0 else self._queue.get_nowait()
        except Empty:
            return Ticked()

    def _arrived(self, held: _Held) -> None:
        series = held.delivery.series
        if series is not None and series.broken:
            self._settled(held, Refused(Reason.PREDECESSOR, held.delivery.sequence, series.broken_at))
            return
        ticket = next(self._count)
        held.given = replace(held.given, ticket=ticket)
        self._books.held[ticket] = held
        self._books.tickets[held.future] = ticket
        if held.let_in is not None:
            self._books.waiting[ticket] = held.let_in
        self._feed(held.given)

    def _feed(self, event: Event) -> None:
        """Give the machine an event and carry out what it says."""
        commands = self._machine.handle(event, self._clock.monotonic())
        used = self._machine.budget.used
        given_up = any(isinstance(command, Answer) and isinstance(command.answer, Refused) for command in commands)
        self._usage = replace(
            self._usage,
            in_flight_bytes=used,
            peak_bytes=max(self._usage.peak_bytes, used),
            retries=self._usage.retries + (isinstance(event, TRIED_AGAIN) and not given_up),
        )
        for command in commands:
            self._carry_out(command)
        for ticket in [ticket for ticket in self._books.waiting if not self._machine.is_waiting(ticket)]:
            self._books.waiting.pop(ticket).set()

    def _carry_out(self, command: Command) -> None:
        if isinstance(command, Answer):
            held = self._books.held.pop(command.ticket)
            self._books.tickets.pop(held.future, None)
            self._settled(held, command.answer)
        elif isinstance(command, Stage):
            job, rows, made = command, self._rows(command.table, command.batches), self._made(command)
            self._stagers.run(lambda: self._queue.put(self._stage(job, rows, made)))
        elif isinstance(command, Commit):
            calls, group = self._tables.of(command.table), command.group
            self._committer.run(lambda: self._queue.put(calls.commit(group)))
        elif isinstance(command, ReadWatermarks):
            calls, producers = self._tables.of(command.table), command.producers
            self._committer.run(lambda: self._queue.put(calls.read(producers)))
        elif isinstance(command, Discard):
            self._discard(command.table, command.staged)

    def _rows(self, table: str, batches: Iterable[tuple[int, Token]]) -> list[BatchToStage]:
        rows: list[BatchToStage] = []
        for ticket, token in batches:
            held = self._books.held.get(ticket)
            if held is None:
                continue  # refused since: the machine will ask for the job anew
            batch = held.delivery.batch
            found = batch.by_table(self._log_table, self._quarantine_table)[table]
            if found.num_rows:
                rows.append(BatchToStage(token, found))
        return rows

    def _made(self, command: Stage) -> list[StagedBatch]:
        """Files of the job's batches that were staged before they were given."""
        if command.table != self._log_table:
            return []
        held = [self._books.held.get(ticket) for ticket, _ in command.batches]
        made = [one.delivery.made for one in held if one is not None and one.delivery.made is not None]
        for one in made:
            one.handed = True
        return [one.staged for one in made]

    def _discard(self, table: str, staged: StagedBatch) -> None:
        """Delete files that the machine gave up, but for those that it could not have made anew."""
        kept = {
            file.path
            for held in self._books.held.values()
            if held.delivery.made is not None
            for file in held.delivery.made.staged.files
        }
        files = tuple(file for file in staged.files if file.path not in kept)
        calls, left = self._tables.of(table), replace(staged, files=files)
        if files:
            self._committer.run(lambda: calls.discard(left))

    def _settled(self, held: _Held, answer: Acknowledged | Refused) -> None:
        delivery = held.delivery
        unused = isinstance(answer, Refused) or answer.already
        if isinstance(answer, Refused):
            if answer.reason is Reason.PREDECESSOR and delivery.alone and delivery.sequence is None:
                # Nobody asked for an order: it takes the number that came free.
                held.given = self._given(delivery)
                self._again.append(held)
                return
            if delivery.series is not None and not delivery.series.broken:
                delivery.series.broken, delivery.series.broken_at = True, answer.sequence
            self._refuse(held, answer)
        else:
            held.future.set_result(Receipt(answer.token, answer.version, answer.already, answer.beside))
        if unused and delivery.made is not None and not delivery.made.handed:
            self._discard(self._log_table, delivery.made.staged)
        if held.let_in is not None:
            held.let_in.set()
        with self._changed:
            self._unsettled -= 1
            self._changed.notify_all()

    def _refuse(self, held: _Held, answer: Refused) -> None:
        held.future.set_exception(refusal_error(answer, held.given, self._limits.budget_bytes))
        if held.let_in is not None:
            held.let_in.set()

    def _break_down(self, cause: Exception) -> None:
        """Answer everybody: a defect in here must not leave callers waiting for ever."""
        self.let_go()
        messages = [*self._books.held.values()]
        while not self._queue.empty():
            message = self._queue.get()
            messages += [message] if isinstance(message, _Held) else []
        for held in messages:
            error = WriterTableError(
                f"the writer of {self._log_table} broke down; whether this call was written is not known: {cause!r}",
                outcome_unknown=True,
                suggestions=[
                    "open a new writer with the same producer_id; committed_sequence tells what was written",
                    "report this with the log: it is a defect of sfwriter",
                ],
            )
            error.__cause__ = cause
            if not held.future.done():
                held.future.set_exception(error)
            if held.let_in is not None:
                held.let_in.set()
        with self._changed:
            self._unsettled = 0
            self._changed.notify_all()

    # ------------------------------------------------------------ on other threads

    def _stage(self, command: Stage, rows: list[BatchToStage], made: list[StagedBatch]) -> Event:
        if not rows and not made:
            return StagingFailed(
                command.job, Fault(RuntimeError("every batch of the job was given up"), retriable=True)
            )
        try:
            staged = [self._tables.of(command.table).table.stage(rows)] if rows else []
            return Staged(command.job, merged_batches([*staged, *made]))
        except Exception as error:  # noqa: BLE001  every fault is the machine's to judge
            return StagingFailed(command.job, fault_of(error))


# ---------------------------------------------------------------- the end of the process

_OPEN: weakref.WeakSet[LocalChannel] = weakref.WeakSet()


def _finish_all() -> None:
    for channel in list(_OPEN):
        channel.finish(EXIT_GRACE_S)


atexit.register(_finish_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_OPEN.clear)
