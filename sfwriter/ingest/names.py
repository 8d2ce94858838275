"""Which column a key belongs to.

Receives: the table's additional columns, whether new ones may come, and the keys of one call.
Produces: for each key a kind, a reason why it cannot be a column, or that it is a new column.
Guarantees: Delta takes column names that differ only in case for one: no call can make such a pair.
Never does: look at values.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from sfwriter.ingest.jsontext import bounded
from sfwriter.ingest.kinds import LOG_KINDS, kind_of_field
from sfwriter.ingest.narrow import is_narrow_number
from sfwriter.ingest.values import Misfit
from sfwriter.schema import LOG_STAMPS

if TYPE_CHECKING:
    import pyarrow as pa

    from sfwriter.ingest.kinds import Kind

_NAME = re.compile(r"[A-Za-z0-9_]{1,128}", re.ASCII)


class Fate(Enum):
    """What becomes of a key that names no column which rows can fill."""

    NEW = "a new column"
    STAMPED = "a column that writing fills"


@dataclass(frozen=True)
class TableColumns:
    """What the gate knows of the table.

    Attributes:
        extras: its columns beside those of the log, in the table's order.
        evolution: whether an unknown key becomes a new column.
        narrow: columns of the log that the table keeps in a narrower number.
    """

    extras: dict[str, Kind]
    evolution: bool
    narrow: dict[str, pa.DataType] = field(default_factory=dict)

    @classmethod
    def of(cls, schema: pa.Schema | None, *, evolution: bool) -> TableColumns:
        """From the table's schema, or only its additional columns; those of the log are known."""
        own = LOG_KINDS.keys() | LOG_STAMPS.keys()
        fields = schema or ()
        return cls(
            {entry.name: kind_of_field(entry.type) for entry in fields if entry.name not in own},
            evolution,
            {entry.name: entry.type for entry in fields if entry.name in own and is_narrow_number(entry.type)},
        )

    def kind(self, name: str) -> Kind | None:
        """The kind of a column that the table has, None where it has none of that name."""
        return LOG_KINDS.get(name) or self.extras.get(name)

    def expected(self) -> dict[str, str]:
        """Column to Arrow type, for errors."""
        return {name: str(kind.type) for name, kind in (LOG_KINDS | self.extras).items()}


@dataclass
class CallNames:
    """The keys of one call, resolved in the order of their first appearance."""

    columns: TableColumns
    _resolved: dict[object, Kind | Misfit | Fate] = field(default_factory=dict)
    _folded: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Take the table's names as spoken for."""
        for name in (*LOG_KINDS, *LOG_STAMPS, *self.columns.extras):
            self._folded.setdefault(name.lower(), name)

    def resolve(self, key: object) -> Kind | Misfit | Fate:
        """What a key stands for; the same answer for the same key."""
        found = self._resolved.get(key)
        if found is None:
            found = self._resolved[key] = self._judge(key)
        return found

    def _judge(self, key: object) -> Kind | Misfit | Fate:
        if not isinstance(key, str):
            return Misfit(f"is a key that is not text: {bounded(key)}")
        kind = self.columns.kind(key)
        if kind is not None:
            return kind
        if key in LOG_STAMPS:
            return Fate.STAMPED
        if _NAME.fullmatch(key) is None:
            return Misfit("cannot be the name of a column: letters, digits and _ make one, at most 128")
        twin = self._folded.get(key.lower())
        if twin is not None:
            return Misfit(f"differs only in case from the column {twin}, and Delta takes both names for one")
        if not self.columns.evolution:
            return Misfit("is no column of the table, and enable_schema_evolution is off")
        self._folded[key.lower()] = key
        return Fate.NEW
