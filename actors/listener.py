"""The coordinator's end of connections: small parcels come in, and small jobs go out to writers, without Ray's calls.

Receives: connections, from whoever knows the port.
Produces: an answer to each call of a client, and each writer's line.
Guarantees: nothing of a connection is looked at before it has shown a key; there is one for clients and one for
    writers, and Ray's own calls tell them. One that sends something else than it should is closed, and costs nobody
    else anything.
Never does: look into a parcel.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
import secrets
import weakref
from typing import TYPE_CHECKING, Any, Protocol

import ray

from actors.connection import notice_death
from actors.frames import NONCE_BYTES, PROOF_BYTES, FrameError, Frames, Offer, answer_of, frame, proof, read_call

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from actors.wire import Parcel

    Deliver = Callable[[list[tuple[str, Parcel]]], Awaitable[list[dict[str, Any]]]]
    Send = Callable[[bytes], None]

log = logging.getLogger("sfwriter.service")

SHOWN_WITHIN_S = 10.0
"""A connection that has not shown a key for so long is closed."""


class Guest(Protocol):
    """Who is at the other end of a connection that has shown a key."""

    def came(self, message: bytes) -> None:
        """A message from there. `FrameError`: it is not what it should be."""

    def lost(self) -> None:
        """The connection ended."""


class Listener:
    """Listens on a port of its node from the first offer on. Lives on the coordinator's event loop."""

    def __init__(self, client: Callable[[Send], Guest], writer: Callable[[Send], Guest]) -> None:
        """Begin without a port.

        Args:
            client: makes a guest of a connection that has shown the clients' key; it is given what sends a message.
            writer: as `client`, for the writers' key.
        """
        self._client_key, self._writer_key = secrets.token_bytes(32), secrets.token_bytes(32)
        self._guests = {self._client_key: client, self._writer_key: writer}
        self._opening: asyncio.Future[tuple[str, int] | None] | None = None
        self._server: asyncio.Server | None = None
        self._doors: weakref.WeakSet[_Door] = weakref.WeakSet()

    async def offer(self) -> Offer | None:
        """Where clients connect to; None where Ray's calls are to be used."""
        address = await self._address()
        return None if address is None else Offer(*address, self._client_key)

    async def offer_to_writers(self) -> Offer | None:
        """Where writers connect to."""
        address = await self._address()
        return None if address is None else Offer(*address, self._writer_key)

    def close(self) -> None:
        """End all connections, and take no more."""
        if self._server is not None:
            self._server.close()
        for door in list(self._doors):
            door.close()

    async def _address(self) -> tuple[str, int] | None:
        if self._opening is None:
            self._opening = asyncio.ensure_future(self._open())
        return await asyncio.shield(self._opening)

    async def _open(self) -> tuple[str, int] | None:
        if os.environ.get("RAY_USE_TLS", "0") not in {"", "0"}:
            return None  # what Ray encrypts shall not go another way in plain
        try:
            # Ray has no types for it.
            host: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
            self._server = await asyncio.get_running_loop().create_server(self._door, host, 0)
            return host, int(self._server.sockets[0].getsockname()[1])
        except Exception:
            log.warning("no port could be opened; Ray's own calls are used", exc_info=True)
            return None

    def _door(self) -> _Door:
        door = _Door(self._guests)
        self._doors.add(door)
        return door


class _Door(asyncio.Protocol):
    """One connection."""

    def __init__(self, guests: Mapping[bytes, Callable[[Send], Guest]]) -> None:
        self._guests = guests
        self._guest: Guest | None = None
        self._frames = Frames(NONCE_BYTES + PROOF_BYTES)
        self._nonce = secrets.token_bytes(NONCE_BYTES)
        self._leaving: list[bytes] = []

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        notice_death(transport.get_extra_info("socket"))
        self._send(self._nonce)
        asyncio.get_running_loop().call_later(SHOWN_WITHIN_S, self._close_if_unknown)

    def data_received(self, data: bytes) -> None:
        try:
            for message in self._frames.feed(data):
                if self._guest is None:
                    self._let_in(message)
                else:
                    self._guest.came(message)
        except FrameError as error:
            log.warning("a connection from %s is closed: %s", self._transport.get_extra_info("peername"), error)
            self.close()

    def connection_lost(self, _: Exception | None) -> None:
        if self._guest is not None:
            self._guest.lost()

    def close(self) -> None:
        """End the connection."""
        self._transport.abort()

    def _let_in(self, message: bytes) -> None:
        nonce, shown = message[:NONCE_BYTES], message[NONCE_BYTES:]
        for key, guest in self._guests.items():
            if hmac.compare_digest(shown, proof(key, b"guest", self._nonce, nonce)):
                self._frames.most = Frames().most
                self._send(proof(key, b"coordinator", nonce, self._nonce))
                self._guest = guest(self._send)
                return
        raise FrameError("it does not know a key")

    def _send(self, message: bytes) -> None:
        # What a commit settles is answered at once, and goes at once: a call of the system takes 50 µs on both sides.
        if not self._leaving:
            asyncio.get_running_loop().call_soon(self._send_off)
        self._leaving.append(frame(message))

    def _send_off(self) -> None:
        leaving, self._leaving = self._leaving, []
        if not self._transport.is_closing():
            self._transport.write(b"".join(leaving))

    def _close_if_unknown(self) -> None:
        if self._guest is None:
            self.close()


class ClientGuest:
    """The clients of one process."""

    def __init__(self, deliver: Deliver, send: Send) -> None:
        """Have their calls delivered."""
        self._deliver = deliver
        self._send = send
        self._tasks: set[asyncio.Task[None]] = set()

    def came(self, message: bytes) -> None:
        """A call."""
        task = asyncio.get_running_loop().create_task(self._answer(*read_call(message)))
        self._tasks.add(task)  # the loop itself holds tasks only weakly
        task.add_done_callback(self._tasks.discard)

    def lost(self) -> None:
        """What they have sent is settled all the same; they will ask again."""

    async def _answer(self, number: int, parcels: list[tuple[str, Parcel]]) -> None:
        try:
            settled: Any = await self._deliver(parcels)
        except Exception as error:  # noqa: BLE001  it is the client's to judge, as Ray would have it
            settled = error
        self._send(answer_of(number, settled))
