"""What is known of producers at one version, and how much of it."""

from __future__ import annotations

from sfwriter.storage import known_sequences
from sfwriter.storage.known_sequences import KnownSequences


def test_commits_that_each_move_another_producer_do_not_make_it_grow_for_ever(monkeypatch):
    monkeypatch.setattr(known_sequences, "_MOST", 10)
    known = KnownSequences()
    kept = []
    for version in range(100):
        known.advance(version, {f"key-{version}": 0})
        assert known.agrees(version, f"key-{version}", 0)
        kept.append(sum(known.agrees(version, f"key-{number}", 0) for number in range(version + 1)))
    assert max(kept) == 11
