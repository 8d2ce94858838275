"""What the writer's tests need: writers on real Delta tables, and readers that are not the writer's own."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from deltalake import DeltaTable

from sfwriter import LogWriter, WriterConfig
from sfwriter.testing import FaultyEngine, MemoryEngine

ROW = {"run_id": "run-1", "phase": "bronze", "step_name": "extract"}


@pytest.fixture
def row():
    """Makes one good row, changed as asked."""
    return lambda **changes: {**ROW, **changes}


@pytest.fixture
def rows(row):
    """Makes so many good rows."""
    return lambda count, **changes: [row(rows_processed=index, **changes) for index in range(count)]


@pytest.fixture
def config(tmp_path):
    """Makes a configuration on the test's own warehouse."""
    return lambda **options: WriterConfig(
        **{"warehouse": str(tmp_path / "warehouse"), "retry_delay_secs": 0, **options}
    )


@pytest.fixture
def open_writer(config):
    """Opens writers that are closed when the test ends."""
    opened = []

    def open_one(engine=None, clock=None, logger=None, **options):
        if engine is None and clock is None:
            writer = LogWriter(config=config(**options), logger=logger)
        else:
            writer = LogWriter.start(config(**options), engine=engine, clock=clock, logger=logger)
        opened.append(writer)
        return writer

    yield open_one
    for writer in opened:
        writer.close()


@pytest.fixture
def faulty():
    """A reference engine that fails as it is told."""
    return FaultyEngine(MemoryEngine())


@pytest.fixture
def location(tmp_path):
    """Where a table of the test's warehouse is."""
    return lambda name="pipeline_logs": tmp_path / "warehouse" / "analytics" / name


@pytest.fixture
def read(location):
    """Reads a table's live files with pyarrow alone, as an Arrow table in no particular order."""

    def read_table(name="pipeline_logs"):
        table = DeltaTable(str(location(name)))
        schema = pa.schema(table.schema().to_arrow())
        files = table.file_uris()
        if not files:
            return schema.empty_table()
        partitioning = ds.HivePartitioning(
            pa.schema([schema.field(column) for column in table.metadata().partition_columns])
        )
        found = ds.dataset(
            files, schema=schema, format="parquet", partitioning=partitioning, partition_base_dir=str(location(name))
        )
        return found.to_table()

    return read_table


@pytest.fixture
def count(read):
    """Rows in a table."""
    return lambda name="pipeline_logs": read(name).num_rows


@pytest.fixture
def version(location):
    """The newest version of a table."""
    return lambda name="pipeline_logs": DeltaTable(str(location(name))).version()


@pytest.fixture
def python(tmp_path):
    """Runs a program of its own and returns the process that has ended."""

    def run(program, *arguments, timeout=60, **options):
        path = tmp_path / "program.py"
        path.write_text(textwrap.dedent(program))
        return subprocess.run(
            [sys.executable, str(path), str(tmp_path / "warehouse"), *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=timeout,
            cwd=Path(__file__).parents[2],
            check=False,
            **options,
        )

    return run


@pytest.fixture
def begin_python(tmp_path):
    """Begins a program of its own; what still runs at the end of the test is killed."""
    begun = []

    def begin(program, *arguments):
        path = tmp_path / "program.py"
        path.write_text(textwrap.dedent(program))
        process = subprocess.Popen(
            [sys.executable, "-u", str(path), str(tmp_path / "warehouse"), *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        begun.append(process)
        return process

    yield begin
    for process in begun:
        process.kill()
        process.wait()
        process.stdout.close()
