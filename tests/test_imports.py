from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

import sfwriter

SLOW = {"duckdb", "matplotlib", "numpy", "pandas", "polars", "pyspark", "ray"}


def loaded_after(code):
    script = f"import sys, json\n{code}\nprint(json.dumps(sorted({{name.split('.')[0] for name in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def test_importing_the_package_loads_nothing_that_is_slow():
    loaded = loaded_after("import sfwriter")
    assert not loaded & (SLOW | {"pyarrow", "deltalake", "pydantic", "typer", "rich"})


def test_making_a_config_loads_neither_arrow_nor_an_optional_package():
    loaded = loaded_after("from sfwriter.models import WriterConfig, WriteMode, LogRow\nWriterConfig()")
    assert not loaded & (SLOW | {"pyarrow", "deltalake"})


def test_opening_a_writer_s_module_loads_no_optional_package():
    assert not loaded_after("from sfwriter import LogWriter") & (SLOW - {"numpy"})


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere psutil tells how much memory there is")
def test_writing_loads_neither_psutil_nor_what_only_the_command_line_shows():
    code = (
        "import tempfile; from sfwriter import LogWriter, WriterConfig\n"
        "with tempfile.TemporaryDirectory() as folder, LogWriter(config=WriterConfig(warehouse=folder)) as writer:\n"
        "    writer.write_log_rows([{'phase': 'gold', 'step_name': 'a'}])"
    )
    assert not loaded_after(code) & {"psutil", "typer", "rich", "zstandard"}


def test_the_core_loads_neither_arrow_nor_ray_nor_delta():
    loaded = loaded_after("import sfwriter.flow.machine")
    assert not loaded & (SLOW | {"pyarrow", "deltalake"})


def test_importing_the_package_costs_less_than_200_ms():
    def seconds(code):
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        return time.perf_counter() - begun

    seconds("import sfwriter")  # writes the byte code
    assert min(seconds("import sfwriter") for _ in range(5)) - min(seconds("pass") for _ in range(5)) < 0.2


@pytest.mark.parametrize("name", sfwriter.__all__)
def test_every_public_name_is_there(name):
    assert getattr(sfwriter, name) is not None
    assert name in dir(sfwriter)


def test_names_are_the_same_objects_wherever_the_reference_imports_them():
    from sfwriter import exceptions, models

    assert sfwriter.WriterConfig is models.WriterConfig
    assert sfwriter.WriteMode is models.WriteMode
    assert sfwriter.LogRow is models.LogRow
    assert sfwriter.WriterError is exceptions.WriterError


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nothing_such"):
        _ = sfwriter.nothing_such
