"""What a Delta table holds, read without delta-rs: its log by hand, its files by pyarrow and DuckDB.

Receives: the folder of a table on a local disk.
Produces: the data files of its newest version, and what is counted in them.
Guarantees: shares no code with the writers that it checks.
Never does: follow deletion vectors or column mapping (a table that has them is refused).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import duckdb
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from pathlib import Path

_ENTRY = re.compile(r"(\d{20})\.json")
_CHECKPOINT = re.compile(r"(\d{20})\.checkpoint\.parquet")
_READABLE_VERSION = 2
_LISTINGS = 5
"""Of a log that seems to have a gap: a folder that grows while it is listed may show an entry, not the one before."""


@dataclass(frozen=True, slots=True)
class Look:
    """One version of a table.

    Attributes:
        files: its data files; empty where there is no table.
        numbers: the highest committed number of each producer.
    """

    files: list[Path]
    numbers: dict[str, int]

    def query(self, select: str) -> list[tuple[Any, ...]]:
        """What DuckDB says to `SELECT <select>` with these files' rows as `logs`; the files are read whole."""
        if not self.files:
            raise ValueError("there are no rows to ask about")
        with duckdb.connect() as connection:
            connection.execute("SET threads = 2")
            connection.read_parquet([str(file) for file in self.files], union_by_name=True).create_view("logs")
            rows: list[tuple[Any, ...]] = connection.execute(f"SELECT {select}").fetchall()
        return rows


def look_at(table: Path) -> Look:
    """The newest version, as one reading of the log shows it, whoever writes meanwhile."""
    live: dict[str, bool] = {}
    numbers: dict[str, int] = {}
    for action in _actions(table / "_delta_log"):
        if "add" in action:
            if action["add"].get("deletionVector"):
                raise ValueError(f"{table} has deletion vectors, which this reader does not know")
            live[action["add"]["path"]] = True
        elif "remove" in action:
            live.pop(action["remove"]["path"], None)
        elif "protocol" in action and action["protocol"]["minReaderVersion"] > _READABLE_VERSION:
            raise ValueError(f"{table} needs reader version {action['protocol']['minReaderVersion']}")
        elif "txn" in action:
            numbers[action["txn"]["appId"]] = action["txn"]["version"]
    return Look([table / unquote(path) for path in live], numbers)


def live_files(table: Path) -> list[Path]:
    """The data files of the newest version."""
    return look_at(table).files


def count_rows(table: Path) -> int:
    """Rows of the newest version, by the files' own footers."""
    return sum(pq.read_metadata(file).num_rows for file in live_files(table))


def query(table: Path, select: str) -> list[tuple[Any, ...]]:
    """`Look.query` of the newest version."""
    return look_at(table).query(select)


def _actions(log: Path) -> list[dict[str, Any]]:
    """The actions from the newest checkpoint on, in the order of their versions."""
    if not log.is_dir():
        return []
    newest, versions = _listed(log)
    actions: list[dict[str, Any]] = []
    if newest >= 0:
        content = pq.read_table(log / f"{newest:020}.checkpoint.parquet", columns=None).to_pylist()
        # A checkpoint's removes are tombstones of files that are no longer live.
        actions += [{key: row[key]} for row in content for key in ("protocol", "add", "txn") if row.get(key)]
    for version in versions:
        actions += [json.loads(line) for line in (log / f"{version:020}.json").read_text().splitlines() if line]
    return actions


def _listed(log: Path) -> tuple[int, list[int]]:
    """The newest checkpoint (-1: none), and the versions behind it, none of which is missing."""
    missing: set[int] = set()
    for _ in range(_LISTINGS):
        names = [entry.name for entry in log.iterdir()]
        newest = max((int(found[1]) for name in names if (found := _CHECKPOINT.fullmatch(name))), default=-1)
        versions = {int(found[1]) for name in names if (found := _ENTRY.fullmatch(name)) and int(found[1]) > newest}
        missing = {*range(newest + 1, max(versions, default=newest))} - versions
        if not missing:
            return newest, sorted(versions)
    raise ValueError(f"version {min(missing)} is missing in {log}")
