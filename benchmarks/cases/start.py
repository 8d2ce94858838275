"""What it costs to begin: the import, and the first durable row of a fresh process."""

from __future__ import annotations

import json
import subprocess
import sys
import time

from benchmarks.case import Case, Figures, Peer, Setting, Verdict, expect
from benchmarks.cases.data import TABLE
from benchmarks.child import ROOT
from benchmarks.live import count_rows

HEAVY = ("ray", "pandas", "pyspark", "polars", "duckdb")
_SAY_MODULES = "import json, sys; print(json.dumps(sorted(sys.modules)))"
_FIRST_ROW = """
import sys
from sfwriter import LogWriter, WriterConfig
writer = LogWriter(config=WriterConfig(warehouse=sys.argv[1]))
result = writer.write_log_rows([{"phase": "bronze", "step_name": f"step_{i}", "duration_secs": 1.0} for i in range(7)])
print(result["rows_written"], flush=True)
writer.close()
"""


def run_bare(_: Setting) -> Figures:
    """Python itself."""
    return _timed("")


def run_import(_: Setting) -> Figures:
    """The package's name alone."""
    return _timed("import sfwriter")


def run_import_writer(_: Setting) -> Figures:
    """What a program that writes needs."""
    return _timed("from sfwriter import LogWriter")


def _timed(statement: str) -> Figures:
    """The time of a process that runs one statement. What it loads is looked at in a second one."""
    loaded = json.loads(_run([sys.executable, "-c", f"{statement}\n{_SAY_MODULES}"]))
    wrong = [name for name in HEAVY if name in loaded]
    expect(not wrong, f"`{statement}` loads {', '.join(wrong)}")
    began = time.perf_counter()
    _run([sys.executable, "-c", statement])
    return {"ms": (time.perf_counter() - began) * 1000}


def run_first_row(setting: Setting) -> Figures:
    """From the start of the process to the acknowledgement of 7 rows in a table that it has made."""
    began = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-c", _FIRST_ROW, str(setting.folder)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        if process.stdout is None or process.stderr is None:
            raise RuntimeError("the process has no pipes")
        said = process.stdout.readline()
        acknowledged = time.perf_counter() - began
        errors = process.stderr.read()
        process.wait()
        whole = time.perf_counter() - began
    expect(said.strip() == "7" and process.returncode == 0, f"no row was acknowledged: {errors.strip()[-500:]}")
    expect(count_rows(setting.folder / TABLE) == 7, "the acknowledged rows are not in the table")
    return {"secs": acknowledged, "process_secs": whole}


def _run(command: list[str]) -> str:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


IMPORT = Case(
    "import",
    "import sfwriter, beside Python alone",
    (
        Peer("python", run_bare),
        Peer("import sfwriter", run_import),
        Peer("import LogWriter", run_import_writer),
    ),
    (
        Verdict(
            "import sfwriter, more than Python", ("import sfwriter", "ms"), ("python", "ms"),
            how="difference", target=200, at_least=False, unit="ms",
        ),
        Verdict(
            "from sfwriter import LogWriter, more than Python", ("import LogWriter", "ms"), ("python", "ms"),
            how="difference", unit="ms",
        ),
    ),
    rounds=9,
)  # fmt: skip

COLD = Case(
    "cold-start",
    "a fresh process to its first durable row",
    (Peer("sfwriter", run_first_row),),
    (Verdict("start to first durable row", ("sfwriter", "secs"), how="value", target=1.5, at_least=False, unit="s"),),
    rounds=7,
)
