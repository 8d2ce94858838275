"""What Spark, Delta and the JVM raise becomes this library's, at the border.

Receives: errors of py4j, PySpark and Spark Connect, whichever of them wraps the JVM's own.
Produces: `WriterError`s, and the question whether a rival was in the way or the connection broke.
Guarantees: a Java stack trace is in the cause and never in the message.
Never does: import Spark or py4j: errors are told by what they are made of.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sfwriter.exceptions import WriterError, WriterTableError, WriterValidationError
from sfwriter.storage.faults import table_error

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sfwriter.storage.engine import TableSpec

_RIVALS = re.compile(
    r"Concurrent(?:Transaction|Append|DeleteRead|DeleteDelete|Write|Modification)Exception|MetadataChangedException"
    r"|ProtocolChangedException|DELTA_CONCURRENT_|DELTA_METADATA_CHANGED|DELTA_PROTOCOL_CHANGED"
)
_BROKEN_RULES = re.compile(r"InvariantViolationException|DELTA_VIOLATE_CONSTRAINT|DELTA_NOT_NULL_CONSTRAINT_VIOLATED"
                           r"|DELTA_EXCEED_CHAR_VARCHAR_LIMIT")  # fmt: skip
_FORBIDDEN = re.compile(r"AccessControlException|AccessDenied|PERMISSION_DENIED|Permission denied|Mkdirs failed")
_FULL = re.compile(r"No space left on device|Disk quota exceeded")
_LOST = {
    "Py4JNetworkError",
    "ConnectionRefusedError",
    "ConnectionResetError",
    "BrokenPipeError",
    "Py4JAuthenticationError",
}
_STACK = re.compile(r"\n\s*at [\w.$]+\(.*", re.DOTALL)
_SPARK_NOISE = re.compile(r"An error occurred while calling \S+\s*:?\s*|\. SQLSTATE: \w+")


def java_name(error: BaseException) -> str:
    """The class of the Java exception behind an error, empty where there is none."""
    found = getattr(error, "java_exception", None) or getattr(error, "_origin", None)
    try:
        return "" if found is None else str(found.getClass().getName())
    except Exception:  # noqa: BLE001  the JVM that it came from may be gone
        return ""


def said(error: BaseException) -> str:
    """What it says, with its Java class, for looking into."""
    return f"{java_name(error)} {type(error).__name__} {error}"


def is_rival(error: BaseException) -> bool:
    """Whether others changed the table in the meantime, so that nothing landed."""
    return _RIVALS.search(said(error)) is not None


def is_answer(error: BaseException) -> bool:
    """Whether the JVM itself gave this answer: the call has then ended. A connection that broke says nothing."""
    if type(error).__name__ in _LOST or isinstance(error, OSError):
        return False
    return bool(java_name(error))


def is_lost(error: BaseException) -> bool:
    """Whether it says that the session's JVM is not there any more."""
    return getattr(error, "code", None) in {"session_lost", "session_stopped"} or type(error).__name__ in _LOST


def first_words_of(error: BaseException) -> str:
    """Its own text without class names and stack, on one line, at most 300 characters."""
    text = str(error)
    found = getattr(error, "java_exception", None)
    if found is not None:
        try:
            text = str(found.getMessage() or found.getClass().getName())
        except Exception:  # noqa: BLE001  the JVM that it came from may be gone
            text = str(error)
    text = " ".join(_SPARK_NOISE.sub("", _STACK.sub("", text)).split()) or type(error).__name__
    return text if len(text) <= 300 else text[:297] + "..."


def spark_error(error: BaseException, doing: str, spec: TableSpec) -> WriterError:
    """The error of this library for one of Spark's; `doing` is a verb phrase such as "commit to"."""
    text = said(error)
    what = f"Could not {doing} {spec.name} at {spec.location}"
    context = {"table": spec.name, "location": spec.location}
    if _BROKEN_RULES.search(text):
        return WriterValidationError(
            f"{what}: rows break a rule of the table: {first_words_of(error)}",
            context=context,
            suggestions=["Correct the rows, or change the table's constraint."],
            code="table_constraint",
        )
    if _FULL.search(text):
        return WriterTableError(
            f"{what}: no space is left there.",
            context=context,
            suggestions=["Free space on that disk, or raise the quota; the call can then be repeated."],
            code="disk_full",
            retriable=True,
        )
    if _FORBIDDEN.search(text):
        return WriterTableError(
            f"{what}: Spark may not write there ({first_words_of(error)}).",
            context=context,
            suggestions=["Give the user of Spark's process the right to write there."],
            code="not_permitted",
        )
    if not is_answer(error) and type(error).__name__ in _LOST:
        return WriterTableError(
            f"{what}: the JVM of the SparkSession is gone ({first_words_of(error)}).",
            context=context,
            suggestions=[
                "Make a new session, and a new LogWriter with it; the same sequence or key writes nothing twice."
            ],
            code="session_lost",
        )
    if isinstance(error, OSError) and not java_name(error):
        return table_error(error, doing, spec)
    return WriterTableError(
        f"{what}: {first_words_of(error)}",
        context=context,
        suggestions=["The cause, with Spark's own stack, is below."],
        code="spark_failed",
    )


@contextmanager
def reported_by_spark(doing: str, spec: TableSpec) -> Iterator[None]:
    """Translate what Spark raises in the block. Errors of this library, and interrupts, pass as they are."""
    try:
        yield
    except WriterError:
        raise
    except Exception as error:
        raise spark_error(error, doing, spec) from error
