"""Who gives batches, and where each producer stands in each table.

Exactly-once rests on one number for each producer and table, `W`: the highest committed number, kept
in the table as the producer's Delta `txn` and changed by the commit that brings the files. In the
table that answers for a producer its numbers land without gaps. In the others (quarantine) only the
order is kept, since most batches have nothing for them.
"""

from __future__ import annotations

from collections import deque
from enum import Enum, auto
from itertools import islice
from typing import TYPE_CHECKING

from sfwriter.batch import KEY_PREFIX

if TYPE_CHECKING:
    from sfwriter.flow.batches import Batch, Piece
    from sfwriter.flow.lane import Lane
    from sfwriter.flow.vocabulary import Submitted
    from sfwriter.storage.engine import Advance, Mark, Watermark


class Stand:
    """Where one producer stands in one table.

    A number in a table beside the answering one may be used up by a batch that was refused after its
    part had landed there. The part of the next batch under that number then has a stand of its own:
    `single`, under an identity that names the batch, and with the number 0. Adding it under the
    producer's own identity would not move the producer on, so that a late commit could add it twice.

    Attributes:
        producer: whose.
        lane: of the table.
        identity: under which the table knows it.
        single: it is of one batch's part.
        asked: a look at the table for it is wanted or under way.
        known: whether `committed` was read from the table and nothing has cast doubt on it since.
        committed: W, as far as is known.
        version: of the table when `committed` was read or written.
        marks: number to (mark, version) of its newest committed batches: what the last look gave, and
            then as many as are to be remembered.
        pending: its pieces that have not landed, in order.
        begun: pieces that were given an ordinal.
        landed: pieces that have landed.
    """

    __slots__ = (
        "asked", "begun", "committed", "identity", "known", "landed", "lane", "marks", "pending", "producer", "single",
        "version",
    )  # fmt: skip

    def __init__(self, producer: Producer, lane: Lane, identity: str, *, single: bool = False) -> None:
        """Begin without knowledge."""
        self.producer = producer
        self.lane = lane
        self.identity = identity
        self.single = single
        self.asked = False
        self.known = False
        self.committed: int | None = None
        self.version = -1
        self.marks: dict[int, tuple[Mark, int]] = {}
        self.pending: deque[Piece] = deque()
        self.begun = 0
        self.landed = 0

    def enter(self, piece: Piece) -> None:
        """Put a piece behind those that are pending."""
        piece.ordinal = self.begun
        self.begun += 1
        self.pending.append(piece)

    def leave(self, piece: Piece) -> None:
        """Take a pending piece back: it will not land here."""
        if self.pending and self.pending[-1] is piece:
            self.pending.pop()
        else:
            behind = False
            for other in self.pending:
                other.ordinal -= behind
                behind = behind or other is piece
            self.pending.remove(piece)
        self.begun -= 1

    def land(self, piece: Piece) -> None:
        """Strike off a pending piece: it is committed."""
        if self.pending[0] is piece:
            self.pending.popleft()
        else:  # a try before this one brought it, but not those before it
            for other in self.pending:
                if other is piece:
                    break
                other.ordinal += 1
            self.pending.remove(piece)
        self.landed += 1
        piece.landed = True

    def advance(self, step: Advance, version: int, keep: int) -> None:
        """Take over what a commit of this machine has brought."""
        self.committed = step.upto
        self.version = version
        for number, mark in step.marks.items():
            self.marks[number] = (mark, version)
        excess = len(self.marks) - keep
        if excess > 0:
            for number in list(islice(self.marks, excess)):
                del self.marks[number]

    def read(self, watermark: Watermark) -> None:
        """Take over a fresh look at the table, marks included: what a table has lost is forgotten here too."""
        self.asked = False
        self.known = True
        self.committed = watermark.sequence
        self.version = watermark.version
        newest = -1 if watermark.sequence is None else watermark.sequence
        marks = {number: mark for number, mark in self.marks.items() if number <= newest}
        marks.update(watermark.marks)
        self.marks = dict(sorted(marks.items()))

    def has(self, number: int) -> bool:
        """Whether a number is committed."""
        return self.committed is not None and number <= self.committed

    def next_number(self) -> int:
        """W + 1."""
        return 0 if self.committed is None else self.committed + 1


class Producer:
    """One producer: its batches in order, and its stands.

    Attributes:
        placing: batches whose numbers are not settled, in order of arrival.
        waiting: batches that wait for memory, in order.
        flight: number to batch, for all that have a number and are not answered, in order.
        stands: table to stand.
        accepted, committed, refused: batches, counted since the machine began; what was there
            already counts as committed, a batch given twice as one. Always
            `accepted = committed + refused + in flight`.
    """

    __slots__ = ("accepted", "committed", "flight", "identity", "placing", "refused", "stands", "waiting")

    def __init__(self, identity: str) -> None:
        """Begin a producer that has given nothing."""
        self.identity = identity
        self.placing: deque[Batch] = deque()
        self.waiting: deque[Batch] = deque()
        self.flight: dict[int, Batch] = {}
        self.stands: dict[str, Stand] = {}
        self.accepted = 0
        self.committed = 0
        self.refused = 0

    def stand(self, lane: Lane) -> Stand:
        """Where it stands in a table, begun if need be."""
        stand = self.stands.get(lane.table)
        if stand is None:
            stand = self.stands[lane.table] = Stand(self, lane, self.identity)
        return stand

    @property
    def in_flight(self) -> int:
        """Batches that are not answered."""
        return len(self.placing) + len(self.flight)

    def expected(self, answering: Stand) -> int:
        """The number that its next batch must have."""
        return next(reversed(self.flight)) + 1 if self.flight else answering.next_number()


class Verdict(Enum):
    """Whose a committed number is."""

    OURS = auto()
    OTHERS = auto()


def judge(given: Submitted, mark: Mark | None, *, doubtful: bool) -> Verdict:
    """Say whether a committed number that a batch has is this very batch's.

    Args:
        given: a batch whose number is at or below W.
        mark: what is remembered of the batch that was committed under the number, None where nothing is.
        doubtful: whether it may have landed without anybody having said so.

    A number that the caller chose stands for its content: the same content is the same batch. A number
    that was chosen for the caller stands for the call. Where nothing is remembered, such a number is
    the call's own only if a try of it may have landed.
    """
    if mark is None:
        ours = doubtful or not (given.assigned or given.sequence is None)
    elif mark.stamp == given.stamp:
        ours = True
    elif given.assigned or given.sequence is None:
        ours = False
    else:
        ours = not given.checked or mark.digest == given.digest
    return Verdict.OURS if ours else Verdict.OTHERS


def is_there(piece: Piece, remembered: int) -> bool:
    """Whether the part of a batch in a table beside the answering one landed in an earlier try of the same batch.

    Most batches have no such part, so a number at or below W may have been passed over. Here a key
    stands for nothing: a refused batch may have left its part under it, with other rows.

    Args:
        piece: the part.
        remembered: as many of a producer's newest marks come with each commit.
    """
    stand, given = piece.stand, piece.batch.given
    if not stand.has(piece.number):
        return False
    if stand.single:
        return True
    found = stand.marks.get(piece.number)
    chosen_for_caller = given.assigned or given.sequence is None
    if found is None:
        forgotten = not stand.marks or sum(number > piece.number for number in stand.marks) >= remembered
        return forgotten and (piece.in_doubt or given.resent or not chosen_for_caller)
    mark = found[0]
    return mark.stamp == given.stamp or (not chosen_for_caller and mark.digest == given.digest)


def single_identity(piece: Piece) -> str:
    """The identity of a single stand: the same whenever the same batch is tried again.

    It begins as those of idempotency keys do, which no producer's id may.
    """
    given = piece.batch.given
    mark = given.stamp if given.assigned or given.sequence is None else given.digest
    return f"{KEY_PREFIX}{given.producer_id}:{piece.batch.number}:{mark}"
