"""What goes wrong, as one tree.

    WriterError                       everything that this library raises on purpose
    ├── WriterConfigurationError      an option is wrong or unknown (also a ValueError)
    ├── WriterValidationError         rows or arguments are refused: validation_errors
    ├── WriterTableError              a table cannot be opened, made, read or written: outcome_unknown
    ├── WriterDataQualityError        the rows are not as good as the config asks: quality_issues
    ├── WriterPerformanceError        larger than the memory budget, or waited too long for memory
    └── WriterSchemaError             rows and columns do not fit: expected_schema, actual_schema

Each can be made from a message alone. Each travels whole between processes: pickling keeps every
attribute, and the text of the cause where the cause itself cannot travel.
"""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping


class WriterError(Exception):
    """The base of all errors of this library.

    Attributes:
        message: one sentence or more, without the suggestions.
        context: what was being done: table, field, value, path and the like. Never a secret.
        suggestions: what the reader can do about it.
        code: a short stable word for programs, None where there is none.
        retriable: whether the same call may succeed later without any change.
    """

    # No class attributes: Ray raises a subclass that looks up in the original only what it lacks itself.

    def __init__(
        self,
        message: str = "",
        *,
        context: Mapping[str, Any] | None = None,
        suggestions: Iterable[str] | None = None,
        code: str | None = None,
        retriable: bool = False,
    ) -> None:
        """Keep what is given."""
        super().__init__(message)
        self.message = message
        self.context: dict[str, Any] = dict(context or {})
        self.suggestions: list[str] = list(suggestions or ())
        self.code = code
        self.retriable = retriable

    def __str__(self) -> str:
        """The message, then each suggestion on a line of its own."""
        return "\n".join([self.message, *(f"  - {suggestion}" for suggestion in self.suggestions)])

    def __repr__(self) -> str:
        """The class and the message."""
        return f"{type(self).__name__}({self.message!r})"

    def __reduce__(self) -> tuple[Callable[..., WriterError], tuple[type[WriterError], dict[str, Any], Any, bool]]:
        """Everything in the instance, and its cause: Python itself would leave the cause behind."""
        state = {name: _portable(value) for name, value in self.__dict__.items()}
        cause = None if self.__cause__ is None else _portable_cause(self.__cause__)
        return _restored, (type(self), state, cause, self.__suppress_context__)


class WriterConfigurationError(WriterError, ValueError):
    """An option is wrong, unknown, or does not go with the others. All problems at once.

    Attributes:
        problems: one sentence for each.
    """

    def __init__(self, message: str = "", *, problems: Iterable[str] | None = None, **details: Any) -> None:
        """As `WriterError`, with the problems."""
        super().__init__(message, **details)
        self.problems: list[str] = list(problems or ())


class WriterValidationError(WriterError):
    """Rows or arguments are refused; nothing of the call is written.

    Attributes:
        validation_errors: one dict for each bad row: `row` (its position from 0) and `reasons`, and
            more where it is known.
    """

    def __init__(
        self, message: str = "", *, validation_errors: Iterable[Mapping[str, Any]] | None = None, **details: Any
    ) -> None:
        """As `WriterError`, with the bad rows."""
        super().__init__(message, **details)
        self.validation_errors: list[dict[str, Any]] = [dict(error) for error in validation_errors or ()]


class WriterTableError(WriterError):
    """A table cannot be opened, created, read or written.

    Attributes:
        outcome_unknown: True where the rows of the call may have been committed, or may still be. The
            same `sequence` or `idempotency_key` again settles it and never writes twice.
    """

    def __init__(self, message: str = "", *, outcome_unknown: bool = False, **details: Any) -> None:
        """As `WriterError`, with the outcome."""
        super().__init__(message, **details)
        self.outcome_unknown = outcome_unknown


class WriterDataQualityError(WriterError):
    """The rows break more rules than the config allows; nothing of the call is written.

    Attributes:
        quality_issues: one dict for each rule that was broken: `rule`, `column`, `failed_rows`, `sample`.
    """

    def __init__(
        self, message: str = "", *, quality_issues: Iterable[Mapping[str, Any]] | None = None, **details: Any
    ) -> None:
        """As `WriterError`, with the issues."""
        super().__init__(message, **details)
        self.quality_issues: list[dict[str, Any]] = [dict(issue) for issue in quality_issues or ()]


class WriterPerformanceError(WriterError):
    """A batch is larger than the memory budget, or waited longer for memory than its caller allowed."""


class WriterSchemaError(WriterError):
    """Rows do not fit the table's columns; nothing of the call is written.

    Attributes:
        expected_schema: column to the type that the table keeps; None where it is not known.
        actual_schema: column to the type that the rows have; None where it is not known.
        validation_errors: one dict for each bad row: `row`, all its `reasons`, the `column`, `value` and `expected`
            type of its first value that does not fit, and each such value in `values`.
    """

    def __init__(
        self,
        message: str = "",
        *,
        expected_schema: Mapping[str, str] | None = None,
        actual_schema: Mapping[str, str] | None = None,
        validation_errors: Iterable[Mapping[str, Any]] | None = None,
        **details: Any,
    ) -> None:
        """As `WriterError`, with both schemas."""
        super().__init__(message, **details)
        self.expected_schema = None if expected_schema is None else dict(expected_schema)
        self.actual_schema = None if actual_schema is None else dict(actual_schema)
        self.validation_errors: list[dict[str, Any]] = [dict(error) for error in validation_errors or ()]


def _restored(kind: type[WriterError], state: dict[str, Any], cause: Any, suppress_context: bool) -> WriterError:
    error = kind.__new__(kind)
    Exception.__init__(error, state.get("message", ""))
    error.__dict__.update(state)
    error.__cause__ = cause
    error.__suppress_context__ = suppress_context
    return error


def _portable(value: Any) -> Any:
    """The value itself where it can be pickled, else its text, part by part in dicts and lists."""
    if _travels(value):
        return value
    if isinstance(value, dict):
        return {key if _travels(key) else repr(key): _portable(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_portable(entry) for entry in value]
    return repr(value)


def _portable_cause(cause: BaseException) -> BaseException:
    return cause if _travels(cause) else RuntimeError(f"{type(cause).__name__}: {cause}")


def _travels(value: Any) -> bool:
    try:
        pickle.loads(pickle.dumps(value))  # noqa: S301  its own bytes
    except Exception:  # noqa: BLE001  foreign objects raise anything at all here
        return False
    return True
