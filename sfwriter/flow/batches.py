"""What the machine moves: a batch, its pieces (one for each table), and the jobs that stage them.

A batch goes through these states, and no others:

    PLACING   its producer's watermark is being read; it has no number yet, or an unchecked one
    WAITING   it has its number and waits for memory
    FLOWING   its bytes are reserved; its pieces are collected, staged and committed
    DONE      it is answered: acknowledged or refused

    PLACING ──► WAITING ──► FLOWING ──► DONE
       └──────────┴────────────────────►┘   (refused, or there already)

and a job through these:

    SEALED ──► STAGING ──► STAGED ──► COMMITTING ──► GONE
      ▲           │           ▲  │        │
      └───────────┘           │  └────────┼──► GONE   (its pieces went, or were bundled anew)
     (failed, tried again)    └───────────┘           (conflict, in doubt and not there, tried again)
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING

from sfwriter.batch import Token

if TYPE_CHECKING:
    from sfwriter.flow.lane import Lane
    from sfwriter.flow.producers import Producer, Stand
    from sfwriter.flow.vocabulary import Fault, Part, Submitted
    from sfwriter.storage.engine import StagedBatch


class BatchState(Enum):
    """How far a batch is."""

    PLACING = auto()
    WAITING = auto()
    FLOWING = auto()
    DONE = auto()


class JobState(Enum):
    """How far a job is."""

    SEALED = auto()
    STAGING = auto()
    STAGED = auto()
    COMMITTING = auto()
    GONE = auto()


class Batch:
    """One submission, with those that turned out to be the same batch.

    Attributes:
        given: the submission.
        producer: whose it is.
        sequence: its number, None until it is placed.
        joined: who else waits for it: ticket to the stamp of that call; None where nobody does.
        token: its identity; not there before it is placed.
        pieces: what it puts into each table; the last one answers.
        open_parts: pieces before the last one that have not landed.
        beside: table to version, for those of them that have; None before the first one.
        looked_again: its gap was checked against a fresh look at the table.
        patient: it may wait for others to share a file with.
        wait_until: when it gives up waiting for memory; the latest of those who wait for it.
    """

    __slots__ = (
        "beside", "given", "joined", "looked_again", "open_parts", "patient", "pieces", "producer", "sequence", "state",
        "token", "wait_until",
    )  # fmt: skip

    def __init__(self, given: Submitted, producer: Producer) -> None:
        """Begin a batch in PLACING."""
        self.given = given
        self.producer = producer
        self.sequence = given.sequence
        self.joined: dict[int, str] | None = None
        self.token: Token
        self.pieces: list[Piece] = []
        self.open_parts = 0
        self.beside: dict[str, int] | None = None
        self.looked_again = False
        self.patient = given.patient
        self.wait_until = given.wait_until
        self.state = BatchState.PLACING

    def place(self, number: int) -> None:
        """Give it its number."""
        self.sequence = number
        self.token = Token(self.producer.identity, number)

    @property
    def number(self) -> int:
        """Its number; it has been placed."""
        return self.token.sequence

    @property
    def in_doubt(self) -> bool:
        """Whether it may be committed, or may still come to be, without anybody having said so."""
        return self.given.resent or (bool(self.pieces) and self.pieces[-1].in_doubt)

    @property
    def committing(self) -> bool:
        """Whether a commit that would answer it is under way."""
        job = self.pieces[-1].job if self.pieces else None
        return job is not None and job.state is JobState.COMMITTING


class Piece:
    """What one batch puts into one table.

    Attributes:
        number: under which it lands: the batch's, or 0 where the stand is a side stand.
        answers: its table answers for the producer: when it lands, the batch is acknowledged.
        replaces: it lands in the place of all rows that its table has. It is the first of its job.
        ordinal: its place among the pieces of its stand; they land in this order.
        in_doubt: a commit that held it ended with nobody knowing how.
        landed: it is committed.
        dead: its batch was refused. A commit may hold it still; whatever comes of that is ignored.
    """

    __slots__ = (
        "answers", "batch", "dead", "in_doubt", "job", "landed", "lane", "nbytes", "number", "ordinal", "replaces",
        "rows", "stand",
    )  # fmt: skip

    def __init__(self, batch: Batch, stand: Stand, part: Part, *, answers: bool) -> None:
        """Begin a piece that no job holds yet."""
        self.batch = batch
        self.number = batch.token.sequence
        self.answers = answers
        self.replaces = part.replaces
        self.lane = stand.lane
        self.stand = stand
        self.rows = part.rows
        self.nbytes = part.nbytes
        self.ordinal = -1
        self.job: Job | None = None
        self.in_doubt = False
        self.landed = False
        self.dead = False

    @property
    def open(self) -> bool:
        """Whether it is still to be committed."""
        return not (self.dead or self.landed)


class Job:
    """Pieces that are staged together, in order.

    Attributes:
        order: place among the table's jobs. Jobs made out of one keep its place: (place, part, …).
        attempt: number of the current try, unique in the machine; None before the first one.
        failures: tries that ended in a fault that a retry may mend.
        deaths: tries whose worker died or was abandoned.
        not_before: no try begins earlier.
        deadline: when the current try is given up; None never.
        spent: the fault of the last commit that it is put into, where that one ended in doubt.
        uncertain: a commit that named its files ended with nobody knowing how: they are never deleted.
    """

    __slots__ = (
        "attempt", "deadline", "deaths", "failures", "lane", "nbytes", "not_before", "order", "pieces", "spent",
        "staged", "state", "uncertain",
    )  # fmt: skip

    def __init__(self, lane: Lane, order: tuple[int, ...], pieces: list[Piece]) -> None:
        """Seal these pieces."""
        self.lane = lane
        self.order = order
        self.pieces = pieces
        self.nbytes = sum(piece.nbytes for piece in pieces)
        self.state = JobState.SEALED
        self.staged: StagedBatch | None = None
        self.attempt: int | None = None
        self.failures = 0
        self.deaths = 0
        self.not_before = float("-inf")
        self.deadline: float | None = None
        self.spent: Fault | None = None
        self.uncertain = False
        for piece in pieces:
            piece.job = self

    def tidy(self) -> bool:
        """Let go of pieces that are no longer to be committed; whether there were any."""
        left = [piece for piece in self.pieces if not (piece.dead or piece.landed)]
        if len(left) == len(self.pieces):
            return False
        self.pieces = left
        self.nbytes = sum(piece.nbytes for piece in left)
        return True

    @property
    def replaces(self) -> bool:
        """Whether it lands in the place of all rows that the table has."""
        return any(piece.replaces and piece.open for piece in self.pieces)

    @property
    def has_rows(self) -> bool:
        """Whether there is anything to stage: numbers can be committed without rows."""
        return any(piece.rows for piece in self.pieces)
