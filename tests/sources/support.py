"""A table that takes whatever it is given, and a run of a reading against it."""

from __future__ import annotations

import gzip
from dataclasses import dataclass, field
from typing import Any

import orjson
import pyarrow as pa
import zstandard

from sfwriter.sources import Limits, SourceReading, source_of
from sfwriter.sources.journal import journal_of

LIMITS = Limits(3, 1 << 20)


@dataclass
class FakeTable:
    """Numbers and rows of each producer; takes a number only when it is the next one."""

    location: str  # of its warehouse
    rows: dict[str, list[list[Any]]] = field(default_factory=dict)

    def journal(self):
        return journal_of("fake.table", self.location + "/fake/table", {})

    def watermark(self, producer_id):
        taken = self.rows.get(producer_id)
        return len(taken) - 1 if taken else None

    def take(self, producer_id, chunk):
        taken = self.rows.setdefault(producer_id, [])
        given = chunk.rows.to_pylist() if isinstance(chunk.rows, pa.Table) else list(chunk.rows)
        assert len(given) == chunk.count
        if chunk.sequence < len(taken):
            assert taken[chunk.sequence] == given, "other content for a number that is taken"
            return False
        assert chunk.sequence == len(taken), f"gap: {chunk.sequence} after {len(taken)}"
        taken.append(given)
        return True

    def all_rows(self):
        return [row for parts in self.rows.values() for part in parts for row in part]

    def column(self, name):
        return [row[name] for row in self.all_rows()]


@dataclass
class Run:
    written: int
    earlier: int
    chunks: list[int]
    faults: dict[int, str]


def run(table, path, *, limits=LIMITS, stop_after=None, lose_last=False, as_new=False):
    """Read what is new and give it to the table; `stop_after` chunks it dies, the last one perhaps not taken."""
    written, sizes, faults = 0, [], {}
    source = source_of(path)
    reading = SourceReading(source, table.journal(), table.watermark, limits=limits, as_new=as_new)
    with reading:
        for chunk in reading.chunks():
            sizes.append(chunk.count)
            faults.update({chunk.start.row + place: reason for place, reason in chunk.faults.items()})
            if stop_after is not None and len(sizes) > stop_after:
                if not lose_last:
                    table.take(reading.producer_id, chunk)
                return Run(written, reading.earlier_rows, sizes, faults)
            if table.take(reading.producer_id, chunk):
                written += chunk.count
            reading.acknowledged(chunk.sequence)
        reading.finished()
    return Run(written, reading.earlier_rows, sizes, faults)


def line(number, **more):
    return (
        orjson.dumps({"run_id": f"r{number}", "phase": "bronze", "step_name": "s", "rows_written": number, **more})
        + b"\n"
    )


def lines(*numbers):
    return b"".join(map(line, numbers))


def packed(path, data):
    """The bytes as the path's suffix says."""
    if path.suffix == ".gz":
        return gzip.compress(data)
    if path.suffix in {".zst", ".zstd"}:
        return zstandard.ZstdCompressor().compress(data)
    return data


def append(path, data):
    with path.open("ab") as file:
        file.write(packed(path, data))
