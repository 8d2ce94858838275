"""What is asked of Ray ends where Ray does. Without a Ray."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest
import ray

from actors import calls
from sfwriter import WriterError

if TYPE_CHECKING:
    from collections.abc import Iterator


class FakeRay:
    """Whether there is a Ray, and whether it answers."""

    def __init__(self) -> None:
        self.there = True
        self.answers = threading.Event()
        self.told: list[str] = []

    def shutdown(self) -> None:
        self.told.append("shut down")
        self.there = False

    def get(self, reference: object, timeout: float | None = None) -> object:
        assert timeout is None
        self.answers.wait(20)
        if isinstance(reference, Exception):
            raise reference
        return reference


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeRay]:
    """A Ray that can be shut down while it is asked: the real one does not say when it is between the two."""
    known = FakeRay()
    monkeypatch.setattr(ray, "is_initialized", lambda: known.there)
    monkeypatch.setattr(ray, "get", known.get)
    monkeypatch.setattr(ray, "shutdown", known.shutdown)
    yield known
    known.answers.set()


def test_an_answer_and_an_error_are_those_of_ray(fake: FakeRay) -> None:
    fake.answers.set()
    assert calls.answer_of("logs", lambda *args: args, 1, 2) == (1, 2)
    with pytest.raises(ZeroDivisionError):
        calls.answer_of("logs", ZeroDivisionError)


def test_a_call_that_ray_left_unanswered_ends_when_ray_is_shut_down(fake: FakeRay) -> None:
    threading.Timer(0.3, setattr, (fake, "there", False)).start()
    began = time.monotonic()
    with pytest.raises(WriterError, match="left the Ray of service 'logs'"):
        calls.answer_of("logs", lambda: 1)
    assert time.monotonic() - began < 10


def test_an_error_of_a_ray_that_is_gone_says_that_it_is_gone(fake: FakeRay) -> None:
    def call() -> object:
        fake.there = False
        raise RuntimeError("Ray has not been started yet")

    with pytest.raises(WriterError, match="left the Ray of service 'logs'"):
        calls.answer_of("logs", call)


def test_nothing_is_asked_without_a_ray(fake: FakeRay) -> None:
    fake.there = False
    asked: list[int] = []
    with pytest.raises(WriterError, match="left the Ray"):
        calls.answer_of("logs", lambda: asked.append(1))
    with pytest.raises(WriterError, match="left the Ray"):
        calls.actor_of("logs", "coordinator")
    assert not asked


def test_progress_is_told_while_an_answer_is_waited_for(fake: FakeRay) -> None:
    told: list[int] = []

    def tell() -> None:
        told.append(1)
        if len(told) == 2:
            fake.answers.set()

    assert calls.answer_of("logs", lambda: 7, meanwhile=tell) == 7
    assert len(told) == 2


def test_rays_functions_are_called_without_what_would_start_another_ray() -> None:
    assert [ask.__code__.co_name for ask in (ray.get, ray.get_actor)] == ["auto_init_wrapper"] * 2
    assert "auto_init_wrapper" not in {calls._plain(ask).__code__.co_name for ask in (ray.get, ray.get_actor)}


def test_the_end_of_a_ray_waits_for_calls_that_are_being_made_and_lets_no_other_in(fake: FakeRay) -> None:
    order = fake.told
    made, inside = threading.Event(), threading.Event()

    def call() -> None:
        with calls.calling("logs"):
            inside.set()
            made.wait(10)
            order.append("called")

    def late() -> None:
        try:
            with calls.calling("logs"):
                order.append("never")
        except WriterError:
            order.append("refused")

    first = threading.Thread(target=call)
    first.start()
    inside.wait(10)
    ending = threading.Thread(target=calls.leave_ray)
    ending.start()
    time.sleep(0.2)  # the end is at the gate by then; where it is not, the second comes before it, and this fails
    second = threading.Thread(target=late)
    second.start()
    time.sleep(0.2)  # nothing happens meanwhile, which no event tells
    assert not order
    made.set()
    for thread in (first, second, ending):
        thread.join(10)
    assert order == ["called", "shut down", "refused"]
    calls.leave_ray()  # there is none any more
