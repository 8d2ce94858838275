"""Kills and freezes, at random and at named steps, while clients write and maintenance runs."""

from __future__ import annotations

import random
import shutil
import threading
import time
from collections import Counter
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import psutil

from actors import Service
from benchmarks.crash.load import frozen, load, wait_for
from benchmarks.crash.steps import STEPS, crashing_actors, orders
from sfwriter import WriterConfig, WriterError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from benchmarks.crash.load import Load

KINDS = (*STEPS, "writer", "coordinator", "client", "metrics", "maintenance", "frozen writer", "frozen coordinator")
"""Each comes once in a turn, in an order of its own."""
FROZEN_S = (0.2, 1.0)
RECOVERS = 0.35
CHECK_EVERY = 20


def crash(
    kills: int, seed: int, folder: Path, told: Callable[[int, str], object] = lambda _, __: None
) -> dict[str, Any]:
    """Run a service under load, kill and freeze its processes, and count.

    Args:
        kills: how many kills and freezes.
        seed: of their order.
        folder: for the warehouse and what clients say.
        told: the number of each blow, and its kind.

    Returns:
        `kills` (by kind), `rows` and `acknowledged_batches` in the table, `maintenance_jobs` that ended, `seed`.

    Raises:
        AssertionError: a row is missing or twice, a batch that was acknowledged is not there, or somebody
            does not go on.
    """
    chance = random.Random(seed)
    name = f"crash-{seed}-{folder.name}"[:64]
    config = WriterConfig(
        warehouse=str(folder / "warehouse"), memory_fraction=0.02, parallel_write_threads=2, retry_delay_secs=0.1,
        max_retries=8,
    )  # fmt: skip
    orders(name).mkdir(parents=True, exist_ok=True)
    table = folder / "warehouse" / config.table_schema / config.table_name
    done: Counter[str] = Counter()
    try:
        with (
            crashing_actors(),
            Service.start(config, name=name) as service,
            load(service, folder / "clients", table) as working,
            _maintaining(service) as jobs,
        ):
            while done.total() < kills:
                for kind in chance.sample(KINDS, len(KINDS))[: kills - done.total()]:
                    told(done.total() + 1, kind)
                    _strike(kind, working, chance)
                    done[kind] += 1
                    # Now and then the next blow comes before anybody has recovered from this one.
                    if chance.random() < RECOVERS:
                        working.wait_for_progress(1)
                    if done.total() % CHECK_EVERY == 0:
                        working.check()
            working.wait_for_progress()
            working.finish()
            rows = working.check()
            reconciled = service.reconcile()
            if not reconciled["consistent"]:
                raise AssertionError(f"the ledger is not the table: {reconciled}")
            acknowledged = sum(client.acknowledged() + 1 for client in working.clients)
    finally:
        shutil.rmtree(orders(name), ignore_errors=True)
    return {
        "kills": dict(done), "rows": rows, "acknowledged_batches": acknowledged, "maintenance_jobs": len(jobs),
        "seed": seed,
    }  # fmt: skip


def _strike(kind: str, working: Load, chance: random.Random) -> None:
    """One blow."""
    if kind in STEPS:
        order = orders(working.service.name) / kind
        order.touch()
        wait_for(lambda: not order.exists(), f"somebody to die {kind}")
    elif kind in {"metrics", "maintenance"}:
        with suppress(psutil.NoSuchProcess):  # it may be on its way back from its last death
            working.kill(wait_for(lambda: working.service.health()[kind]["pid"], f"a {kind} actor"))
    elif kind == "client":
        client = chance.choice(working.clients)
        working.kill(client.pid)
        client.begin()
    else:
        pid = working.coordinator_pid() if kind.endswith("coordinator") else chance.choice(working.writer_pids())
        with suppress(psutil.NoSuchProcess, ProcessLookupError):  # a writer dies with its coordinator
            if kind.startswith("frozen"):
                with frozen(pid):
                    time.sleep(chance.uniform(*FROZEN_S))
            else:
                working.kill(pid)


@contextmanager
def _maintaining(service: Service) -> Iterator[list[str]]:
    """Maintenance without a pause meanwhile; what ended is listed."""
    over = threading.Event()
    ended: list[str] = []

    def maintain() -> None:
        while not over.wait(1.0):
            # Its actor and the coordinator die, too: what it was doing is done in the next turn.
            with suppress(WriterError, Exception):
                service.maintain({"optimize": True, "vacuum": True})
                ended.append("done")

    thread = threading.Thread(target=maintain, name="maintaining")
    thread.start()
    try:
        yield ended
    finally:
        over.set()
        thread.join()
