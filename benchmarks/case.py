"""What a benchmark is: peers that run in turns, and verdicts on their medians.

A peer's run checks its own outcome and raises `WrongOutcome` before it gives a figure, so no ratio is
ever made of runs that did not do the work.
"""

from __future__ import annotations

import gc
import os
import shutil
import statistics
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

Figures = dict[str, float]


class WrongOutcome(AssertionError):  # noqa: N818  a finding
    """A run did not do what it was measured for."""


class Scale(str, Enum):
    """How much work a case does."""

    FULL = "full"
    QUICK = "quick"
    TINY = "tiny"


def expect(kept: bool, told: str) -> None:
    """Raise `WrongOutcome` where a condition does not hold."""
    if not kept:
        raise WrongOutcome(told)


@dataclass(frozen=True, slots=True)
class Setting:
    """What a run gets.

    Attributes:
        folder: its own and empty; deleted afterwards.
        shared: the case's own, for all its runs.
        given: what `Case.prepare` made.
        scale: how much work.
    """

    folder: Path
    shared: Path
    given: Mapping[str, Any]
    scale: Scale


@dataclass(frozen=True, slots=True)
class Peer:
    """One of those that are compared. `run` gives figures whose names end in their unit."""

    name: str
    run: Callable[[Setting], Figures]


@dataclass(frozen=True, slots=True)
class Verdict:
    """A number made of medians, and what it should be.

    Attributes:
        label: what it says.
        of: (peer, figure).
        against: (peer, figure) that it is divided by or that is taken away; None for `of` alone.
        how: `ratio`, `difference` or `value`.
        target: None where nothing is asked.
        at_least: whether the target is a lower bound.
        unit: of the result, as it is printed.
        scale: the result is multiplied by it.
    """

    label: str
    of: tuple[str, str]
    against: tuple[str, str] | None = None
    how: Literal["ratio", "difference", "value"] = "ratio"
    target: float | None = None
    at_least: bool = True
    unit: str = "×"
    scale: float = 1.0

    def value(self, median: Callable[[tuple[str, str]], float]) -> float:
        """The number."""
        of = median(self.of)
        if self.how == "value" or self.against is None:
            return of * self.scale
        against = median(self.against)
        return (of / against if self.how == "ratio" else of - against) * self.scale

    def is_met(self, value: float) -> bool | None:
        """Whether the target is met; None where there is none."""
        if self.target is None:
            return None
        return value >= self.target if self.at_least else value <= self.target


@dataclass(frozen=True, slots=True)
class Case:
    """A benchmark.

    Attributes:
        name: for the command line.
        title: one line.
        peers: run in turns, A B A B …
        verdicts: on the medians.
        prepare: makes what all runs share, in a folder; returns `Setting.given`.
        rounds: how often each peer runs, if nothing else is asked.
    """

    name: str
    title: str
    peers: tuple[Peer, ...]
    verdicts: tuple[Verdict, ...]
    prepare: Callable[[Path, Scale], Mapping[str, Any]] = lambda _folder, _scale: {}
    rounds: int = 3


@dataclass(frozen=True, slots=True)
class Judged:
    """A verdict's result."""

    label: str
    value: float
    unit: str
    target: float | None
    at_least: bool
    met: bool | None


@dataclass(slots=True)
class Report:
    """What came of a case.

    Attributes:
        case: its name.
        title: its title.
        rounds: peer to the figures of each of its runs.
        verdicts: empty where it failed.
        failure: why it failed, None where it did not.
    """

    case: str
    title: str
    rounds: dict[str, list[Figures]] = field(default_factory=dict)
    verdicts: list[Judged] = field(default_factory=list)
    failure: str | None = None

    def median(self, of: tuple[str, str]) -> float:
        """The median of one figure of one peer."""
        peer, figure = of
        return statistics.median(run[figure] for run in self.rounds[peer])

    def spread(self, of: tuple[str, str]) -> tuple[float, float]:
        """The least and the most of one figure of one peer."""
        values = [run[of[1]] for run in self.rounds[of[0]]]
        return min(values), max(values)

    def figures(self, peer: str) -> list[str]:
        """The names of a peer's figures."""
        return list(self.rounds[peer][0]) if self.rounds.get(peer) else []


def run_case(
    case: Case, folder: Path, *, scale: Scale, rounds: int | None = None, told: Callable[[str], None] = lambda _: None
) -> Report:
    """Run a case's peers in turns and judge the medians.

    Args:
        case: what to run.
        folder: for data and tables; needs a few GB at full scale.
        scale: how much work.
        rounds: instead of the case's own.
        told: called with a line before each run.
    """
    report = Report(case.name, case.title, {peer.name: [] for peer in case.peers})
    shared = folder / case.name
    shared.mkdir(parents=True)
    try:
        told(f"{case.name}: preparing")
        given = case.prepare(shared, scale)
        turns = rounds or (1 if scale is Scale.TINY else case.rounds)
        for turn in range(turns):
            for peer in case.peers:
                told(f"{case.name}: round {turn + 1} of {turns}, {peer.name}")
                own = shared / f"run-{turn}-{case.peers.index(peer)}"
                own.mkdir()
                gc.collect()
                os.sync()  # what an earlier run left to be written is not this one's burden
                report.rounds[peer.name].append(peer.run(Setting(own, shared, given, scale)))
                shutil.rmtree(own, ignore_errors=True)
    except Exception as error:  # noqa: BLE001  a case that fails is reported, the others go on
        report.failure = f"{type(error).__name__}: {error}"
        return report
    finally:
        shutil.rmtree(shared, ignore_errors=True)
    for verdict in case.verdicts:
        value = verdict.value(report.median)
        report.verdicts.append(
            Judged(verdict.label, value, verdict.unit, verdict.target, verdict.at_least, verdict.is_met(value))
        )
    return report
