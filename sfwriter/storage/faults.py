"""Foreign errors become this library's, once, at the border of the storage layer.

Receives: what the operating system, pyarrow and delta-rs raise.
Produces: `WriterError`s that say what was being done, why it failed and what to do.
Guarantees: `retriable` is True only where the same call may succeed later without a change.
Never does: hide a bug. Errors that no rule knows keep their own text, and their cause.
"""

from __future__ import annotations

import errno
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pyarrow as pa

from sfwriter.exceptions import WriterError, WriterSchemaError, WriterTableError
from sfwriter.storage.delta_features import unsupported

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sfwriter.storage.engine import TableSpec

_FULL = {errno.ENOSPC, errno.EDQUOT}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
_NOT_A_FOLDER = {errno.ENOTDIR, errno.EEXIST, errno.EISDIR}
_GONE = {errno.ENOENT}
_TOO_LARGE = {errno.EFBIG}
_PASSING = {
    errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE, errno.ETIMEDOUT,
    errno.ECONNRESET, errno.ECONNREFUSED, errno.ECONNABORTED, errno.EPIPE, errno.EHOSTUNREACH, errno.ENETUNREACH,
}  # fmt: skip

# delta-rs flattens errors to text; the number survives as Rust prints it: `os error 28` or `code: 28`.
_NUMBER = re.compile(r"(?:os error|code:) (\d+)")
# A reader feature that delta-rs has never heard of keeps it from opening the table at all.
_UNKNOWN_FEATURE = re.compile(r"Feature '(\w+)' is not supported")
# Rust appends stack frames to some messages ("   0: <unknown>"); they say nothing to a reader.
_FRAMES = re.compile(r"\n\s+\d+: .*", re.DOTALL)
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def error_number(error: BaseException) -> int | None:
    """The operating system's number behind an error, where there is one."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    found = _NUMBER.search(str(error))
    return int(found[1]) if found else None


def first_words(error: BaseException) -> str:
    """An error's own text without stack frames, on one line, at most 300 characters."""
    text = " ".join(_FRAMES.sub("", _COLOURS.sub("", str(error))).split()) or type(error).__name__
    return text if len(text) <= 300 else text[:297] + "..."


def table_error(error: BaseException, doing: str, spec: TableSpec) -> WriterTableError:
    """The `WriterTableError` for a foreign error; `doing` is a verb phrase such as "stage rows for"."""
    number = error_number(error)
    what = f"Could not {doing} {spec.name} at {spec.location}"
    context = {"table": spec.name, "location": spec.location}
    if number in _FULL:
        return WriterTableError(
            f"{what}: no space is left there.",
            context=context,
            suggestions=["Free space on that disk, or raise the quota; the call can then be repeated."],
            code="disk_full",
            retriable=True,
        )
    if number in _FORBIDDEN:
        return WriterTableError(
            f"{what}: this process may not write there ({first_words(error)}).",
            context=context,
            suggestions=["Give this user write permission on the warehouse, or choose another `warehouse`."],
            code="not_permitted",
        )
    if number in _NOT_A_FOLDER:
        return WriterTableError(
            f"{what}: a part of that path is a file or another thing that is no folder ({first_words(error)}).",
            context=context,
            suggestions=["Choose a `warehouse` that is a folder, or move what is in its place."],
            code="not_a_folder",
        )
    if number in _GONE:
        return WriterTableError(
            f"{what}: a folder or file of it is gone ({first_words(error)}).",
            context=context,
            suggestions=["See who moved or deleted it; open a new writer once it is back."],
            code="table_gone",
        )
    if number in _TOO_LARGE:
        return WriterTableError(
            f"{what}: the file would be larger than this process or disk allows.",
            context=context,
            suggestions=["Raise the limit (`ulimit -f`), or lower `max_file_size_mb`."],
            code="file_too_large",
        )
    # An OSError without a number comes from an object store's client: the network, mostly.
    passing = number in _PASSING or (isinstance(error, OSError) and number is None)
    return WriterTableError(
        f"{what}: {first_words(error)}",
        context=context,
        suggestions=["The cause is below; where it has passed, the call can be repeated."]
        if passing
        else ["The cause is below; it will come again until it is removed."],
        code="storage_failed",
        retriable=passing,
    )


@contextmanager
def reported(doing: str, spec: TableSpec) -> Iterator[None]:
    """Translate what the block raises. Errors of this library, and interrupts, pass as they are."""
    try:
        yield
    except WriterError:
        raise
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        raise WriterSchemaError(
            f"Could not {doing} {spec.name}: {first_words(error)}",
            context={"table": spec.name},
            suggestions=["Give the column one type in all rows."],
            code="unwritable_type",
        ) from error
    except (OSError, pa.ArrowException) as error:
        raise table_error(error, doing, spec) from error


def is_foreign(error: BaseException) -> bool:
    """Whether an error came out of a library, and is no interrupt. Rust's panics are no `Exception`s."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


@contextmanager
def reported_by_delta(doing: str, spec: TableSpec) -> Iterator[None]:
    """Translate everything that delta-rs may raise, panics too. Errors of this library pass as they are."""
    try:
        yield
    except WriterError:
        raise
    except BaseException as error:
        if not is_foreign(error):
            raise
        raise log_error(error, doing, spec) from error


def log_error(error: BaseException, doing: str, spec: TableSpec) -> WriterTableError:
    """As `table_error`; what has no number of the system's is the log itself."""
    if error_number(error) is not None or isinstance(error, OSError):
        return table_error(error, doing, spec)
    unknown = _UNKNOWN_FEATURE.search(str(error))
    if unknown:
        return unsupported(unknown.groups(), doing, spec)
    return WriterTableError(
        f"Could not {doing} {spec.name} at {spec.location}: {first_words(error)}",
        context={"table": spec.name, "location": spec.location},
        suggestions=[
            "Where its log is damaged, put the damaged entry of `_delta_log` back from a copy, and never delete it.",
        ],
        code="log_unreadable",
    )


def unknown_action(action: object, spec: TableSpec) -> WriterTableError:
    """Something that is no action of `sfwriter.storage.engine`."""
    return WriterTableError(
        f"{type(action).__name__} is no action of maintenance.",
        context={"table": spec.name, "action": type(action).__name__},
        suggestions=["Give one of sfwriter.storage.engine: Survey, Compact, Sort, Vacuum, Checkpoint, History."],
        code="unknown_action",
    )
