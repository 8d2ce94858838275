"""What several tests of the service share: programs with a Ray of their own, and a count by another reader."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.live import look_at

ROOT = Path(__file__).resolve().parents[2]


def found_by(module: str, warehouse: Path, home: Path | None = None) -> dict[str, Any]:
    """What a program that starts its own Ray prints at its end: one process joins one Ray.

    Args:
        module: the program.
        warehouse: which it is told.
        home: where it makes a token of its own, so that no other Ray of this machine lets it in.
    """
    environ = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    if home is not None:
        environ = {name: value for name, value in environ.items() if not name.startswith("RAY_AUTH_")}
        environ["HOME"] = str(home)
    done = subprocess.run(
        [sys.executable, "-m", module, str(warehouse)],
        cwd=ROOT, env=environ, capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def counted(table: Path | str) -> tuple[int, int]:
    """Rows of a log table, and different rows, by another reader."""
    counts = "count(*), count(DISTINCT execution_id || '/' || step_name) FROM logs"
    rows, distinct = look_at(Path(table)).query(counts)[0]
    return rows, distinct
