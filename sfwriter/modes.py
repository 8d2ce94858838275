"""The fixed words of rows and configs, as text enums: each member equals its text."""

from __future__ import annotations

from enum import Enum


class _Word(str, Enum):
    """A text enum whose `str()` is the text, on every Python."""

    def __str__(self) -> str:
        """The text."""
        return str(self.value)


class WriteMode(_Word):
    """What a write call does with the rows that the table has."""

    APPEND = "append"
    OVERWRITE = "overwrite"


class RunMode(_Word):
    """How a pipeline ran."""

    INITIAL = "initial"
    INCREMENTAL = "incremental"
    FULL_REFRESH = "full_refresh"
    VALIDATION_ONLY = "validation_only"


class Phase(_Word):
    """Which part of a pipeline a row tells of; `pipeline` is the row of a whole run."""

    BRONZE = "bronze"
    SILVER = "silver"
    GOLD = "gold"
    PIPELINE = "pipeline"
