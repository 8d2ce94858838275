"""Whose call it is: the number or key that makes it harmless to repeat.

Receives: what a caller gave.
Produces: an `Identity`.
Guarantees: a number is whole and from 0 on; number and key exclude each other; keys and producers are text that a log
    can hold.
Never does: look at a table.
"""

from __future__ import annotations

from typing import NamedTuple

from sfwriter.arrays import is_unicode
from sfwriter.batch import KEY_PREFIX
from sfwriter.exceptions import WriterValidationError
from sfwriter.options import ProducerId

MAX_KEY_LENGTH = 512


class Identity(NamedTuple):
    """Of one call.

    Attributes:
        producer_id: under which its batch is numbered.
        number: None where the flow chooses it.
        checked: whether the content of a number that is used already is compared.
        expires: whether the table may forget the producer after a while.
    """

    producer_id: str
    number: int | None
    checked: bool
    expires: bool


def identity_of(sequence: object, idempotency_key: object, producer_id: str, *, expires: bool) -> Identity:
    """The identity of a call of this producer, or of a key that stands alone.

    Raises:
        WriterValidationError: number or key are none, or both are given.
    """
    if idempotency_key is None:
        if sequence is None:
            return Identity(producer_id, None, checked=True, expires=expires)
        if isinstance(sequence, bool) or not isinstance(sequence, int) or sequence < 0:
            raise WriterValidationError(
                f"sequence is {sequence!r:.80}, expected a whole number from 0 on",
                suggestions=["number a producer's calls 0, 1, 2, …, or leave sequence out"],
            )
        return Identity(producer_id, sequence, checked=True, expires=expires)
    if sequence is not None:
        raise WriterValidationError(
            f"sequence={sequence!r:.80} and idempotency_key={idempotency_key!r:.80} exclude each other",
            suggestions=["give sequence for a numbered series of calls, idempotency_key for one that stands alone"],
        )
    if not _is_key(idempotency_key):
        raise WriterValidationError(
            f"idempotency_key is {idempotency_key!r:.80}, expected a text of 1 to {MAX_KEY_LENGTH} characters",
            suggestions=["use what identifies the call wherever it runs again, such as the scheduler's task id"],
        )
    return Identity(f"{KEY_PREFIX}{idempotency_key}", 0, checked=False, expires=True)


def check_producer_id(producer_id: object) -> None:
    """Raise `WriterValidationError` where a call names a producer as no configuration could."""
    try:
        problem = None if ProducerId().check(producer_id) else "must be given"
    except ValueError as error:
        problem = str(error)
    if problem is not None:
        raise WriterValidationError(
            f"producer_id is {producer_id!r:.80}, but {problem}", suggestions=["e.g. producer_id='billing-nightly'"]
        )


def _is_key(given: object) -> bool:
    return isinstance(given, str) and bool(given.strip()) and len(given) <= MAX_KEY_LENGTH and is_unicode(given)
