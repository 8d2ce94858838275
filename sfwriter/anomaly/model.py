"""What is usual for one number of one step: a robust model of its history.

Receives: earlier values with their times.
Produces: a `Model`: what to expect at a moment, and how far from it is still usual.
Guarantees: a few earlier anomalies do not move it; it needs no more than `KEPT` points.
Never does: look at which number it is.

The centre is the median. A trend (Theil and Sen: the median of the slopes between pairs) and the medians of
hours and of weekdays are taken into account only where the history is long enough to show them and they make the
median absolute deviation clearly smaller. The usual distance is the larger of `SIGMAS` robust standard deviations
(1.4826 MAD, as for a normal distribution; Rousseeuw and Croux 1993) and `TAIL` times the distance that two in
a hundred earlier values exceed, which is what widens it for heavy tails; short histories get more room.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

LEAST = 8
"""Earlier runs without which nothing is said."""

KEPT = 500
"""Earlier runs that are looked at: three weeks of an hourly step."""

SIGMAS = 5.0
TAIL = 1.3
MAD_TO_SIGMA = 1.4826
_TAIL_SHARE = 0.98
_DAY = 86_400.0
_TREND_POINTS, _TREND_LEAST, _TREND_DAYS, _TREND_GAIN = 60, 20, 3.0, 0.85
_SEASON_LEAST, _SEASON_GAIN = 3, 0.8
_HOURS, _WEEKDAYS = "hours", "weekdays"
_SEASONS: tuple[tuple[str, float, Callable[[float], int]], ...] = (
    (_HOURS, 3.0, lambda at: int(at % _DAY // 3600)),
    (_WEEKDAYS, 14.0, lambda at: int(at // _DAY % 7)),
)
"""Name, days of history that it takes, and the bucket of a moment (the epoch's first day was a Thursday)."""


@dataclass(frozen=True, slots=True)
class Model:
    """What is usual.

    Attributes:
        count: earlier values.
        centre: at the moment `origin`.
        origin: epoch seconds.
        slope: of the centre, in units a second.
        seasons: name to bucket to what is added then.
        distance: from the centre that is still usual.
    """

    count: int
    centre: float
    origin: float
    slope: float
    distance: float
    seasons: Mapping[str, Mapping[int, float]] = field(default_factory=dict)

    def expected(self, at: float) -> float:
        """The centre at a moment in epoch seconds."""
        found = self.centre + self.slope * (at - self.origin)
        for name, _, bucket in _SEASONS:
            if name in self.seasons:
                found += self.seasons[name].get(bucket(at), 0.0)
        return found


def fitted(times: Sequence[float], values: Sequence[float], least_sigma: float) -> Model:
    """The model of earlier values.

    Args:
        times: epoch seconds.
        values: as many, on the scale on which distances mean something.
        least_sigma: a standard deviation below this is measured as this: values that never differed yet.
    """
    origin = max(times)
    days = (origin - min(times)) / _DAY
    centre = median(values)
    rest = [value - centre for value in values]
    slope = 0.0
    if len(values) >= _TREND_LEAST and days >= _TREND_DAYS:
        found = _slope(times, values)
        flat = [value - found * (at - origin) for at, value in zip(times, values, strict=True)]
        level = median(flat)
        after = [value - level for value in flat]
        if _spread(after) < _TREND_GAIN * _spread(rest):
            slope, centre, rest = found, level, after
    seasons: dict[str, dict[int, float]] = {}
    for name, enough, bucket in _SEASONS:
        if days < enough:
            continue
        offsets = _offsets(times, rest, bucket)
        after = [value - offsets.get(bucket(at), 0.0) for at, value in zip(times, rest, strict=True)]
        if len(offsets) > 1 and _spread(after) < _SEASON_GAIN * _spread(rest):
            seasons[name], rest = offsets, after
    return Model(len(values), centre, origin, slope, _distance(rest, least_sigma), seasons)


def _spread(rest: Sequence[float]) -> float:
    """The median absolute deviation from 0."""
    return median(map(abs, rest))


def _distance(rest: Sequence[float], least_sigma: float) -> float:
    sizes = sorted(map(abs, rest))
    sigma = max(MAD_TO_SIGMA * median(sizes), least_sigma)
    tail = sizes[min(len(sizes) - 1, math.ceil(_TAIL_SHARE * len(sizes)) - 1)]
    # Few values tell little of the tail: 1.5 times at 8, 1.04 at 100.
    room = 1.0 + 4.0 / len(sizes)
    return room * max(SIGMAS * sigma, TAIL * tail if len(sizes) >= _TREND_LEAST else 0.0)


def _slope(times: Sequence[float], values: Sequence[float]) -> float:
    step = max(1, len(times) // _TREND_POINTS)
    points = sorted(zip(times, values, strict=True))[::step]
    slopes = [
        (after[1] - before[1]) / (after[0] - before[0])
        for place, before in enumerate(points)
        for after in points[place + 1 :]
        if after[0] > before[0]
    ]
    return median(slopes) if slopes else 0.0


def _offsets(times: Sequence[float], rest: Sequence[float], bucket: Callable[[float], int]) -> dict[int, float]:
    groups: dict[int, list[float]] = {}
    for at, value in zip(times, rest, strict=True):
        groups.setdefault(bucket(at), []).append(value)
    return {name: median(group) for name, group in groups.items() if len(group) >= _SEASON_LEAST}
