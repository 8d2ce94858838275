"""Which way rows take into a table on the Spark engine, and why.

Receives: a table's protocol, properties and schema.
Produces: a `Road`.
Guarantees: what pyarrow's files would break is never committed in place.
Never does: look at more than the log.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sfwriter.storage.delta_features import features_in_the_way

if TYPE_CHECKING:
    from deltalake import DeltaTable

IN_PLACE = "in_place"
DATAFRAME = "dataframe"


@dataclass(frozen=True, slots=True)
class Road:
    """The way of rows into a table.

    Attributes:
        name: `in_place` (files of pyarrow are committed as they are) or `dataframe` (Spark writes the rows).
        reason: why, in words.
    """

    name: str
    reason: str

    @property
    def in_place(self) -> bool:
        """Whether staged files are committed as they are."""
        return self.name == IN_PLACE


PLAIN = Road(IN_PLACE, "the table uses no feature that needs Spark's writer")


def road_of(table: DeltaTable) -> Road:
    """The way into this table, as it is now."""
    features = features_in_the_way(table)
    if not features:
        return PLAIN
    return Road(DATAFRAME, f"the table uses {', '.join(sorted(features))}")
