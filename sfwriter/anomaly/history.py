"""What is remembered of each step: its newest runs, within bounds.

Receives: earlier runs, from the table or as they are written.
Produces: for each step the points that models are made of, and the steps that its pipeline's runs have.
Guarantees: no more than `KEPT` runs of a step and `MOST_STEPS` steps; the pipelines that were not asked for
    longest are forgotten first.
Never does: read a table.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import NamedTuple

from sfwriter.anomaly.model import KEPT, LEAST

MOST_STEPS = 2_000
"""About 100 MB with all their runs."""

_RUNS_KEPT = 50
_USUAL_SHARE = 0.9


class Key(NamedTuple):
    """Whose history it is: a full refresh is compared with full refreshes."""

    pipeline_id: str | None
    step_name: str | None
    run_mode: str | None


class Run(NamedTuple):
    """One step's run: numbers are None where the row has none; `at` is epoch seconds."""

    run_id: str | None
    at: float
    duration_secs: float | None
    rows_processed: float | None
    validation_rate: float | None
    success: bool


@dataclass(slots=True)
class Pipeline:
    """One pipeline in one run mode.

    Attributes:
        steps: step name to its runs, the oldest first.
        runs: run id to the steps that it had, the oldest first.
        loaded_at: monotonic seconds; None where it was not read from the table.
        version: of the table when it was read.
    """

    steps: dict[str | None, deque[Run]] = field(default_factory=dict)
    runs: OrderedDict[str, set[str | None]] = field(default_factory=OrderedDict)
    loaded_at: float | None = None
    version: int | None = None

    def is_old(self, since: float, version: int | None) -> bool:
        """Whether it was not read since then, or, where a version is given, at another one."""
        return self.loaded_at is None or self.loaded_at < since or version not in {None, self.version}

    def add(self, step_name: str | None, run: Run) -> None:
        """Take in a run of a step."""
        self.steps.setdefault(step_name, deque(maxlen=KEPT)).append(run)
        if run.run_id is not None:
            self.runs.setdefault(run.run_id, set()).add(step_name)
            while len(self.runs) > _RUNS_KEPT:
                self.runs.popitem(last=False)

    def usual_steps(self, without: str | None) -> set[str | None]:
        """The steps that nearly every run has, of at least `LEAST` runs besides `without`."""
        runs = [steps for run_id, steps in self.runs.items() if run_id != without]
        if len(runs) < LEAST:
            return set()
        return {name for name in set().union(*runs) if sum(name in steps for steps in runs) >= _USUAL_SHARE * len(runs)}


class Histories:
    """All pipelines that are remembered. For one thread at a time."""

    def __init__(self) -> None:
        """Begin without any."""
        self._pipelines: OrderedDict[tuple[str | None, str | None], Pipeline] = OrderedDict()

    def of(self, pipeline_id: str | None, run_mode: str | None) -> Pipeline:
        """A pipeline's history, begun where there is none."""
        key = (pipeline_id, run_mode)
        if key not in self._pipelines:
            self._pipelines[key] = Pipeline()
        self._pipelines.move_to_end(key)
        return self._pipelines[key]

    def put(self, pipeline_id: str | None, run_mode: str | None, pipeline: Pipeline) -> None:
        """Replace a pipeline's history, and forget others where there are too many steps."""
        self._pipelines[pipeline_id, run_mode] = pipeline
        self._pipelines.move_to_end((pipeline_id, run_mode))
        while len(self._pipelines) > 1 and sum(len(one.steps) for one in self._pipelines.values()) > MOST_STEPS:
            self._pipelines.popitem(last=False)
