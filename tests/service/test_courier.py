"""Clients of one process: they share calls, and nothing else."""

from __future__ import annotations

import socket
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import ray

from actors import connect
from actors.connection import Connections
from actors.courier import Courier
from actors.frames import Offer
from actors.options import PARCEL_LINGER_S
from sfwriter.testing.clock import ManualClock
from tests.service.support import counted

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors import Service

pytestmark = [pytest.mark.ray, pytest.mark.timeout(180)]

CLIENTS, CALLS = 8, 12


def rows(client: int, call: int) -> list[dict[str, Any]]:
    run = f"run-{client}-{call}"
    return [
        {"run_id": run, "execution_id": run, "phase": "silver", "step_name": f"step-{step}", "success": True}
        for step in range(7)
    ]


def test_clients_that_wait_share_commits_and_each_has_its_own_answers(start: Callable[..., Service]) -> None:
    service = start()
    clients = [connect(service.name) for _ in range(CLIENTS)]

    def work(which: int) -> list[Any]:
        return [clients[which].write_log_rows(rows(which, call)) for call in range(CALLS)]

    with ThreadPoolExecutor(CLIENTS) as threads:
        found = list(threads.map(work, range(CLIENTS)))
    for client, own in zip(clients, found, strict=True):
        assert [result["batch_id"] for result in own] == [f"{client.producer_id}:{call}" for call in range(CALLS)]
        assert all(result["rows_written"] == 7 for result in own)
        assert client.get_metrics()["retries"] == 0
        client.close()
    versions = {result["version"] for own in found for result in own}
    assert len(versions) <= CLIENTS * CALLS / 2
    assert counted(table_of(service)) == (CLIENTS * CALLS * 7,) * 2


def test_a_callback_that_waits_for_another_client_holds_nobody_up(start: Callable[..., Service]) -> None:
    service = start()
    with connect(service.name) as one, connect(service.name) as other:
        other.write_log_rows(rows(1, 0))
        written: Future[Any] = Future()
        call = one.submit_log_rows(rows(0, 0))
        call.add_done_callback(lambda _: written.set_result(other.write_log_rows(rows(1, 1))))
        assert written.result(60)["rows_written"] == 7
        assert one.write_log_rows(rows(0, 1))["rows_written"] == 7
    assert counted(table_of(service)) == (28, 28)


def test_what_is_given_without_waiting_keeps_its_order_beside_other_clients(start: Callable[..., Service]) -> None:
    service = start()
    with connect(service.name) as one, connect(service.name) as other, ThreadPoolExecutor(1) as thread:
        beside = thread.submit(lambda: [other.write_log_rows(rows(1, call)) for call in range(CALLS)])
        calls = [one.submit_log_rows(rows(0, call)) for call in range(200)]
        one.flush()
        ids = [call.result(60)["batch_id"] for call in calls]
        assert ids == [f"{one.producer_id}:{number}" for number in range(200)]
        assert one.get_metrics()["retries"] == 0
        assert len(beside.result(60)) == CALLS
    assert counted(table_of(service)) == ((200 + CALLS) * 7,) * 2


def test_rows_that_are_refused_cost_no_other_client_anything(start: Callable[..., Service]) -> None:
    service = start()
    with connect(service.name, producer_id="twice") as one, connect(service.name) as other:
        one.write_log_rows(rows(0, 0), sequence=0)
        with ThreadPoolExecutor(2) as threads:
            wrong = [threads.submit(one.write_log_rows, rows(0, call), sequence=0) for call in range(1, 6)]
            right = [threads.submit(other.write_log_rows, rows(1, call)) for call in range(5)]
            assert all(call.exception(60) is not None for call in wrong)
            assert all(call.result(60)["rows_written"] == 7 for call in right)
    assert counted(table_of(service)) == (42, 42)


def table_of(service: Service) -> str:
    """The folder of its log table."""
    with connect(service.name) as client:
        return str(client.get_table_info()["location"])


def test_a_call_long_after_the_last_answers_waits_for_nobody() -> None:
    courier, clock = Courier(), ManualClock()
    courier._clock = clock
    courier._thread = threading.current_thread()  # nobody is to send
    courier._expected = {"answered": None}
    courier._wait_until = clock.monotonic() + PARCEL_LINGER_S
    courier.call("soon")
    assert courier._left() == PARCEL_LINGER_S
    courier._ready.clear()
    clock.advance(2 * PARCEL_LINGER_S)
    courier.call("late")
    assert courier._left() == 0


@pytest.fixture
def went(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each call went over a connection."""
    found: list[bool] = []
    send = Connections.send

    def noting(connections: Connections, *args: Any) -> bool:
        found.append(send(connections, *args))
        return found[-1]

    monkeypatch.setattr(Connections, "send", noting)
    return found


def written_until(client: Any, went: list[bool], over: bool) -> int:
    """Write until a call went over a connection, or did not; how many were written."""
    for call in range(400):
        client.write_log_rows(rows(0, call))
        if went[-1:] == [over]:
            return call + 1
        time.sleep(0.02)  # a connection is made, and lost, in the background
    raise AssertionError(f"never {over}")


def test_small_calls_go_over_a_connection_and_through_ray_before_there_is_one(
    start: Callable[..., Service], went: list[bool]
) -> None:
    service = start()
    with connect(service.name) as client:
        written = written_until(client, went, True)
        for call in range(10):
            assert client.write_log_rows(rows(1, call))["rows_written"] == 7
    assert went[-10:] == [True] * 10
    assert counted(table_of(service)) == ((written + 10) * 7,) * 2


def test_a_new_life_of_the_coordinator_gets_a_connection_of_its_own(
    start: Callable[..., Service], went: list[bool]
) -> None:
    service = start()
    with connect(service.name, producer_id="lives") as client:
        written = written_until(client, went, True)
        before = client._remote.offer
        ray.kill(service.coordinator, no_restart=False)
        written += written_until(client, went, False)
        written += written_until(client, went, True)
        assert client._remote.offer not in {None, before}
        assert client.committed_sequence == written - 1


def test_a_port_that_cannot_be_reached_costs_a_service_nothing_but_speed(
    start: Callable[..., Service], went: list[bool]
) -> None:
    service = start()
    with connect(service.name) as client:
        client.write_log_rows(rows(0, 0))
        with socket.create_server(("127.0.0.1", 0)) as closed:
            nowhere = Offer("127.0.0.1", closed.getsockname()[1], b"key")
        client._remote.offer = nowhere
        assert client.write_log_rows(rows(0, 1))["rows_written"] == 7
        assert went[-1:] == [False]
        assert client._remote.offer != nowhere, "the answer tells where the coordinator listens now"
        assert client.get_metrics()["retries"] == 0
