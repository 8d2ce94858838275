"""What is worth doing to a table's files: pure decisions from a survey.

A file costs whoever has it in sight: every commit reads the list of files anew (0.05 ms a file: 13 ms with 100
active files, 55 ms with 1,000), and every query opens it (about 1 ms). Joining costs what it rewrites (about
40 MB/s on one core). So `pays` compares what `COMMITS` commits and `QUERIES` queries save, about a busy day's,
with the time of the rewriting. Who asks for a compaction gets it wherever it leaves fewer files.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sfwriter.storage.engine import Compact, Sort

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sfwriter.storage.engine import Partition

SMALL = 0.75
"""A file below this share of the target is small: joining larger ones rewrites much and saves little."""

COMMIT_SECS_PER_FILE = 0.05e-3
QUERY_SECS_PER_FILE = 1e-3
REWRITE_BYTES_PER_SEC = 40e6
COMMITS, QUERIES = 1_000, 50
LEAST_SAVED = 200
"""Files that a compaction which nobody asked for has to save: below, commits are fast enough."""

SORT_COLUMNS = ("start_time", "pipeline_id")
"""What reports and people filter by: a window of time, and a pipeline."""


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
    """A job for each partition whose small files fit into fewer."""
    jobs = []
    for partition in partitions.values():
        small = [size for size in partition.sizes if size < SMALL * target_bytes]
        after = math.ceil(sum(small) / target_bytes)
        if len(small) - after >= 1:
            jobs.append(Job(Compact(partition.filters, target_bytes), len(small), after, sum(small)))
    return jobs


def recompressions(partitions: Mapping[str, Partition], codec: str, target_bytes: int) -> list[Job]:
    """A job for each partition with files of another codec; they come out sorted as well."""
    return [
        _sort(partition, target_bytes)
        for partition in partitions.values()
        if partition.codecs and partition.codecs != {codec}
    ]


def sortings(partitions: Mapping[str, Partition], target_bytes: int, writes_since_sorted: int | None) -> list[Job]:
    """A job for each partition of several files' worth, where something was written since the last sorting.

    Sorting a partition that fits into one file lets no query read less.
    """
    if writes_since_sorted == 0:
        return []
    return [_sort(partition, target_bytes) for partition in partitions.values() if sum(partition.sizes) > target_bytes]


def pays(jobs: list[Job]) -> bool:
    """Whether compactions are worth their time without anybody asking for them."""
    saved = sum(job.saved for job in jobs)
    worth = saved * (COMMITS * COMMIT_SECS_PER_FILE + QUERIES * QUERY_SECS_PER_FILE)
    cost = sum(job.rewritten_bytes for job in jobs) / REWRITE_BYTES_PER_SEC
    return saved >= LEAST_SAVED and worth >= cost


def _sort(partition: Partition, target_bytes: int) -> Job:
    total = sum(partition.sizes)
    after = max(1, math.ceil(total / target_bytes))
    same = {
        name for name, _, _ in partition.filters
    }  # a partition's own columns are one value, and no engine sorts by them
    columns = tuple(name for name in SORT_COLUMNS if name not in same)
    return Job(Sort(partition.filters, columns, target_bytes), len(partition.sizes), after, total)
