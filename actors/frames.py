"""Frames: what a connection to a coordinator carries. Pure.

A frame is its length, in four bytes, and a message. The first three messages show that both ends know the key that
one of Ray's own calls told the guest. All others of clients are msgpack: calls one way, their answers the other. Their
fields are read by type, so what has another form is refused before anything is done with it.
"""

from __future__ import annotations

import hashlib
import hmac
import pickle
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from actors.wire import Ack, Entry, Parcel, Payload

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MOST_BYTES = 16 << 20
"""Of a message: far more than `INLINE_BYTES` of rows and the entries of some hundred batches."""

NONCE_BYTES = 32
PROOF_BYTES = 32
_LENGTH_BYTES = 4
_ERROR = 1


class Offer(NamedTuple):
    """Where a coordinator listens, and the key by which it and a guest know each other."""

    host: str
    port: int
    key: bytes

    def __repr__(self) -> str:
        """Without the key: what is shown may be logged."""
        return f"Offer({self.host!r}, {self.port})"


class _Own(NamedTuple):
    """A parcel without the rows, which all parcels of a call share."""

    client: str
    number: int
    entries: tuple[Entry, ...]
    packed_secs: float
    sender: str | None
    acks: tuple[Ack, ...]


class _Call(NamedTuple):
    number: int
    rows: bytes
    parcels: tuple[_Own, ...]


class _Answer(NamedTuple):
    number: int
    settled: Any


class FrameError(Exception):
    """What came is not what the other end should send."""


class Frames:
    """Cuts what comes into messages."""

    def __init__(self, most: int = MOST_BYTES) -> None:
        """Begin with nothing; a message may have `most` bytes."""
        self.most = most
        self._came = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The messages that are whole with this.

        Raises:
            FrameError: one says that it is longer than any may be.
        """
        came = self._came
        came += data
        while len(came) >= _LENGTH_BYTES:
            length = int.from_bytes(came[:_LENGTH_BYTES], "little")
            if length > self.most:
                raise FrameError(f"a message says that it has {length} bytes, where {self.most} are the most")
            end = _LENGTH_BYTES + length
            if len(came) < end:
                return
            message = bytes(memoryview(came)[_LENGTH_BYTES:end])
            del came[:end]
            yield message


def frame(message: bytes) -> bytes:
    """A message with its length before it."""
    return len(message).to_bytes(_LENGTH_BYTES, "little") + message


def proof(key: bytes, who: bytes, first: bytes, second: bytes) -> bytes:
    """What only one that knows the key can say about two nonces; `who` is `guest` or `coordinator`."""
    return hmac.digest(key, b"sfwriter " + who + first + second, hashlib.sha256)


def call_of(number: int, parcels: Sequence[tuple[str, Parcel]]) -> bytes | None:
    """A call as a message; None where its rows are not in it, or it is too large."""
    payload = parcels[0][1].payload
    if payload.reference is not None:
        return None
    own = [
        (client, parcel.number, parcel.entries, parcel.packed_secs, parcel.sender, parcel.acks)
        for client, parcel in parcels
    ]
    message = _ENCODER.encode((number, payload.inline, own))
    return message if len(message) <= MOST_BYTES else None


def read_call(message: bytes) -> tuple[int, list[tuple[str, Parcel]]]:
    """The number of a call and its parcels.

    Raises:
        FrameError: it is not what `call_of` makes.
    """
    try:
        number, rows, parcels = _CALLS.decode(message)
    except (msgspec.MsgspecError, ValueError) as error:
        raise FrameError(f"a message is not a call: {error}") from error
    payload = Payload(inline=rows)
    return number, [
        (own.client, Parcel(own.number, own.entries, payload, own.packed_secs, own.sender, own.acks)) for own in parcels
    ]


def answer_of(number: int, settled: Any) -> bytes:
    """The answer to a call as a message: what `deliver_all` gives, or what it raised."""
    return _ENCODER.encode((number, settled))


def read_answer(message: bytes) -> tuple[int, Any]:
    """The number of the call, and what `answer_of` was given."""
    answer = _ANSWERS.decode(message)
    return answer.number, answer.settled


def _packed(value: Any) -> Any:
    if isinstance(value, BaseException):
        return msgspec.msgpack.Ext(_ERROR, pickle.dumps(value))
    raise TypeError(f"{type(value).__name__} does not travel")


def _unpacked(code: int, data: memoryview) -> Any:
    if code != _ERROR:
        raise FrameError(f"a message has an extension of number {code}")
    # Only answers are read so, and whoever answers has shown the key: Ray itself would do the same.
    return pickle.loads(data)  # noqa: S301


_ENCODER = msgspec.msgpack.Encoder(enc_hook=_packed)
_CALLS = msgspec.msgpack.Decoder(_Call)
_ANSWERS = msgspec.msgpack.Decoder(_Answer, ext_hook=_unpacked)
