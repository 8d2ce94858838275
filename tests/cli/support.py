"""The command line as a person starts it, and what is in a table by another reader's count."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable

ENTRY = "import sys; from sfwriter.cli import main; sys.exit(main())"


@dataclass
class Ended:
    code: int
    out: str
    err: str

    @property
    def json(self):
        assert self.out.count("\n") == 1, self.out
        return json.loads(self.out)


def started(folder, *arguments, **environment):
    """The process of a command line, started in a folder."""
    clean = {name: text for name, text in os.environ.items() if not name.startswith("SFWRITER_")}
    return subprocess.Popen(
        [sys.executable, "-c", ENTRY, *map(str, arguments)],
        cwd=folder,
        env={**clean, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def sfwriter(folder, *arguments, **environment):
    process = started(folder, *arguments, **environment)
    out, err = process.communicate(timeout=100)
    return Ended(process.returncode, out, err)


def backfill(folder, *arguments, **environment):
    return sfwriter(folder, "backfill", *arguments, "--table", "ops.runs", "--json", **environment)


def live_files(folder, table="runs"):
    """The data files that the log names, read without the writer's code."""
    root = Path(folder) / "warehouse" / "ops" / table
    return list(map(Path, DeltaTable(str(root)).file_uris())) if (root / "_delta_log").exists() else []


def rows(folder, *columns, table="runs"):
    """Columns of the live files."""
    tables = [pq.read_table(path, columns=list(columns)) for path in live_files(folder, table)]
    return pa.concat_tables(tables).to_pylist() if tables else []


def numbers(folder):
    """How often each row's number is there."""
    return Counter(row["rows_written"] for row in rows(folder, "rows_written"))


def once(count, start=0):
    return Counter(range(start, start + count))


def row(number, **more):
    return {
        "run_id": f"r{number // 7}",
        "phase": "bronze",
        "step_name": f"s{number % 7}",
        "start_time": "2024-01-01T00:00:00Z",
        "rows_written": number,
        "metadata": {"number": number},
        **more,
    }


def write_jsonl(path, *wanted, append=False):
    """Lines for these numbers (or ranges of them)."""
    with Path(path).open("ab" if append else "wb") as file:
        for part in wanted:
            file.writelines(orjson.dumps(row(number)) + b"\n" for number in ([part] if isinstance(part, int) else part))


def write_parquet(path, count, **options):
    numbered = pa.array(range(count), pa.int32())
    table = pa.table(
        {
            "run_id": pa.array([f"r{number // 7}" for number in range(count)]),
            "phase": pa.array(["bronze"] * count).dictionary_encode(),
            "step_name": pa.array(["s"] * count),
            "start_time": pa.array([0] * count, pa.timestamp("ms")),
            "rows_written": numbered,
        }
    )
    pq.write_table(table, path, **options)


def kill_at_work(process, seconds, how=signal.SIGKILL):
    """End a process so long after it has begun to read a source; say whether it was still alive."""
    while process.poll() is None and not _holds_a_source(process.pid):
        time.sleep(0.01)
    time.sleep(seconds)
    alive = process.poll() is None
    if alive:
        process.send_signal(how)
    return alive


def _holds_a_source(pid):
    """Whether the process has a source's lock file open."""
    try:
        return any(str(entry.readlink()).endswith(".lock") for entry in list(Path(f"/proc/{pid}/fd").iterdir()))
    except OSError:
        return False  # it has ended, or a file was closed meanwhile
