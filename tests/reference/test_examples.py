"""Every code example of the owner's reference, run as it stands.

Only `sparkforge.writer` is read as `sfwriter`, and names that an example leaves undefined are supplied. Each runs on
both engines: with a SparkSession as it is written, and where it makes one it gets the session of the tests; and with
None, which is how the embedded engine is asked for.
"""

from __future__ import annotations

import re
import sys
import types
from datetime import datetime, timezone
from pathlib import Path

import pyarrow as pa
import pytest

from sfwriter import Column, LogWriter, WriteMode, WriterConfig
from sfwriter.models import ExecutionContext, ExecutionResult, StepResult

TEXT = (Path(__file__).parent / "writer_api_reference.md").read_text(encoding="utf-8")
FOUND = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
BLOCKS = [block.replace("sparkforge.writer", "sfwriter") for block in FOUND]
SIGNATURE = [place for place, block in enumerate(BLOCKS) if "spark: SparkSession" in block]
ROW = {"run_id": "r", "phase": "bronze", "step_name": "s", "duration_secs": 1.0, "rows_processed": 5}


def execution(number):
    moment = datetime(2026, 1, 1, number, tzinfo=timezone.utc)
    context = ExecutionContext(run_id=f"run-{number}", pipeline_id="p", run_mode="incremental", start_time=moment)
    return ExecutionResult(context=context, step_results=[step("a"), step("b")])


def step(name):
    return StepResult(
        step_name=name, phase="bronze", duration_secs=2.0, rows_processed=10, validation_rate=99.0, success=True
    )


class Builder:
    def __init__(self, session):
        self.session = session

    def appName(self, _name):  # noqa: N802  Spark's name
        return self

    def getOrCreate(self):  # noqa: N802  Spark's name
        return self.session


@pytest.fixture(params=["embedded", pytest.param("spark", marks=pytest.mark.spark)])
def session(request):
    """What examples give for a session: None, and a real one."""
    if request.param == "embedded":
        yield None
        return
    spark = request.getfixturevalue("spark")
    yield spark
    for schema in ("analytics",):
        spark.sql(f"DROP DATABASE IF EXISTS {schema} CASCADE")


@pytest.fixture
def names(session, tmp_path, monkeypatch):
    """What examples leave undefined, in a folder of the test's own."""
    monkeypatch.chdir(tmp_path)
    builder = types.SimpleNamespace(builder=Builder(session))
    if session is None:
        monkeypatch.setitem(sys.modules, "pyspark", types.ModuleType("pyspark"))
        monkeypatch.setitem(sys.modules, "pyspark.sql", types.SimpleNamespace(SparkSession=builder))
    else:
        monkeypatch.setattr("pyspark.sql.SparkSession", builder)
    config = WriterConfig()
    with LogWriter(session, config) as writer:
        yield {
            "spark": session,
            "spark_session": session,
            "writer": writer,
            "config": config,
            "LogWriter": LogWriter,
            "WriterConfig": WriterConfig,
            "WriteMode": WriteMode,
            "Column": Column,
            "datetime": datetime,
            "log_rows": [ROW],
            "execution_result": execution(1),
            "context": execution(1).context,
            **{f"step{number}": step(f"step{number}") for number in (1, 2)},
            **{f"exec{number}": execution(number) for number in range(1, 6)},
            "invalid_data": "no rows",
            "invalid_log_rows": [{**ROW, "phase": "copper"}],
            "poor_quality_data": [{**ROW, "duration_secs": -1.0}],
            "schema_incompatible_data": [{**ROW, "rows_processed": "many"}],
            "extremely_large_dataset": pa.table({"phase": ["gold"] * 200_000, "step_name": ["s"] * 200_000}),
        }


def run(place, names, capsys):
    exec(compile(BLOCKS[place], f"example {place}", "exec"), names)
    for name in ("writer", "LogWriter"):
        if isinstance(names.get(name), LogWriter):
            names[name].close()
    return capsys.readouterr().out


@pytest.mark.parametrize("place", [place for place in range(len(BLOCKS)) if place not in SIGNATURE])
def test_an_example_runs_as_it_stands(place, names, capsys):
    run(place, names, capsys)


def test_the_only_block_that_is_no_program_is_the_constructors_signature():
    assert len(SIGNATURE) == 1
    assert len(BLOCKS) == 43


@pytest.mark.parametrize(
    ("error", "says", "options"),
    [
        ("WriterError", "Writer error:", {}),
        ("WriterConfigurationError", "Configuration error:", {}),
        ("WriterValidationError", "Validation error:", {}),
        ("WriterDataQualityError", "Data quality error:", {"fail_fast": True}),
        ("WriterPerformanceError", "Performance error:", {"memory_fraction": 0.01}),
        ("WriterSchemaError", "Schema error:", {}),
    ],
)
def test_the_examples_of_errors_meet_the_error_that_they_show(  # noqa: PLR0917  fixtures, asked for by name
    error, says, options, names, capsys, monkeypatch
):
    (place,) = [
        place
        for place, block in enumerate(BLOCKS)
        if f"except {error} as e" in block and block.startswith("from sfwriter.exceptions")
    ]
    if options:
        monkeypatch.setattr("sfwriter.runtime.blueprint.usable_memory_bytes", lambda: 1 << 28)
        names["writer"] = LogWriter(names["spark"], WriterConfig(**options))
    assert says in run(place, names, capsys)


def test_the_example_of_table_names_gives_what_the_reference_says(names, capsys):
    (place,) = [place for place, block in enumerate(BLOCKS) if "generate_table_name" in block]
    run(place, names, capsys)
    assert names["table_name"] == "analytics.my-pipeline_incremental_20240101_120000"
