"""A program: Ray's head dies with all that runs in it, and the service is started again. Prints JSON."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import ray
from ray.cluster_utils import Cluster

from actors import Service, connect
from actors.cluster import use_token
from sfwriter import WriterConfig
from sfwriter.testing.rows import log_table

ROWS, BATCHES, IN_FLIGHT = 50, 20, 60
PATIENCE_S = 90.0


def main(warehouse: str) -> dict[str, Any]:
    use_token(make=True)
    config = WriterConfig(warehouse=warehouse, memory_fraction=0.02, parallel_write_threads=2)
    acknowledged, unknown = first_life(config)
    cluster = new_cluster()
    try:
        with Service.start(config, name="head") as service, connect("head", producer_id="p") as client:
            committed = client.committed_sequence
            # What the first client had not heard of is sent again, under its number.
            again = [client.write_log_rows(rows(number), sequence=number) for number in unknown]
            first = max([*acknowledged, *unknown]) + 1
            for number in range(first, first + BATCHES):
                client.write_log_rows(rows(number), sequence=number)
            return {
                "committed": committed,
                "acknowledged": max(acknowledged),
                "already_written": sum(bool(result["already_written"]) for result in again),
                "unknown": len(unknown),
                "batches": first + BATCHES,
                "consistent": service.reconcile()["consistent"],
            }
    finally:
        ray.shutdown()
        cluster.shutdown()


def first_life(config: WriterConfig) -> tuple[list[int], list[int]]:
    """Write until the head dies: the numbers that were acknowledged, and those whose fate is not known."""
    cluster = new_cluster()
    Service.start(config, name="head")
    client = connect("head", producer_id="p")
    acknowledged = []
    for number in range(BATCHES):
        client.write_log_rows(rows(number), sequence=number)
        acknowledged.append(number)
    flying = {
        number: client.submit_log_rows(rows(number), sequence=number) for number in range(BATCHES, BATCHES + IN_FLIGHT)
    }
    cluster.head_node.kill_all_processes(check_alive=False, allow_graceful=False)
    ray.shutdown()
    errors = {number: future.exception(PATIENCE_S) for number, future in flying.items()}
    acknowledged.extend(number for number, error in errors.items() if error is None)
    return acknowledged, [number for number, error in errors.items() if error is not None]


def new_cluster() -> Cluster:
    """A Ray of one node."""
    arguments = {"num_cpus": 2, "object_store_memory": 100 << 20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=arguments)
    os.environ["RAY_ADDRESS"] = cluster.address
    return cluster


def rows(number: int) -> Any:
    return log_table(ROWS, first=number * ROWS)


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
