"""The processor's time for an actor: Ray starts all workers at niceness 15, behind everything else on their node.

For work that lasts that is right. Who decides and answers takes little, and must not wait until a busy machine has
nothing else to do: on two cores that others fill, at niceness 15 an answer takes seconds instead of milliseconds.
"""

from __future__ import annotations

import os
from pathlib import Path

RAY_VARIABLE = "RAY_worker_niceness"
"""Of the environment in which a node of Ray is started."""


def come_to_the_front(tasks: Path = Path("/proc/self/task")) -> bool:
    """Give this process the niceness 0, where that is allowed (root, or a limit that says so); whether it was.

    Linux keeps it for each thread, and new ones have that of their maker.
    """
    if not tasks.is_dir():
        return False
    allowed = True
    for task in tasks.iterdir():
        try:
            os.setpriority(os.PRIO_PROCESS, int(task.name), 0)
        except PermissionError:  # noqa: PERF203  each thread may be gone, or another's
            allowed = False
        except ProcessLookupError:
            continue
    return allowed


def own_ray() -> dict[str, str]:
    """The environment for a Ray that serves nobody else: its workers at niceness 0, unless somebody chose another."""
    return {RAY_VARIABLE: "0", **os.environ}
