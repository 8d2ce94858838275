"""Calls of the reference that come with a later version, so that nobody finds them missing or pretending."""

from __future__ import annotations

from typing import Any, NoReturn

from sfwriter.exceptions import WriterError


class NotYet:
    """Methods that raise a `WriterError` with the code `not_available`, and do nothing else."""

    def detect_anomalies(self, log_rows: Any) -> NoReturn:
        """Not available in this version."""
        del log_rows
        _refuse("detect_anomalies", "query the table itself, for instance with DuckDB")


def _refuse(call: str, instead: str) -> NoReturn:
    raise WriterError(
        f"{call} is not available in this version",
        context={"call": call},
        suggestions=[instead],
        code="not_available",
    )
