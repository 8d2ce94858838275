"""Connections to a coordinator: who gets one, what goes over it, and what becomes of a call when it ends."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from contextlib import contextmanager
from queue import Queue
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors import connection as connection_module
from actors import listener as listener_module
from actors.connection import ConnectionLostError, Connections, connected
from actors.frames import FrameError, Frames, Offer, answer_of, call_of, frame, read_answer, read_call
from actors.line import JOB_BYTES, WriterLine, answer_jobs
from actors.listener import ClientGuest, Listener
from actors.wire import Ack, Entry, Parcel, Payload, Share
from sfwriter.exceptions import WriterTableError, WriterValidationError
from sfwriter.storage.engine import TableSpec
from sfwriter.testing.clock import ManualClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

import pyarrow as pa

pytestmark = pytest.mark.timeout(60)

ENTRY = Entry(
    "producer", None, "digest", "stamp", assigned=True, resent=False, checked=False, expires=True, patient=False,
    wait_secs=None, replaces=frozenset({"logs.a"}), shares=(Share(None, 0, 3, 7, 700), Share("logs.b", 1, 0, 1, 10)),
    gate_secs=0.25,
)  # fmt: skip
PARCEL = Parcel(3, (ENTRY, ENTRY), Payload(inline=b"rows"), 0.5, "sender", (Ack("producer", (None, "logs.b"), 0.1),))
CALL = [("one", PARCEL), ("other", PARCEL._replace(number=4, sender=None, acks=()))]
SPEC = TableSpec("logs.a", "/nowhere", pa.schema([("a", pa.int64())]))


# ---------------------------------------------------------------- frames


@given(messages=st.lists(st.binary(max_size=50), max_size=5), cut=st.integers(1, 20))
def test_messages_are_whole_however_they_come(messages: list[bytes], cut: int) -> None:
    sent = b"".join(map(frame, messages))
    frames = Frames()
    came = [message for at in range(0, len(sent), cut) for message in frames.feed(sent[at : at + cut])]
    assert came == messages


def test_a_message_that_says_it_is_too_long_is_refused_before_it_comes() -> None:
    with pytest.raises(FrameError, match="1001 bytes, where 1000"):
        list(Frames(1000).feed((1001).to_bytes(4, "little")))


def test_a_call_arrives_as_it_was() -> None:
    message = call_of(17, CALL)
    assert message is not None
    assert read_call(message) == (17, CALL)


def test_what_is_in_the_object_store_or_too_large_goes_another_way(monkeypatch: pytest.MonkeyPatch) -> None:
    assert call_of(0, [("one", PARCEL._replace(payload=Payload(reference=["reference"])))]) is None
    monkeypatch.setattr("actors.frames.MOST_BYTES", 10)
    assert call_of(0, CALL) is None


def bent(change: Callable[[list[Any]], Any]) -> bytes:
    message = call_of(1, CALL)
    assert message is not None
    fields = msgspec.msgpack.decode(message)
    change(fields)
    return msgspec.msgpack.encode(fields)


STRANGE = {
    "nothing": b"",
    "no msgpack": b"\xc1\xc1",
    "half a call": (call_of(1, CALL) or b"")[:-5],
    "a number for the rows": bent(lambda call: call.__setitem__(1, 5)),
    "one parcel without a number": bent(lambda call: call[2][0].__setitem__(1, None)),
    "rows that are counted in text": bent(lambda call: call[2][0][2][0][11][0].__setitem__(3, "7")),
    "a field too few": bent(lambda call: call[2][0].pop()),
    "a pickle": b"\x80\x05K\x01.",
}


@pytest.mark.parametrize("message", STRANGE.values(), ids=STRANGE)
def test_what_is_not_a_call_is_refused(message: bytes) -> None:
    with pytest.raises(FrameError, match="not a call"):
        read_call(message)


def test_an_error_of_an_answer_arrives_whole() -> None:
    error = WriterValidationError("refused", validation_errors=[{"row": 3, "reasons": ["why"]}], suggestions=["do"])
    receipt = ("producer", 5, 9, False, {"logs.b": 2})
    number, (one,) = read_answer(answer_of(8, [{"answers": [receipt, ("GAP", 4, error)], "window_bytes": 1000}]))
    assert (number, one["window_bytes"]) == (8, 1000)
    assert one["answers"][0] == list(receipt)
    reason, expected, came = one["answers"][1]
    assert (reason, expected, type(came), came.__dict__) == ("GAP", 4, WriterValidationError, error.__dict__)


def test_a_key_is_in_no_text() -> None:
    assert repr(Offer("127.0.0.1", 80, b"secret")) == str(Offer("127.0.0.1", 80, b"secret")) == "Offer('127.0.0.1', 80)"


# ---------------------------------------------------------------- a listener in a thread of its own


class Host:
    """An event loop with a listener whose clients' calls wait until they are answered here."""

    def __init__(self) -> None:
        self.calls: Queue[tuple[list[tuple[str, Parcel]], asyncio.Future[Any]]] = Queue()
        self.lines: Queue[tuple[int, WriterLine]] = Queue()
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.listener = self.run(self._listener())

    async def _listener(self) -> Listener:
        return Listener(
            lambda send: ClientGuest(self._deliver, send),
            lambda send: WriterLine(lambda number, line: self.lines.put((number, line)), send),
        )

    async def _deliver(self, parcels: list[tuple[str, Parcel]]) -> Any:
        answer = self.loop.create_future()
        self.calls.put((parcels, answer))
        return await answer

    def run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def answer(self, future: asyncio.Future[Any], value: Any) -> None:
        raises = isinstance(value, Exception)
        self.loop.call_soon_threadsafe(future.set_exception if raises else future.set_result, value)

    def end(self) -> None:
        self.run(self._end())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(20)
        self.loop.close()

    async def _end(self) -> None:
        self.listener.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.sleep(0)


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    monkeypatch.setattr("ray.util.get_node_ip_address", lambda: "127.0.0.1")
    host = Host()
    yield host
    host.end()


def sent_when_ready(connections: Connections, offer: Offer | None, took: Queue[Any]) -> bool:
    """Send a call as soon as there is a connection."""
    deadline = time.monotonic() + 20
    while not connections.send(offer, CALL, lambda *answer: took.put(answer)):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)  # a connection is made in the background, and nothing tells when
    return True


def test_calls_are_answered_each_with_its_own_in_any_order(host: Host) -> None:
    offer = host.run(host.listener.offer())
    connections, first, second = Connections(), Queue[Any](), Queue[Any]()
    assert not connections.send(offer, CALL, lambda *_: None), "a call waits for no connection"
    assert sent_when_ready(connections, offer, first)
    assert connections.send(offer, CALL, lambda *answer: second.put(answer))
    (one, one_answer), (_, other_answer) = host.calls.get(timeout=20), host.calls.get(timeout=20)
    assert one == CALL
    host.answer(other_answer, [{"second": 2}])
    assert second.get(timeout=20) == ([{"second": 2}], None)
    host.answer(one_answer, WriterTableError("no", retriable=True))
    settled, error = first.get(timeout=20)
    assert (settled, type(error), error.retriable) == (None, WriterTableError, True)


def test_what_is_on_its_way_when_a_connection_ends_is_told(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    offer = host.run(host.listener.offer())
    connections, took = Connections(), Queue[Any]()
    clock = ManualClock()
    monkeypatch.setattr(connections, "_clock", clock)
    assert sent_when_ready(connections, offer, took)
    host.calls.get(timeout=20)
    (known,) = connections._known.values()
    known._socket.shutdown(socket.SHUT_RDWR)
    settled, error = took.get(timeout=20)
    assert (settled, type(error)) == (None, ConnectionLostError)
    assert not connections.send(offer, CALL, lambda *_: None)
    assert list(connections._known.values()) == [known], "another one is not tried at once"
    clock.advance(connection_module.AGAIN_AFTER_S)
    assert sent_when_ready(connections, offer, took)
    assert list(connections._known.values()) != [known]


def test_nobody_waits_for_a_coordinator_that_reads_nothing(host: Host) -> None:
    offer = host.run(host.listener.offer())
    connections, took = Connections(), Queue[Any]()
    assert sent_when_ready(connections, offer, took)
    asleep = threading.Event()
    host.loop.call_soon_threadsafe(asleep.wait)
    large = [("one", PARCEL._replace(payload=Payload(inline=bytes(60_000))))]
    went = sum(connections.send(offer, large, lambda *answer: took.put(answer)) for _ in range(100))
    asleep.set()
    assert went == connection_module.UNANSWERED_BYTES // 60_000
    for _ in range(went + 1):
        host.answer(host.calls.get(timeout=20)[1], [])
        took.get(timeout=20)
    assert connections.send(offer, large, lambda *answer: took.put(answer))


def test_who_does_not_know_the_key_is_closed_and_nobody_hears_of_it(host: Host) -> None:
    offer = host.run(host.listener.offer())
    with pytest.raises(OSError), connected(offer._replace(key=bytes(32))):  # noqa: PT011  whichever end of it
        pass
    connections, took = Connections(), Queue[Any]()
    assert sent_when_ready(connections, offer, took)
    host.calls.get(timeout=20)
    assert host.calls.empty()


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\n\r\n", frame(b"x" * 64), frame(call_of(0, CALL) or b"")])
def test_who_says_something_else_is_closed(host: Host, said: bytes) -> None:
    host_address, port, _ = host.run(host.listener.offer())
    with socket.create_connection((host_address, port), 20) as opened:
        opened.sendall(said)
        ended = b"begun"
        with _closing():
            while ended:
                ended = opened.recv(1000)
    assert host.calls.empty()


@contextmanager
def _closing() -> Iterator[None]:
    """A reset is an end, too."""
    try:
        yield
    except ConnectionResetError:
        return


def test_who_says_nothing_is_closed(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener_module, "SHOWN_WITHIN_S", 0.2)
    host_address, port, _ = host.run(host.listener.offer())
    with socket.create_connection((host_address, port), 20) as opened, _closing():
        while opened.recv(1000):
            pass


def test_a_known_guest_that_sends_something_else_loses_its_connection_alone(host: Host) -> None:
    offer = host.run(host.listener.offer())
    connections, took = Connections(), Queue[Any]()
    assert sent_when_ready(connections, offer, took)
    with connected(offer) as (opened, messages):
        opened.sendall(frame(b"no call"))
        with pytest.raises(OSError):  # noqa: PT011  reset or closed
            next(messages)
    host.answer(host.calls.get(timeout=20)[1], ["fine"])
    assert took.get(timeout=20) == (["fine"], None)


def test_a_client_gives_nothing_to_somebody_else_who_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as impostor:
        connections, heard = Connections(), []
        offer = Offer("127.0.0.1", impostor.getsockname()[1], bytes(range(32)))
        assert not connections.send(offer, CALL, lambda *_: None)
        opened, _ = impostor.accept()
        with opened:
            opened.sendall(frame(bytes(32)))
            heard.append(opened.recv(1000))
            opened.sendall(frame(heard[0][4:36]))
            with _closing():
                heard.append(opened.recv(1000))
    assert len(heard[0]) == 4 + 64
    assert heard[1:] in ([], [b""])
    assert not connections.send(offer, CALL, lambda *_: None)


def test_what_ray_encrypts_goes_no_other_way(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_USE_TLS", "1")
    assert host.run(host.listener.offer()) is None
    assert host.run(host.listener.offer_to_writers()) is None
    assert not Connections().send(None, CALL, lambda *_: None)


def test_where_no_port_can_be_opened_rays_calls_are_used(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.util.get_node_ip_address", lambda: "no name of a host")
    assert host.run(host.listener.offer()) is None
    assert host.run(host.listener.offer_to_writers()) is None


# ---------------------------------------------------------------- writers' lines


WORK: Any = [(Payload(inline=b"rows"), [])]


def test_a_job_is_answered_with_what_was_staged_or_raised(host: Host) -> None:
    asked: list[Any] = []

    def stage(spec: Any, work: Any) -> Any:
        asked.append((spec, work))
        if len(asked) == 2:
            raise WriterTableError("full", retriable=True)
        return f"staged {len(asked)}"

    answer_jobs(host.run(host.listener.offer_to_writers()), 12, stage)
    number, line = host.lines.get(timeout=20)
    assert number == 12
    assert host.run(line.stage(SPEC, WORK)) == "staged 1"
    with pytest.raises(WriterTableError, match="full") as caught:
        host.run(line.stage(SPEC, WORK))
    assert caught.value.retriable
    assert host.run(line.stage(SPEC, WORK)) == "staged 3"
    assert [spec == SPEC and work == WORK for spec, work in asked] == [True] * 3
    assert asked[0][0] is asked[2][0]


def test_a_job_whose_writer_goes_away_is_lost(host: Host) -> None:
    with connected(host.run(host.listener.offer_to_writers())) as (opened, messages):
        opened.sendall(frame((3).to_bytes(8, "little")))
        _, line = host.lines.get(timeout=20)
        assert line.takes(WORK)
        job = asyncio.run_coroutine_threadsafe(line.stage(SPEC, WORK), host.loop)
        next(messages)
    with pytest.raises(ConnectionLostError):
        job.result(20)
    assert not line.takes(WORK)


def test_a_line_takes_what_is_small_and_in_the_call() -> None:
    line = WriterLine(lambda *_: None, lambda _: None)
    assert line.takes(WORK)
    assert not line.takes([(Payload(reference=["reference"]), [])])
    assert not line.takes([(Payload(inline=bytes(JOB_BYTES)), []), (Payload(inline=b"x"), [])])


def test_a_client_cannot_pass_for_a_writer(host: Host) -> None:
    with connected(host.run(host.listener.offer())) as (opened, messages):
        opened.sendall(frame((0).to_bytes(8, "little")))
        with pytest.raises(OSError):  # noqa: PT011  reset or closed
            next(messages)
    assert host.lines.empty()
