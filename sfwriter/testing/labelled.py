"""Histories of pipelines with anomalies in them, and which they are: for tests and benchmarks of detection.

Steps have one of several profiles: steady, noisy, heavy-tailed (one value in fifty is two to three times the
usual), slower at certain hours, slower at weekends, and drifting by a few percent a week. About one run of a step
in fifty fails. The anomalies have the sizes that people call in somebody for: a duration four to twenty times
the usual, a tenth or ten times the rows, a validation rate that drops by 15 to 60 points, a step that fails
five times and more in a row, a step that does not run.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

PROFILES = ("steady", "noisy", "heavy_tailed", "hourly", "weekly", "drifting")
KINDS = ("duration", "rows_processed", "validation_rate", "failure_streak", "missing_step")

STEPS = (("bronze", "extract"), ("silver", "clean"), ("silver", "join"), ("gold", "report"))
_START = datetime(2026, 1, 1, tzinfo=timezone.utc)


@dataclass(frozen=True, slots=True)
class Labelled:
    """Rows, and what is wrong with some of those under test.

    Attributes:
        history: runs of the weeks before, each a list of rows.
        tested: the runs of the days after.
        labels: (run id, step name) to the kind of the anomaly there; of a row of failures its last run.
        streaks: the other runs of rows of failures, which may be told or not.
    """

    history: list[list[dict[str, Any]]]
    tested: list[list[dict[str, Any]]]
    labels: dict[tuple[str, str], str]
    streaks: set[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class _Step:
    phase: str
    name: str
    profile: str
    secs: float
    rows: float
    rate: float
    sigma: float


def labelled_runs(
    seed: int,
    *,
    pipelines: int = 6,
    days: int = 28,
    tested_days: int = 7,
    every_hours: float = 4.0,
    share: float = 0.02,
) -> Labelled:
    """Make the runs of some pipelines; the same ones for the same arguments.

    Args:
        seed: of all chance.
        pipelines: how many; their steps have all profiles in turn.
        days: of history.
        tested_days: after that.
        every_hours: between two runs of a pipeline.
        share: of the tested runs that get an anomaly.
    """
    chance = random.Random(seed)
    history: list[list[dict[str, Any]]] = []
    tested: list[list[dict[str, Any]]] = []
    spoiler = _Spoiler(chance, share)
    for number in range(pipelines):
        steps = [_step(chance, phase, name, number * len(STEPS) + place) for place, (phase, name) in enumerate(STEPS)]
        for index in range(int((days + tested_days) * 24 / every_hours)):
            moment = _START + timedelta(hours=index * every_hours + number * 0.37)
            run = _run(chance, f"pipeline-{number}", f"run-{number}-{index}", steps, moment)
            if moment < _START + timedelta(days=days):
                history.append(run)
                continue
            spoiler.spoil(run)
            tested.append(run)
    tested.sort(key=lambda run: run[0]["start_time"])
    return Labelled(history, tested, spoiler.labels, spoiler.streaks)


def _step(chance: random.Random, phase: str, name: str, place: int) -> _Step:
    profile = PROFILES[place % len(PROFILES)]
    sigma = {"steady": 0.03, "noisy": 0.3}.get(profile, 0.1)
    return _Step(
        phase, name, profile, 10 ** chance.uniform(0, 3), 10 ** chance.uniform(2, 7), chance.uniform(94, 99.5), sigma
    )


def _run(
    chance: random.Random, pipeline: str, run_id: str, steps: list[_Step], moment: datetime
) -> list[dict[str, Any]]:
    rows = []
    for step in steps:
        secs = step.secs * math.exp(chance.gauss(0, step.sigma)) * _factor(chance, step, moment)
        count = int(step.rows * math.exp(chance.gauss(0, step.sigma)) * _factor(chance, step, moment))
        success = chance.random() > 0.02
        row: dict[str, Any] = {
            "run_id": run_id,
            "run_mode": "incremental",
            "pipeline_id": pipeline,
            "phase": step.phase,
            "step_name": step.name,
            "start_time": moment,
            "duration_secs": secs if success else secs * chance.uniform(0.05, 1),
            "success": success,
        }
        if success:
            row |= {"rows_processed": count, "validation_rate": min(100.0, step.rate + chance.gauss(0, 0.4))}
        else:
            row["error_message"] = "ValueError: no luck"
        rows.append(row)
        moment += timedelta(seconds=secs)
    return rows


def _factor(chance: random.Random, step: _Step, moment: datetime) -> float:
    if step.profile == "hourly":
        return 3.0 if moment.hour < 6 else 1.0
    if step.profile == "weekly":
        return 2.5 if moment.weekday() >= 5 else 1.0
    if step.profile == "drifting":
        return float(1.05 ** ((moment - _START).total_seconds() / (7 * 86_400)))
    if step.profile == "heavy_tailed" and chance.random() < 0.02:
        return chance.uniform(2, 3)
    return 1.0


class _Spoiler:
    """Puts anomalies into runs, and keeps the books of them."""

    def __init__(self, chance: random.Random, share: float) -> None:
        self._chance = chance
        self._share = share
        self._failing: dict[str, int] = {}
        self.labels: dict[tuple[str, str], str] = {}
        self.streaks: set[tuple[str, str]] = set()

    def spoil(self, run: list[dict[str, Any]]) -> None:
        """Put one in now and then; a row of failures goes on over the next runs of the pipeline."""
        pipeline, run_id = run[0]["pipeline_id"], run[0]["run_id"]
        left = self._failing.get(pipeline, 0)
        if left:
            _fail(run[1])
            self._failing[pipeline] = left - 1
            if left == 1:
                self.labels[run_id, run[1]["step_name"]] = "failure_streak"
            else:
                self.streaks.add((run_id, run[1]["step_name"]))
            return
        if self._chance.random() >= self._share * len(run):
            return
        kind = self._chance.choice(KINDS)
        if kind == "failure_streak":
            self._failing[pipeline] = self._chance.randint(5, 7)
            return
        place = self._chance.randrange(len(run))
        self.labels[run_id, run[place]["step_name"]] = kind
        if kind == "missing_step":
            del run[place]
        else:
            self._change(run[place], kind)

    def _change(self, row: dict[str, Any], kind: str) -> None:
        row.pop("error_message", None)
        row["success"] = True
        row.setdefault("rows_processed", 1000)
        row.setdefault("validation_rate", 95.0)
        if kind == "duration":
            row["duration_secs"] *= self._chance.uniform(4, 20)
        elif kind == "rows_processed":
            row["rows_processed"] = int(row["rows_processed"] * self._chance.choice((0.1, 10.0)))
        else:
            row["validation_rate"] -= self._chance.uniform(15, 60)


def _fail(row: dict[str, Any]) -> None:
    row.update(success=False, error_message="ValueError: no luck")
    row.pop("rows_processed", None)
    row.pop("validation_rate", None)
