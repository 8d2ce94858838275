"""What every engine's tests need: a laboratory that opens tables as separate processes would.

A new engine joins the contract suite by a `Lab` of its own in `LABS`.
"""

from __future__ import annotations

import itertools
import os
import shutil
import threading
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pyarrow as pa
import pytest

from sfwriter.batch import Token
from sfwriter.clock import SystemClock
from sfwriter.schema import LOG_SCHEMA, LOG_STAMPS, LOW_CARDINALITY, STATISTICS_COLUMNS, TIMESTAMP
from sfwriter.storage.delta_rs import DeltaRsEngine
from sfwriter.storage.delta_spark import DeltaSparkEngine
from sfwriter.storage.engine import Advance, BatchToStage, CommitGroup, Mark, TableSpec
from sfwriter.storage.spark_bridge import SparkBridge
from sfwriter.storage.spark_only import SparkOnlyTable
from sfwriter.storage.spark_scan import by_path
from sfwriter.testing import MemoryEngine, MemoryWarehouse

DAY = datetime(2024, 1, 1, tzinfo=timezone.utc)
UNSET = object()


class Lab:
    """One warehouse, and engines on it that know nothing of each other."""

    name = ""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ids = itertools.count()

    def engine(self, clock=None):
        raise NotImplementedError

    def remove(self, spec) -> None:
        """As somebody does who deletes the table."""
        raise NotImplementedError

    def lose(self, spec, path) -> None:
        """As somebody does who deletes one file of it."""
        raise NotImplementedError

    def spec(self, **changes):
        name = changes.pop("name", "logs.runs")
        defaults = {
            "name": name,
            "location": str(self.folder / name.replace(".", "/")),
            "schema": LOG_SCHEMA,
            "stamps": LOG_STAMPS,
            "statistics_columns": STATISTICS_COLUMNS,
            "dictionary_columns": LOW_CARDINALITY,
        }
        return TableSpec(**{**defaults, **changes})

    def open(self, spec=None, clock=None):
        """A table through a new engine, as a new process has it."""
        return self.engine(clock).open(self.spec() if spec is None else spec)

    def ready(self, spec=None, clock=None):
        """A table that exists."""
        table = self.open(spec, clock)
        table.ensure()
        return table

    def rows(self, count=3, **columns):
        base = {
            "run_id": [f"run-{index % 2}" for index in range(count)],
            "phase": ["bronze"] * count,
            "step_name": [f"step-{index}" for index in range(count)],
            "start_time": pa.array([DAY + timedelta(seconds=index) for index in range(count)], TIMESTAMP),
            "rows_written": list(range(count)),
            "success": [index % 3 != 0 for index in range(count)],
        }
        return pa.table({**base, **columns})

    def stage(self, table, producer, sequence, rows=None):
        return table.stage([BatchToStage(Token(producer, sequence), self.rows() if rows is None else rows)])

    def group(self, *advances, staged=(), group_id=None):
        return CommitGroup(group_id or f"group-{next(self._ids)}", tuple(staged), advances)

    def advance(self, producer, upto, after=UNSET, *, marks=True, expires=False):
        if after is UNSET:
            after = upto - 1 if upto else None
        numbers = range(0 if after is None else after + 1, upto + 1)
        found = {number: Mark(f"digest-{number}", f"stamp-{number}") for number in numbers} if marks else {}
        return Advance(producer, after, upto, found, expires)

    def put(self, table, producer, sequence, rows=None, *, expires=False):
        """Stage one batch and commit it by itself."""
        staged = self.stage(table, producer, sequence, rows)
        return table.commit(self.group(self.advance(producer, sequence, expires=expires), staged=[staged]))

    def sequence(self, table, producer):
        return table.last_sequence([producer])[producer].sequence

    def read(self, table, columns=None, predicate=None):
        return table.scan(columns, predicate).read_all().to_pylist()


class MemoryLab(Lab):
    name = "memory"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.warehouse = MemoryWarehouse()

    def engine(self, clock=None):
        return MemoryEngine(self.warehouse, clock or SystemClock())

    def remove(self, spec) -> None:
        self.warehouse.remove(spec.location)

    def lose(self, spec, path) -> None:
        del self.warehouse.files[f"{spec.location}/{path}"]


class DeltaRsLab(Lab):
    name = "delta-rs"

    def engine(self, clock=None):
        return DeltaRsEngine(clock or SystemClock())

    def remove(self, spec) -> None:
        shutil.rmtree(spec.location)

    def lose(self, spec, path) -> None:
        Path(spec.location, path).unlink()


class DeltaSparkLab(DeltaRsLab):
    name = "delta-spark"

    def __init__(self, folder: Path, spark) -> None:
        super().__init__(folder)
        self.spark = spark

    def engine(self, clock=None):
        return DeltaSparkEngine(self.spark, clock or SystemClock())


class DataFrameLab(DeltaSparkLab):
    """Nothing but Spark's own writer and statements, on a classic session."""

    name = "spark-dataframes"

    def open(self, spec=None, clock=None):
        spec = self.spec() if spec is None else spec
        bridge = SparkBridge(self.spark)
        return SparkOnlyTable(spec, bridge, by_path(spec.location), "a test", clock=clock or SystemClock())

    def lose(self, spec, path) -> None:
        raise NotImplementedError("rows wait in memory")


class ConnectLab(DeltaSparkLab):
    """Spark Connect, where there is nothing else."""

    name = "spark-connect"

    def lose(self, spec, path) -> None:
        raise NotImplementedError("rows wait in memory")


LABS = {lab.name: lab for lab in (MemoryLab, DeltaRsLab, DeltaSparkLab)}
"""The engines: all cases."""

ROADS = {lab.name: lab for lab in (DataFrameLab, ConnectLab)}
"""Further ways of the Spark engine: cases marked `every_road`; each takes seconds there."""


def pytest_generate_tests(metafunc):
    if "lab" in metafunc.fixturenames:
        names = [*LABS, *(ROADS if metafunc.definition.get_closest_marker("every_road") else ())]
        marked = [pytest.param(name, marks=pytest.mark.spark) if "spark" in name else name for name in names]
        metafunc.parametrize("lab", marked, indirect=True)


@pytest.fixture
def lab(request, tmp_path):
    """Each engine in turn."""
    kind = {**LABS, **ROADS}[request.param]
    if not issubclass(kind, DeltaSparkLab):
        return kind(tmp_path)
    return kind(tmp_path, request.getfixturevalue("remote" if kind is ConnectLab else "spark"))


@pytest.fixture
def delta(tmp_path):
    """The delta-rs engine alone."""
    return DeltaRsLab(tmp_path)


@pytest.fixture
def checkpoints_written():
    """Wait until no checkpoint is being written."""

    def wait():
        for thread in threading.enumerate():
            if thread.name == "sfwriter-checkpoint":
                thread.join()

    return wait


@pytest.fixture
def fsynced(monkeypatch):
    """The paths that were flushed to the disk, in order, while the real flush goes on.

    An entry of our own has a hidden name when it is flushed: here it has the one that it gets.
    """
    paths = []
    sync, link = os.fsync, os.link

    def syncing(descriptor):
        paths.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        sync(descriptor)

    def linking(hidden, entry, **how):
        if hidden in paths:
            paths[paths.index(hidden)] = entry
        link(hidden, entry, **how)

    monkeypatch.setattr(os, "fsync", syncing)
    monkeypatch.setattr(os, "link", linking)
    return paths
