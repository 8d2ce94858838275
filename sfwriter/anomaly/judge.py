"""Whether rows are unlike their history, and how that is said.

Receives: rows under test, and the history of their pipelines.
Produces: anomalies, and the steps whose history is too short to tell.
Guarantees: the rows under test are left out of the history; a failed step's numbers are not held against it,
    except a duration that is too long.
Never does: read or write.

| type | when |
| --- | --- |
| `duration`, `rows_processed` | further from what is usual than `model.Model.distance`, on a log scale |
| `validation_rate` | lower than usual by more than that, in percent |
| `failure_streak` | so many failures in a row that chance explains less than one in `STREAK_CHANCE` of them |
| `missing_step` | a run of several rows lacks a step that nine in ten runs have |
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from sfwriter.anomaly.history import Key, Run
from sfwriter.anomaly.model import LEAST, fitted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from sfwriter.anomaly.history import Pipeline
    from sfwriter.anomaly.model import Model
    from sfwriter.results import Anomaly

Kind = Literal["duration", "rows_processed", "validation_rate", "failure_streak", "missing_step"]

LEAST_STREAK = 3
STREAK_CHANCE = 1_000.0
SEVERITIES = ((1.5, "low"), (3.0, "medium"), (6.0, "high"))
"""Up to how many times the usual distance; beyond the last it is `critical`."""


@dataclass(frozen=True, slots=True)
class Measure:
    """A number that is judged.

    Attributes:
        name: of the type and of the column.
        least_sigma: see `model.fitted`.
        is_log: whether its scale is the logarithm: ratios count, and not differences.
        low: whether too low is an anomaly.
        high: whether too high is.
        said: how a sentence says the value.
    """

    name: str
    least_sigma: float
    is_log: bool
    low: bool
    high: bool
    said: str

    def scaled(self, value: float) -> float:
        """On the scale of the model."""
        return math.log1p(max(value, 0.0)) if self.is_log else value

    def plain(self, value: float) -> float:
        """Back from the scale."""
        if self.is_log:
            return max(0.0, math.expm1(min(value, 700.0)))
        return min(100.0, max(0.0, value))


MEASURES = (
    Measure("duration_secs", 0.04, is_log=True, low=True, high=True, said="took {} s"),
    Measure("rows_processed", 0.04, is_log=True, low=True, high=True, said="processed {} rows"),
    Measure("validation_rate", 0.5, is_log=False, low=True, high=False, said="had a validation rate of {} %"),
)
TYPES: dict[str, Kind] = {
    "duration_secs": "duration", "rows_processed": "rows_processed", "validation_rate": "validation_rate",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found, and the steps that could not be judged: (key, earlier runs)."""

    anomalies: list[Anomaly]
    too_short: list[tuple[Key, int]]


class Judge:
    """Judges rows by models that are kept until the history has grown by a tenth. For one thread at a time."""

    def __init__(self) -> None:
        """Begin without models."""
        # Runs that it is made of, the time until which it is good, and the model.
        self._models: dict[tuple[Key, str], tuple[int, float, Model]] = {}

    def judge(self, rows: Sequence[tuple[Key, Run]], history: Callable[[str | None, str | None], Pipeline]) -> Verdict:
        """Judge rows.

        Args:
            rows: under test, in the order in which they happened.
            history: gives the history of a pipeline and run mode.
        """
        verdict = self.rows(rows, history)
        return Verdict([*verdict.anomalies, *missing(rows, history)], verdict.too_short)

    def rows(
        self,
        rows: Sequence[tuple[Key, Run]],
        history: Callable[[str | None, str | None], Pipeline],
        *,
        left_out: bool = True,
    ) -> Verdict:
        """As `judge`, row by row and without looking for missing steps.

        Args:
            rows: under test.
            history: see `judge`.
            left_out: whether the rows are taken out of the history that they are compared with.
        """
        anomalies: list[Anomaly] = []
        too_short: dict[Key, int] = {}
        tested: dict[Key, list[Run]] = {}
        for key, run in rows:
            tested.setdefault(key, []).append(run)
        before = {
            key: _without(history(key.pipeline_id, key.run_mode).steps.get(key.step_name, ()), runs if left_out else ())
            for key, runs in tested.items()
        }
        streaks: dict[Key, list[bool]] = {}
        for key, run in rows:
            earlier = before[key]
            if len(earlier) < LEAST:
                too_short[key] = len(earlier)
                continue
            anomalies += self._numbers(key, run, earlier)
            outcomes = streaks.setdefault(key, [one.success for one in earlier] if left_out else [])
            outcomes.append(run.success)
            anomalies += _streak(key, run, outcomes)
        return Verdict(anomalies, list(too_short.items()))

    def _numbers(self, key: Key, run: Run, earlier: list[Run]) -> Iterator[Anomaly]:
        for measure in MEASURES:
            value = getattr(run, measure.name)
            if value is None or (not run.success and measure.name != "duration_secs"):
                continue
            model = self._model(key, measure, earlier)
            if model is None:
                continue
            expected = model.expected(run.at)
            off = measure.scaled(value) - expected
            if abs(off) <= model.distance or not (measure.high if off > 0 else measure.low and run.success):
                continue
            bound = measure.plain(expected + math.copysign(model.distance, off))
            usual = measure.plain(expected)
            what = measure.said.format(_number(value))
            limit = "at most" if off > 0 else "at least"
            yield _anomaly(
                TYPES[measure.name],
                f"{_named(key)} {what}; {_number(usual)} is usual, {limit} {_number(bound)}",
                _severity(abs(off) / model.distance),
                (float(value), usual, bound),
                (key, run.run_id),
            )

    def _model(self, key: Key, measure: Measure, earlier: list[Run]) -> Model | None:
        oldest, newest = earlier[0].at, earlier[-1].at
        kept = self._models.get((key, measure.name))
        if kept is not None and len(earlier) <= GROWTH * kept[0] and newest <= kept[1]:
            return kept[2]
        points = [
            (one.at, measure.scaled(value))
            for one in earlier
            if one.success and (value := getattr(one, measure.name)) is not None
        ]
        if len(points) < LEAST:
            return None
        times, values = zip(*points, strict=True)
        model = fitted(times, values, measure.least_sigma)
        if len(self._models) >= _MOST_MODELS:
            self._models.clear()
        self._models[key, measure.name] = (len(earlier), newest + (GROWTH - 1) * (newest - oldest), model)
        return model


GROWTH = 1.1
"""A model is made anew when the history has grown by a tenth, in runs or in time."""

_MOST_MODELS = 20_000


def _streak(key: Key, run: Run, outcomes: Sequence[bool]) -> Iterator[Anomaly]:
    """A row of failures that ends with this run, told when it becomes remarkable and at each run after."""
    length = 0
    for success in reversed(outcomes):
        if success:
            break
        length += 1
    before = outcomes[: len(outcomes) - length]
    if length < LEAST_STREAK or not before:
        return
    rate = (before.count(False) + 1) / (len(before) + 2)  # Laplace: no failure yet does not mean never
    usual = max(LEAST_STREAK, math.ceil(math.log(STREAK_CHANCE) / -math.log(rate)))
    if length < usual:
        return
    yield _anomaly(
        "failure_streak",
        f"{_named(key)} has failed {length} times in a row; {100 * rate:.1f} % of its runs fail usually",
        _severity(length / usual),
        (float(length), 0.0, float(usual)),
        (key, run.run_id),
    )


def missing(
    rows: Iterable[tuple[Key, Run]], history: Callable[[str | None, str | None], Pipeline]
) -> Iterator[Anomaly]:
    """Steps that runs of these rows lack; a run of which only one row is given is being written step by step."""
    runs: dict[tuple[str | None, str | None, str], list[str | None]] = {}
    for key, run in rows:
        if run.run_id is not None:
            runs.setdefault((key.pipeline_id, key.run_mode, run.run_id), []).append(key.step_name)
    for (pipeline_id, run_mode, run_id), given in runs.items():
        if len(given) < 2:
            continue
        pipeline = history(pipeline_id, run_mode)
        known = pipeline.runs.get(run_id, set())
        usual = pipeline.usual_steps(run_id)
        for name in sorted(usual - set(given) - known, key=str):
            key = Key(pipeline_id, name, run_mode)
            yield _anomaly(
                "missing_step",
                f"{_named(key)} did not run in {run_id}; nearly every run has it",
                "high",
                (0.0, 1.0, 1.0),
                (key, run_id),
            )


def _without(steps: Iterable[Run], tested: Iterable[Run]) -> list[Run]:
    """The earlier runs, less those under test: of two that are equal one goes for each that is tested."""
    # Without the time: a row that has none of its own was given another when it was written.
    spare = Counter(run._replace(at=0.0) for run in tested)
    kept = []
    named = {run.run_id for run in spare} - {None}
    for run in reversed(list(steps)):
        same = run._replace(at=0.0) if run.run_id in named else None
        if same is not None and spare[same] > 0:
            spare[same] -= 1
        else:
            kept.append(run)
    return kept[::-1]


def _anomaly(
    kind: Kind, description: str, severity: str, numbers: tuple[float, float, float], whose: tuple[Key, str | None]
) -> Anomaly:
    """An entry of the result; `numbers` are value, expected and threshold."""
    value, expected, threshold = numbers
    key, run_id = whose
    return {
        "type": kind,
        "description": description,
        "severity": severity,
        "value": value,
        "expected": expected,
        "threshold": threshold,
        "run_id": run_id,
        "pipeline_id": key.pipeline_id,
        "step_name": key.step_name,
    }


def _severity(times: float) -> str:
    return next((name for limit, name in SEVERITIES if times < limit), "critical")


def _named(key: Key) -> str:
    whose = "" if key.pipeline_id is None else f" of {key.pipeline_id}"
    return f"{key.step_name}{whose}"


def _number(value: float) -> str:
    if value >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.3g}"
