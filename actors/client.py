"""The client: every method of `LogWriter`, with the flow at the other end of a remote call.

Receives: rows, from any thread of a driver, task or actor.
Produces: the same result dicts, and futures of them.
Guarantees: a batch is kept until it is settled, and sent again whenever its answer is lost; bytes that
    are not settled stay within the window that the coordinator grants.
Never does: commit, stage, or trust that "sent" means anything.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import threading
import weakref
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any

from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError

from actors.calls import actor_of, answer_of, calling, check_ray
from actors.connection import ConnectionLostError
from actors.courier import COURIER
from actors.options import (
    CALL_TIMEOUT_S,
    INLINE_BYTES,
    PARCEL_BATCHES,
    PARCEL_BYTES,
    PARCEL_LINGER_S,
    PARCELS_IN_FLIGHT,
)
from actors.parcels import Load, packed
from actors.spark_table import engine_of
from actors.window import Window
from actors.wire import Ack, cause_of
from sfwriter.batch import Token
from sfwriter.clock import SystemClock
from sfwriter.exceptions import WriterError, WriterPerformanceError, WriterTableError
from sfwriter.flow.vocabulary import Reason
from sfwriter.runtime.channel import EXIT_GRACE_S, Receipt, Usage
from sfwriter.writer import Call, LogWriter

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.frames import Offer
    from actors.window import Outbound
    from sfwriter.config import WriterConfig
    from sfwriter.runtime.channel import Channel, Delivery

log = logging.getLogger("sfwriter.client")

RESEND_AFTER_S = 0.2
"""A restarting coordinator answers nothing for one to two seconds."""


ACKS_KEPT = 4096
"""Latencies that wait for the next parcel: what comes beyond is not counted."""

ACKS_AFTER_S = 1.0
"""A client that has nothing to send for so long tells its latencies without a parcel."""

RECEIPT_LENGTH = 5
"""Fields of a receipt in the coordinator's answer; a refusal has three."""


class RemoteChannel:
    """A `Channel` to a service. One thread sends what the process's courier does not take along."""

    def __init__(
        self,
        service: str,
        coordinator: Any,
        config: WriterConfig,
        identity: str,
        window_bytes: int,
        *,
        on_full: str,
        offer: Offer | None = None,
    ) -> None:
        """Begin without a thread; it comes with the first delivery.

        Args:
            service: its name.
            coordinator: handle of its coordinator.
            config: what the client runs with.
            identity: of this client, as the coordinator knows it.
            window_bytes: Arrow bytes that may be unsettled.
            on_full: `block` or `raise`.
            offer: where the coordinator listens, if it does.
        """
        self.service = service
        self.coordinator = coordinator
        self.offer = offer
        self.identity = identity
        self._sender = config.producer_id
        self._acks: list[Ack] = []
        self.quarantine_table = f"{config.table_schema}.{config.quarantine_table_name}"
        self._linger_s = min(PARCEL_LINGER_S, config.linger_ms / 1000)
        self._window_bytes = window_bytes
        self._on_full = on_full
        self._clock = SystemClock()
        self._window = Window()
        self._outbounds: dict[Future[Receipt], Outbound] = {}
        self._flying: dict[int, list[Outbound]] = {}
        self._inbox: list[tuple[int, Any, BaseException | None]] = []
        self._parcels = 0
        self._hurried = False
        self._must_hurry = False
        self._resend_at = 0.0
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._peak = 0
        self._retries = 0
        self._along = False
        self._went = False
        self._asleep = False
        self._waiters = 0
        _OPEN.add(self)

    # ------------------------------------------------------------ the channel's calls

    def submit(self, delivery: Delivery) -> Future[Receipt]:
        """Take a delivery over, when the window has room for it.

        Raises:
            WriterPerformanceError: the window was full, and stayed so for as long as the caller allowed.
            WriterError: the client is closed, or its Ray is gone; nothing of the call is written.
        """
        check_ray(self.service, "; nothing of the call is written")
        future: Future[Receipt] = Future()
        future.set_running_or_notify_cancel()
        nbytes = delivery.batch.nbytes
        with self._changed:
            roomy = self._closed or self._has_room(nbytes)
            if not roomy and self._on_full != "raise":
                roomy = self._wait_until(lambda: self._closed or self._has_room(nbytes), delivery.wait_secs)
            if self._closed:
                raise WriterError("the client is closed; nothing of the call is written", suggestions=["connect again"])
            if not roomy:
                raise self._full(nbytes)
            # A random id is this client's own: nobody can have committed under it.
            outbound = self._window.add(delivery, future, self._clock.monotonic(), fresh=delivery.expires)
            self._outbounds[future] = outbound
            self._peak = max(self._peak, self._window.held_bytes)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=f"sfwriter-{self.service}", daemon=True)
                self._thread.start()
            self._hurried = self._hurried and delivery.patient
            if self._flying or delivery.patient or nbytes > INLINE_BYTES:
                self._changed.notify_all()
            else:
                # Not told each time: it would wake, find nothing to do, and hold up those that have.
                self._went = True
                if self._asleep:
                    self._changed.notify_all()
                COURIER.call(self)
        return future

    def withdraw(self, future: Future[Receipt]) -> None:
        """Take back what was not sent yet."""
        with self._changed:
            outbound = self._outbounds.get(future)
            if outbound is None or not self._window.withdraw(outbound):
                return
            del self._outbounds[future]
            self._changed.notify_all()
        future.set_exception(
            WriterError("the call was given up by its caller; nothing of it is written", suggestions=["call again"])
        )

    def committed(self, producer_id: str) -> int | None:
        """Ask the coordinator, which reads the table; waits out its restarts."""
        number: int | None = self._ask("watermark", producer_id)
        return number

    def flush(self, timeout: float | None = None) -> bool:
        """Send what is queued, have it staged at once, and wait until all is settled."""
        with self._changed:
            self._hurried = True
            self._must_hurry = self._window.queued_bytes > 0
            self._changed.notify_all()
        self._hurry()
        with self._changed:
            if timeout == 0:
                return not self._window.held
            # What is sent while this waits lingers at the coordinator again, so it is asked again.
            deadline = None if timeout is None else self._clock.monotonic() + timeout
            while self._window.held:
                left = None if deadline is None else deadline - self._clock.monotonic()
                if left is not None and left <= 0:
                    return False
                if not self._wait_until(lambda: not self._window.held, 0.2 if left is None else min(left, 0.2)):
                    self._hurry()
            return True

    def _wait_until(self, met: Callable[[], bool], timeout: float | None) -> bool:
        """Wait, with the lock, for something that an answer brings."""
        self._waiters += 1
        try:
            return self._changed.wait_for(met, timeout)
        finally:
            self._waiters -= 1

    def _hurry(self) -> None:
        """Have all that was sent staged at once. The call may overtake parcels on the way, so it says how many."""
        self._tell("hurry", self._sender, self._parcels)

    def uncommitted(self) -> list[dict[str, Any]]:
        """What is not settled: see `LogClient.uncommitted`."""
        with self._changed:
            return [
                {
                    "producer_id": outbound.delivery.producer_id,
                    "sequence": outbound.number,
                    "rows": int(outbound.delivery.batch.rows.num_rows),
                    "sent": outbound.number is not None and outbound.line.sent.get(outbound.number) is outbound,
                }
                for outbound in self._window.unsettled()
            ]

    def usage(self) -> Usage:
        """What this client holds, against its window."""
        with self._changed:
            return Usage(self._window.held_bytes, self._peak, self._window_bytes, self._retries)

    def close(self, timeout: float | None = None) -> None:
        """Settle everything, then leave.

        Raises:
            WriterPerformanceError: `timeout` seconds were too few; nothing is given up.
        """
        with self._changed:
            if self._closed:
                return
        if not self.flush(timeout):
            left = self.uncommitted()
            raise WriterPerformanceError(
                f"{len(left)} batches were not settled within {timeout:g} s; the client stays open and goes on",
                context={"uncommitted": left},
                suggestions=["call close() again, or keep what `context['uncommitted']` names and send it again later"],
                retriable=True,
            )
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
        self._tell("leave", self._taken_acks())

    def finish(self, timeout: float) -> None:
        """As the process ends: settle what can be settled in time, and say what is left."""
        if self._window.held and not self.flush(timeout):
            log.warning(
                "the process ends with %d batches to service %s that are not settled; close() waits for them",
                self._window.held,
                self.service,
            )

    # ------------------------------------------------------------ the sending thread

    def _run(self) -> None:
        while True:
            with self._changed:
                wait = self._wait_for()
                if wait is None or wait > 0:
                    if self._closed and not self._window.held:
                        return
                    self._pause(wait)
                inbox, self._inbox = self._inbox, []
            for parcel, answer, error in inbox:
                self._arrived(parcel, answer, error)
            try:
                if self._window.held:
                    check_ray(self.service)  # which answers nothing any more where it was shut down
                self._send_ready()
            except WriterError as error:
                self._fail_all(error)
            except Exception as error:
                log.exception("the client of service %s cannot go on", self.service)
                self._fail_all(error)

    def _pause(self, wait: float | None) -> None:
        """Sleep until something changes or `wait` is over; where nothing happens, tell the latencies."""
        lively = wait is None and (self._went or self._acks or self._flying)
        self._asleep = wait is None and not lively
        self._went = False
        woken = self._changed.wait(ACKS_AFTER_S if lively else wait)
        self._asleep = False
        if lively and not (woken or self._went or self._flying or self._closed) and self._acks:
            self._tell("tell", self._taken_acks())

    def _wait_for(self) -> float | None:
        """Seconds until there is something to do: 0 now, None not before something changes."""
        if self._inbox:
            return 0.0
        if self._along:
            return None  # what comes behind a parcel must not overtake it
        oldest = self._window.oldest()
        # A full parcel always goes: the coordinator needs a file's worth at once, and the window bounds the bytes.
        full = self._window.queued_bytes >= PARCEL_BYTES
        if oldest is None or (len(self._flying) >= PARCELS_IN_FLIGHT and not full):
            return None
        now = self._clock.monotonic()
        if now < self._resend_at:
            return self._resend_at - now
        if self._hurried or not self._flying or self._window.queued_bytes >= INLINE_BYTES:
            return 0.0
        return max(0.0, oldest + self._linger_s - now)

    def _send_ready(self) -> None:
        while True:
            with self._changed:
                producer = self._window.must_ask()
            if producer is not None:
                committed = self._ask("watermark", producer)
                with self._changed:
                    self._window.know(producer, committed)
                continue
            with self._changed:
                wait = self._wait_for()
                if wait is None or wait > 0 or self._inbox:
                    return
                taken = self._window.take(PARCEL_BYTES, PARCEL_BATCHES)
                if not taken:
                    return
                parcel = self._parcels
                self._parcels += 1
                self._flying[parcel] = taken
                hurry = self._must_hurry and not self._window.queued_bytes
                self._must_hurry = self._must_hurry and not hurry
            self._send(parcel, taken)
            if hurry:
                self._hurry()

    def _send(self, number: int, outbounds: list[Outbound]) -> None:
        with calling(self.service):
            (parcel,) = packed([Load(number, outbounds, self._sender, self._taken_acks())], self.quarantine_table)
            answer = self.coordinator.deliver.remote(self.identity, parcel).future()
        answer.add_done_callback(partial(self._answered, number))

    def _answered(self, number: int, done: Future[Any]) -> None:
        error = done.exception()
        self.take_in(number, None if error is not None else done.result(), error)

    # ------------------------------------------------------------ what the courier calls

    def take_along(self) -> Load | None:
        """What may go with other clients' parcels: little, and nothing before it is unanswered.

        Else None, and the own thread sees to it. `went_along` follows when it is on its way.
        """
        with self._changed:
            if (
                self._flying or self._hurried or self._inbox or self._window.queued_bytes > INLINE_BYTES
                or self._window.must_ask() is not None or self._clock.monotonic() < self._resend_at
            ):  # fmt: skip
                self._changed.notify_all()
                return None
            taken = self._window.take(PARCEL_BYTES, PARCEL_BATCHES)
            if not taken:
                return None
            number = self._parcels
            self._parcels += 1
            self._flying[number] = taken
            self._along = True
            return Load(number, taken, self._sender, self._taken_acks())

    def went_along(self) -> None:
        """The call is made: what comes behind it may go."""
        with self._changed:
            self._along = False
            if self._window.queued_bytes or self._closed:
                self._changed.notify_all()

    def take_answer(self, number: int, answer: Any, error: BaseException | None) -> None:
        """Settle a parcel that went along: at once where nothing but this library follows from it."""
        with self._changed:
            outbounds = self._flying.get(number, [])
        if error is None and all(outbound.delivery.waited for outbound in outbounds):
            self._arrived(number, answer, None)
        else:
            self.take_in(number, answer, error)

    def give_up(self, error: BaseException) -> None:
        """The courier failed: nothing may be left that nobody answers."""
        self._along = False
        self._fail_all(error)

    def take_in(self, number: int, answer: Any, error: BaseException | None) -> None:
        """Have the own thread settle a parcel."""
        with self._changed:
            self._inbox.append((number, answer, error))
            self._changed.notify_all()

    # ------------------------------------------------------------ answers

    def _taken_acks(self) -> tuple[Ack, ...]:
        acks, self._acks = self._acks, []
        return tuple(acks)

    def _note(self, outbound: Outbound) -> None:
        """Remember how long an acknowledged batch took."""
        if len(self._acks) < ACKS_KEPT:
            secs = self._clock.monotonic() - outbound.queued_at + outbound.delivery.gate_secs
            self._acks.append(Ack(outbound.delivery.producer_id, outbound.tables, secs))

    def _arrived(self, number: int, answer: Any, error: BaseException | None) -> None:
        """Settle the batches of a parcel, or send them again."""
        with self._changed:
            outbounds = self._flying.pop(number, None)
        if outbounds is None:
            return  # given up since
        if error is not None:
            self._lost(outbounds, error)
            return
        settled: list[tuple[Future[Receipt], Any]] = []
        with self._changed:
            self._window_bytes = answer["window_bytes"]
            self.offer = answer.get("offer", self.offer)
            for outbound, outcome in zip(outbounds, answer["answers"], strict=True):
                if len(outcome) == RECEIPT_LENGTH:
                    self._window.committed(outbound)
                    self._note(outbound)
                elif self._window.refused(outbound, Reason[outcome[0]], outcome[1]):
                    self._resend_at = self._clock.monotonic() + RESEND_AFTER_S / 4
                    continue
                del self._outbounds[outbound.future]
                settled.append((outbound.future, outcome))
            if self._waiters or self._window.queued_bytes or self._closed:
                self._changed.notify_all()
        for future, outcome in settled:
            if len(outcome) == RECEIPT_LENGTH:
                producer_id, sequence, version, already, beside = outcome
                future.set_result(Receipt(Token(producer_id, sequence), version, already, beside))
            else:
                future.set_exception(outcome[2])

    def _lost(self, outbounds: list[Outbound], error: BaseException) -> None:
        """The call failed: whatever it brought may be committed or not, and is sent again."""
        if not isinstance(error, (RayActorError, ConnectionLostError)):
            self._fail(outbounds, error)
            return
        if self._is_gone():
            self._fail_all(error)
            return
        log.info("the coordinator of service %s is away; %d batches are sent again", self.service, len(outbounds))
        with self._changed:
            self._retries += 1
            self.offer = None  # a new life has another one, and tells it with its first answer
            self._window.lost(outbounds)
            self._resend_at = self._clock.monotonic() + RESEND_AFTER_S
            self._changed.notify_all()

    def _is_gone(self) -> bool:
        """Whether the service was stopped: then its name is gone, too."""
        try:
            self.coordinator = actor_of(self.service, "coordinator")
        except Exception:  # noqa: BLE001  Ray itself may be gone
            return True
        return False

    def _fail_all(self, error: BaseException) -> None:
        with self._changed:
            flying = [outbound for parcel in self._flying.values() for outbound in parcel]
            self._flying.clear()
            outbounds = [*flying, *(o for o in self._window.unsettled() if o not in flying)]
        self._fail(outbounds, error)

    def _fail(self, outbounds: list[Outbound], error: BaseException) -> None:
        cause = error.cause if isinstance(error, RayTaskError) else error
        with self._changed:
            failed = [o for o in outbounds if self._outbounds.pop(o.future, None) is not None]
            for outbound in failed:
                self._window.drop(outbound)
            self._changed.notify_all()
        for outbound in failed:
            outbound.future.set_exception(_unanswered(self.service, outbound, cause))

    # ------------------------------------------------------------ small things

    def _tell(self, method: str, *args: Any) -> None:
        """Call the coordinator about this client without waiting; nothing where its Ray is gone."""
        with contextlib.suppress(WriterError), calling(self.service):
            getattr(self.coordinator, method).remote(self.identity, *args)

    def _ask(self, method: str, *args: Any) -> Any:
        """Call the coordinator and wait, through its restarts, as long as `CALL_TIMEOUT_S`."""
        deadline = self._clock.monotonic() + CALL_TIMEOUT_S
        while True:
            try:
                return answer_of(self.service, getattr(self.coordinator, method).remote, *args, timeout=CALL_TIMEOUT_S)
            except RayActorError as error:  # noqa: PERF203  it waits out a restart
                if self._is_gone() or self._clock.monotonic() > deadline:
                    raise _away(self.service, error) from error
                self._clock.sleep(RESEND_AFTER_S)
            except GetTimeoutError as error:
                raise _away(self.service, error) from error
            except RayTaskError as error:
                raise cause_of(error) from None

    def _has_room(self, nbytes: int) -> bool:
        # A batch larger than the window goes alone: else it could never go.
        return not self._window.held or self._window.held_bytes + nbytes <= self._window_bytes

    def _full(self, nbytes: int) -> WriterPerformanceError:
        return WriterPerformanceError(
            f"the window of {self._window_bytes} bytes to service {self.service!r} is full "
            f"({self._window.held_bytes} bytes are not settled); nothing of a batch of {nbytes} bytes is written",
            context={"needed_bytes": nbytes, "window_bytes": self._window_bytes},
            suggestions=["try again later, or connect with on_full='block' and a longer queue_timeout_secs"],
            retriable=True,
        )


# ---------------------------------------------------------------- the end of the process

_OPEN: weakref.WeakSet[RemoteChannel] = weakref.WeakSet()


# Behind those of Ray and of `actors.calls`, and so before them: what is registered last runs first.
@atexit.register
def _finish_all() -> None:
    clock = SystemClock()
    deadline = clock.monotonic() + EXIT_GRACE_S  # for all of them together
    for channel in list(_OPEN):
        channel.finish(max(0.0, deadline - clock.monotonic()))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_OPEN.clear)


class LogClient(LogWriter):
    """A `LogWriter` whose batches go through a service. Made by `actors.connect`."""

    def __init__(self, config: WriterConfig, channel: RemoteChannel) -> None:
        """Write through a channel to a service, with that service's configuration."""
        self._remote = channel
        self._begin(config, None, engine_of(channel.service, config), None)

    def _open_keeper(self) -> None:
        """The service cares for its tables itself."""

    _takes_frames = False

    def _open_channel(self) -> Channel:
        return self._remote

    def uncommitted(self) -> list[dict[str, Any]]:
        """What is not settled yet, batch by batch: `producer_id`, `sequence`, `rows`, `sent`.

        `sequence` is None where the batch has no number yet. What is `sent` may be committed all the same; the
        others are not.
        """
        return self._remote.uncommitted()

    def close(self, timeout: float | None = None) -> None:
        """Settle everything and leave the service. A second call does nothing.

        Args:
            timeout: seconds to wait; None for as long as it takes.

        Raises:
            WriterPerformanceError: they were too few. `context["uncommitted"]` lists what is left, the client
                stays open and goes on.
        """
        if os.getpid() == self._process:
            self._remote.close(timeout)

    @property
    def coordinator(self) -> Any:
        """The coordinator's handle, for remote calls without this client."""
        return self._remote.coordinator

    def submit_log_rows(
        self,
        log_rows: Any,
        run_id: str | None = None,
        *,
        sequence: int | None = None,
        idempotency_key: str | None = None,
    ) -> Call:
        """As `write_log_rows`, without waiting: the future gives the result, or what the call would have raised.

        It is a `concurrent.futures.Future`, and can be awaited.

        Raises:
            WriterPerformanceError: the window is full (see `connect`).
        """
        return self._send_off(lambda: self._encode(log_rows, run_id), sequence, idempotency_key)

    def submit_step_results(
        self,
        step_results: Any,
        execution_context: Any,
        run_id: str | None = None,
        *,
        sequence: int | None = None,
        idempotency_key: str | None = None,
    ) -> Call:
        """As `write_step_results`, without waiting. See `submit_log_rows`."""
        encode = self._encoder_of_steps(step_results, execution_context, run_id)
        return self._send_off(encode, sequence, idempotency_key)

    def submit_execution_result(
        self,
        execution_result: Any,
        run_id: str | None = None,
        *,
        sequence: int | None = None,
        idempotency_key: str | None = None,
    ) -> Call:
        """As `write_execution_result`, without waiting. See `submit_log_rows`."""
        return self._send_off(self._encoder_of_run(execution_result, run_id), sequence, idempotency_key)


def _unanswered(service: str, outbound: Outbound, cause: BaseException | None) -> WriterTableError:
    error = WriterTableError(
        f"service {service!r} ended before it answered batch {outbound.number} of producer "
        f"{outbound.delivery.producer_id!r}; whether that is committed is not known",
        outcome_unknown=True,
        suggestions=["start the service again and send the batch under the same sequence or idempotency_key"],
        retriable=True,
    )
    error.__cause__ = cause
    return error


def _away(service: str, error: BaseException) -> WriterError:
    return WriterError(
        f"service {service!r} does not answer: {error}",
        suggestions=[f"look at it with `Service.attach({service!r}).health()`, or start it again"],
        retriable=True,
    )
