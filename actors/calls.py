"""What this process asks of Ray, and waits for: only for as long as there is a Ray that could answer.

Receives: the name of an actor, or a method of one and its arguments.
Produces: its handle, or the answer.
Guarantees: a wait ends where Ray is shut down meanwhile, by whatever thread. No other Ray is joined or started. Where
    this product shuts Ray down, or the process ends, that waits for the calls that are being made.
Never does: ask again.

Ray's own functions do nothing of this. Asked without a connection they join whatever Ray they find or start one, and
where that one ends, it takes this process along. Where Ray is shut down while they wait, they wait for ever; where it
is shut down while they make a call, the process may crash.
"""

from __future__ import annotations

import atexit
import contextlib
import threading
from concurrent import futures
from typing import TYPE_CHECKING, Any, TypeVar

import ray

from actors.options import NAMESPACE, actor_name
from sfwriter.exceptions import WriterError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    T = TypeVar("T")

LOOK_EVERY_S = 0.25
"""How long a wait goes on when Ray was shut down."""

CALLS_MADE_S = 5.0
"""Ray is shut down all the same where a call takes longer to be made: its object store may be full."""


class Gate:
    """Calls that are being made, of any number of threads, against the one that shuts Ray down."""

    def __init__(self) -> None:
        """Begin open."""
        self._changed = threading.Condition()
        self._inside = 0
        self._shut = False
        self.over = False
        """The process ends."""

    @contextlib.contextmanager
    def passed(self) -> Iterator[None]:
        """Keep Ray from being shut down; wait while it is."""
        with self._changed:
            self._changed.wait_for(lambda: not self._shut)
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                if self._shut:
                    self._changed.notify_all()

    @contextlib.contextmanager
    def shut(self) -> Iterator[None]:
        """Let nobody in, when those inside are out."""
        with self._changed:
            self._changed.wait_for(lambda: not self._shut)
            self._shut = True
            self._changed.wait_for(lambda: not self._inside, CALLS_MADE_S)
        try:
            yield
        finally:
            with self._changed:
                self._shut = False
                self._changed.notify_all()


_GATE = Gate()


def check_ray(service: str, outcome: str = "") -> None:
    """Raise `WriterError` without a Ray.

    Args:
        service: which is to be asked.
        outcome: what the error says of the call that needs it.
    """
    if _GATE.over or not ray.is_initialized():
        raise WriterError(
            f"this process has left the Ray of service {service!r}: it was stopped, or Ray was shut down{outcome}",
            suggestions=[f"connect again: connect({service!r})", "or start the service again: Service.start(config)"],
            retriable=True,
        )


@contextlib.contextmanager
def calling(service: str) -> Iterator[None]:
    """Make calls of Ray in here, which none of this product's ends of Ray cuts off; and wait for their answers outside.

    Raises:
        WriterError: there is no Ray.
    """
    with _GATE.passed():
        check_ray(service)
        yield


def leave_ray() -> None:
    """Shut down this process's Ray, when the calls that are being made are made. Without one nothing is done."""
    with _GATE.shut():
        if ray.is_initialized():
            ray.shutdown()


@atexit.register
def _process_ends() -> None:
    """Let nobody use Ray any more: its own exit function shuts it down whoever uses it."""
    with _GATE.shut():
        _GATE.over = True


def actor_of(service: str, role: str) -> Any:
    """The handle of one of a service's actors.

    Raises:
        ValueError: there is none of this role.
        WriterError: there is no Ray, or it was shut down meanwhile.
    """
    return _waited_for(service, lambda: _plain(ray.get_actor)(actor_name(service, role), namespace=NAMESPACE))


def answer_of(
    service: str,
    call: Callable[..., Any],
    *args: Any,
    timeout: float | None = None,
    meanwhile: Callable[[], None] | None = None,
) -> Any:
    """Call one of a service's actors, and wait for what it answers.

    Args:
        service: whose actor it is.
        call: `remote` of a method.
        args: what it is called with.
        timeout: seconds to wait; None for as long as it takes.
        meanwhile: called every `LOOK_EVERY_S` while this waits.

    Raises:
        GetTimeoutError, RayActorError, RayTaskError: as `ray.get` does.
        WriterError: there is no Ray, or it was shut down meanwhile.
    """

    def ask() -> Any:
        with calling(service):
            reference = call(*args)
        return _plain(ray.get)(reference, timeout=timeout)

    return _waited_for(service, ask, meanwhile)


def _waited_for(service: str, ask: Callable[[], T], meanwhile: Callable[[], None] | None = None) -> T:
    check_ray(service)
    answer: futures.Future[T] = futures.Future()
    # A thread of its own: one that Ray does not answer any more cannot be woken.
    threading.Thread(target=_answer, args=(answer, ask), name="sfwriter-asks-ray", daemon=True).start()
    while not futures.wait([answer], LOOK_EVERY_S).done:
        check_ray(service)
        if meanwhile is not None:
            meanwhile()
    if answer.exception() is not None:
        check_ray(service)
    return answer.result()


def _answer(answer: futures.Future[T], ask: Callable[[], T]) -> None:
    try:
        answer.set_result(ask())
    except BaseException as error:  # noqa: BLE001  whoever waits raises it
        answer.set_exception(error)


def _plain(function: Any) -> Any:
    """One of Ray's functions without what it does first: join or start a Ray where there is none."""
    return getattr(function, "__wrapped__", function)
