"""Names and numbers of the service's actors, in one place."""

from __future__ import annotations

from typing import Any

NAMESPACE = "sfwriter"
"""Ray namespace of every actor, whatever namespace the caller is in."""

INLINE_BYTES = 90_000
"""Payloads up to here travel inside the call (1.2 ms); above 100 KB through Ray's object store (3.8 ms)."""

PARCEL_LINGER_S = 0.005
"""How long a client with an unanswered parcel collects small batches for the next one: about what a call costs.
Files are the coordinator's business, which lingers on its own."""

PARCEL_BYTES = 6 << 20
"""Where a client has much to send, a parcel is closed at this size: 8.8 ms at 1.3 GB/s, measured best at 4 to 8 MiB."""

PARCEL_BATCHES = 512
"""Batches of one parcel at most: its answer comes when all of them are settled."""

PARCELS_IN_FLIGHT = 8
"""Parcels of one client that may be unanswered at once while they are not full: more of them go together."""

WIRE_FACTOR = 3
"""Memory of a batch in flight over its Arrow bytes: as payload, decoded in a writer, and encoded as Parquet there."""

WINDOW_SHARE = 2
"""All clients' windows together are 1/WINDOW_SHARE of the Arrow bytes that the budget holds."""

STAGE_TIMEOUT_S = 60.0
"""A writer that takes longer than this, and a second for each MiB, is taken for hanging."""

CALL_TIMEOUT_S = 30.0
"""For calls that only look: ping, health, metrics."""

CARE_EVERY_S = 5.0
"""How often the maintenance actor asks what was written."""

NICE = 10
"""What maintenance adds to its process's niceness: a tenth of the processor where writers want it."""

REST = 1.0
"""Rest after a job that nobody asked for, as a share of its time: half of the time nothing is rewritten."""

SNAPSHOT_EVERY_S = 1.0
HISTORY_S = 300.0


def actor_name(service: str, role: str) -> str:
    """The Ray name of one of a service's actors."""
    return f"{service}:{role}"


def coordinator_options(service: str) -> dict[str, Any]:
    """Named, detached, restarted for ever; its calls are never repeated by Ray, the protocol does that."""
    return {
        "name": actor_name(service, "coordinator"),
        "namespace": NAMESPACE,
        "lifetime": "detached",
        "get_if_exists": True,
        "max_restarts": -1,
        "max_task_retries": 0,
        "max_concurrency": 1000,
        "num_cpus": 0,
        # Without this Ray's control store keeps an event for each call: 353 MiB after 110,000 calls.
        "enable_task_events": False,
    }


def metrics_options(service: str) -> dict[str, Any]:
    """As the coordinator: it outlives everybody, and its history dies with it."""
    return {**coordinator_options(service), "name": actor_name(service, "metrics"), "max_concurrency": 16}


def maintenance_options(service: str) -> dict[str, Any]:
    """As the coordinator, but a job that its death cut off is repeated by Ray: no job does harm twice."""
    return {
        **coordinator_options(service),
        "name": actor_name(service, "maintenance"),
        "max_concurrency": 16,
        "max_task_retries": 2,
    }


def spark_options(service: str) -> dict[str, Any]:
    """As the coordinator. Its calls are not repeated: whoever made one knows whether that does harm."""
    return {**coordinator_options(service), "name": actor_name(service, "spark"), "max_concurrency": 32}


def writer_options(service: str, which: str) -> dict[str, Any]:
    """Owned by the coordinator, so it dies with it; never restarted: a new one takes its place."""
    return {
        "name": actor_name(service, f"writer-{which}"),
        "namespace": NAMESPACE,
        "max_restarts": 0,
        "max_task_retries": 0,
        "max_concurrency": 2,
        "num_cpus": 0,
        "scheduling_strategy": "SPREAD",
        "enable_task_events": False,
    }
