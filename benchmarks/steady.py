"""A steady mixed load on a service, for as long as is asked: memory, latency, files and log over time.

Three kinds of clients, each in a process of its own, at a pace that leaves the machine room: one that writes 7 rows
and waits, one with batches of 2,000 rows and many in flight, and one with a key for each call, as a scheduler's tasks
have. Maintenance is on, and compacts and vacuums once a minute beside what it does by itself.
"""

from __future__ import annotations

import statistics
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from benchmarks.cases.acks import distinct_rows
from benchmarks.cases.data import TABLE, check_table
from benchmarks.cases.service import running_service
from benchmarks.crew import crew, wait_for_go
from benchmarks.footprint import bytes_by_kind
from benchmarks.live import look_at
from sfwriter import WriterError
from sfwriter.testing.rows import log_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from actors import Service

SERVICE = "benchmark"
MEDIUM_ROWS = 2_000
APART = 10_000_000
KINDS = ("small", "medium", "keyed")
PAUSE_S = {"small": 0.05, "medium": 0.1, "keyed": 0.2}
IN_FLIGHT = 8
POINTS = 100
"""Looks at memory, latency, files and log, spread over the time."""
MAINTAIN_EVERY_S = 60.0
SHARE = 5
"""The last fifth of the looks is compared with the second one: in the first one caches fill."""


def steady(
    seconds: float,
    folder: Path,
    told: Callable[[float, dict[str, float]], object] = lambda *_: None,
    *,
    own_ray: bool = True,
) -> dict[str, Any]:
    """Run the load, and say what changed.

    Args:
        seconds: how long.
        folder: for the warehouse.
        told: each look: seconds since the beginning, and its figures.
        own_ray: start a Ray even where `RAY_ADDRESS` names one, whose processes are not counted.

    Returns:
        `memory_growth` (of all processes but this one, which reads more of the log at each look) and
        `latency_growth` (median of the small calls), the last fifth over the second one, less 1; `most_files`,
        `files`, `log_entries`, `commits`, `rows`, `calls`, `maintenance_jobs`, `points`.

    Raises:
        WrongOutcome: rows are missing or twice.
    """
    warehouse = folder / "warehouse"
    table = warehouse / TABLE
    points: list[dict[str, float]] = []
    with (
        running_service(str(warehouse), own_ray=own_ray, memory_fraction=0.05) as (client, warm_up_rows),
        crew("benchmarks.steady:write_steadily", len(KINDS), seconds=seconds) as all_,
    ):
        from actors import Service

        service = Service.attach(SERVICE)
        began = time.monotonic()
        with _maintaining(service) as jobs:
            all_.go()
            while all_.working:
                points.append({"secs": time.monotonic() - began, **_look(service, table)})
                told(points[-1]["secs"], points[-1])
                time.sleep(max(0.2, seconds / POINTS))
            found = all_.figures()
        figures = service.metrics()
        client.close()
    rows = int(warm_up_rows) + int(sum(member["rows"] for member in found))
    check_table(table, rows)
    small = next(member["latencies"] for member in found if member["kind"] == "small")
    return {
        "seconds": seconds,
        "memory_growth": _growth([point["memory_bytes"] for point in points]),
        "latency_growth": _growth(small),
        "p50_ms": statistics.median(small) * 1000,
        "p99_ms": sorted(small)[int(len(small) * 0.99)] * 1000,
        "most_files": max(point["files"] for point in points),
        "files": points[-1]["files"],
        "most_log_entries": max(point["log_entries"] for point in points),
        "commits": figures["commits_total"],
        "rows": rows,
        "calls": sum(member["calls"] for member in found),
        "maintenance_jobs": len(jobs),
        "points": points,
    }


def write_steadily(number: int, seconds: float) -> dict[str, Any]:
    """In a process of its own: one of the clients."""
    from actors import connect

    kind = KINDS[number]
    latencies: list[float] = []
    calls = rows = 0
    with connect(SERVICE) as client:
        wait_for_go()
        until = time.monotonic() + seconds
        flying: list[Any] = []
        while time.monotonic() < until or not calls:
            began = time.perf_counter()
            if kind == "small":
                rows += client.write_log_rows(distinct_rows(APART + number, calls))["rows_written"]
                latencies.append(time.perf_counter() - began)
            elif kind == "medium":
                flying.append(client.submit_log_rows(log_table(MEDIUM_ROWS, first=APART + calls * MEDIUM_ROWS)))
                while len(flying) > IN_FLIGHT:
                    rows += flying.pop(0).result()["rows_written"]
            else:
                key = f"task-{calls}"
                one = distinct_rows(APART + number, calls)
                rows += client.write_log_rows(one, idempotency_key=key)["rows_written"]
                if calls % 10 == 0 and not client.write_log_rows(one, idempotency_key=key)["already_written"]:
                    raise AssertionError(f"{key} was written twice")
            calls += 1
            time.sleep(PAUSE_S[kind])
        client.flush()
        rows += sum(future.result()["rows_written"] for future in flying)
    return {"ended": time.time(), "kind": kind, "latencies": latencies, "calls": calls, "rows": rows}


def _look(service: Service, table: Path) -> dict[str, float]:
    figures, memory = service.metrics(), bytes_by_kind()
    return {
        "memory_bytes": float(memory.total() - memory["own"]),
        **{f"{kind} bytes": float(nbytes) for kind, nbytes in memory.items()},
        "actors_bytes": float(sum(nbytes or 0 for nbytes in figures["actor_memory_bytes"].values())),
        "files": float(len(look_at(table).files)),
        "log_entries": float(sum(1 for _ in (table / "_delta_log").glob("*.json"))),
        "commits": float(figures["commits_total"]),
        "ack_p99_ms": 1000 * (figures["latency_secs"]["ack"]["p99"] or 0.0),
    }


def _growth(values: list[float]) -> float:
    fifth = max(1, len(values) // SHARE)
    early = values[fifth : 2 * fifth] or values[:1]
    return statistics.median(values[-fifth:]) / statistics.median(early) - 1


@contextmanager
def _maintaining(service: Service) -> Iterator[list[dict[str, Any]]]:
    over = threading.Event()
    ended: list[dict[str, Any]] = []

    def maintain() -> None:
        while not over.wait(MAINTAIN_EVERY_S):
            with suppress(WriterError):  # asked again a minute later
                ended.append(dict(service.maintain({"optimize": True, "vacuum": True})))

    thread = threading.Thread(target=maintain, name="maintaining")
    thread.start()
    try:
        yield ended
    finally:
        over.set()
        thread.join()
