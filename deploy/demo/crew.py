"""The pipeline processes at work: started together, listened to, and what they said summed up."""

from __future__ import annotations

import json
import queue
import subprocess
import threading
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from deploy.demo.packages import Package
    from deploy.demo.processes import Household


class PipelineError(Exception):
    """A pipeline process ended before its work was done."""


class Crew:
    """One process for each list of packages."""

    def __init__(self, household: Household, folder: Path, service: str, dealt: Sequence[Sequence[Package]]) -> None:
        """Write the plan and start the processes.

        Args:
            household: starts them.
            folder: takes the plan, the ledger and the processes' own logs.
            service: the name of the one that they join.
            dealt: packages of each process.
        """
        self.ledger = folder / "ledger"
        plan = folder / "plan.json"
        content = {
            "service": service,
            "ledger": str(self.ledger),
            "packages": [[asdict(package) for package in packages] for packages in dealt],
        }
        plan.write_text(json.dumps(content), encoding="utf-8")
        self.given = [0] * len(dealt)
        self.acknowledged = [0] * len(dealt)
        self._events: queue.Queue[tuple[int, dict[str, Any] | None]] = queue.Queue()
        self._household = household
        self._logs = [folder / f"pipelines-{number}.log" for number in range(len(dealt))]
        self._processes = [self._start(plan, number) for number in range(len(dealt))]
        self._running = set(range(len(dealt)))
        self._finished: set[int] = set()

    @property
    def running(self) -> bool:
        """Whether a process still says something."""
        return bool(self._running)

    def listen(self, seconds: float) -> tuple[int, dict[str, Any]] | None:
        """The next event and who said it; None where nobody said anything for so long, or one has ended.

        Raises:
            PipelineError: a process has ended before its work was done.
        """
        self._household.check()
        try:
            number, event = self._events.get(timeout=seconds)
        except queue.Empty:
            return None
        if event is None:
            self._ended(number)
            return None
        self.given[number] += event.get("rows", 0)
        self.acknowledged[number] = event.get("acknowledged", self.acknowledged[number])
        if event["event"] == "done":
            self._finished.add(number)
        return number, event

    def _start(self, plan: Path, number: int) -> subprocess.Popen[str]:
        with self._logs[number].open("w", encoding="utf-8") as log:
            process = self._household.start(
                ["-m", "deploy.demo.worker", str(plan), str(number)],
                env=self._household.environment(),
                cwd=self._household.project,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        threading.Thread(target=self._hear, args=(number, process), daemon=True).start()
        return process

    def _hear(self, number: int, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                if line.startswith("{"):
                    self._events.put((number, json.loads(line)))
        self._events.put((number, None))

    def _ended(self, number: int) -> None:
        self._running.discard(number)
        code = self._processes[number].wait()
        if code != 0 or number not in self._finished:
            lines = self._logs[number].read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise PipelineError(
                f"pipeline process {number} ended with {code}: {lines[-1] if lines else 'it said nothing'}"
            )
