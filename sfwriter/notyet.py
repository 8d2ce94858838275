"""Calls of the reference that come with a later version, so that nobody finds them missing or pretending."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from sfwriter.exceptions import WriterError

if TYPE_CHECKING:
    from collections.abc import Mapping


class NotYet:
    """Methods that raise a `WriterError` with the code `not_available`, and do nothing else."""

    def detect_anomalies(self, log_rows: Any) -> NoReturn:
        """Not available in this version."""
        del log_rows
        _refuse("detect_anomalies", "query the table itself, for instance with DuckDB")

    def optimize_table(self, **options: Any) -> NoReturn:
        """Not available in this version."""
        del options
        _refuse("optimize_table", "use OPTIMIZE of deltalake or Spark")

    def maintain_table(self, maintenance_options: Mapping[str, Any] | None = None) -> NoReturn:
        """Not available in this version."""
        del maintenance_options
        _refuse("maintain_table", "use OPTIMIZE and VACUUM of deltalake or Spark")

    def get_table_history(self, limit: int = 10) -> NoReturn:
        """Not available in this version."""
        del limit
        _refuse("get_table_history", "use DeltaTable(…).history() of deltalake; get_table_info tells the version")


def _refuse(call: str, instead: str) -> NoReturn:
    raise WriterError(
        f"{call} is not available in this version",
        context={"call": call},
        suggestions=[instead],
        code="not_available",
    )
