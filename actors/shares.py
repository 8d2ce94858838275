"""The clients of a coordinator, and the share of its memory that each may fill. Pure.

Receives: clients' names, weights, the time, and how many batches of each came and went.
Produces: windows in bytes.
Guarantees: the windows of all clients together are at most what they were made for; each is to the others as the
    weights are; a client that died without a word is forgotten.
Never does: refuse a client.
"""

from __future__ import annotations

FORGOTTEN_AFTER_S = 600.0
"""A client of which nothing was heard for so long, and that waits for nothing, has died."""


class Client:
    """A client: when it was heard of, its weight, batches that are not answered, and parcels that are in a hurry."""

    __slots__ = ("hurried", "queued", "seen", "weight")

    def __init__(self, weight: float) -> None:
        """Begin with nothing unanswered."""
        self.seen = 0.0
        self.weight = weight
        self.queued = 0
        self.hurried = 0


class Clients:
    """All clients that are known."""

    def __init__(self, nbytes: int) -> None:
        """Share `nbytes` Arrow bytes among them."""
        self._nbytes = nbytes
        self._known: dict[str, Client] = {}

    def __len__(self) -> int:
        """How many there are."""
        return len(self._known)

    def heard_of(self, name: str, now: float, weight: float) -> Client:
        """The client of a name, known from now on; the weight counts where it was not before."""
        client = self._known.get(name)
        if client is None:
            client = self._known[name] = Client(weight)
        client.seen = now
        return client

    def seen(self, name: str, now: float) -> None:
        """Note a sign of life of a client, if it is known."""
        if name in self._known:
            self._known[name].seen = now

    def gone(self, name: str) -> None:
        """Forget a client: its share is the others'."""
        self._known.pop(name, None)

    def window(self, client: Client, now: float) -> int:
        """Arrow bytes that a client may have unanswered."""
        cutoff = now - FORGOTTEN_AFTER_S
        for name in [name for name, known in self._known.items() if known.seen < cutoff and not known.queued]:
            del self._known[name]
        everybody = sum(known.weight for known in self._known.values())
        return int(self._nbytes * client.weight / max(everybody, client.weight))

    def queues(self) -> dict[str, int]:
        """Client to its batches that are not answered."""
        return {name: client.queued for name, client in self._known.items()}

    def weights(self) -> dict[str, float]:
        """Client to its weight."""
        return {name: client.weight for name, client in self._known.items()}
