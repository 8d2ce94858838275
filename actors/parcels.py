"""From what a client has taken out of its window to what travels."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import ray

from actors.options import INLINE_BYTES
from actors.wire import Entry, Parcel, Payload, pack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actors.window import Outbound
    from actors.wire import Ack, Share


@dataclass(frozen=True, slots=True)
class Load:
    """What one parcel is made of. `number`, `sender` and `acks` as in `Parcel`."""

    number: int
    outbounds: list[Outbound]
    sender: str | None
    acks: tuple[Ack, ...]

    @property
    def tables(self) -> frozenset[str]:
        """Tables that it has rows for; the one that answers and the quarantine by short names of their own."""
        return frozenset(name for outbound in self.outbounds for name in outbound.delivery.batch.by_table("", "!"))


def packed(loads: Sequence[Load], quarantine_table: str) -> list[Parcel]:
    """A parcel for each load; all of them share one payload."""
    began = time.perf_counter()
    content, shares = pack([outbound.delivery.batch for load in loads for outbound in load.outbounds], quarantine_table)
    took = time.perf_counter() - began
    if content.size <= INLINE_BYTES:
        payload = Payload(inline=content.to_pybytes())
    else:
        payload = Payload(reference=[ray.put(content)])
    own = iter(shares)
    return [
        Parcel(
            load.number,
            tuple(_entry(outbound, next(own)) for outbound in load.outbounds),
            payload,
            took,
            load.sender,
            load.acks,
        )
        for load in loads
    ]


def _entry(outbound: Outbound, shares: tuple[Share, ...]) -> Entry:
    delivery = outbound.delivery
    outbound.tables = tuple(share.table for share in shares)
    return Entry(
        delivery.producer_id,
        outbound.number,
        delivery.batch.digest,
        delivery.stamp,
        assigned=outbound.assigned,
        resent=outbound.resent,
        checked=delivery.checked,
        expires=delivery.expires,
        patient=delivery.patient,
        wait_secs=delivery.wait_secs,
        replaces=delivery.replaces,
        shares=shares,
        gate_secs=delivery.gate_secs,
    )
