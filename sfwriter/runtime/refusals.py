"""From the machine's refusals to the exceptions that callers see."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from sfwriter.exceptions import WriterError, WriterPerformanceError, WriterTableError, WriterValidationError
from sfwriter.flow.vocabulary import Reason

if TYPE_CHECKING:
    from sfwriter.flow.vocabulary import Refused, Submitted

MIB = 2**20


def refusal_error(refused: Refused, given: Submitted, budget_bytes: int) -> WriterError:
    """The exception for a refused batch: what, why, and what to do.

    Args:
        refused: the machine's answer.
        given: the submission that it answers.
        budget_bytes: of the machine.
    """
    producer, number = given.producer_id, refused.sequence if refused.sequence is not None else given.sequence
    context = {
        "table": given.parts[-1].table,
        "producer_id": producer,
        "sequence": number,
        "expected_sequence": refused.expected,
        "reason": refused.reason.name.lower(),
    }
    error = _OF_REASON[refused.reason](refused, given, number, budget_bytes)
    error.context = {**context, **error.context}
    if refused.fault is not None and error is not refused.fault.error and error.__cause__ is None:
        error.__cause__ = refused.fault.error
    return error


def _too_large(_: Refused, given: Submitted, __: int | None, budget_bytes: int) -> WriterError:
    rows = sum(part.rows for part in given.parts)
    fitting = max(1, int(rows * budget_bytes / given.cost / 2))
    return WriterPerformanceError(
        f"a batch of {rows} rows needs {given.cost / MIB:.1f} MB of memory, more than the whole budget of "
        f"{budget_bytes / MIB:.1f} MB; nothing of it is written",
        context={"rows": rows, "needed_bytes": given.cost, "budget_bytes": budget_bytes},
        suggestions=[
            f"split it: write_batches(rows[i : i + {fitting}] for i in range(0, len(rows), {fitting}))",
            "or raise memory_fraction",
        ],
    )


def _queue_timeout(_: Refused, given: Submitted, __: int | None, budget_bytes: int) -> WriterError:
    return WriterPerformanceError(
        f"no memory came free in time for a batch of {given.cost / MIB:.1f} MB (budget {budget_bytes / MIB:.1f} MB); "
        "nothing of it is written",
        context={"needed_bytes": given.cost, "budget_bytes": budget_bytes},
        suggestions=["try again later, raise queue_timeout_secs, or write smaller batches"],
        retriable=True,
    )


def _gap(refused: Refused, given: Submitted, number: int | None, _: int) -> WriterError:
    return WriterValidationError(
        f"sequence={number} leaves a gap: the next number of producer {given.producer_id!r} in "
        f"{given.parts[-1].table} is {refused.expected}; nothing of the call is written",
        suggestions=[f"send sequence={refused.expected} next, or ask committed_sequence where to go on"],
    )


def _content(_: Refused, given: Submitted, number: int | None, __: int) -> WriterError:
    return WriterValidationError(
        f"sequence={number} of producer {given.producer_id!r} was used for other content; "
        "nothing of the call is written",
        suggestions=["give new content a new number; send the same rows again only under their own number"],
    )


def _taken(refused: Refused, given: Submitted, number: int | None, _: int) -> WriterError:
    return WriterTableError(
        f"another live writer of producer {given.producer_id!r} has committed number {number} to "
        f"{given.parts[-1].table}; nothing of this call is written",
        suggestions=[
            "give each writer a producer_id of its own",
            f"or call again: the next number is {refused.expected} now",
        ],
        retriable=True,
    )


def _predecessor(refused: Refused, _: Submitted, number: int | None, __: int) -> WriterError:
    which = "a batch" if refused.expected is None else f"batch {refused.expected}"
    this = "this batch" if number is None else f"batch {number}"
    return WriterTableError(
        f"{this} is not written, because {which} before it was refused",
        suggestions=[f"mend and send {which} first"],
        retriable=True,
    )


def _failed(refused: Refused, given: Submitted, _: int | None, __: int) -> WriterError:
    fault = refused.fault
    if fault is not None and isinstance(fault.error, WriterError):
        # Each caller gets an exception of its own: several may raise it at once.
        error = copy.copy(fault.error)
        error.__cause__ = fault.error.__cause__
        return error
    what = refused.reason.value if fault is None else f"{refused.reason.value}: {fault.error}"
    return WriterTableError(
        f"nothing of the call is written to {given.parts[-1].table}: {what}",
        suggestions=["see the cause; call again once it is mended"],
        retriable=fault is not None and fault.retriable,
    )


def _unknown(refused: Refused, given: Submitted, number: int | None, _: int) -> WriterError:
    why = "" if refused.fault is None else f" ({refused.fault.error})"
    return WriterTableError(
        f"nobody could find out whether batch {number} of producer {given.producer_id!r} was committed to "
        f"{given.parts[-1].table}{why}",
        outcome_unknown=True,
        suggestions=[
            f"call again with sequence={number} (or the same idempotency_key): it is written once, whatever happened",
        ],
        retriable=True,
    )


def _withdrawn(_: Refused, __: Submitted, ___: int | None, ____: int) -> WriterError:
    return WriterError("the call was given up by its caller; nothing of it is written", suggestions=["call again"])


def _closed(_: Refused, __: Submitted, ___: int | None, ____: int) -> WriterError:
    return WriterError("the writer is closed; nothing of the call is written", suggestions=["open a new LogWriter"])


_OF_REASON = {
    Reason.TOO_LARGE: _too_large,
    Reason.QUEUE_TIMEOUT: _queue_timeout,
    Reason.GAP: _gap,
    Reason.CONTENT_MISMATCH: _content,
    Reason.NUMBER_TAKEN: _taken,
    Reason.PREDECESSOR: _predecessor,
    Reason.STAGING_FAILED: _failed,
    Reason.COMMIT_FAILED: _failed,
    Reason.TABLE_FAILED: _failed,
    Reason.OUTCOME_UNKNOWN: _unknown,
    Reason.WITHDRAWN: _withdrawn,
    Reason.CLOSED: _closed,
}
