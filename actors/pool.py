"""The coordinator's writer actors: made when they are needed, replaced when they die or hang."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from typing import TYPE_CHECKING, Any, cast

import ray
from ray.exceptions import ObjectLostError, OutOfMemoryError, RayActorError, RayError, RayTaskError

from actors.connection import ConnectionLostError
from actors.options import CALL_TIMEOUT_S, writer_options
from actors.wire import cause_of
from actors.writer import WriterActor
from sfwriter.exceptions import WriterTableError
from sfwriter.flow.vocabulary import Fault, Staged, StagingFailed
from sfwriter.runtime.tables import fault_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from actors.frames import Offer
    from actors.line import WriterLine
    from actors.wire import Payload, Slice
    from sfwriter.flow.vocabulary import Event
    from sfwriter.storage.engine import StagedBatch, TableSpec

log = logging.getLogger("sfwriter.service")

IDLE_S = 60.0
"""A writer that had nothing to do for so long goes, down to the last one."""

RESTART_AFTER_S = 1.0
"""Pause after a writer that could not even start."""


class _Seat:
    """One writer actor."""

    __slots__ = ("actor", "idle_until", "job", "line", "name", "number", "state")

    def __init__(self, number: int, name: str, actor: Any) -> None:
        self.number = number
        self.name = name
        self.actor = actor
        self.job: int | None = None
        self.idle_until: asyncio.TimerHandle | None = None
        self.state = "starting"
        self.line: WriterLine | None = None


class WriterPool:
    """Up to `size` writers, one staging job at a time each. Lives on the coordinator's event loop."""

    def __init__(self, service: str, size: int, offer: Callable[[], Awaitable[Offer | None]] | None = None) -> None:
        """Begin without writers.

        Args:
            service: its name.
            size: how many writers at most.
            offer: where they can open a line to this process (see `line_opened`); without, Ray's calls are used.
        """
        self._service = service
        self._offer = offer
        self._size = size
        self._numbers = itertools.count()
        self.seats: dict[int, _Seat] = {}
        self._idle: list[_Seat] = []
        self._starting: set[asyncio.Task[None]] = set()
        self._waiters: list[asyncio.Future[None]] = []
        self.deaths = 0

    def warm_up(self) -> None:
        """Make the first writer, so that the first batch does not wait for it."""
        if not self.seats:
            self._hire()

    async def stage(self, job: int, spec: TableSpec, work: list[tuple[Payload, list[Slice]]]) -> Event:
        """Have a writer stage the work, and say how that ended. Never raises."""
        seat = await self._take()
        seat.job, seat.state = job, "staging"
        try:
            staged = await self._staged(seat, spec, work)
        except (RayActorError, OutOfMemoryError, ConnectionLostError) as error:
            self._dismiss(seat)
            return StagingFailed(job, Fault(_lost_writer(spec.name, error), retriable=True), worker_died=True)
        except ObjectLostError as error:
            self._give_back(seat)
            return StagingFailed(job, Fault(_lost_payload(spec.name, error), retriable=False))
        except RayTaskError as error:
            self._give_back(seat)
            cause = cause_of(error)
            if isinstance(cause, ObjectLostError):
                return StagingFailed(job, Fault(_lost_payload(spec.name, cause), retriable=False))
            return StagingFailed(job, fault_of(cause))
        except RayError as error:
            self._dismiss(seat)
            return StagingFailed(job, fault_of(error), worker_died=True)
        except Exception as error:  # noqa: BLE001  the writer's own, over its line: the machine judges it
            self._give_back(seat)
            return StagingFailed(job, fault_of(error))
        self._give_back(seat)
        return Staged(job, staged)

    @staticmethod
    async def _staged(seat: _Seat, spec: TableSpec, work: list[tuple[Payload, list[Slice]]]) -> StagedBatch:
        """What a writer made of the work, over its line or through Ray."""
        if seat.line is not None and seat.line.takes(work):
            return await seat.line.stage(spec, work)
        staged: StagedBatch = await seat.actor.stage.remote(spec, work)
        return staged

    def line_opened(self, number: int, line: WriterLine) -> None:
        """A writer has opened its line: what is small goes over it from now on."""
        seat = self.seats.get(number)
        if seat is not None:
            seat.line = line

    def abandon(self, job: int) -> None:
        """Kill the writer that stages this job; its call ends as a death, which nobody waits for any more."""
        for seat in list(self.seats.values()):
            if seat.job == job:
                log.warning("writer %s hangs and is replaced", seat.name)
                self._dismiss(seat)

    async def look(self) -> list[dict[str, Any]]:
        """Each writer's state, pid, node and memory."""
        return await asyncio.gather(*(self._look_at(seat) for seat in self.seats.values()))

    def stop(self) -> None:
        """Kill all writers."""
        for seat in list(self.seats.values()):
            self._remove(seat)

    # ------------------------------------------------------------ seats

    async def _take(self) -> _Seat:
        while not self._idle:
            if len(self.seats) < self._size and not any(seat.state == "starting" for seat in self.seats.values()):
                self._hire()
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter
        seat = self._idle.pop()
        if seat.idle_until is not None:
            seat.idle_until.cancel()
        return seat

    def _hire(self) -> None:
        """Make a writer. It takes work when it has started; one that is idle before it does the work meanwhile."""
        number = next(self._numbers)
        # The number alone could be in use by a writer of this coordinator's previous life.
        name = f"{number}-{str(ray.get_runtime_context().get_actor_id())[:8]}-{next(_UNIQUE)}"
        actor = cast("Any", WriterActor).options(**writer_options(self._service, name)).remote()
        seat = self.seats[number] = _Seat(number, f"writer-{name}", actor)
        task = asyncio.get_running_loop().create_task(self._await_start(seat))
        self._starting.add(task)  # the loop itself holds tasks only weakly
        task.add_done_callback(self._starting.discard)

    async def _await_start(self, seat: _Seat) -> None:
        try:
            await seat.actor.begin.remote(None if self._offer is None else await self._offer(), seat.number)
        except Exception:
            log.warning("writer %s could not start and is replaced", seat.name, exc_info=True)
            await asyncio.sleep(RESTART_AFTER_S)
            self._dismiss(seat)
        else:
            self._give_back(seat)

    def _give_back(self, seat: _Seat) -> None:
        seat.job, seat.state = None, "idle"
        if seat.number in self.seats:
            self._idle.append(seat)
            seat.idle_until = asyncio.get_running_loop().call_later(IDLE_S, self._let_go, seat)
        self._wake()

    def _let_go(self, seat: _Seat) -> None:
        """End a writer that has been idle for long, unless it is the last one."""
        if seat in self._idle and len(self.seats) > 1:
            self._remove(seat)

    def _dismiss(self, seat: _Seat) -> None:
        """Give up a writer that died or hangs."""
        if seat.number in self.seats:
            self.deaths += 1
            self._remove(seat)
            self._wake()

    def _remove(self, seat: _Seat) -> None:
        if self.seats.pop(seat.number, None) is None:
            return
        if seat in self._idle:
            self._idle.remove(seat)
        if seat.line is not None:
            seat.line.lost()
        with contextlib.suppress(Exception):  # it may be dead already, which is what is wanted
            ray.kill(seat.actor)

    def _wake(self) -> None:
        while self._waiters:
            waiter = self._waiters.pop(0)
            if not waiter.done():
                waiter.set_result(None)
                return

    async def _look_at(self, seat: _Seat) -> dict[str, Any]:
        entry: dict[str, Any] = {
            "name": seat.name,
            "state": seat.state,
            "pid": None,
            "node_id": None,
            "memory_bytes": None,
        }
        if seat.state == "starting":
            return entry  # it has no process yet, or one that is not ready to answer
        try:
            entry.update(await asyncio.wait_for(seat.actor.ping.remote(), CALL_TIMEOUT_S / 10))
        except (RayActorError, asyncio.TimeoutError):
            entry["state"] = "down"
        return entry


_UNIQUE = itertools.count()


def _lost_writer(table: str, error: BaseException) -> WriterTableError:
    return WriterTableError(
        f"the writer that staged a batch for {table} died: {error}",
        suggestions=["look for the cause in its node's Ray log; smaller batches need less memory"],
        retriable=True,
    )


def _lost_payload(table: str, error: BaseException) -> WriterTableError:
    return WriterTableError(
        f"the rows of a batch for {table} were lost on the way, with the process that sent them: {error}",
        suggestions=["send them again under the same number"],
        retriable=True,
    )
