"""Figures by table and by producer, within bounds, and how long things took. Pure.

Receives: batches that were settled, and durations.
Produces: plain dicts.
Guarantees: no more keys than it was made for: those that were still the longest are merged into `other`.
Never does: read a clock.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from typing import Any

BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of the histograms' buckets; the last bucket has no bound."""

OTHER = "other"
TOTAL = "total"
MOST_KEYS = 100


class Histogram:
    """Durations in buckets."""

    __slots__ = ("counts", "total_secs")

    def __init__(self) -> None:
        """Begin empty."""
        self.counts = [0] * (len(BOUNDS_S) + 1)
        self.total_secs = 0.0

    def add(self, secs: float) -> None:
        """Count one."""
        self.counts[bisect_left(BOUNDS_S, secs)] += 1
        self.total_secs += secs

    def merge(self, other: Histogram) -> None:
        """Count everything that another one has."""
        self.counts = [mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)]
        self.total_secs += other.total_secs

    def copy(self) -> Histogram:
        """As it is now."""
        copy = Histogram()
        copy.merge(self)
        return copy

    def figures(self) -> dict[str, Any]:
        """`count`, `sum_secs`, and `buckets`: upper bound as text, the last `+Inf`, to the number up to it."""
        reached, buckets = 0, {}
        for bound, count in zip((*map(str, BOUNDS_S), "+Inf"), self.counts, strict=True):
            reached += count
            buckets[bound] = reached
        return {"count": reached, "sum_secs": self.total_secs, "buckets": buckets}


class _Entry:
    __slots__ = ("batches", "nbytes", "rows", "stages")

    def __init__(self) -> None:
        self.batches = self.rows = self.nbytes = 0
        self.stages: dict[str, Histogram] = {}

    def merge(self, other: _Entry) -> None:
        self.batches += other.batches
        self.rows += other.rows
        self.nbytes += other.nbytes
        for stage, took in other.stages.items():
            self.stage(stage).merge(took)

    def copy(self) -> _Entry:
        copy = _Entry()
        copy.merge(self)
        return copy

    def stage(self, name: str) -> Histogram:
        found = self.stages.get(name)
        if found is None:
            found = self.stages[name] = Histogram()
        return found


class Tally:
    """Batches, rows, bytes and times by key."""

    def __init__(self, most: int = MOST_KEYS) -> None:
        """Begin empty; keep up to `most` keys beside `other`."""
        self._most = most
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._other = _Entry()

    def add(self, key: str, rows: int, nbytes: int, secs: float) -> None:
        """Count one batch that was committed `secs` after it came."""
        entry = self._entry(key)
        entry.batches += 1
        entry.rows += rows
        entry.nbytes += nbytes
        entry.stage(TOTAL).add(secs)

    def took(self, key: str, stage: str, secs: float) -> None:
        """Count how long a stage took for a key."""
        self._entry(key).stage(stage).add(secs)

    def copy(self) -> Tally:
        """As it is now."""
        copy = Tally(self._most)
        copy._entries.update((key, entry.copy()) for key, entry in self._entries.items())
        copy._other = self._other.copy()
        return copy

    def figures(self) -> dict[str, dict[str, Any]]:
        """Key to `batches`, `rows`, `bytes`, `latency` and `stages`, the latest active last.

        `latency` is a batch's from its arrival to its answer, `stages` are those that it went through by name, each
        as in `Histogram.figures`.
        """
        entries = {OTHER: self._other} if self._other.stages else {}
        return {
            key: {
                "batches": entry.batches,
                "rows": entry.rows,
                "bytes": entry.nbytes,
                "latency": entry.stage(TOTAL).figures(),
                "stages": {stage: took.figures() for stage, took in entry.stages.items()},
            }
            for key, entry in (*entries.items(), *self._entries.items())
        }

    def _entry(self, key: str) -> _Entry:
        entry = self._entries.get(key)
        if entry is not None:
            self._entries.move_to_end(key)
            return entry
        entry = self._entries[key] = _Entry()
        if len(self._entries) > self._most:
            self._other.merge(self._entries.popitem(last=False)[1])
        return entry
