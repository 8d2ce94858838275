"""Whose batch is let in next, where several wait for memory: shares by weight. Pure.

Receives: producers whose batches begin to wait, were let in, or gave up; each batch names its client and its weight.
Produces: the producer whose turn it is.
Guarantees: of two clients that both wait, neither gets more bytes for its weight than the other by more than one
    batch of each; one that was away gets no more for it; a client's producers take turns, batch by batch.
Never does: look at memory, or at time.

It is start-time fair queueing (P. Goyal, H. Vin and H. Cheng, "Start-time Fair Queuing", SIGCOMM 1996), in bytes: a
client's next batch starts where its last one finished, in a time that runs as fast as bytes for a weight of 1 are let
in, and never before the present; the earliest start is next.
"""

from __future__ import annotations

import heapq
import itertools
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sfwriter.flow.producers import Producer
    from sfwriter.flow.vocabulary import Submitted

REMEMBERED = 1024
"""Clients that have nothing waiting and are still remembered, before those are looked for that need not be."""


class _Share:
    """One client's turns: `start` of its next batch, `finish` of its last one, and its producers that wait."""

    __slots__ = ("entry", "finish", "producers", "start")

    def __init__(self) -> None:
        self.start = self.finish = 0.0
        self.producers: OrderedDict[str, Producer] = OrderedDict()
        self.entry = -1


class Turns:
    """Producers with batches that wait, in the order of their turns."""

    def __init__(self) -> None:
        """Begin with nobody waiting."""
        self._shares: dict[str, _Share] = {}
        self._clients: dict[str, str] = {}
        self._order: list[tuple[float, int, _Share]] = []
        self._entries = itertools.count()
        self._now = 0.0
        self._crowded = REMEMBERED

    def __len__(self) -> int:
        """Producers that wait."""
        return len(self._clients)

    def join(self, producer: Producer) -> None:
        """Have a producer wait, if it does not yet; its first waiting batch says for which client."""
        if producer.identity in self._clients:
            return
        given = producer.waiting[0].given
        client = given.client or producer.identity
        share = self._shares.get(client)
        if share is None:
            self._forget()
            share = self._shares[client] = _Share()
        if not share.producers:
            share.start = max(self._now, share.finish)
            self._enter(share)
        share.producers[producer.identity] = producer
        self._clients[producer.identity] = client

    def first(self) -> Producer:
        """Whose turn it is; somebody waits."""
        order = self._order
        while order[0][1] != order[0][2].entry:
            heapq.heappop(order)
        return next(iter(order[0][2].producers.values()))

    def took(self, producer: Producer, given: Submitted) -> None:
        """The batch of the producer whose turn it was is let in, and waits no more."""
        share = self._shares[self._clients[producer.identity]]
        self._now = share.start
        share.finish = share.start + max(given.cost, 1) / given.weight
        self._leave(producer, share)
        if share.producers:
            share.start = share.finish
            self._enter(share)
        if producer.waiting:
            self.join(producer)
        elif not self._clients:
            self._begin_anew()

    def leave(self, producer: Producer) -> None:
        """A producer has nothing waiting any more."""
        self._leave(producer, self._shares[self._clients[producer.identity]])
        if not self._clients:
            self._begin_anew()

    def _leave(self, producer: Producer, share: _Share) -> None:
        del self._clients[producer.identity], share.producers[producer.identity]
        if not share.producers:
            share.entry = -1

    def _enter(self, share: _Share) -> None:
        share.entry = next(self._entries)
        heapq.heappush(self._order, (share.start, share.entry, share))

    def _begin_anew(self) -> None:
        """Nobody waits: what anybody had before is of no account."""
        self._shares.clear()
        self._order.clear()
        self._now = 0.0

    def _forget(self) -> None:
        """Forget clients that are owed nothing and owe nothing."""
        if len(self._shares) < self._crowded:
            return
        gone = [name for name, share in self._shares.items() if not share.producers and share.finish <= self._now]
        for name in gone:
            del self._shares[name]
        self._crowded = max(REMEMBERED, 2 * len(self._shares))
