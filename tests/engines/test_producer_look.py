"""A look at producers that does not list the whole log: as right as one that does."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from deltalake import DeltaTable, Field
from deltalake.schema import PrimitiveType

from sfwriter.storage import checkpoints, producer_look
from sfwriter.storage.engine import Checkpoint
from sfwriter.storage.log_tail import checkpoint_name
from sfwriter.testing.clock import ManualClock

PRODUCERS = ("p", "q", "r", "key:1", "key:2")


@pytest.fixture
def no_listing(monkeypatch):
    """Fails whatever has delta-rs list the log."""

    def forbid():
        def listed(*_, **__):
            raise AssertionError("the whole log was listed")

        monkeypatch.setattr(DeltaTable, "update_incremental", listed)
        monkeypatch.setattr(DeltaTable, "__init__", listed)

    return forbid


def widen(table):
    location = table.spec.location
    name = f"column_{DeltaTable(location).version()}"
    DeltaTable(location).alter.add_columns([Field(name, PrimitiveType("string"))])


def same_as_a_new_process(delta, table):
    here, there = table.last_sequence(PRODUCERS), delta.open().last_sequence(PRODUCERS)
    assert here == there


def test_a_look_behind_commits_of_anybody_lists_no_log(delta, no_listing):
    table, rival = delta.ready(), delta.ready()
    delta.put(table, "p", 0)
    delta.put(rival, "q", 0)
    assert delta.sequence(table, "p") == 0
    no_listing()
    for number in range(1, 30):
        delta.put(table, "p", number)
        delta.put(rival, "q", number)
        found = table.last_sequence(["p", "q", "r"])
        assert {name: mark.sequence for name, mark in found.items()} == {"p": number, "q": number, "r": None}
        assert {number, number - 1} <= set(found["q"].marks)
        assert found["p"].version == 2 * number + 2


def test_a_commit_behind_such_a_look_lists_none_either(delta, no_listing):
    table, rival = delta.ready(), delta.ready()
    delta.put(table, "p", 0)
    delta.put(rival, "q", 0)
    table.last_sequence(["p"])
    no_listing()
    delta.put(rival, "q", 1)
    assert delta.sequence(table, "key:1") is None
    assert delta.put(table, "key:1", 0).version == 4


@pytest.mark.parametrize("seed", range(4))
def test_it_says_what_a_new_process_says_whatever_happens_to_the_table(delta, monkeypatch, seed):
    monkeypatch.setattr(producer_look, "_MOST_BEHIND", 5)
    chance = random.Random(seed)
    table, rival = delta.ready(), delta.ready()
    stands: dict[str, int] = {}

    def put():
        producer = chance.choice(PRODUCERS)
        stands[producer] = stands.get(producer, -1) + 1
        table.last_sequence([producer])
        delta.put(chance.choice((table, rival)), producer, stands[producer])

    for _ in range(25):
        chance.choice((put, put, put, put, lambda: widen(table), lambda: rival.run(Checkpoint())))()
        if chance.random() < 0.7:
            same_as_a_new_process(delta, table)
    same_as_a_new_process(delta, table)
    found = table.last_sequence(PRODUCERS)
    assert {name: found[name].sequence for name in PRODUCERS} == {name: stands.get(name) for name in PRODUCERS}


def test_moves_that_a_newer_handle_knows_are_not_held_against_it(delta):
    table, rival = delta.ready(), delta.ready()
    delta.put(rival, "p", 0)
    assert delta.sequence(table, "p") == 0
    delta.put(rival, "p", 1)
    assert delta.sequence(table, "p") == 1  # by the entry alone
    delta.put(rival, "p", 2)
    widen(table)
    delta.put(rival, "p", 3)
    assert delta.sequence(table, "p") == 3


def test_the_checkpoint_that_it_reads_from_may_be_tidied_away(delta):
    table, rival = delta.ready(), delta.ready()
    delta.put(rival, "p", 0)
    rival.run(Checkpoint())
    assert delta.sequence(table, "p") == 0
    delta.put(rival, "q", 0)
    rival.run(Checkpoint())
    log = Path(table.spec.location, "_delta_log")
    (log / checkpoint_name(1)).unlink()
    for version in (0, 1):  # as a log whose entries have expired
        (log / f"{version:020}.json").unlink()
    found = table.last_sequence(["p", "q", "r"])
    assert {name: mark.sequence for name, mark in found.items()} == {"p": 0, "q": 0, "r": None}


def test_one_that_is_far_behind_begins_anew(delta, monkeypatch):
    table, rival = delta.ready(), delta.ready()
    assert delta.sequence(table, "p") is None
    for number in range(130):
        rival.commit(delta.group(delta.advance("p", number)))
    read = []
    monkeypatch.setattr(producer_look.ProducerLook, "_passed", lambda *_: read.append(1))
    monkeypatch.setattr(DeltaTable, "update_incremental", lambda *_: pytest.fail("130 entries, one by one"))
    found = table.last_sequence(["p"])["p"]
    assert (found.sequence, found.version, read) == (129, 130, [])


def test_what_was_moved_is_not_kept_for_ever(delta, monkeypatch):
    monkeypatch.setattr(producer_look, "_MOST_MOVED", 10)
    monkeypatch.setattr(checkpoints, "VERSIONS_PER_CHECKPOINT", 10_000)
    table = delta.ready()
    kept = []
    for number in range(60):
        table.last_sequence([f"key:{number}"])
        table.commit(delta.group(delta.advance(f"key:{number}", 0)))
        kept.append(len(table._look._moved))
    assert max(kept) <= 11
    assert {mark.sequence for mark in table.last_sequence([f"key:{n}" for n in range(60)]).values()} == {0}


def test_after_ten_minutes_a_look_is_made_from_the_start(delta):
    clock = ManualClock()
    table, rival = delta.ready(clock=clock), delta.ready()
    delta.put(rival, "p", 0)
    assert delta.sequence(table, "p") == 0
    delta.put(rival, "p", 1)
    clock.advance(700)
    found = table.last_sequence(["p"])["p"]
    assert (found.sequence, set(found.marks)) == (1, {0, 1})
    assert table._look._since == 2
