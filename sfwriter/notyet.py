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

    def generate_summary_report(self, days: int = 7) -> NoReturn:
        """Not available in this version."""
        del days
        _refuse("generate_summary_report", "query the table itself, for instance with DuckDB")

    def analyze_performance_trends(self, days: int = 30) -> NoReturn:
        """Not available in this version."""
        del days
        _refuse("analyze_performance_trends", "query the table itself, for instance with DuckDB")

    def export_analytics_data(
        self,
        format: str = "json",  # noqa: A002  the reference's name
        limit: int | None = 1000,
        filters: Mapping[str, Any] | None = None,
        *,
        path: Any = None,
    ) -> NoReturn:
        """Not available in this version."""
        del format, limit, filters, path
        _refuse("export_analytics_data", "query the table itself, for instance with DuckDB")


def _refuse(call: str, instead: str) -> NoReturn:
    raise WriterError(
        f"{call} is not available in this version",
        context={"call": call},
        suggestions=[instead],
        code="not_available",
    )
