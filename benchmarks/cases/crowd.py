"""A service under many clients: throughput, acknowledgements, answers under load, and memory."""

from __future__ import annotations

import statistics
import threading
import time
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from benchmarks.case import Case, Figures, Peer, Scale, Setting, Verdict, expect
from benchmarks.cases.acks import ROWS, BareCommits, distinct_rows
from benchmarks.cases.data import TABLE, check_table
from benchmarks.cases.service import running_service
from benchmarks.child import in_child
from benchmarks.crew import crew, wait_for_go
from benchmarks.footprint import settled_bytes, spilled_bytes, watched
from benchmarks.live import count_rows
from sfwriter.limits import usable_memory_bytes
from sfwriter.testing.rows import log_table

if TYPE_CHECKING:
    from collections.abc import Callable

SERVICE = "benchmark"
BATCH_ROWS = 5_000
APART = 10_000_000
"""Between the first rows of two clients: no two have the same."""

PROCESSES = {Scale.FULL: 8, Scale.QUICK: 4, Scale.TINY: 2}
BATCHES = {Scale.FULL: 60, Scale.QUICK: 15, Scale.TINY: 2}
CLIENTS_PER_PROCESS = {Scale.FULL: 8, Scale.QUICK: 8, Scale.TINY: 2}
TURNS = {Scale.FULL: 60, Scale.QUICK: 20, Scale.TINY: 3}
SECONDS = {Scale.FULL: 10.0, Scale.QUICK: 4.0, Scale.TINY: 0.5}
LOADERS = 2
IDLE_S = 0.1
"""Between two lone calls: the service has nothing to do then."""

ASKED = 20.0
"""Acknowledgements a second that 64 clients are to get, over single calls of `write_deltalake`."""

BUDGET_BYTES = {Scale.FULL: 128 << 20, Scale.QUICK: 64 << 20, Scale.TINY: 64 << 20}
OFFERED = {Scale.FULL: 20.0, Scale.QUICK: 8.0, Scale.TINY: 0.3}
"""Arrow bytes that are given, over the budget."""

OFFERERS = 2
FIXED_MIB = 320
"""What the processes may take beside the budget: decoders, encoders and allocators of two writers, two clients and the
coordinator. 274 were measured; docs/service.md states it."""


# ---------------------------------------------------------------- many processes with large batches


def run_large_through_service(setting: Setting) -> Figures:
    """Client processes, each with its batches of 5,000 rows, none waits for the one before."""
    processes, batches = PROCESSES[setting.scale], BATCHES[setting.scale]
    figures = in_child(
        "crowd:large_through_service", warehouse=str(setting.folder), processes=processes, batches=batches
    )
    check_table(setting.folder / TABLE, int(figures.pop("warm_up_rows")) + processes * batches * BATCH_ROWS)
    return {"rows_per_s": figures["rows_per_s"], "secs": figures["secs"]}


def run_large_by_write_deltalake(setting: Setting) -> Figures:
    """As many processes that each call `write_deltalake`, and call again what failed."""
    processes, batches = PROCESSES[setting.scale], BATCHES[setting.scale]
    table = setting.folder / "table"
    figures = in_child("crowd:large_by_write_deltalake", table=str(table), processes=processes, batches=batches)
    check_table(table, processes * batches * BATCH_ROWS + ROWS)
    return {name: figures[name] for name in ("rows_per_s", "secs", "failed_calls")}


def large_through_service(warehouse: str, processes: int, batches: int) -> Figures:
    """In the child: the service, and its clients in processes of their own."""
    with (
        running_service(warehouse) as (_, warm_up_rows),
        crew("benchmarks.cases.crowd:large_client", processes, batches=batches) as all_,
    ):
        secs, _ = all_.run()
        return {"rows_per_s": processes * batches * BATCH_ROWS / secs, "secs": secs, "warm_up_rows": warm_up_rows}


def large_client(number: int, batches: int) -> Figures:
    """One of the clients."""
    from actors import connect

    tables = _tables(number, batches)
    with connect(SERVICE) as client:
        wait_for_go()
        futures = [client.submit_log_rows(table) for table in tables]
        client.flush()
        rows = sum(future.result()["rows_written"] for future in futures)
        expect(rows == batches * BATCH_ROWS, f"{rows} rows were acknowledged")
        return {"ended": time.time()}


def large_by_write_deltalake(table: str, processes: int, batches: int) -> Figures:
    """In the child: the writers in processes of their own, on a table that is there."""
    from deltalake import write_deltalake

    write_deltalake(table, log_table(ROWS, first=processes * APART))
    with crew("benchmarks.cases.crowd:large_writer", processes, table=table, batches=batches) as all_:
        secs, found = all_.run()
    rows = processes * batches * BATCH_ROWS
    return {"rows_per_s": rows / secs, "secs": secs, "failed_calls": float(sum(member["failed"] for member in found))}


def large_writer(number: int, table: str, batches: int) -> Figures:
    """One of the writers. A call that failed is made again, as often as it takes, and counted."""
    from deltalake import write_deltalake
    from deltalake.exceptions import DeltaError

    tables = _tables(number, batches)
    failed = 0
    wait_for_go()
    for rows in tables:
        while True:
            try:
                write_deltalake(table, rows, mode="append")
                break
            except DeltaError:
                failed += 1
    return {"ended": time.time(), "failed": float(failed)}


def _tables(number: int, batches: int) -> list[Any]:
    return [log_table(BATCH_ROWS, first=number * APART + batch * BATCH_ROWS) for batch in range(batches)]


# ---------------------------------------------------------------- many clients with small batches, and lone calls


def run_small(setting: Setting) -> Figures:
    """Lone calls by turns; then many clients, each of which waits for its acknowledgement.

    64 clients are 8 processes with 8 clients each, every client with a thread of its own; `write_deltalake` is called
    by one process, before. The clients call as fast as they are answered first, and then as often as gives `ASKED`.
    """
    scale = setting.scale
    figures = in_child(
        "crowd:small",
        folder=str(setting.folder),
        turns=TURNS[scale],
        processes=PROCESSES[scale],
        clients=CLIENTS_PER_PROCESS[scale],
        seconds=SECONDS[scale],
    )
    turns = ROWS * TURNS[scale]
    check_table(setting.folder / TABLE, int(figures.pop("warm_up_rows")) + turns + ROWS * int(figures.pop("calls")))
    for name, table in (("in process", setting.folder / "local" / TABLE), ("bare", setting.folder / "bare")):
        expect(count_rows(table) == turns, f"the rows of {name} are not {turns}")
    return figures


def small(folder: str, turns: int, processes: int, clients: int, seconds: float) -> Figures:
    """In the child: see `run_small`."""
    from deltalake import write_deltalake

    from sfwriter import LogWriter, WriterConfig

    took: dict[str, list[float]] = {"service": [], "in process": [], "bare": [], "write_deltalake": []}
    bare = BareCommits(Path(folder) / "bare")
    plain = str(Path(folder) / "plain")

    def timed(name: str, call: Callable[[], object]) -> None:
        time.sleep(IDLE_S)
        began = time.perf_counter()
        call()
        took[name].append(time.perf_counter() - began)

    with (
        running_service(folder) as (client, warm_up_rows),
        LogWriter(config=WriterConfig(warehouse=str(Path(folder) / "local"))) as writer,
    ):
        for turn in range(turns):
            rows = distinct_rows(APART, turn)
            arrow = bare.arrow_of(rows)
            timed("service", partial(client.write_log_rows, rows))
            timed("in process", partial(writer.write_log_rows, rows))
            timed("bare", partial(bare.write, arrow))
            timed("write_deltalake", partial(write_deltalake, plain, arrow, mode="append"))
            bare.reopen_now_and_then(turn)
        p50 = {name: statistics.median(kept[1:] or kept) * 1000 for name, kept in took.items()}
        each_s = processes * clients * p50["write_deltalake"] / 1000 / ASKED
        with crew(
            "benchmarks.cases.crowd:small_clients", processes, of=processes, clients=clients, seconds=seconds,
            each_s=each_s,
        ) as all_:  # fmt: skip
            _, found = all_.run()
    every, paced = (sorted(latency for member in found for latency in member[how]) for how in ("flat_out", "paced"))
    calls_per_s, paced_per_s = (
        len(latencies) / max(member[f"{how}_s"] for member in found)
        for how, latencies in (("flat_out", every), ("paced", paced))
    )
    p99, paced_p99 = _p99(every) * 1000, _p99(paced) * 1000
    return {
        "lone_service_p50_ms": p50["service"],
        "lone_in_process_p50_ms": p50["in process"],
        "bare_p50_ms": p50["bare"],
        "write_deltalake_p50_ms": p50["write_deltalake"],
        "lone_over_in_process": p50["service"] / p50["in process"],
        "calls_per_s": calls_per_s,
        "p99_ms": p99,
        "over_write_deltalake": calls_per_s * p50["write_deltalake"] / 1000,
        "p99_over_bare": p99 / p50["bare"],
        "paced_per_s": paced_per_s,
        "paced_p50_ms": statistics.median(paced) * 1000,
        "paced_p99_ms": paced_p99,
        "paced_over_write_deltalake": paced_per_s * p50["write_deltalake"] / 1000,
        "paced_p99_over_bare": paced_p99 / p50["bare"],
        "calls": float(sum(member["calls"] for member in found)),
        "warm_up_rows": warm_up_rows,
    }


def small_clients(number: int, of: int, clients: int, seconds: float, each_s: float) -> dict[str, Any]:
    """So many clients in one process, each with a thread that writes 7 rows and waits, again and again.

    Args:
        number: of this process.
        of: how many processes there are.
        clients: in each of them.
        seconds: as long without a pause, and as long with a call each `each_s`.
        each_s: what is late is called at once, and its latency counts from when it was due.
    """
    from actors import connect

    flat_out: list[list[float]] = [[] for _ in range(clients)]
    paced: list[list[float]] = [[] for _ in range(clients)]
    ended = [0.0] * clients
    own = [connect(SERVICE) for _ in range(clients)]

    def call(which: int, since: float, into: list[list[float]]) -> None:
        made = 1 + len(flat_out[which]) + len(paced[which])
        own[which].write_log_rows(distinct_rows(number * clients + which, made))
        into[which].append(time.perf_counter() - since)

    def work(which: int, began: float) -> None:
        while (now := time.perf_counter()) < began + seconds:
            call(which, now, flat_out)
        ended[which] = now
        due = began + seconds + each_s * (1 + (which * of + number) / (clients * of))
        while due < began + 2 * seconds:
            time.sleep(max(0.0, due - time.perf_counter()))
            call(which, due, paced)
            due += each_s

    for which, client in enumerate(own):  # the first call of a process loads what it needs
        client.write_log_rows(distinct_rows(number * clients + which, 0))
    wait_for_go()
    began = time.perf_counter()
    threads = [threading.Thread(target=work, args=(which, began)) for which in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    left, paced_s = time.time(), time.perf_counter() - max(ended)
    for client in own:
        client.close()
    return {
        "ended": left,
        "flat_out_s": max(ended) - began,
        "flat_out": list(chain.from_iterable(flat_out)),
        "paced_s": max(seconds, paced_s),
        "paced": list(chain.from_iterable(paced)),
        "calls": sum(map(len, [*flat_out, *paced])) + clients,
    }


# ---------------------------------------------------------------- answers under full load


def run_answers(setting: Setting) -> Figures:
    """`ping`, `metrics` and `health` while clients give as much as their windows hold."""
    figures = in_child("crowd:answers", warehouse=str(setting.folder), seconds=SECONDS[setting.scale])
    rows = int(figures.pop("warm_up_rows")) + BATCH_ROWS * int(figures.pop("batches"))
    check_table(setting.folder / TABLE, rows)
    return figures


class Bystander:
    """An actor with nothing to do: what its answers take is the machine's doing, and not the service's."""

    async def ping(self) -> int:
        """Answer."""
        return 0


def answers(warehouse: str, seconds: float) -> Figures:
    """In the child: ask without a pause while others load."""
    import ray

    from actors import Service

    with (
        running_service(warehouse) as (_, warm_up_rows),
        crew("benchmarks.cases.crowd:loader", LOADERS, seconds=seconds) as all_,
    ):
        running = Service.attach(SERVICE)
        bystander = cast("Any", ray.remote(Bystander)).options(num_cpus=0).remote()
        ray.get(bystander.ping.remote())
        idle: list[float] = []
        pings: list[float] = []
        looks: list[float] = []
        all_.go()
        while all_.working:
            began = time.perf_counter()
            ray.get(running.coordinator.ping.remote())
            pings.append(time.perf_counter() - began)
            began = time.perf_counter()
            ray.get(bystander.ping.remote())
            idle.append(time.perf_counter() - began)
            if len(pings) % 10 == 0:
                began = time.perf_counter()
                running.metrics()
                looks.append(time.perf_counter() - began)
            time.sleep(0.005)
        found = all_.figures()
    batches = sum(member["batches"] for member in found)
    return {
        "ping_p50_ms": statistics.median(pings) * 1000,
        "ping_p99_ms": _p99(sorted(pings)) * 1000,
        "bystander_p99_ms": _p99(sorted(idle)) * 1000,
        "metrics_p99_ms": _p99(sorted(looks or [0.0])) * 1000,
        "rows_per_s": batches * BATCH_ROWS / seconds,
        "batches": float(batches),
        "warm_up_rows": warm_up_rows,
    }


def loader(number: int, seconds: float) -> Figures:
    """A client that gives batches for so long, as fast as its window lets it."""
    from actors import connect
    from sfwriter.testing.rows import log_table as rows_of

    with connect(SERVICE) as client:
        ready = [rows_of(BATCH_ROWS, first=number * APART + batch * BATCH_ROWS) for batch in range(20)]
        wait_for_go()
        until = time.perf_counter() + seconds
        batches, futures = 0, []
        while time.perf_counter() < until or not batches:
            first = number * APART + batches * BATCH_ROWS
            rows = ready[batches] if batches < len(ready) else rows_of(BATCH_ROWS, first=first)
            futures.append(client.submit_log_rows(rows))
            batches += 1
        client.flush()
        expect(all(future.result()["rows_written"] == BATCH_ROWS for future in futures), "a batch was not written")
    return {"ended": time.time(), "batches": float(batches)}


# ---------------------------------------------------------------- memory


def run_memory(setting: Setting) -> Figures:
    """Clients offer many times the budget and look at no future."""
    budget = BUDGET_BYTES[setting.scale]
    batches = int(OFFERED[setting.scale] * budget / log_table(BATCH_ROWS).nbytes / OFFERERS) + 1
    figures = in_child("crowd:memory", warehouse=str(setting.folder), budget=budget, batches=batches)
    rows = int(figures.pop("warm_up_rows")) + OFFERERS * batches * BATCH_ROWS
    check_table(setting.folder / TABLE, rows)
    expect(figures["spilled_bytes"] == 0, f"Ray spilled {figures['spilled_bytes']:,.0f} bytes")
    return figures


def memory(warehouse: str, budget: int, batches: int) -> Figures:
    """In the child: the most that all processes together held, above what they held before, and the budget."""
    import ray

    fraction = budget / usable_memory_bytes()
    with (
        running_service(warehouse, own_ray=True, memory_fraction=fraction) as (_, warm_up_rows),
        crew("benchmarks.cases.crowd:offerer", OFFERERS, batches=batches) as all_,
    ):
        session = Path(str(cast("Any", ray).nodes()[0]["ObjectStoreSocketName"])).parents[1]
        before = settled_bytes()
        with watched() as peak:
            secs, _ = all_.run()
        return {
            "before_bytes": float(before),
            "family_peak_bytes": float(peak.nbytes),
            "above_budget_bytes": float(peak.nbytes - before - budget),
            "offered_over_budget": OFFERERS * batches * log_table(BATCH_ROWS).nbytes / budget,
            "rows_per_s": OFFERERS * batches * BATCH_ROWS / secs,
            "spilled_bytes": float(spilled_bytes(session)),
            "warm_up_rows": warm_up_rows,
        }


def offerer(number: int, batches: int) -> Figures:
    """A client that never looks at its futures."""
    from actors import connect

    with connect(SERVICE) as client:
        client.write_batches([])  # loads what it needs
        wait_for_go()
        for batch in range(batches):
            client.submit_log_rows(log_table(BATCH_ROWS, first=number * APART + batch * BATCH_ROWS))
        client.flush()
    return {"ended": time.time()}


def _p99(ordered: list[float]) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]


CLIENTS = Case(
    "service-clients",
    "8 client processes with batches of 5,000 rows, beside 8 processes that each call write_deltalake",
    (Peer("service", run_large_through_service), Peer("write_deltalake", run_large_by_write_deltalake)),
    (
        Verdict("service / write_deltalake", ("service", "rows_per_s"), ("write_deltalake", "rows_per_s"), target=3.0),
        Verdict("calls of write_deltalake that failed", ("write_deltalake", "failed_calls"), how="value", unit=""),
    ),
)

SMALL = Case(
    "service-small",
    "7 rows a call: alone on an idle service beside in process, bare commits and write_deltalake; then 64 clients",
    (Peer("by turns", run_small),),
    (
        Verdict("a lone ack / in process", ("by turns", "lone_over_in_process"), how="value", target=2, at_least=False),
        Verdict("64 clients / write_deltalake", ("by turns", "over_write_deltalake"), how="value", target=20),
        Verdict("p99 / a bare commit, flat out", ("by turns", "p99_over_bare"), how="value", target=4, at_least=False),
        Verdict("64 clients, asked rate / write_deltalake", ("by turns", "paced_over_write_deltalake"), how="value"),
        Verdict(
            "p99 / a bare commit, asked rate", ("by turns", "paced_p99_over_bare"), how="value",
            target=4, at_least=False,
        ),
    ),
)  # fmt: skip

_PINGS = (("under load", "ping_p99_ms"), ("under load", "bystander_p99_ms"))

ANSWERS = Case(
    "service-answers",
    "ping and metrics of a service that is given as much as it takes",
    (Peer("under load", run_answers),),
    (
        Verdict("ping, p99", ("under load", "ping_p99_ms"), how="value", target=50, at_least=False, unit="ms"),
        Verdict("ping / that of an actor with nothing to do, p99", *_PINGS),
        Verdict("metrics, p99", ("under load", "metrics_p99_ms"), how="value", target=50, at_least=False, unit="ms"),
    ),
)

MEMORY = Case(
    "service-memory",
    "20 times the budget from clients that wait for nothing: memory of all processes, what is shared counted once",
    (Peer("service", run_memory),),
    (
        Verdict(
            "above budget and idle", ("service", "above_budget_bytes"), how="value", scale=2.0**-20,
            target=FIXED_MIB, at_least=False, unit="MiB",
        ),
    ),
    rounds=1,
)  # fmt: skip
