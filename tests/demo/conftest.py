"""A small package to run pipelines over, and a table that a proof can be asked about."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deploy.demo.packages import Package

if TYPE_CHECKING:
    from pathlib import Path

SOURCES: dict[str, bytes] = {
    "tiny/__init__.py": b'"""A package."""\n',
    "tiny/good.py": b'def plain():\n    """It does nothing."""\n\n\ndef branchy(x):\n'
    + b"".join(b"    if x == %d:\n        return %d\n" % (n, n) for n in range(20)),
    "tiny/old.py": b'print "two"\n',
    "tiny/odd.py": b"# fine\n\n# \xff\xfe is not\n# fine\n",
    "tiny/unknown.py": b"# -*- coding: uft-8 -*-\n",
    "tiny/long.py": b"x = 1\n" * 40_000,
}


@pytest.fixture
def package(tmp_path: Path) -> Package:
    """Good and broken files, and one that is listed and not there."""
    for name, content in SOURCES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    return Package("tiny", "1.0", str(tmp_path), (*sorted(SOURCES), "tiny/gone.py"))


class HandMadeTable:
    """A Delta table of Parquet files and log entries, written without any library for it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "_delta_log").mkdir(parents=True)
        self.versions = 0

    def commit(self, rows: list[tuple[str, str]], remove: tuple[str, ...] = ()) -> str:
        name = f"part {self.versions}.parquet"
        pq.write_table(
            pa.table({"run_id": [r for r, _ in rows], "step_name": [s for _, s in rows]}), self.folder / name
        )
        stats = json.dumps({"numRecords": len(rows)})
        path = name.replace(" ", "%20")
        size = (self.folder / name).stat().st_size
        actions = [{"remove": {"path": gone}} for gone in remove] + [
            {"add": {"path": path, "size": size, "stats": stats}}
        ]
        entry = self.folder / "_delta_log" / f"{self.versions:020}.json"
        entry.write_text("\n".join(json.dumps(action) for action in actions))
        self.versions += 1
        return path


@pytest.fixture
def table(tmp_path: Path) -> HandMadeTable:
    return HandMadeTable(tmp_path / "table")
