"""What a writer says to the logger that it was given: a standard one, or any object with the same methods."""

from __future__ import annotations

import logging
from typing import Any

from sfwriter.exceptions import WriterConfigurationError

METHODS = ("info", "warning")


class Teller:
    """Says what happened. Nothing that a logger does can make a call fail."""

    def __init__(self, logger: Any = None) -> None:
        """Speak to `logger`, or to the logger `sfwriter`.

        Raises:
            WriterConfigurationError: it has no methods `info` and `warning`.
        """
        self._logger: Any = logging.getLogger("sfwriter") if logger is None else logger
        missing = [name for name in METHODS if not callable(getattr(self._logger, name, None))]
        if missing:
            raise WriterConfigurationError(
                f"logger is a {type(logger).__name__} without the method {' and '.join(missing)}",
                problems=[f"logger has no {name}" for name in missing],
                suggestions=["give logging.getLogger(…), or an object with info(text) and warning(text)"],
            )

    def info(self, template: str, *values: Any) -> None:
        """Something went as it should; `{}` in the template stand for the values."""
        self._tell("info", logging.INFO, template, values)

    def warning(self, template: str, *values: Any) -> None:
        """Something that people should look at."""
        self._tell("warning", logging.WARNING, template, values)

    def _tell(self, method: str, level: int, template: str, values: tuple[Any, ...]) -> None:
        try:
            enabled = getattr(self._logger, "isEnabledFor", None)
            if enabled is None or enabled(level):
                getattr(self._logger, method)(template.format(*values))
        except Exception:
            logging.getLogger("sfwriter").exception("the logger that the writer was given raised")
