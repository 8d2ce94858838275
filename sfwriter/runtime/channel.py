"""The way from a caller to the flow: the same three calls in this process and through the service."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping
    from concurrent.futures import Future

    from sfwriter.batch import EncodedBatch, Token
    from sfwriter.storage.engine import StagedBatch

EXIT_GRACE_S = 5.0
"""How long the end of the process waits for what is on its way and was never waited for."""


@dataclass(slots=True)
class Series:
    """Deliveries that are written in order, up to the first that is refused.

    Attributes:
        broken: one was refused.
        broken_at: its number, where it had one.
    """

    broken: bool = False
    broken_at: int | None = None


@dataclass(slots=True, eq=False)
class MadeFiles:
    """Files of a batch's rows for the log table that somebody staged before the batch was given.

    Attributes:
        staged: the files.
        rows: in them.
        handed: they were offered to a commit: from then on only VACUUM may delete them.
    """

    staged: StagedBatch
    rows: int
    handed: bool = False


@dataclass(frozen=True, slots=True)
class Delivery:
    """One batch and how it is to be numbered.

    Attributes:
        batch: the rows.
        producer_id: who gives them.
        sequence: the number that the caller chose, None for the next one.
        stamp: of the call; two calls never share one.
        checked: whether a used number with other content is an error.
        expires: whether the table may forget the producer some day.
        patient: it may wait to share a file with those behind it.
        alone: a batch before it that is refused is no reason to refuse this one: it takes the next
            number then. False where the order of a call's batches matters.
        wait_secs: how long it waits for memory; None for ever.
        series: what it belongs to; after a refusal nothing more of it is written.
        replaces: names of the tables whose rows it is to replace.
        gate_secs: what gate, rules and encoding took.
        made: files that hold the batch's rows for the log table; `batch.rows` is empty then.
        waited: its caller waits for it inside the call, so nothing of his runs when it is settled.
    """

    batch: EncodedBatch
    producer_id: str
    sequence: int | None
    stamp: str
    checked: bool = True
    expires: bool = False
    patient: bool = False
    alone: bool = True
    wait_secs: float | None = None
    series: Series | None = None
    replaces: frozenset[str] = frozenset()
    gate_secs: float = 0.0
    made: MadeFiles | None = None
    waited: bool = False


@dataclass(frozen=True, slots=True)
class Receipt:
    """A delivery that is committed.

    Attributes:
        token: the batch's identity.
        version: of the log table, at which the rows are visible.
        already: another call brought them; this one wrote nothing.
        beside: the same batch's other tables, each with the version at which its rows are there, as far as known.
    """

    token: Token
    version: int
    already: bool
    beside: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Usage:
    """What a channel holds: bytes in flight, the most there ever were, the budget, and tries after a fault.

    `max_batch_bytes` are the Arrow bytes of the largest batch that it takes; None: the whole budget.
    """

    in_flight_bytes: int
    peak_bytes: int
    budget_bytes: int
    retries: int
    max_batch_bytes: int | None = None


class Channel(Protocol):
    """Takes deliveries and says what became of them. Thread-safe."""

    def submit(self, delivery: Delivery) -> Future[Receipt]:
        """Take a delivery over.

        Blocks while the channel has no memory for it (`WriterPerformanceError` after `wait_secs`,
        through the future). The future gives the receipt, or a `WriterError`.
        """

    def withdraw(self, future: Future[Receipt]) -> None:
        """The caller no longer wants it written. It is settled soon: withdrawn, or committed all the same."""

    def committed(self, producer_id: str) -> int | None:
        """The producer's highest committed number, read from the table afresh."""

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until everything that was submitted is settled; False where time ran out before."""

    def usage(self) -> Usage:
        """What is held now."""

    def close(self) -> None:
        """Settle what was submitted, then let go of threads and handles. A second call does nothing."""
