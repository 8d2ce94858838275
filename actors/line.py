"""Both ends of a writer's line: a connection over which the coordinator hands it what is small.

Receives: jobs, at the coordinator's end.
Produces: what the writer's `stage` returned or raised.
Guarantees: a job whose line is lost ends with `ConnectionLostError`: the writer may have staged it, and nobody will
    commit that.
Never does: have two jobs at a time.

What goes over it is pickled, as Ray would have it; its key is known to the coordinator and its writers alone.
"""

from __future__ import annotations

import asyncio
import logging
import pickle
import threading
from typing import TYPE_CHECKING

from actors.connection import ConnectionLostError, connected
from actors.frames import MOST_BYTES, FrameError, frame
from sfwriter.storage.place import get_ready

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.frames import Offer
    from actors.wire import Payload, Slice
    from sfwriter.storage.engine import StagedBatch, TableSpec

    Work = list[tuple[Payload, list[Slice]]]

log = logging.getLogger("sfwriter.service")

JOB_BYTES = MOST_BYTES // 4
"""Of rows in a job that goes over a line."""

SPECS_KEPT = 100
"""Tables whose specs a writer keeps."""


class WriterLine:
    """The coordinator's end. Lives on its event loop."""

    def __init__(self, opened: Callable[[int, WriterLine], None], send: Callable[[bytes], None]) -> None:
        """Wait for the writer to say who it is.

        Args:
            opened: told the writer's number, then.
            send: sends a message.
        """
        self._opened = opened
        self._send = send
        self._number: int | None = None
        self._job: asyncio.Future[StagedBatch] | None = None
        self._lost = False
        self._spec: TableSpec | None = None
        self._spec_bytes = b""

    def takes(self, work: Work) -> bool:
        """Whether a job can go this way: it is small, and nothing of it is in Ray's object store."""
        return not self._lost and (
            all(payload.reference is None for payload, _ in work)
            and sum(len(payload.inline) for payload, _ in work) <= JOB_BYTES
        )

    async def stage(self, spec: TableSpec, work: Work) -> StagedBatch:
        """As `Writer.stage`. Raises `ConnectionLostError`, too."""
        if spec is not self._spec:
            self._spec, self._spec_bytes = spec, pickle.dumps(spec)
        self._job = asyncio.get_running_loop().create_future()
        self._send(pickle.dumps((self._spec_bytes, work)))
        return await self._job

    def came(self, message: bytes) -> None:
        """The writer's number, or what became of its job."""
        if self._number is None:
            self._number = int.from_bytes(message, "little")
            self._opened(self._number, self)
            return
        if self._job is None or self._job.done():
            raise FrameError("a writer answers what it was not asked")
        staged, error = pickle.loads(message)  # noqa: S301  from a writer, which has shown the writers' key
        if error is None:
            self._job.set_result(staged)
        else:
            self._job.set_exception(error)

    def lost(self) -> None:
        """The connection ended, with the writer most likely."""
        self._lost = True
        if self._job is not None and not self._job.done():
            self._job.set_exception(ConnectionLostError("the connection to the writer ended"))


def answer_jobs(offer: Offer, number: int, stage: Callable[[TableSpec, Work], StagedBatch]) -> None:
    """The writer's end: a thread that stages what comes, until the connection ends, and gets ready for the next job."""

    def run() -> None:
        specs: dict[bytes, TableSpec] = {}
        try:
            with connected(offer) as (opened, messages):
                opened.sendall(frame(number.to_bytes(8, "little")))
                for message in messages:
                    spec, answer = _done(stage, specs, message)
                    opened.sendall(frame(answer))
                    if spec is not None:
                        get_ready(spec, to_commit=False)
        except Exception as error:  # noqa: BLE001  the coordinator calls through Ray where there is no line
            log.info("the line of writer %d ended: %s", number, error)

    threading.Thread(target=run, name="sfwriter-line", daemon=True).start()


def _done(
    stage: Callable[[TableSpec, Work], StagedBatch], specs: dict[bytes, TableSpec], message: bytes
) -> tuple[TableSpec | None, bytes]:
    """The table of a job, and what became of it. `specs` are those that were read: most jobs are for one of them."""
    spec = None
    try:
        spec_bytes, work = pickle.loads(message)  # noqa: S301  from the coordinator, which has shown the writers' key
        if spec_bytes not in specs:
            if len(specs) >= SPECS_KEPT:
                specs.clear()
            specs[spec_bytes] = pickle.loads(spec_bytes)  # noqa: S301
        spec = specs[spec_bytes]
        staged = stage(spec, work)
    except Exception as error:  # noqa: BLE001  the coordinator judges it
        return spec, pickle.dumps((None, error))
    return spec, pickle.dumps((staged, None))
