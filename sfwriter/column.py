"""A validation rule as SQL text."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Column:
    """A boolean SQL expression over a row's columns: `Column("duration_secs >= 0")`.

    It is text and nothing else: the same as the bare text where rules are given. Whether it parses is
    said where it is used.
    """

    sql: str

    def __str__(self) -> str:
        """The expression."""
        return self.sql
