"""The newest rows of a table, however many files it is in."""

from __future__ import annotations

import random
from datetime import datetime, timedelta, timezone

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from sfwriter.report import newest

START = datetime(2024, 1, 1, tzinfo=timezone.utc)


class InPieces:
    def __init__(self, table):
        self._batches = table.to_batches(max_chunksize=3)

    def scan(self, columns=None, predicate=None):
        return pa.RecordBatchReader.from_batches(self._batches[0].schema, self._batches)


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 50, 299, 300, 10**6])
def test_many_small_files_give_the_newest_rows_and_are_not_sorted_one_by_one(limit, monkeypatch):
    moments = [START + timedelta(seconds=random.Random(limit + i).randrange(10**6)) for i in range(299)]
    table = pa.table({"logged_at": pa.array([*moments, None], pa.timestamp("us", "UTC")), "i": range(300)})
    sorts = []
    select = pc.select_k_unstable
    monkeypatch.setattr(newest.pc, "select_k_unstable", lambda *args, **more: sorts.append(1) or select(*args, **more))

    found = newest.newest_rows(InPieces(table), None, "logged_at", limit)

    assert found["logged_at"].to_pylist() == [*sorted(moments, reverse=True), None][:limit]
    assert len(sorts) <= 300 // max(3, limit) + 1
