"""Tables, hosts, callers, and everything that can happen to them."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sfwriter.flow.limits import FlowLimits, RetryPolicy
from sfwriter.flow.vocabulary import Acknowledged, Part, Submitted
from sfwriter.testing.simulation.callers import Caller, Explicit, Keyed, Numbered
from sfwriter.testing.simulation.hosts import Host
from sfwriter.testing.simulation.promises import promise
from sfwriter.testing.simulation.tables import Call, ModelTable

if TYPE_CHECKING:
    from random import Random

    from sfwriter.batch import Token
    from sfwriter.flow.vocabulary import Command, Discard, Event, Refused
    from sfwriter.storage.engine import CommitGroup

SIDE = "_quarantine"
"""What follows an answering table's name in that of the table beside it."""

CROWDED = 0.2
"""Of the episodes: many callers wait for little memory, and no fault cuts that short."""

SIZES = (1, 5, 20, 60, 100)
"""Of batches, in bytes and rows."""

WEIGHTS = (0.25, 1.0, 1.0, 4.0)
"""Of clients."""

KEYS = 3
"""Idempotency keys beside each producer."""

TRACED = 200
"""Events that are kept to be told with a finding."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What kind of world an episode has."""

    hosts: int
    tables: int
    producers: int
    clients: int
    callers: int
    crowded: bool
    faults: float
    poison: float
    early_looks: float
    kept_marks: int
    restores: bool
    limits: FlowLimits

    @staticmethod
    def draw(random: Random) -> Settings:
        """A random kind: small bounds are likelier than in life, so that they are met."""
        crowded = random.random() < CROWDED
        retry = RetryPolicy(
            max_retries=random.choice((0, 1, 3)),
            delay_s=random.choice((0.0, 0.5)),
            exponential=random.random() < 0.7,
        )
        limits = FlowLimits(
            budget_bytes=100 if crowded else random.choice((60, 150, 400, 100_000)),
            stage_slots=random.choice((1, 2, 4)),
            max_job_bytes=random.choice((1, 60, 200, 1 << 20)),
            min_part_bytes=random.choice((1, 30, 1 << 20)),
            linger_s=random.choice((0.0, 0.05, 0.5)),
            patient_linger_s=random.choice((0.5, 2.0)),
            max_group_jobs=random.choice((1, 3, 256)),
            max_group_batches=random.choice((1, 4, 10_000)),
            stage_timeout_s=random.choice((None, 3.0)),
            stage_timeout_s_per_mib=random.choice((0.0, 1.0)),
            retry=retry,
            max_worker_deaths=random.choice((1, 2, 4)),
            max_conflicts=random.choice((1, 3, 20)),
            remembered_marks=random.choice((1, 4, 256)),
            remembered_producers=random.choice((1, 3, 20_000)),
        )
        return Settings(
            hosts=1 if crowded else random.choice((1, 1, 2, 3)),
            tables=random.choice((1, 1, 2)),
            producers=8 if crowded else random.randint(1, 6),
            clients=3 if crowded else random.choice((0, 1, 3)),
            callers=16 if crowded else random.randint(1, 8),
            crowded=crowded,
            faults=0.0 if crowded else random.choice((0.0, 0.05, 0.2, 0.5)),
            poison=0.0 if crowded else random.choice((0.0, 0.0, 0.05, 0.2)),
            early_looks=random.choice((0.0, 0.3)),
            kept_marks=limits.remembered_marks * random.choice((1, 1, 2)),
            restores=random.random() < 0.1,
            limits=limits,
        )


class World:
    """Everything outside the machines. What happens in it is chosen by `Episode`."""

    def __init__(self, random: Random, settings: Settings, counts: Counter[str]) -> None:
        """Make the tables, hosts and callers."""
        self.random = random
        self.settings = settings
        self.counts = counts
        self.now = self.latest = 100.0
        self.steps = 0
        self.story: deque[tuple[int, float, str, Event, list[Command]]] = deque(maxlen=TRACED)
        self.tables: dict[str, ModelTable] = {}
        for index in range(settings.tables):
            for name, answers in ((f"logs{index}", True), (f"logs{index}{SIDE}", False)):
                self.tables[name] = ModelTable(
                    name,
                    answers=answers,
                    remembered=settings.limits.remembered_marks,
                    kept_marks=settings.kept_marks,
                    keep_history=settings.restores,
                )
        self.calls: dict[int, Call] = {}
        self.files: dict[str, tuple[tuple[Token, Call], ...]] = {}
        self.deleted: dict[str, None] = {}
        self.lost: dict[str, None] = {}
        self.frozen: list[tuple[str, CommitGroup]] = []
        self.banned: dict[str, None] = {}
        self._rows: dict[str, tuple[tuple[Part, ...], int, str]] = {}
        self._owners: dict[int, Caller] = {}
        self._made = 0
        self.hosts = [Host(self, index, settings.limits, f"h{index}.0-") for index in range(settings.hosts)]
        self.producers = [f"p{index}" for index in range(settings.producers)]
        self.identities = len(self.producers) * (1 + KEYS)
        self.weights = {f"client{index}": random.choice(WEIGHTS) for index in range(settings.clients)}
        self.weights[""] = 1.0
        self.clients = [random.choice(list(self.weights)) for _ in self.producers]
        self.callers = [self._new_caller() for _ in range(settings.callers)]

    def _new_caller(self) -> Caller:
        index = self.random.randrange(len(self.producers))
        home = f"logs{index % self.settings.tables}"
        caller = self._caller_of(index, home)
        caller.client = self.clients[index]
        if self.settings.crowded:
            caller.window = self.random.choice((1, 20, 20))
            caller.rests_until = self.random.choice((0, 100))
        return caller

    def _caller_of(self, index: int, home: str) -> Caller:
        kind = 0 if self.settings.crowded else self.random.randrange(4)
        if kind == 0:
            return Caller(self, self.producers[index], home)
        if kind == 1:
            return Explicit(self, self.producers[index], home, f"{self.producers[index]}/s{self.random.randrange(2)}")
        if kind == 2:
            return Numbered(self, self.producers[index], home)
        return Keyed(self, f"key:{self.producers[index]}/{self.random.randrange(KEYS)}", home)

    # ------------------------------------------------------------ callers' side

    def new_content(self) -> str:
        """An identity for rows that nobody else has."""
        self._made += 1
        return f"c{self._made}"

    def new_stamp(self) -> str:
        """An identity for a call."""
        self._made += 1
        return f"s{self._made}"

    def next_number(self, caller: Caller) -> int:
        """What a caller that asks the table is told to go on with."""
        return self.tables[caller.home].state.watermarks.get(caller.producer, -1) + 1

    def submit(
        self,
        caller: Caller,
        sequence: int | None,
        content: str,
        stamp: str,
        *,
        assigned: bool = False,
        resent: bool = False,
        checked: bool = True,
        expires: bool = False,
    ) -> None:
        """Give a batch to a host of the caller's choice."""
        random = self.random
        if content not in self._rows:
            self._rows[content] = self._make_rows(caller.home)
        parts, cost, poison = self._rows[content]
        host = random.choice(self.hosts)
        self._made += 1
        waits = None if self.settings.crowded or random.random() < 0.5 else self.now + random.choice((0.0, 1.0, 20.0))
        given = Submitted(
            self._made, caller.producer, sequence, content, stamp, parts, cost,
            assigned=assigned, resent=resent, checked=checked, expires=expires,
            patient=random.random() < 0.3, wait_until=waits, client=caller.client, weight=self.weights[caller.client],
        )  # fmt: skip
        call = self.calls[given.ticket] = Call(given, content, poison, host.index)
        if resent:
            host.blame(call, "resent")
            self.counts["resent"] += 1
        self.banned.pop(content, None)
        self._owners[given.ticket] = caller
        host.tell(given)

    def _make_rows(self, home: str) -> tuple[tuple[Part, ...], int, str]:
        random = self.random
        size = random.choice(SIZES)
        rows = 0 if random.random() < 0.1 else size
        parts = [Part(home, rows, rows)]
        if random.random() < 0.3:
            parts.insert(0, Part(home + SIDE, 1, 1))
        poison = random.choice(("stage", "kill", "commit")) if random.random() < self.settings.poison else ""
        return tuple(parts), size, poison

    def heard(self, call: Call) -> None:
        """Tell the caller its answer."""
        if call.refused_for_good and call.given.assigned and call.given.sequence is not None:
            self.banned[call.content] = None
        self._owners[call.given.ticket].heard(call)

    # ------------------------------------------------------------ hosts' side

    def record(self, host: Host, event: Event, commands: list[Command]) -> None:
        """Keep a step for the story that is told where it ends badly."""
        self.steps += 1
        self.counts[type(event).__name__] += 1
        self.story.append((self.steps, host.now, host.name, event, commands))

    def count_answer(self, answer: Acknowledged | Refused) -> None:
        """Count it by kind."""
        if isinstance(answer, Acknowledged):
            self.counts["already" if answer.already else "acknowledged"] += 1
        else:
            self.counts[answer.reason.name] += 1

    def discard(self, command: Discard) -> None:
        """Delete files, which no commit may have named."""
        for file in command.staged.files:
            for host in self.hosts:
                for commit in host.commits.values():
                    named = any(file in staged.files for staged in commit.group.staged)
                    promise(not named, "files of a running commit are kept", file.path)
            for _, group in self.frozen:
                promise(all(file not in staged.files for staged in group.staged), "files in doubt are kept", file.path)
            promise(file.path not in self.tables[command.table].state.paths, "visible files are kept", file.path)
            self.deleted[file.path] = None

    def land(self, table: str, group: CommitGroup) -> int | None:
        """Try to commit a group; None where the table went on."""
        model = self.tables[table]
        if not model.accepts(group):
            return None
        for file in (file for staged in group.staged for file in staged.files):
            promise(file.path not in self.deleted, "a deleted file is not committed", file.path)
            if model.answers:
                for _, call in self.files[file.path]:
                    promise(call.content not in self.banned, "what was refused for good does not land late", call)
        return model.commit(group, self.files)

    def lost_positions(self, group: CommitGroup) -> tuple[int, ...]:
        """The staged batches of which files are gone."""
        return tuple(
            position
            for position, staged in enumerate(group.staged)
            if any(file.path in self.lost for file in staged.files)
        )

    def crash(self, index: int) -> None:
        """Kill a host and start its successor. What it was committing may land, now or later."""
        old = self.hosts[index]
        generation = int(old.name[:-1].split(".")[1]) + 1
        self.frozen.extend((commit.table, commit.group) for commit in old.commits.values())
        self.hosts[index] = Host(self, index, self.settings.limits, f"h{index}.{generation}-")
        lost: dict[int, list[Call]] = {}
        for ticket, call in old.calls.items():
            lost.setdefault(self.callers.index(self._owners[ticket]), []).append(call)
        for caller in range(len(self.callers)):
            if caller in lost:
                self.callers[caller].crashed(lost[caller])
