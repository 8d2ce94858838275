"""One pipeline process: `python -m deploy.demo.worker PLAN NUMBER`.

Receives: a plan (JSON: service, ledger, one list of packages for each process), RAY_ADDRESS.
Produces: rows through the service, its ledger, and a JSON line on stdout for each batch that is handed over.
Guarantees: exits with 0 only where every row that it gave was acknowledged.
"""

from __future__ import annotations

import json
import os
import sys
import uuid
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actors import connect
from deploy.demo.ledger import Ledger
from deploy.demo.packages import Package
from deploy.demo.pipelines import Pipeline
from sfwriter.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Future

    from sfwriter.results import WriteResult

MOST_UNANSWERED = 64
"""Batches that this process lets wait for their acknowledgement before it works on."""

POLITENESS = 5
"""Added to the process's niceness: parsing takes all cores that it gets, and the service runs on the same ones."""


def main(arguments: Sequence[str]) -> None:
    """Run this process's pipelines, one after the other."""
    os.nice(POLITENESS)
    plan = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    number = int(arguments[1])
    packages = [Package(**{**entry, "files": tuple(entry["files"])}) for entry in plan["packages"][number]]
    clock = SystemClock()
    waiting: deque[Future[WriteResult]] = deque()
    acknowledged = 0
    with (
        Ledger(Path(plan["ledger"]), number) as ledger,
        connect(plan["service"], producer_id=f"demo-pipelines-{number}") as client,
    ):
        _tell(event="ready")
        for package in packages:
            pipeline = Pipeline(package, f"{package.name}-{uuid.uuid4().hex[:8]}", clock)
            for result in pipeline.run():
                ledger.given(pipeline.context.run_id, [step.step_name for step in result.step_results])
                waiting.append(client.submit_execution_result(result))
                acknowledged += _settled(waiting, ledger, MOST_UNANSWERED)
                files = sum(step.step_name.startswith("read ") for step in result.step_results)
                _tell(event="gave", files=files, rows=len(result.step_results), acknowledged=acknowledged)
        acknowledged += _settled(waiting, ledger, 0)
    _tell(event="done", acknowledged=acknowledged)


def _settled(waiting: deque[Future[WriteResult]], ledger: Ledger, most: int) -> int:
    """Take in the answers that are there, and wait until at most so many are left. Returns rows acknowledged."""
    rows = 0
    while waiting and (waiting[0].done() or len(waiting) > most):
        result = waiting.popleft().result()
        ledger.acknowledged(result)
        rows += result["rows_written"]
    return rows


def _tell(**event: Any) -> None:
    print(json.dumps(event), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
