"""What the table tells about the runs, asked by SQL over its live files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import duckdb

from deploy.demo.proof import table_rows

if TYPE_CHECKING:
    from deploy.demo.proof import LiveFiles


@dataclass(frozen=True)
class Findings:
    """Rows of small tables.

    Attributes:
        phases: phase, steps, failed, rows processed, seconds.
        pipelines: the longest ones: pipeline, steps, failed, seconds.
        slowest: step, pipeline, seconds.
        errors: kind, how often, an example.
    """

    phases: list[tuple[Any, ...]]
    pipelines: list[tuple[Any, ...]]
    slowest: list[tuple[Any, ...]]
    errors: list[tuple[Any, ...]]


def find(live: LiveFiles) -> Findings:
    """Ask the table."""
    connection = duckdb.connect()
    try:
        connection.execute(f"CREATE VIEW log AS {table_rows(live)}")

        def ask(query: str) -> list[tuple[Any, ...]]:
            rows: list[tuple[Any, ...]] = connection.execute(query).fetchall()
            return rows

        return Findings(
            ask(
                "SELECT phase, count(*), count(*) FILTER (NOT success), sum(rows_processed)::BIGINT, "
                "sum(duration_secs) FROM log GROUP BY phase ORDER BY phase"
            ),
            ask(
                "SELECT pipeline_id, count(*), count(*) FILTER (NOT success), sum(duration_secs) AS seconds "
                "FROM log GROUP BY pipeline_id ORDER BY seconds DESC LIMIT 5"
            ),
            ask("SELECT step_name, pipeline_id, duration_secs FROM log ORDER BY duration_secs DESC LIMIT 3"),
            ask(
                "SELECT split_part(error_message, ':', 1) AS kind, count(*) AS times, "
                "min_by(pipeline_id || ': ' || step_name, step_name) "
                "FROM log WHERE NOT success GROUP BY kind ORDER BY times DESC, kind LIMIT 5"
            ),
        )
    finally:
        connection.close()
