"""Actors that kill themselves at a named step, once for each time that they are told to."""

from __future__ import annotations

import os
import signal
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import ray

import actors.pool
from actors.coordinator import Coordinator
from actors.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

STEPS = ("before stage", "after stage", "before commit", "after commit", "before ack")
"""After the commit the rows are durable and nobody knows; before the ack the coordinator knows."""


def orders(service: str) -> Path:
    """The folder in which a file's name is the step at which somebody is to die."""
    return Path(tempfile.gettempdir()) / f"sfwriter-crash-{service}"


def reached(service: str, step: str) -> None:
    """Die here if that was ordered; of several processes one takes the order."""
    order = orders(service) / step
    with suppress(FileNotFoundError):
        order.rename(order.with_name(f"{step}, taken"))
        os.kill(os.getpid(), signal.SIGKILL)


class CrashingWriter(Writer):
    """A writer that dies before or after it has staged."""

    def __init__(self) -> None:
        """As a writer does."""
        super().__init__()
        self._service = str(ray.get_runtime_context().get_actor_name()).partition(":")[0]

    def stage(self, spec: Any, work: Any) -> Any:
        """As a writer does."""
        reached(self._service, "before stage")
        staged = super().stage(spec, work)
        reached(self._service, "after stage")
        return staged


class CrashingCoordinator(Coordinator):
    """A coordinator that dies around a commit, or before it answers."""

    def __init__(self, service: str, *args: Any) -> None:
        """As a coordinator does, with writers that die."""
        setattr(actors.pool, "WriterActor", ray.remote(CrashingWriter))  # noqa: B010  for this process alone
        super().__init__(service, *args)

    async def _on_thread(self, table: str, call: Callable[[], Any], commit_of: Any) -> None:
        def crashing() -> Any:
            reached(self._service, "before commit")
            event = call()
            reached(self._service, "after commit")
            return event

        await super()._on_thread(table, call if commit_of is None else crashing, commit_of)

    def _settle(self, command: Any) -> None:
        reached(self._service, "before ack")
        super()._settle(command)


@contextmanager
def crashing_actors() -> Iterator[None]:
    """Services that are started meanwhile have such actors."""
    with patch("actors.service.CoordinatorActor", ray.remote(CrashingCoordinator)):
        yield
