"""Writes pipeline-run log rows exactly once into Delta Lake tables.

Public names are loaded when they are first used, so `import sfwriter` costs next to nothing and loads
neither Arrow nor Ray nor Spark.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sfwriter.column import Column as Column
    from sfwriter.config import WriterConfig as WriterConfig
    from sfwriter.exceptions import WriterConfigurationError as WriterConfigurationError
    from sfwriter.exceptions import WriterDataQualityError as WriterDataQualityError
    from sfwriter.exceptions import WriterError as WriterError
    from sfwriter.exceptions import WriterPerformanceError as WriterPerformanceError
    from sfwriter.exceptions import WriterSchemaError as WriterSchemaError
    from sfwriter.exceptions import WriterTableError as WriterTableError
    from sfwriter.exceptions import WriterValidationError as WriterValidationError
    from sfwriter.models import ExecutionContext as ExecutionContext
    from sfwriter.models import ExecutionResult as ExecutionResult
    from sfwriter.models import LogRecord as LogRecord
    from sfwriter.models import LogRow as LogRow
    from sfwriter.models import StepResult as StepResult
    from sfwriter.modes import Phase as Phase
    from sfwriter.modes import RunMode as RunMode
    from sfwriter.modes import WriteMode as WriteMode
    from sfwriter.writer import LogWriter as LogWriter

__version__ = "0.1.0"

_HOMES = {
    "LogWriter": "sfwriter.writer",
    "WriterConfig": "sfwriter.config",
    "Column": "sfwriter.column",
    **dict.fromkeys(("Phase", "RunMode", "WriteMode"), "sfwriter.modes"),
    **dict.fromkeys(
        ("ExecutionContext", "ExecutionResult", "LogRecord", "LogRow", "StepResult"),
        "sfwriter.models",
    ),
    **dict.fromkeys(
        (
            "WriterConfigurationError",
            "WriterDataQualityError",
            "WriterError",
            "WriterPerformanceError",
            "WriterSchemaError",
            "WriterTableError",
            "WriterValidationError",
        ),
        "sfwriter.exceptions",
    ),
}

__all__ = [  # noqa: PLE0604  the names of the table above
    "__version__",
    *_HOMES,
]


def __getattr__(name: str) -> Any:
    if name == "spark":
        return import_module("sfwriter.spark")
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(home), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
