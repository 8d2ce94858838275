"""A program: Ray's head dies with all that runs in it, and the service is started again. Prints JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import ray
from ray.cluster_utils import Cluster

from actors import Service, connect
from actors.cluster import use_token
from sfwriter import WriterConfig
from sfwriter.testing.rows import log_table

ROWS, BATCHES, SENT = 50, 20, 80
PATIENCE_S = 90.0


def main(warehouse: str) -> dict[str, Any]:
    use_token(make=True)
    config = configuration(warehouse)
    command = [sys.executable, "-m", "tests.service.head_dies", warehouse, "first"]
    heard = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=PATIENCE_S, check=False).stdout
    # Ray has its own words to say there.
    acknowledged = [int(line) for line in heard.splitlines() if line.isdigit()]
    unknown = sorted(set(range(SENT)).difference(acknowledged))
    cluster = new_cluster()
    try:
        with Service.start(config, name="head") as service, connect("head", producer_id="p") as client:
            committed = client.committed_sequence
            # What the first client had not heard of is sent again, under its number.
            again = [client.write_log_rows(rows(number), sequence=number) for number in unknown]
            for number in range(SENT, SENT + BATCHES):
                client.write_log_rows(rows(number), sequence=number)
            return {
                "committed": committed,
                "acknowledged": max(acknowledged),
                "already_written": sum(bool(result["already_written"]) for result in again),
                "unknown": len(unknown),
                "batches": SENT + BATCHES,
                "consistent": service.reconcile()["consistent"],
            }
    finally:
        ray.shutdown()
        cluster.shutdown()


def first_life(warehouse: str) -> None:
    """Write until the head dies, and this process with it; prints each number that is acknowledged."""
    cluster = new_cluster()
    Service.start(configuration(warehouse), name="head")
    client = connect("head", producer_id="p")
    for number in range(BATCHES):
        client.write_log_rows(rows(number), sequence=number)
        say(number)
    for number in range(BATCHES, SENT):
        future = client.submit_log_rows(rows(number), sequence=number)
        future.add_done_callback(lambda done, number=number: done.exception() or say(number))
    cluster.head_node.kill_all_processes(check_alive=False, allow_graceful=False)
    # Ray ends a process whose node is gone, sooner or later.
    os._exit(0)


def say(number: int) -> None:
    """Several threads do it, and `print` would mix their lines."""
    os.write(1, b"%d\n" % number)


def configuration(warehouse: str) -> WriterConfig:
    return WriterConfig(warehouse=warehouse, memory_fraction=0.02, parallel_write_threads=2)


def new_cluster() -> Cluster:
    """A Ray of one node."""
    arguments = {"num_cpus": 2, "object_store_memory": 100 << 20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=arguments)
    os.environ["RAY_ADDRESS"] = cluster.address
    return cluster


def rows(number: int) -> Any:
    return log_table(ROWS, first=number * ROWS)


if __name__ == "__main__":
    if sys.argv[2:] == ["first"]:
        first_life(sys.argv[1])
    print(json.dumps(main(sys.argv[1])))
