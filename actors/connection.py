"""A process's end of the connections to coordinators: what is small goes without a call of Ray, and much cheaper.

Receives: calls of `deliver_all`, and where a coordinator said that it listens.
Produces: their answers, each given to whoever made the call.
Guarantees: every call that was taken is answered, if only with `ConnectionLostError`: then it is as open as a Ray call
    that was lost. A call never waits for a connection to be made.
Never does: send anything twice.
"""

from __future__ import annotations

import contextlib
import hmac
import itertools
import logging
import secrets
import socket
import threading
from typing import TYPE_CHECKING, Any

from actors.frames import NONCE_BYTES, FrameError, Frames, call_of, frame, proof, read_answer
from sfwriter.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from actors.frames import Offer
    from actors.wire import Parcel

    Take = Callable[[Any, BaseException | None], None]

log = logging.getLogger("sfwriter.client")

CONNECT_TIMEOUT_S = 5.0

ANSWER_TIMEOUT_S = 30.0
"""A node that acknowledges nothing for so long is taken for dead, as Ray does."""

UNANSWERED_BYTES = 256 << 10
"""What may be on its way over a connection: as much as the system takes at once, so that no caller waits for a
coordinator that reads nothing. What is more goes by Ray's calls."""

AGAIN_AFTER_S = 30.0
"""Where a connection could not be made or was lost, the next one is tried so much later."""


class ConnectionLostError(ConnectionError):
    """A connection ended before the answer came: what became of the call is not known."""


class Connections:
    """Those of this process, one for each coordinator. For one thread at a time."""

    def __init__(self) -> None:
        """Begin without any."""
        self._clock = SystemClock()
        self._known: dict[Offer, Connection] = {}

    def send(self, offer: Offer | None, parcels: list[tuple[str, Parcel]], take: Take) -> bool:
        """Send a call where its coordinator listens. `take` is given its answer, or its error, on another thread.

        Returns:
            Whether it went; else there is no connection (yet), or it is too large for one.
        """
        if offer is None:
            return False
        known = self._known.get(offer)
        if known is None or known.ended_for(AGAIN_AFTER_S):
            self._known = {other: kept for other, kept in self._known.items() if not kept.ended_for(0.0)}
            known = self._known[offer] = Connection(offer, self._clock)
        return known.send(parcels, take)


class Connection:
    """One connection, and the thread that makes it and takes in the answers."""

    def __init__(self, offer: Offer, clock: SystemClock) -> None:
        """Connect in the background."""
        self._offer = offer
        self._clock = clock
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._waiting: dict[int, tuple[Take, int]] = {}
        self._unanswered = 0
        self._socket: socket.socket | None = None
        self._ended_at: float | None = None
        threading.Thread(target=self._run, name="sfwriter-connection", daemon=True).start()

    def ended_for(self, secs: float) -> bool:
        """Whether it ended so long ago."""
        return self._ended_at is not None and self._clock.monotonic() - self._ended_at >= secs

    def send(self, parcels: list[tuple[str, Parcel]], take: Take) -> bool:
        """Send a call, if it may go here. See `Connections.send`."""
        if self._socket is None:
            return False
        number = next(self._numbers)
        message = call_of(number, parcels)
        if message is None:
            return False
        with self._lock:
            if self._socket is None or self._unanswered + len(message) > UNANSWERED_BYTES:
                return False
            self._waiting[number] = (take, len(message))
            self._unanswered += len(message)
            try:
                self._socket.sendall(frame(message))
            except OSError:
                # How much of it went is not known. The thread sees the end, too, and tells everybody.
                with contextlib.suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)
        return True

    # ------------------------------------------------------------ the thread

    def _run(self) -> None:
        reason: Exception | None = None
        try:
            with connected(self._offer) as (opened, messages):
                with self._lock:
                    self._socket = opened
                for message in messages:
                    self._answered(*read_answer(message))
        except Exception as error:  # noqa: BLE001  whatever it is, nobody may wait for an answer that cannot come
            reason = error
        log.info("the connection to %s:%d ended: %s", self._offer.host, self._offer.port, reason)
        with self._lock:
            self._socket = None
            self._ended_at = self._clock.monotonic()
            left, self._waiting = self._waiting, {}
        for take, _ in left.values():
            take(None, ConnectionLostError(f"the connection to the coordinator ended: {reason}"))

    def _answered(self, number: int, settled: Any) -> None:
        with self._lock:
            take, nbytes = self._waiting.pop(number)
            self._unanswered -= nbytes
        if isinstance(settled, BaseException):
            take(None, settled)
        else:
            take(settled, None)


@contextlib.contextmanager
def connected(offer: Offer) -> Iterator[tuple[socket.socket, Iterator[bytes]]]:
    """A connection to a coordinator, both ends of which have shown that they know the key; and what comes over it.

    The messages end with an `OSError` when the connection does.

    Raises:
        OSError: nobody listens there, or not in time.
        FrameError: whoever listens does not know the key.
    """
    with socket.create_connection(offer[:2], CONNECT_TIMEOUT_S) as opened:
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * UNANSWERED_BYTES)
        notice_death(opened)
        messages = _messages(opened)
        nonce, theirs = secrets.token_bytes(NONCE_BYTES), next(messages)
        opened.sendall(frame(nonce + proof(offer.key, b"guest", theirs, nonce)))
        if not hmac.compare_digest(next(messages), proof(offer.key, b"coordinator", nonce, theirs)):
            raise FrameError("whoever listens does not know the key")
        opened.settimeout(None)
        yield opened, messages


def _messages(opened: socket.socket) -> Iterator[bytes]:
    frames = Frames()
    while True:
        data = opened.recv(1 << 16)
        if not data:
            raise ConnectionResetError("the other end closed it")
        yield from frames.feed(data)


def notice_death(opened: Any) -> None:
    """Have a connection end where the other end's node can say nothing any more."""
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in {
        "TCP_KEEPIDLE": ANSWER_TIMEOUT_S / 3,
        "TCP_KEEPINTVL": ANSWER_TIMEOUT_S / 6,
        "TCP_KEEPCNT": 4,
        "TCP_USER_TIMEOUT": ANSWER_TIMEOUT_S * 1000,
    }.items():
        option = getattr(socket, name, None)  # not every system has all of them
        if option is not None:
            opened.setsockopt(socket.IPPROTO_TCP, option, int(value))
