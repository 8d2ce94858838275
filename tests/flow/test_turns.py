"""Whose turn it is, where clients wait for memory."""

from __future__ import annotations

from collections import Counter

import pytest

from sfwriter.flow.limits import FlowLimits
from sfwriter.flow.machine import Machine
from sfwriter.flow.vocabulary import (
    Answer,
    Commit,
    CommitLanded,
    Part,
    ReadWatermarks,
    Stage,
    Staged,
    Submitted,
    WatermarksRead,
    Withdrawn,
)
from sfwriter.storage.engine import StagedBatch, StagedFile, Watermark

TABLE = "t.logs"


class Room:
    """A machine whose memory holds one unit; what is let in is committed before the next one is."""

    def __init__(self, budget: int) -> None:
        limits = FlowLimits(budget_bytes=budget, stage_slots=1, max_job_bytes=1, linger_s=0.0)
        self.machine = Machine(limits, name="m-")
        self.given: dict[int, Submitted] = {}
        self.order: list[Submitted] = []
        self.held: list[Stage | Commit] = []

    def give(self, client: str, cost: int, *, producer: str | None = None, weight: float = 1.0) -> int:
        ticket = len(self.given)
        given = Submitted(
            ticket, producer or client, None, "d", str(ticket), (Part(TABLE, 1, cost),), cost,
            client=client, weight=weight,
        )  # fmt: skip
        self.given[ticket] = given
        self.tell(given)
        return ticket

    def tell(self, event: object) -> None:
        for command in self.machine.handle(event, 0.0):  # type: ignore[arg-type]
            if isinstance(command, ReadWatermarks):
                self.tell(WatermarksRead(TABLE, {who: Watermark(None, 0, {}) for who in command.producers}))
            elif isinstance(command, (Stage, Commit)):
                self.held.append(command)
            elif isinstance(command, Answer):
                self.order.append(self.given[command.ticket])

    def go_on(self, batches: int | None = None) -> list[str]:
        """Let so many batches through, and give the clients of those that were answered, in order."""
        while self.held and (batches is None or len(self.order) < batches):
            command = self.held.pop(0)
            if isinstance(command, Stage):
                file = StagedFile(f"f{command.job}", 1, 1, "", {}, 0)
                self.tell(Staged(command.job, StagedBatch((file,), b"")))
            else:
                self.tell(CommitLanded(command.group.group_id, 1))
        return [given.client for given in self.order]


def test_of_two_floods_each_gets_what_its_weight_says() -> None:
    room = Room(budget=10)
    room.give("first", 10)
    for _ in range(100):
        room.give("light", 10, weight=1.0)
        room.give("heavy", 10, weight=3.0)
    shares = Counter(room.go_on(41)[1:])
    assert 29 <= shares["heavy"] <= 31, shares
    assert set(room.go_on()) == {"first", "light", "heavy"}
    assert len(room.order) == 201


def test_a_trickle_is_let_in_at_its_turn_however_long_a_flood_waits() -> None:
    room = Room(budget=10)
    for _ in range(50):
        room.give("flood", 10)
    trickle = room.give("trickle", 1)
    room.go_on(4)
    assert trickle in [given.ticket for given in room.order]


def test_a_client_with_many_producers_has_no_more_turns_than_one_with_a_single_one() -> None:
    room = Room(budget=10)
    room.give("first", 10)
    for number in range(50):
        room.give("many", 10, producer=f"key:{number}")
        room.give("one", 10)
    shares = Counter(room.go_on(21)[1:])
    assert abs(shares["many"] - shares["one"]) <= 1, shares


def test_shares_are_of_bytes_and_not_of_batches() -> None:
    room = Room(budget=100)
    room.give("first", 100)
    for _ in range(10):
        room.give("large", 100)
    for _ in range(200):
        room.give("small", 10)
    room.go_on(61)
    nbytes: Counter[str] = Counter()
    for given in room.order[1:61]:
        nbytes[given.client] += given.cost
    assert abs(nbytes["large"] - nbytes["small"]) <= 200, nbytes


def test_a_client_that_was_away_gets_no_more_than_its_share_when_it_is_back() -> None:
    room = Room(budget=10)
    for _ in range(60):
        room.give("there", 10)
    room.go_on(30)
    for _ in range(30):
        room.give("back", 10)
    shares = Counter(room.go_on(50)[30:])
    assert abs(shares["there"] - shares["back"]) <= 2, shares


@pytest.mark.parametrize("leaves", ["first", "last", "all"])
def test_one_that_gives_up_while_it_waits_leaves_the_turns_to_the_others(leaves: str) -> None:
    room = Room(budget=10)
    room.give("holder", 10)
    tickets = [room.give("leaves", 10) for _ in range(3)]
    stays = room.give("stays", 10)
    for ticket in {"first": tickets[:1], "last": tickets[-1:], "all": tickets[::-1]}[leaves]:
        room.tell(Withdrawn(ticket))
    room.go_on()
    answered = [given.ticket for given in room.order]
    assert sorted(answered) == sorted([0, *tickets, stays])
    assert room.machine.budget.used == 0


def test_clients_that_come_and_go_are_forgotten() -> None:
    room = Room(budget=10)
    for number in range(4000):
        room.give("always", 10)
        room.give("always", 10)
        room.give(f"c{number}", 10)
        room.go_on(3 * number)
    turns = room.machine._core.queue
    assert len(turns._shares) < 2200
    room.go_on()
    assert (len(turns), len(turns._shares), len(turns._order)) == (0, 0, 0)
