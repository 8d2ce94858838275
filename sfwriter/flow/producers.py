"""Who gives batches, and where each producer stands in each table.

Exactly-once rests on one number for each producer and table, `W`: the highest committed number, kept
in the table as the producer's Delta `txn` and changed by the commit that brings the files. In the
table that answers for a producer its numbers land without gaps. In the others (quarantine) only the
order is kept, since most batches have nothing for them.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from enum import Enum, auto
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sfwriter.flow.batches import Batch, Piece
    from sfwriter.storage.engine import Mark, Watermark


class Stand:
    """Where one producer stands in one table.

    Attributes:
        asked: a look at the table for it is wanted or under way.
        known: whether `committed` was read from the table and nothing has cast doubt on it since.
        committed: W, as far as is known.
        version: of the table when `committed` was read or written.
        marks: number to (mark, version) of its newest committed batches, bounded.
        pending: its pieces that have not landed, in order.
        begun: pieces that were given an ordinal.
        landed: pieces that have landed.
    """

    __slots__ = ("asked", "begun", "committed", "known", "landed", "marks", "pending", "version")

    def __init__(self) -> None:
        """Begin without knowledge."""
        self.asked = False
        self.known = False
        self.committed: int | None = None
        self.version = -1
        self.marks: OrderedDict[int, tuple[Mark, int]] = OrderedDict()
        self.pending: deque[Piece] = deque()
        self.begun = 0
        self.landed = 0

    def enter(self, piece: Piece) -> None:
        """Put a piece behind those that are pending."""
        piece.ordinal = self.begun
        self.begun += 1
        self.pending.append(piece)

    def leave(self, piece: Piece) -> None:
        """Take back the last pending piece: its batch is refused."""
        if not self.pending or self.pending[-1] is not piece:
            raise ValueError("only a producer's last piece can be taken back")
        self.pending.pop()
        self.begun -= 1

    def land(self, piece: Piece) -> None:
        """Strike off the first pending piece: it is committed."""
        if not self.pending or self.pending[0] is not piece:
            raise ValueError("a producer's pieces land in order")
        self.pending.popleft()
        self.landed += 1
        piece.landed = True

    def remember(self, marks: Mapping[int, tuple[Mark, int]], keep: int) -> None:
        """Add marks of committed batches; the oldest go where there are more than `keep`."""
        self.marks.update(marks)
        while len(self.marks) > keep:
            self.marks.popitem(last=False)

    def read(self, watermark: Watermark, keep: int) -> None:
        """Take over a fresh look at the table, marks included: what a table has lost is forgotten here too."""
        self.asked = False
        self.known = True
        self.committed = watermark.sequence
        self.version = watermark.version
        newest = -1 if watermark.sequence is None else watermark.sequence
        for number in [number for number in self.marks if number > newest]:
            del self.marks[number]
        self.remember(dict(sorted(watermark.marks.items())), keep)

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
            already counts as committed, a batch given twice as one. `accepted = committed + refused + in flight`, always.
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

    def stand(self, table: str) -> Stand:
        """Where it stands in `table`, begun if need be."""
        stand = self.stands.get(table)
        if stand is None:
            stand = self.stands[table] = Stand()
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


def judge(batch: Batch, mark: Mark | None) -> Verdict:
    """Say whether the committed number that `batch` has is this very batch's.

    Args:
        batch: one whose number is at or below W.
        mark: what is remembered of the batch that was committed under the number, None where nothing is.

    A number that the caller chose stands for its content: the same content is the same batch. A number
    that was chosen for the caller stands for the call. Where nothing is remembered, such a number is
    the call's own only if an earlier try of it may have landed.
    """
    given = batch.given
    if mark is None:
        ours = not batch.assigned or batch.in_doubt or given.resent
    elif mark.stamp == given.stamp:
        ours = True
    elif batch.assigned:
        ours = False
    else:
        ours = not given.checked or mark.digest == given.digest
    return Verdict.OURS if ours else Verdict.OTHERS
