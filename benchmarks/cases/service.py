"""The same through the service: a backfill beside pyarrow alone, and calls of 7 rows."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from benchmarks.case import Case, Figures, Peer, Setting, Verdict
from benchmarks.cases import backfill
from benchmarks.cases.acks import ROWS, SECONDS, measure_calls
from benchmarks.cases.data import TABLE, check_table
from benchmarks.child import in_child

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from actors import LogClient, Service

WRITERS = 2
OBJECT_STORE_BYTES = 1 << 30
WARM_UP_ROWS = 7
WARM_UP_S = 60.0
"""In a service that runs already, everything is loaded: calls before the measured ones, until all its actors are up."""


def run_backfill(setting: Setting) -> Figures:
    """A client's backfill of the same sources; Ray and the service run already."""
    figures = in_child(
        "service:backfill_through_service", sources=setting.given["sources"], warehouse=str(setting.folder)
    )
    check_table(setting.folder / TABLE, setting.given["rows"] + int(figures["warm_up_rows"]))
    return {
        "rows_per_s": setting.given["rows"] / figures["secs"],
        "secs": figures["secs"],
        "client_peak_bytes": figures["peak_bytes"],
    }


def run_acks(threads: int) -> Callable[[Setting], Figures]:
    """So many threads of one client."""

    def run(setting: Setting) -> Figures:
        figures = in_child(
            "service:acks_through_service",
            threads=threads,
            seconds=SECONDS[setting.scale],
            warehouse=str(setting.folder),
        )
        check_table(setting.folder / TABLE, ROWS * int(figures["calls"]) + int(figures["warm_up_rows"]))
        return {name: figures[name] for name in ("calls_per_s", "p50_ms", "p99_ms", "commits")}

    return run


# ---------------------------------------------------------------- in the child


def backfill_through_service(sources: str, warehouse: str) -> Figures:
    """Time the backfill alone."""
    from sfwriter.arrays import use_returning_memory
    from sfwriter.backfill import backfill as fill
    from sfwriter.sources import discover

    use_returning_memory()  # as the command line does
    with running_service(warehouse) as (client, warm_up_rows):
        began = time.perf_counter()
        result = fill(client, discover([sources]).sources)
        secs = time.perf_counter() - began
        return {"secs": secs, "rows": float(result["rows_written"]), "warm_up_rows": warm_up_rows}


def acks_through_service(threads: int, seconds: float, warehouse: str) -> Figures:
    """Time calls of 7 rows."""
    with running_service(warehouse) as (client, warm_up_rows):
        return {**measure_calls(client.write_log_rows, threads, seconds), "warm_up_rows": warm_up_rows}


@contextmanager
def running_service(warehouse: str, *, own_ray: bool = False, **options: Any) -> Iterator[tuple[LogClient, float]]:
    """A service with all its actors up, a client, and the rows written so far.

    Args:
        warehouse: of the service.
        own_ray: start a Ray even where `RAY_ADDRESS` names one.
        options: of the service.
    """
    import ray

    from actors import Service, connect
    from actors.cluster import use_token
    from actors.priority import RAY_VARIABLE
    from sfwriter import WriterConfig

    use_token(make=True)
    before = os.environ.get("RAY_ADDRESS")
    if before is None or own_ray:
        os.environ.setdefault(RAY_VARIABLE, "0")  # as a Ray that a service starts
        ray.init(
            address="local", num_cpus=2, include_dashboard=False, object_store_memory=OBJECT_STORE_BYTES,
            log_to_driver=False, configure_logging=False,
        )  # fmt: skip
        # Processes that this one starts join the same Ray.
        os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
    try:
        config = WriterConfig(warehouse=warehouse, parallel_write_threads=WRITERS, **options)
        with Service.start(config, name="benchmark") as service, connect("benchmark") as client:
            yield client, _warmed_up(service, client)
    finally:
        ray.shutdown()
        os.environ.pop("RAY_ADDRESS")
        if before is not None:
            os.environ["RAY_ADDRESS"] = before


def _warmed_up(service: Service, client: LogClient) -> float:
    """Write until the metrics actor answers and every writer has started; the rows that it took."""
    rows, deadline = 0.0, time.monotonic() + WARM_UP_S
    while time.monotonic() < deadline:
        # Several at once, each with its own flush: one job at a time would never need a second writer.
        for _ in range(2 * WRITERS):
            client.submit_log_rows(_warm_up(int(rows)))
            client.flush(0)
            rows += WARM_UP_ROWS
        client.flush()
        health = service.health()
        states = [writer["state"] for writer in health["writers"]]
        if health["metrics"]["state"] == "ok" and len(states) == WRITERS and "starting" not in states:
            return rows
    raise RuntimeError(f"the service was not up after {WARM_UP_S:g} s: {service.health()}")


def _warm_up(first: int) -> list[dict[str, Any]]:
    return [
        {"run_id": "warm-up", "execution_id": f"warm-up-{row}", "phase": "bronze", "step_name": "warm_up"}
        for row in range(first, first + WARM_UP_ROWS)
    ]


BACKFILL = Case(
    "service-backfill",
    "backfill from Parquet through the service (client, coordinator, two writers), beside in process and pyarrow alone",
    (Peer("service", run_backfill), Peer("in process", backfill.run_sfwriter), Peer("pyarrow", backfill.run_pyarrow)),
    (
        Verdict("service / pyarrow", ("service", "rows_per_s"), ("pyarrow", "rows_per_s"), target=0.5),
        Verdict("service / in process", ("service", "rows_per_s"), ("in process", "rows_per_s"), target=0.6),
    ),
    backfill.prepare,
)

ACKS = Case(
    "service-acks",
    "calls of 7 rows through the service, each waits for its acknowledgement: 1 and 8 threads of one client",
    tuple(Peer(f"{threads} threads", run_acks(threads)) for threads in (1, 8)),
    (Verdict("8 threads / 1 thread", ("8 threads", "calls_per_s"), ("1 threads", "calls_per_s")),),
)
