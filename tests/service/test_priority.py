"""An actor that answers does not stay behind all other work of its node, where it may come to the front."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

from actors.priority import RAY_VARIABLE, own_ray

if TYPE_CHECKING:
    import pytest

PROGRAM = """
import json, os, threading
from actors.priority import come_to_the_front
os.nice(15)
stay = threading.Event()
threading.Thread(target=stay.wait, daemon=True).start()
allowed = come_to_the_front()
print(json.dumps([allowed, [os.getpriority(os.PRIO_PROCESS, int(task)) for task in os.listdir("/proc/self/task")]]))
"""


def test_every_thread_comes_to_the_front_or_the_answer_says_that_it_may_not() -> None:
    ran = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=100)
    allowed, found = json.loads(ran.stdout)
    assert len(found) >= 2
    assert set(found) == ({0} if allowed else {15})


def test_a_ray_of_a_service_s_own_keeps_its_workers_in_front_unless_somebody_chose(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(RAY_VARIABLE, raising=False)
    assert own_ray()[RAY_VARIABLE] == "0"
    monkeypatch.setenv(RAY_VARIABLE, "7")
    assert own_ray()[RAY_VARIABLE] == "7"
