"""The words between the machine and the shell that runs it: events in, commands out.

An event says what happened; the machine answers with commands; the shell carries each one out and
says how it ended in another event. A ticket is the shell's number for one submission: the shell keeps
the rows under it until the machine has answered it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Union

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sfwriter.batch import Token
    from sfwriter.storage.engine import CommitGroup, StagedBatch, Watermark


@dataclass(frozen=True, slots=True)
class Fault:
    """Why something did not work: the error as the shell will raise it, and whether a retry may mend it."""

    error: BaseException
    retriable: bool


@dataclass(frozen=True, slots=True)
class Part:
    """What a batch puts into one table. `replaces`: in the place of all that is there."""

    table: str
    rows: int
    nbytes: int
    replaces: bool = False


# ---------------------------------------------------------------- events


@dataclass(frozen=True, slots=True)
class Submitted:
    """A caller gave a batch.

    Attributes:
        ticket: the shell's number for it, never used twice.
        producer_id: who gives it.
        sequence: its number, None for the producer's next one.
        digest: of the content.
        stamp: of the call: the same where a client sends the same call again, else unique.
        parts: what it puts where; the last one names the table that answers for the producer.
        cost: bytes that it holds until it is answered.
        assigned: the number was chosen for the caller, who knows nothing of it: where another call has
            it, that is an error and not "already written". True wherever `sequence` is None.
        resent: an earlier attempt of the same call may have committed it.
        checked: whether a used number with another digest is an error (not so for idempotency keys).
        expires: whether the table may forget the producer some day.
        patient: it may wait to share a file with those that come after it (bulk loads).
        wait_until: when it gives up waiting for memory, in the machine's time; None waits for ever.
        client: whose turns it takes while it waits; empty: its producer has turns of its own.
        weight: of that client: its share of the memory that is waited for, beside those of the others.
    """

    ticket: int
    producer_id: str
    sequence: int | None
    digest: str
    stamp: str
    parts: tuple[Part, ...]
    cost: int
    assigned: bool = False
    resent: bool = False
    checked: bool = True
    expires: bool = False
    patient: bool = False
    wait_until: float | None = None
    client: str = ""
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """The caller gave up: it is not to be written, unless it is being committed already."""

    ticket: int


@dataclass(frozen=True, slots=True)
class Staged:
    """A staging job has ended well."""

    job: int
    staged: StagedBatch


@dataclass(frozen=True, slots=True)
class StagingFailed:
    """A staging job has ended badly. `worker_died`: the fault may be the worker's, not the rows'."""

    job: int
    fault: Fault
    worker_died: bool = False


@dataclass(frozen=True, slots=True)
class CommitLanded:
    """The group is visible and durable at `version`."""

    group_id: str
    version: int


@dataclass(frozen=True, slots=True)
class CommitConflicted:
    """Nothing of the group landed: somebody else moved the table."""

    group_id: str


@dataclass(frozen=True, slots=True)
class CommitInDoubt:
    """Nobody knows whether the group landed."""

    group_id: str
    fault: Fault


@dataclass(frozen=True, slots=True)
class CommitRefused:
    """Nothing of the group landed or will. `positions`: the staged batches at fault, none for all of them."""

    group_id: str
    fault: Fault
    positions: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class StagedLost:
    """Nothing of the group landed: the files of these staged batches are gone and must be made anew."""

    group_id: str
    positions: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class WatermarksRead:
    """A fresh look at a table."""

    table: str
    marks: Mapping[str, Watermark]


@dataclass(frozen=True, slots=True)
class WatermarksFailed:
    """The table could not be looked at."""

    table: str
    producers: tuple[str, ...]
    fault: Fault


@dataclass(frozen=True, slots=True)
class SlotsChanged:
    """So many staging jobs may run at once from now on."""

    slots: int


@dataclass(frozen=True, slots=True)
class Ticked:
    """Time has passed."""


@dataclass(frozen=True, slots=True)
class Flushed:
    """Nothing more comes for now: what is collected is to be staged without waiting."""


@dataclass(frozen=True, slots=True)
class Closed:
    """Nothing more is taken; what was taken goes on to its end."""


Event = Union[
    Submitted, Withdrawn, Staged, StagingFailed, CommitLanded, CommitConflicted, CommitInDoubt, CommitRefused,
    StagedLost, WatermarksRead, WatermarksFailed, SlotsChanged, Ticked, Flushed, Closed,
]  # fmt: skip


# ---------------------------------------------------------------- commands


@dataclass(frozen=True, slots=True)
class Stage:
    """Stage these batches of one table together, in this order."""

    job: int
    table: str
    batches: tuple[tuple[int, Token], ...]
    nbytes: int


@dataclass(frozen=True, slots=True)
class Abandon:
    """This job took too long: free its worker, by force where need be. What it still says is ignored."""

    job: int


@dataclass(frozen=True, slots=True)
class Discard:
    """Delete these files: no commit has named them."""

    table: str
    staged: StagedBatch


@dataclass(frozen=True, slots=True)
class Commit:
    """Commit this group to the table. One at a time for each table."""

    table: str
    group: CommitGroup


@dataclass(frozen=True, slots=True)
class ReadWatermarks:
    """Look at the table afresh for these producers."""

    table: str
    producers: tuple[str, ...]


class Reason(Enum):
    """Why a batch was refused."""

    TOO_LARGE = "it is larger than the memory budget"
    QUEUE_TIMEOUT = "it waited too long for memory"
    GAP = "numbers before it are missing"
    CONTENT_MISMATCH = "its number was used for other content"
    NUMBER_TAKEN = "its number was taken by another writer of the same producer"
    PREDECESSOR = "a batch before it was refused"
    STAGING_FAILED = "it could not be staged"
    COMMIT_FAILED = "it could not be committed"
    TABLE_FAILED = "its table could not be read"
    OUTCOME_UNKNOWN = "nobody could find out whether it was committed"
    WITHDRAWN = "its caller gave it up"
    CLOSED = "the writer is closed"


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The batch is committed.

    Attributes:
        token: its identity.
        version: of the table that answers for the producer, at which it is visible.
        already: it was there before this call, so the call wrote nothing.
        beside: the other tables that it has rows in, each with the version at which they were seen to be there.
    """

    token: Token
    version: int
    already: bool = False
    beside: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Refused:
    """The batch is not committed and will not be (but for `OUTCOME_UNKNOWN`).

    Attributes:
        reason: why.
        sequence: its number, where it had one.
        expected: the number that the producer's next batch must have, where known.
        fault: what went wrong, where something did.
    """

    reason: Reason
    sequence: int | None = None
    expected: int | None = None
    fault: Fault | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """Tell the caller. The shell forgets the ticket's rows."""

    ticket: int
    answer: Acknowledged | Refused


Command = Union[Stage, Abandon, Discard, Commit, ReadWatermarks, Answer]
