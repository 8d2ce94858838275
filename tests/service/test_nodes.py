"""Several nodes: in a process of its own, as one process joins one Ray."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.live import look_at

pytestmark = [pytest.mark.ray, pytest.mark.kill, pytest.mark.timeout(300)]

ROOT = Path(__file__).resolve().parents[2]


def test_writers_are_on_several_nodes_and_one_may_die_under_load(tmp_path: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.service.three_nodes", str(tmp_path / "warehouse")],
        cwd=ROOT, env=environ, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["nodes_with_writers"] > 1
    assert found["on_the_dead_node"] == 0
    assert found["consistent"]
    rows = look_at(tmp_path / "warehouse/analytics/pipeline_logs").query(
        "count(*), count(DISTINCT execution_id || '/' || step_name) FROM logs"
    )
    assert rows == [(found["sent"], found["sent"])]
    assert found["rows"] == found["sent"]
