"""The metrics actor: counts once a second, looks at everybody every few seconds, and keeps a few minutes of it."""

from __future__ import annotations

import os
import threading
from collections import deque
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import GetTimeoutError
from ray.util.metrics import Counter, Gauge

from actors.calls import actor_of
from actors.exposition import COUNTERS, GAUGES
from actors.lives import restarts
from actors.options import CALL_TIMEOUT_S, HISTORY_S, SNAPSHOT_EVERY_S
from actors.spark_table import ask as ask_spark
from sfwriter.clock import SystemClock
from sfwriter.limits import process_memory

if TYPE_CHECKING:
    from collections.abc import Iterable

COUNTED = ("rows_total", "bytes_total", "batches_total", "commits_total")
TOTALS = (*COUNTED, "quarantined_rows_total", "refusals_total", "retries_total", "writer_deaths_total")
RATE_OVER_S = 60.0
READ_TIMEOUT_S = 2.0
"""For the coordinator, when somebody waits: what is known is better than an error after half a minute."""

LOOK_TIMEOUT_S, CARE_READ_TIMEOUT_S = 2.0, 0.01
"""For the maintenance actor: when everybody is looked at, and when somebody waits, beside the coordinator's own answer.
It runs at a low priority, and what it said last is a few seconds old at most."""

WHOLE_EVERY_S = 5.0
"""So often everybody is looked at; each time, while somebody wants to know: for so long after a start or a question."""


class Totals:
    """Counters that go on where a coordinator's new life begins at zero again. Pure."""

    def __init__(self) -> None:
        """Begin at zero."""
        self._life: str | None = None
        self._past = dict.fromkeys(TOTALS, 0)
        self._last = dict.fromkeys(TOTALS, 0)

    def add(self, look: dict[str, Any]) -> dict[str, int]:
        """Take a look at the coordinator and return the totals over all its lives."""
        if self._life is not None and look["life"] != self._life:
            for name in TOTALS:
                self._past[name] += self._last[name]
        self._life = look["life"]
        self._last = {name: look[name] for name in TOTALS}
        return {name: self._past[name] + self._last[name] for name in TOTALS}


class Metrics:
    """Pulls, keeps, answers. Its death costs nothing but history."""

    def __init__(self, service: str) -> None:
        """Begin to look, on a thread of its own."""
        self._service = service
        self._clock = SystemClock()
        self._lock = threading.Lock()
        self._totals = Totals()
        tags = {"tag_keys": ("service",)}
        self._gauges = {name: Gauge(f"sfwriter_{name}", text, **tags) for name, text in GAUGES.items()}
        self._counters = {name: Counter(f"sfwriter_{name}", text, **tags) for name, text in COUNTERS.items()}
        for metric in (*self._gauges.values(), *self._counters.values()):
            metric.set_default_tags({"service": service})
        self._counted: dict[str, int] = {}
        self._asked_at = self._clock.monotonic()
        self._newest: dict[str, Any] = {}
        self._writers_memory: dict[str, int | None] | None = None
        self._said_of_care: dict[str, Any] | None = None
        self._spark_memory: int | None = None
        # Ray's control store is asked for a name once, not for each look.
        self._handles: dict[str, Any] = {}
        self._history: deque[tuple[float, dict[str, Any]]] = deque(maxlen=int(HISTORY_S / SNAPSHOT_EVERY_S))
        threading.Thread(target=self._keep_looking, name="metrics", daemon=True).start()

    def read(self) -> dict[str, Any]:
        """The newest figures, with the last minute's rates, and how old they are where the coordinator is silent."""
        self._asked_at = self._clock.monotonic()
        self._look(READ_TIMEOUT_S, everybody=False)
        with self._lock:
            if not self._history:
                return {}
            newest = self._newest
            now = self._history[-1][0]
            then, oldest = next(entry for entry in self._history if entry[0] >= now - RATE_OVER_S)
            span = now - then
            rates = {
                name.replace("_total", "_per_sec"): (newest[name] - oldest[name]) / span if span > 0 else 0.0
                for name in COUNTED
            }
            ages = {"age_secs": self._clock.monotonic() - now, "history_secs": now - self._history[0][0]}
            return {**newest, **rates, **ages}

    def history(self) -> list[dict[str, Any]]:
        """What was counted at each look of the last minutes, the oldest first."""
        with self._lock:
            now = self._clock.monotonic()
            return [{"age_secs": now - at, **point} for at, point in self._history]

    def ping(self) -> dict[str, Any]:
        """Who and where it is, and its own memory."""
        return {
            "pid": os.getpid(),
            "node_id": ray.get_runtime_context().get_node_id(),
            "memory_bytes": process_memory().own,
            "restarts": restarts(),
        }

    def _keep_looking(self) -> None:
        looked_at = float("-inf")
        while True:
            now = self._clock.monotonic()
            if self._newest and now - looked_at < WHOLE_EVERY_S <= now - self._asked_at:
                self._count()
            else:
                looked_at = now
                self._look(CALL_TIMEOUT_S, everybody=True)
            self._clock.sleep(SNAPSHOT_EVERY_S)

    def _count(self) -> None:
        """Ask the coordinator for its counts alone: while it tells all that it knows, nobody is answered for 10 ms."""
        try:
            counts = ray.get(self._handle("coordinator").look.remote(whole=False), timeout=CALL_TIMEOUT_S)
        except Exception:  # noqa: BLE001  see `_look`
            self._handles.pop("coordinator", None)
            return
        memory = {**self._newest["actor_memory_bytes"], "coordinator": counts["memory_bytes"]}
        self._keep({**self._newest, **counts, "actor_memory_bytes": memory}, anew=True)

    def _look(self, timeout: float, *, everybody: bool) -> None:
        """Look at the coordinator and at maintenance; at the writers, who are busy, or go by what they said last."""
        memory = None if everybody else self._writers_memory
        try:
            coordinator = self._handle("coordinator")
            asked = self._ask_for_care()
            look = ray.get(coordinator.look.remote(), timeout=timeout)
            if memory is None:
                writers = ray.get(coordinator.writers.remote(), timeout=timeout)
                memory = {writer["name"]: writer["memory_bytes"] for writer in writers}
                self._writers_memory = memory
        except Exception:  # noqa: BLE001  a coordinator that is away is looked at again in a second
            self._handles.pop("coordinator", None)
            return
        hurried = not everybody and self._said_of_care is not None
        care = self._care(asked, CARE_READ_TIMEOUT_S if hurried else LOOK_TIMEOUT_S)
        memory = {**memory, "coordinator": look["memory_bytes"], "metrics": process_memory().own}
        if look["engine"] == "spark":
            host = ask_spark(self._service) if everybody else None
            self._spark_memory = self._spark_memory if host is None else host["memory_bytes"]
            memory["spark"] = self._spark_memory
        if care is not None:
            care = dict(care)
            memory["maintenance"] = care.pop("memory_bytes")
        figures = {**look, "actor_memory_bytes": memory, "maintenance": care}
        figures["histograms"] = {stage: kept.figures() for stage, kept in look["histograms"].items()}
        for by in ("tables", "producers"):
            figures[by] = look[by].figures()
        self._keep(figures, anew=everybody)

    def _keep(self, figures: dict[str, Any], *, anew: bool) -> None:
        """Make these the newest figures, and a point of the history; one that replaces the last, unless it is new."""
        with self._lock:
            figures.update(self._totals.add(figures))
            self._newest = figures
            # Of all figures a few minutes would be hundreds of megabytes.
            point = {name: figures[name] for name in (*TOTALS, *GAUGES)}
            point["memory_bytes"] = _sum(figures["actor_memory_bytes"].values())
            if self._history and not anew:
                self._history.pop()
            self._history.append((self._clock.monotonic(), point))
            self._shown(figures)

    def _ask_for_care(self) -> Any:
        try:
            return self._handle("maintenance").look.remote()
        except Exception:  # noqa: BLE001  it may be away, or in the middle of a start
            self._handles.pop("maintenance", None)
            return None

    def _handle(self, role: str) -> Any:
        handle = self._handles.get(role)
        if handle is None:
            handle = self._handles[role] = actor_of(self._service, role)
        return handle

    def _care(self, asked: Any, timeout: float) -> dict[str, Any] | None:
        """What the maintenance actor does; what it said last, if it does not answer in time; None without one."""
        if asked is None:
            self._said_of_care = None
        else:
            try:
                self._said_of_care = ray.get(asked, timeout=timeout)
            except GetTimeoutError:
                pass
            except Exception:  # noqa: BLE001  it died
                self._handles.pop("maintenance", None)
                self._said_of_care = None
        return self._said_of_care

    def _shown(self, figures: dict[str, Any]) -> None:
        """Hand the figures to Ray's own metrics, which its agents export."""
        for name, gauge in self._gauges.items():
            gauge.set(figures[name])
        for name, counter in self._counters.items():
            more = figures[name] - self._counted.get(name, 0)
            self._counted[name] = figures[name]
            if more > 0:
                counter.inc(more)


def _sum(sizes: Iterable[int | None]) -> int:
    return sum(size for size in sizes if size is not None)


MetricsActor = ray.remote(Metrics)
