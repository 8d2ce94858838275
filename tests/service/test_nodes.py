"""Several nodes: in a process of its own, as one process joins one Ray."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.service.support import counted, found_by

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.ray, pytest.mark.kill, pytest.mark.timeout(420)]


def test_writers_are_on_several_nodes_and_one_may_die_under_load(tmp_path: Path) -> None:
    found = found_by("tests.service.three_nodes", tmp_path / "warehouse")
    assert found["nodes_with_writers"] > 1
    assert found["on_the_dead_node"] == 0
    assert found["consistent"]
    assert counted(tmp_path / "warehouse/analytics/pipeline_logs") == (found["sent"], found["sent"])
    assert found["rows"] == found["sent"]
