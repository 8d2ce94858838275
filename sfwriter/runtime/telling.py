"""What a writer says to the logger that it was given: a standard one, or any object with the same methods."""

from __future__ import annotations

import logging
from typing import Any

from sfwriter.exceptions import WriterConfigurationError

METHODS = ("info", "warning")
FIELD_PREFIX = "sfwriter_"
"""Before the names of structured fields: they must not meet those of the record itself, or of others."""


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

    def info(self, template: str, *values: Any, **fields: Any) -> None:
        """Something went as it should.

        Args:
            template: a sentence in which `{}` stand for the values.
            *values: in their order.
            **fields: facts for programs; a standard logger's record has each as the attribute `sfwriter_<name>`.
        """
        self._tell("info", logging.INFO, template.format(*values), fields)

    def warning(self, template: str, *values: Any, **fields: Any) -> None:
        """Something that people should look at; arguments as `info`."""
        self._tell("warning", logging.WARNING, template.format(*values), fields)

    def _tell(self, method: str, level: int, text: str, fields: dict[str, Any]) -> None:
        try:
            enabled = getattr(self._logger, "isEnabledFor", None)
            if enabled is None or enabled(level):
                tell = getattr(self._logger, method)
                if fields and isinstance(self._logger, (logging.Logger, logging.LoggerAdapter)):
                    tell(text, extra={FIELD_PREFIX + name: value for name, value in fields.items()})
                else:
                    tell(text)
        except Exception:
            logging.getLogger("sfwriter").exception("the logger that the writer was given raised")
