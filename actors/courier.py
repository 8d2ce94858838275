"""One road to a coordinator for all clients of a process: small parcels that are ready together go in one call.

Receives: clients that have something to send, and the answers to what they sent.
Produces: one call of the coordinator for all that are ready, and each client's own answer. The call goes over a
    connection, where there is one, else it is one of Ray's.
Guarantees: a client that nobody else calls beside is sent off at once. Those that were answered just now are waited
    for while they come within `PARCEL_LINGER_S` of each other: whoever waits for an acknowledgement is soon back.
    What is large, or comes behind something that is not answered, goes by itself.
Never does: decide what a client may send, or keep anything of it.

What a call costs hardly depends on how much it brings: with eight clients in a process that wait for their
acknowledgements, seven of eight calls are saved.
"""

from __future__ import annotations

import logging
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

from actors.calls import calling
from actors.connection import Connections
from actors.options import PARCEL_LINGER_S
from actors.parcels import packed
from sfwriter.clock import SystemClock

if TYPE_CHECKING:
    from concurrent.futures import Future

    from actors.client import RemoteChannel
    from actors.parcels import Load

    Sent = list[tuple[RemoteChannel, int]]

log = logging.getLogger("sfwriter.client")


class Courier:
    """Sends for the clients of this process. One thread, which comes with the first call."""

    def __init__(self) -> None:
        """Begin without a thread."""
        self._clock = SystemClock()
        self._changed = threading.Condition()
        self._ready: dict[RemoteChannel, None] = {}
        self._answers: list[tuple[Sent, Future[Any]]] = []
        self._expected: dict[RemoteChannel, None] = {}
        self._wait_until = 0.0
        self._thread: threading.Thread | None = None
        self._connections = Connections()

    def call(self, channel: RemoteChannel) -> None:
        """A client has something to send."""
        with self._changed:
            now = self._clock.monotonic()
            if now >= self._wait_until and not self._ready:
                self._expected.clear()  # nobody of them has come for so long
            self._ready[channel] = None
            self._expected.pop(channel, None)
            self._wait_until = now + PARCEL_LINGER_S
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="sfwriter-courier", daemon=True)
                self._thread.start()
            if len(self._ready) == 1 or not self._expected:
                self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._answers and (left := self._left()) != 0:
                    self._changed.wait(left)
                answers, self._answers = self._answers, []
                ready: list[RemoteChannel] = []
                if not answers:
                    ready = list(self._ready)
                    self._ready.clear()
                    self._expected.clear()
            for sent, done in answers:
                error = done.exception()
                self._deal_out(sent, None if error is not None else done.result(), error)
            if ready:
                try:
                    self._send(ready)
                except Exception as error:
                    log.exception("what was to be sent together is given up")
                    for channel in ready:
                        channel.give_up(error)

    def _left(self) -> float | None:
        """Seconds until it is time to send; None: there is nothing to send."""
        if not self._ready:
            return None
        if not self._expected:
            return 0.0
        return max(0.0, self._wait_until - self._clock.monotonic())

    def _send(self, channels: list[RemoteChannel]) -> None:
        # A call is answered when all of it is settled: nobody is to wait for a table that is not his.
        roads: dict[tuple[Any, frozenset[str]], list[tuple[RemoteChannel, Load]]] = {}
        for channel in channels:
            load = channel.take_along()
            if load is not None:
                # An offer is one coordinator's, and to compare handles takes as long as to pack a batch.
                roads.setdefault((channel.offer or channel.coordinator, load.tables), []).append((channel, load))
        for loads in roads.values():
            first = loads[0][0]
            sent = [(channel, load.number) for channel, load in loads]
            try:
                with calling(first.service):
                    parcels = packed([load for _, load in loads], first.quarantine_table)
                    call = [(channel.identity, parcel) for (channel, _), parcel in zip(loads, parcels, strict=True)]
                    if not self._connections.send(first.offer, call, partial(self._deal_out, sent)):
                        answer = first.coordinator.deliver_all.remote(call).future()
                        answer.add_done_callback(partial(self._arrived, sent))
            except Exception as error:  # noqa: BLE001  each client judges what becomes of its own
                for channel, number in sent:
                    channel.take_in(number, None, error)
            for channel, _ in sent:
                channel.went_along()

    def _arrived(self, sent: Sent, done: Future[Any]) -> None:
        """On Ray's own thread: nothing of a client's runs here."""
        with self._changed:
            self._answers.append((sent, done))
            self._changed.notify()

    def _deal_out(self, sent: Sent, answers: Any, error: BaseException | None) -> None:
        """Give each client its answer; those that were waited for come back soon, with the next batch. Never raises."""
        if error is not None:
            answers = [None] * len(sent)
        with self._changed:
            # Before they are answered: the first is back before the last is.
            self._expected.update(dict.fromkeys(channel for channel, _ in sent))
            self._wait_until = self._clock.monotonic() + PARCEL_LINGER_S
        try:
            for (channel, number), answer in zip(sent, answers, strict=True):
                channel.take_answer(number, answer, error)
        except Exception as defect:
            log.exception("what was answered together is given up")
            for channel, _ in sent:
                channel.give_up(defect)


COURIER = Courier()
"""Of this process. A fork has not its thread, and no client either."""
