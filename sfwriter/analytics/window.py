"""The window of a report: the rows of the last days, and how they are asked for."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sfwriter.exceptions import WriterValidationError
from sfwriter.runtime.query import TIMES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

MAX_DAYS = 36_500


@dataclass(frozen=True, slots=True)
class Window:
    """The rows since some days before now.

    Attributes:
        since: the earliest moment in it, UTC.
    """

    since: datetime

    @classmethod
    def of(cls, days: Any, now: datetime) -> Window:
        """The last `days` days; `WriterValidationError` where they are no number from 0 (left out) to 36,500."""
        if isinstance(days, bool) or not isinstance(days, (int, float)) or not 0 < days <= MAX_DAYS:
            raise WriterValidationError(
                f"days is {days!r}, expected a number above 0, at most {MAX_DAYS}",
                context={"field": "days", "value": repr(days)},
                suggestions=["e.g. days=7"],
            )
        return cls(now - timedelta(days=days))

    def predicate(self, known: Sequence[str]) -> str:
        """The rows in it, for `TableReader.scan`: of the columns that are there the first that is not null counts."""
        limit = f"TIMESTAMP '{self.since.isoformat()}'"
        found = "FALSE"
        for name in reversed([name for name in TIMES if name in known]):
            later = f'"{name}" >= {limit}'
            found = later if found == "FALSE" else f'({later} OR ("{name}" IS NULL AND {found}))'
        return found
