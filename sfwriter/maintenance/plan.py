"""What is worth doing to a table's files: pure decisions from a survey.

Every query opens each file that it has in sight (about 1 ms). Joining costs what it rewrites (about 40 MB/s on one
core). So `pays` compares what `QUERIES` queries save, about a busy day's, with the time of the rewriting. Commits save
next to nothing: they do not look at the list of files, and a checkpoint writes 100,000 files a second. Who asks for a
compaction gets it wherever it leaves fewer files.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sfwriter.storage.engine import Compact, Sort

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sfwriter.storage.engine import Partition

QUERY_SECS_PER_FILE = 1e-3
REWRITE_BYTES_PER_SEC = 40e6
QUERIES = 50
LEAST_SAVED = 200
"""Files that a compaction which nobody asked for has to save: below, queries are fast enough."""

SORT_COLUMN = "start_time"
"""What reports and people ask by: a window of time. Z-ordering by the pipeline as well would give time away: the keys
are interleaved byte by byte, text comes first, and each file would have all times (8 of 8 files, instead of 1.25)."""

OVERLAP = 2.0
"""From here on, half of what a question about a moment reads is for nothing, and sorting pays."""


@dataclass(frozen=True, slots=True)
class Job:
    """Rewriting one partition, and how many files it leaves."""

    action: Compact | Sort
    files_before: int
    files_after: int
    rewritten_bytes: int

    @property
    def saved(self) -> int:
        """Files fewer than before."""
        return self.files_before - self.files_after


def compactions(partitions: Mapping[str, Partition], target_bytes: int) -> list[Job]:
    """A job for each partition in which neighbours fit into one file, binned as the engine does it."""
    jobs = []
    for partition in partitions.values():
        bins = _bins(partition.sizes, target_bytes)
        if bins:
            action = Compact(partition.filters, target_bytes)
            jobs.append(Job(action, sum(map(len, bins)), len(bins), sum(map(sum, bins))))
    return jobs


def _bins(sizes: Sequence[int], target_bytes: int) -> list[list[int]]:
    """Runs of files, in the log's order, that fit into one; a file above the target ends a run."""
    bins: list[list[int]] = [[]]
    room = target_bytes
    for size in sizes:
        if size > room:
            bins.append([])
            room = target_bytes
        if size <= room:
            bins[-1].append(size)
            room -= size
        else:
            room = 0
    return [found for found in bins if len(found) > 1]


def recompressions(partitions: Mapping[str, Partition], codec: str, target_bytes: int) -> list[Job]:
    """A job for each partition with files of another codec; they come out sorted as well."""
    return [
        _sort(partition, target_bytes)
        for partition in partitions.values()
        if partition.codecs and partition.codecs != {codec}
    ]


def sortings(partitions: Mapping[str, Partition], target_bytes: int) -> list[Job]:
    """A job for each partition of several files' worth in which times overlap.

    Sorting a partition that fits into one file lets no query read less; and rows that come in the order of time
    lie in it already.
    """
    return [
        _sort(partition, target_bytes)
        for partition in partitions.values()
        if sum(partition.sizes) > target_bytes and overlap(partition) >= OVERLAP
    ]


def overlap(partition: Partition) -> float:
    """Files that have moments of a file, itself included, on average over the files that have times: 1 or more.

    Files that only meet at the end of one and the beginning of the other do not count: sorted ones do that.
    """
    ranges = [found for found in partition.ranges if found is not None]
    if not ranges:
        return 1.0
    firsts, lasts = sorted(first for first, _ in ranges), sorted(last for _, last in ranges)
    moments = Counter(first for first, last in ranges if first == last)
    touching = 0
    for first, last in ranges:
        touching += bisect_left(firsts, last) - bisect_right(lasts, first)
        if first == last:  # it is not before itself, and not behind it
            touching += moments[first] + 1
    return touching / len(ranges)


def pays(jobs: list[Job]) -> bool:
    """Whether compactions are worth their time without anybody asking for them."""
    saved = sum(job.saved for job in jobs)
    worth = saved * QUERIES * QUERY_SECS_PER_FILE
    cost = sum(job.rewritten_bytes for job in jobs) / REWRITE_BYTES_PER_SEC
    return saved >= LEAST_SAVED and worth >= cost


def _sort(partition: Partition, target_bytes: int) -> Job:
    total = sum(partition.sizes)
    after = max(1, math.ceil(total / target_bytes))
    return Job(Sort(partition.filters, (SORT_COLUMN,), target_bytes), len(partition.sizes), after, total)
