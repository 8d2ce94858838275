"""What this process knows of a table's log, so that a commit or a look need not ask for it again.

Receives: groups that landed, entries of others, what a fresh handle says.
Produces: whether a producer stands where a plan has it; producers' newest marks.
Guarantees: thread-safe; where something may have been missed it knows nothing.
Never does: read a log by itself.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from sfwriter.storage.commit_notes import CommitNote, CommitNotes
from sfwriter.storage.known_sequences import KnownSequences

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from sfwriter.storage.engine import CommitGroup, Mark
    from sfwriter.storage.log_entry import Moves


class LogMemory:
    """What this process knows of a table's log, from its own commits and looks. Thread-safe."""

    def __init__(self) -> None:
        self._notes = CommitNotes()
        self._sequences = KnownSequences()
        self._lock = threading.Lock()

    def agrees(self, version: int, producer: str, sequence: int | None) -> bool:
        """Whether the producer is known to stand there at this version. False says nothing."""
        with self._lock:
            return self._sequences.agrees(version, producer, sequence)

    def landed(self, group: CommitGroup, version: int) -> None:
        """Our own commit made this version."""
        with self._lock:
            self._notes.add_next(CommitNote.of(group), version)
            self._sequences.advance(version, {advance.producer_id: advance.upto for advance in group.advances})

    def found(self, version: int, sequences: Mapping[str, int | None]) -> None:
        """Where these producers stand at a version."""
        with self._lock:
            self._sequences.learn(version, sequences)

    def passed(self, version: int, moves: Moves) -> None:
        """A commit of files and producers made this version."""
        with self._lock:
            self._notes.add_next(moves.note, version)
            self._sequences.advance(version, moves.sequences)

    def missing_marks(self, version: int) -> int:
        """Entries of the history that `looked` will ask for."""
        with self._lock:
            return self._notes.missing(version)

    def looked(
        self, version: int, sequences: Mapping[str, int | None], history: Callable[[int], Iterable[Mapping[str, Any]]]
    ) -> dict[str, dict[int, tuple[Mark, int]]]:
        """Take in what a look at a version says; the marks of those producers.

        Args:
            version: the one that was looked at.
            sequences: where producers stand at it.
            history: gives that many of its newest entries; called where some are not known.
        """
        with self._lock:
            missing = self._notes.missing(version)
            if missing:
                self._notes.learn(history(missing), version)
            self._sequences.learn(version, sequences)
            return {producer: self._notes.marks(producer) for producer in sequences}

    def forget_sequences(self) -> None:
        """After a commit that raised, nothing is taken for granted."""
        with self._lock:
            self._sequences.forget()
