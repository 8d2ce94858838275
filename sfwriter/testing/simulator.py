"""Runs the core against a model world in which everything goes wrong, and looks whether its promises hold.

Receives: a seed; the same seed makes the same world, always.
Produces: counts of what happened, or `Finding` with the seed and the story of what led to it.
Guarantees: after every step the budget, the books and the turns are checked; after every commit and
    answer, who put what where; at the end of an episode, that everybody was answered.
Never does: touch a disk, a clock, a thread or Ray (several processes only where `--workers` asks).

    python -m sfwriter.testing.simulator --steps 5_000_000 --seed 1
"""

from __future__ import annotations

import argparse
import sys
import traceback
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from sfwriter.flow.vocabulary import (
    Closed,
    CommitConflicted,
    CommitInDoubt,
    CommitLanded,
    CommitRefused,
    Fault,
    Flushed,
    SlotsChanged,
    Staged,
    StagedLost,
    StagingFailed,
    Ticked,
    WatermarksFailed,
    Withdrawn,
)
from sfwriter.storage.engine import StagedBatch, StagedFile
from sfwriter.testing.simulation.promises import Broken, promise
from sfwriter.testing.simulation.world import Settings, World

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sfwriter.batch import Token
    from sfwriter.flow.vocabulary import Commit, Stage
    from sfwriter.testing.simulation.hosts import Host
    from sfwriter.testing.simulation.tables import Call

EPISODE_STEPS = 250
"""Steps with faults before an episode is brought to its end: short ones find more, and are easier to read."""

DRAIN_STEPS = 5_000
"""Steps without faults after which everybody must have been answered."""

FOR_NOW = Fault(ConnectionError("injected"), retriable=True)
FOR_GOOD = Fault(ValueError("injected"), retriable=False)


class Finding(Exception):  # noqa: N818  what the simulator is for
    """A promise that did not hold, or an error in the core. Its text tells how to see it again, and what led to it."""


class Episode:
    """One world from its beginning to its end."""

    def __init__(self, seed: int, counts: Counter[str]) -> None:
        """Make the world of a seed; `counts` is added to."""
        self.random = Random(seed)
        self.counts = counts
        self.settings = Settings.draw(self.random)
        self.world = World(self.random, self.settings, counts)
        self._faults = self.settings.faults
        self._files = 0
        self._actions = [
            (40, self._somebody_calls),
            (50, self._a_job_goes_on),
            (30, self._a_commit_goes_on),
            (25, self._a_look_goes_on),
            (15, self._time_passes),
            (3, self._somebody_gives_up),
            (2, self._a_late_job_speaks),
            (3, self._a_frozen_commit_wakes),
            (1, self._flush),
            (2, self._slots_change),
            (1, self._the_clock_jumps),
            (2, self._a_host_dies),
            (1, self._a_file_is_lost),
            (1, self._a_table_is_touched),
            (1, self._a_table_is_restored),
            (0.2, self._a_host_closes),
        ]

    def run(self) -> int:
        """Live through it and return the steps taken. Raises whatever is wrong."""
        weights = [weight for weight, _ in self._actions]
        actions = [action for _, action in self._actions]
        while self.world.steps < EPISODE_STEPS:
            for action in self.random.choices(actions, weights, k=64):
                action()
        self._drain()
        return self.world.steps

    # ------------------------------------------------------------ what happens

    def _somebody_calls(self) -> None:
        caller = self.random.choice(self.world.callers)
        if self.world.steps >= caller.rests_until:
            caller.act()

    def _a_job_goes_on(self) -> None:
        for host in self._some_host():
            if host.jobs:
                self._stage(host, host.jobs[self.random.choice(list(host.jobs))])

    def _stage(self, host: Host, command: Stage) -> None:
        calls = [(token, self.world.calls[ticket]) for ticket, token in command.batches]
        poison = {call.poison for _, call in calls}
        died = "kill" in poison
        fails = died or "stage" in poison
        fault = FOR_GOOD if fails else FOR_NOW
        if not fails and self._roll():
            kind = self.random.randrange(4)
            if kind == 0:
                self.counts["staging hangs"] += 1
                return
            fails, died = True, kind == 1
            fault = FOR_GOOD if kind == 2 else FOR_NOW
        del host.jobs[command.job]
        if not fails:
            host.tell(Staged(command.job, self._write(calls)))
            return
        self.counts["worker dies" if died else "staging fails for now" if fault.retriable else "staging fails"] += 1
        for _, call in calls:
            host.blame(call, "staging")
        host.tell(StagingFailed(command.job, fault, worker_died=died))

    def _write(self, calls: list[tuple[Token, Call]]) -> StagedBatch:
        files = []
        for part in range(self.random.choice((1, 1, 1, 2))):
            self._files += 1
            path = f"f{self._files}"
            self.world.files[path] = () if part else tuple(calls)
            files.append(StagedFile(path, 1, 1, "", {}, 0))
        return StagedBatch(tuple(files), b"")

    def _a_late_job_speaks(self) -> None:
        for host in self._some_host():
            if host.late:
                command = host.late.pop(self.random.choice(list(host.late)))
                if self.random.random() < 0.5:
                    self.counts["staged after abandon"] += 1
                    calls = [(token, self.world.calls[ticket]) for ticket, token in command.batches]
                    host.tell(Staged(command.job, self._write(calls)))
                else:
                    host.tell(StagingFailed(command.job, FOR_NOW, worker_died=True))

    def _a_commit_goes_on(self) -> None:
        for host in self._some_host():
            if host.commits:
                self._commit(host, host.commits.pop(self.random.choice(list(host.commits))))

    def _commit(self, host: Host, command: Commit) -> None:
        world, group, table = self.world, command.group, command.table
        lost = world.lost_positions(group)
        poisoned = tuple(
            position
            for position, staged in enumerate(group.staged)
            if any(call.poison == "commit" for file in staged.files for _, call in world.files[file.path])
        )
        if lost:
            self._trouble(command, "lost files")
            host.tell(StagedLost(group.group_id, lost))
        elif poisoned:
            self._trouble(command, "refused")
            host.tell(CommitRefused(group.group_id, FOR_GOOD, poisoned))
        elif self._roll():
            self._commit_badly(host, command)
        else:
            version = world.land(table, group)
            if version is None:
                self._trouble(command, "conflict")
                host.tell(CommitConflicted(group.group_id))
            else:
                host.tell(CommitLanded(group.group_id, version))

    def _commit_badly(self, host: Host, command: Commit) -> None:
        group, table = command.group, command.table
        kind = self.random.choice(("conflict", "in doubt", "in doubt", "in doubt", "refused"))
        self._trouble(command, kind)
        if kind == "conflict":
            self.counts["spurious conflict"] += 1
            host.tell(CommitConflicted(group.group_id))
        elif kind == "refused":
            fault = self.random.choice((FOR_NOW, FOR_GOOD))
            some = tuple(position for position in range(len(group.staged)) if self.random.random() < 0.5)
            self.counts[f"refused {'for now' if fault.retriable else 'for good'}{' by position' if some else ''}"] += 1
            host.tell(CommitRefused(group.group_id, fault, some))
        else:
            outcome = self.random.choice(("landed", "lost", "late"))
            if outcome == "landed" and self.world.land(table, group) is None:
                outcome = "lost"
            if outcome == "late":
                self.world.frozen.append((table, group))
            self.counts[f"in doubt, {outcome}"] += 1
            host.tell(CommitInDoubt(group.group_id, FOR_NOW))

    def _trouble(self, command: Commit, name: str) -> None:
        for staged in command.group.staged:
            for file in staged.files:
                for _, call in self.world.files[file.path]:
                    self.world.hosts[call.host].blame(call, name)
        stamps = {mark.stamp for step in command.group.advances for mark in step.marks.values()}
        for host in self.world.hosts:
            for call in host.calls.values():
                if call.given.stamp in stamps:
                    host.blame(call, name)

    def _a_look_goes_on(self) -> None:
        for host in self._some_host():
            if host.reads:
                table = self.random.choice(list(host.reads))
                if self._roll():
                    command, _ = host.reads.pop(table)
                    fault = self.random.choice((FOR_NOW, FOR_NOW, FOR_GOOD))
                    self.counts["look fails for now" if fault.retriable else "look fails"] += 1
                    host.troubles["looking"] = None
                    host.tell(WatermarksFailed(table, command.producers, fault))
                else:
                    host.answer_read(table)

    def _a_frozen_commit_wakes(self) -> None:
        world = self.world
        if world.frozen:
            table, group = world.frozen.pop(self.random.randrange(len(world.frozen)))
            if not world.lost_positions(group) and world.land(table, group) is not None:
                self.counts["frozen commit lands"] += 1
            else:
                self.counts["frozen commit fails"] += 1

    def _time_passes(self) -> None:
        for host in self._some_host():
            wake = host.machine.wake_at()
            if wake is not None and self.random.random() < 0.5:
                self.world.now = max(self.world.now, wake)
            else:
                self.world.now += self.random.expovariate(5)
            self._move_clocks()
            host.tell(Ticked())

    def _the_clock_jumps(self) -> None:
        if self._roll():
            self.world.now += self.random.choice((-50.0, -1.0, 10.0, 1000.0))
            self.counts["clock jumps"] += 1
            self._move_clocks()

    def _move_clocks(self) -> None:
        self.world.latest = max(self.world.latest, self.world.now)
        for host in self.world.hosts:
            host.now = self.world.now

    def _somebody_gives_up(self) -> None:
        for host in self._some_host():
            if host.calls:
                ticket = self.random.choice(list(host.calls))
                host.blame(host.calls[ticket], "withdrawn")
                host.tell(Withdrawn(ticket))

    def _flush(self) -> None:
        for host in self._some_host():
            host.tell(Flushed())

    def _slots_change(self) -> None:
        for host in self._some_host():
            host.tell(SlotsChanged(self.random.choice((0, 1, 2, 5))))

    def _a_host_dies(self) -> None:
        if self._roll():
            self.counts["host dies"] += 1
            self.world.crash(self.random.randrange(len(self.world.hosts)))

    def _a_host_closes(self) -> None:
        if self._roll():
            for host in self._some_host():
                host.tell(Closed())

    def _a_file_is_lost(self) -> None:
        if self._roll():
            for host in self._some_host():
                for commit in host.commits.values():
                    for staged in commit.group.staged[:1]:
                        self.counts["file lost"] += 1
                        self.world.lost[staged.files[0].path] = None

    def _a_table_is_touched(self) -> None:
        self.world.tables[self.random.choice(list(self.world.tables))].touch()

    def _a_table_is_restored(self) -> None:
        if self.settings.restores and self._roll():
            table = self.world.tables[self.random.choice(list(self.world.tables))]
            self.world.frozen = [(name, group) for name, group in self.world.frozen if name != table.name]
            table.restore(self.random.randint(0, table.version))
            self.counts["table restored"] += 1

    # ------------------------------------------------------------ the end

    def _drain(self) -> None:
        """Stop all faults, and see that everybody is answered. What was frozen may still wake up, then or after."""
        self._faults = 0.0
        world = self.world
        for host in world.hosts:
            if not host.machine.slots:
                host.tell(SlotsChanged(1))
        end = world.steps + DRAIN_STEPS
        for host in world.hosts:
            while host.calls:
                promise(world.steps < end, "everybody is answered in the end", host.name, list(host.calls))
                self._go_on(host)
            promise(host.machine.budget.used == 0, "all bytes come back", host.machine.budget.used)
            promise(host.machine.in_flight == 0, "nothing is left", host.machine.in_flight)
        while world.frozen:
            self._a_frozen_commit_wakes()

    def _go_on(self, host: Host) -> None:
        if self.random.random() < 0.05:
            self._a_frozen_commit_wakes()
        if host.jobs:
            self._stage(host, host.jobs[next(iter(host.jobs))])
        elif host.commits:
            self._commit(host, host.commits.pop(next(iter(host.commits))))
        elif host.reads:
            host.answer_read(next(iter(host.reads)))
        else:
            wake = host.machine.wake_at()
            promise(wake is not None, "who has something to do says when", host.name, list(host.calls))
            self.world.now = max(self.world.now, wake or 0.0)
            self._move_clocks()
            host.tell(Ticked())

    def _some_host(self) -> Iterator[Host]:
        yield self.random.choice(self.world.hosts)

    def _roll(self) -> bool:
        return self.random.random() < self._faults


# ---------------------------------------------------------------- many episodes


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run of episodes saw."""

    steps: int
    episodes: int
    counts: Counter[str]


def replay(seed: int, counts: Counter[str] | None = None) -> int:
    """Live through the episode of one seed and return its steps.

    Raises:
        Finding: something is wrong.
    """
    episode = Episode(seed, Counter() if counts is None else counts)
    try:
        return episode.run()
    except Exception as error:
        raise Finding(_tell(seed, episode, error)) from error


def simulate(steps: int, seed: int = 0) -> Outcome:
    """Live through the episodes of `seed`, `seed + 1`, … until `steps` steps were taken.

    Raises:
        Finding: something is wrong.
    """
    counts: Counter[str] = Counter()
    taken = episodes = 0
    while taken < steps:
        taken += replay(seed + episodes, counts)
        episodes += 1
    return Outcome(taken, episodes, counts)


def _tell(seed: int, episode: Episode, error: Exception) -> str:
    lines = [
        f"seed {seed}, step {episode.world.steps}: {type(error).__name__}: {error}",
        f"again: python -m sfwriter.testing.simulator --replay {seed}",
        f"in: {episode.settings}",
        "what led to it:",
    ]
    for step, now, host, event, commands in episode.world.story:
        lines.append(f"  {step:4} {now:8.2f} {host} {event}")
        lines.extend(f"       {'':8} {'':{len(host)}}    → {command}" for command in commands)
    if not isinstance(error, Broken):
        lines.extend(traceback.format_exception(type(error), error, error.__traceback__))
    return "\n".join(lines)


SHARE = 50_000
"""Steps that one worker takes before it reports."""


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line: 0 all promises held, 1 one did not."""
    parser = argparse.ArgumentParser(prog="python -m sfwriter.testing.simulator", description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=lambda text: int(text.replace("_", "")), default=1_000_000)
    parser.add_argument("--seed", type=int, default=0, help="of the first episode; the others follow")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--replay", type=int, metavar="SEED", help="live through one episode again")
    options = parser.parse_args(arguments)
    try:
        if options.replay is not None:
            steps = replay(options.replay)
            print(f"seed {options.replay}: {steps} steps, all promises held")
        else:
            _run(options.steps, options.seed, options.workers)
    except Finding as finding:
        print(f"\n{finding}", file=sys.stderr)
        return 1
    return 0


def _run(steps: int, seed: int, workers: int) -> None:
    counts: Counter[str] = Counter()
    taken = episodes = 0
    shares = range((steps + SHARE - 1) // SHARE)
    # An episode takes at least EPISODE_STEPS, so the seeds of two shares never meet.
    seeds = [seed + share * (SHARE // EPISODE_STEPS + 1) for share in shares]
    with ProcessPoolExecutor(max_workers=workers) as pool:
        for done in as_completed([pool.submit(simulate, min(SHARE, steps), each) for each in seeds]):
            outcome = done.result()
            taken += outcome.steps
            episodes += outcome.episodes
            counts.update(outcome.counts)
            print(f"\r{taken:,} of {steps:,} steps, {episodes:,} episodes", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    for name, count in sorted(counts.items()):
        print(f"{count:12,} {name}")


if __name__ == "__main__":
    sys.exit(main())
