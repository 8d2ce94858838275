"""A program: a service on three Ray nodes, one of which is killed under load. Prints what it found as JSON."""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import ray
from ray.cluster_utils import Cluster

from actors import Service, connect
from actors.cluster import use_token
from sfwriter import WriterConfig
from sfwriter.testing.rows import log_table

if TYPE_CHECKING:
    from collections.abc import Callable

STORE = 100 << 20
BATCHES, ROWS = 50, 2_000
WRITERS = 3
PATIENCE_S = 90.0
SPREAD_S = 180.0
"""Beside other Rays a writer takes half a minute to start."""


def main(warehouse: str) -> dict[str, Any]:
    use_token(make=True)
    arguments = {"num_cpus": 1, "object_store_memory": STORE, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=arguments)
    others = {
        node.node_id: node for node in [cluster.add_node(num_cpus=1, object_store_memory=STORE) for _ in range(2)]
    }
    os.environ["RAY_ADDRESS"] = cluster.address
    try:
        config = WriterConfig(
            warehouse=warehouse, memory_fraction=0.02, parallel_write_threads=WRITERS, max_batch_mb=0.5
        )
        with Service.start(config, name="nodes") as service, connect("nodes", producer_id="p") as client:
            sent = itertools.count()
            futures: list[Any] = []

            def load(batches: int) -> None:
                futures.extend(client.submit_log_rows(log_table(ROWS, next(sent) * ROWS)) for _ in range(batches))

            writers = load_until_writers_are_spread(service, load)
            coordinator = service.health()["coordinator"]["node_id"]
            load(BATCHES)
            victim = next(node for node in writers if node in others)
            cluster.remove_node(others[victim], allow_graceful=False)
            load(BATCHES)
            rows = sum(future.result(PATIENCE_S)["rows_written"] for future in futures)
            health = service.health()
            return {
                "nodes_with_writers": len(writers),
                "sent": next(sent) * ROWS,
                "rows": rows,
                "consistent": service.reconcile()["consistent"],
                "coordinator_was_killed": coordinator == victim,
                "on_the_dead_node": sum(writer["node_id"] == victim for writer in health["writers"]),
            }
    finally:
        ray.shutdown()
        cluster.shutdown()


def load_until_writers_are_spread(service: Service, load: Callable[[int], None]) -> list[str]:
    """The nodes that have writers, when there are several."""
    deadline = time.monotonic() + SPREAD_S
    while time.monotonic() < deadline:
        load(BATCHES)
        writers = [writer for writer in service.health()["writers"] if writer["node_id"]]
        nodes = {writer["node_id"] for writer in writers}
        if len(nodes) > 1:
            return sorted(nodes)
        if len(writers) == WRITERS:
            # Ray spreads as well as it can; the one that takes this one's place has another chance.
            with suppress(ProcessLookupError):
                os.kill(writers[-1]["pid"], signal.SIGKILL)
    raise AssertionError("the writers stay on one node")


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
