"""What travels: rows that are accepted or refused together, and the identity that makes them count once.

Receives: rows that the gate has passed, as Arrow tables.
Produces: the values that every later stage of a batch's path hands on.
Guarantees: a batch's identity (`Token`) and content never change once made.
Never does: read or write anything; import Arrow at run time.
"""

from __future__ import annotations

from dataclasses import InitVar, dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa

KEY_PREFIX = "key:"
"""Producer ids that begin so belong to idempotency keys: no writer may choose one."""


@dataclass(frozen=True, slots=True, order=True)
class Token:
    """A batch's identity: which producer gave it, and which of its batches it is (0, 1, 2, …)."""

    producer_id: str
    sequence: int

    def __str__(self) -> str:
        """`<producer_id>:<sequence>`, which results call `batch_id`."""
        return f"{self.producer_id}:{self.sequence}"


@dataclass(frozen=True, slots=True)
class EncodedBatch:
    """One call's rows behind the gate.

    Attributes:
        rows: the accepted rows, in the log table's column types (texts of few values may be dictionary
            encoded), without the columns that staging stamps (`logged_at`). No row is legal: the number is
            then committed without files.
        quarantined: the rows that the gate set aside, in the quarantine table's types without its
            stamped columns; None where there are none.
        digest: 16 hex digits of the content as the caller gave it: the same rows again give the same
            digest, whenever and wherever they are encoded (made-up run ids are left out of it).
        run_id: the run id that the result names.
        beside: table name (`schema.table`) to the rows that the same batch puts into that table, in its types
            without its stamped columns. They are committed before `rows`.
        nbytes: Arrow bytes of everything in it.
    """

    rows: pa.Table
    quarantined: pa.Table | None
    digest: str
    run_id: str
    beside: Mapping[str, pa.Table] = field(default_factory=dict)
    nbytes: int = field(init=False, compare=False)
    measured: InitVar[int | None] = None
    """`nbytes`, from who knows it already."""

    def __post_init__(self, measured: int | None) -> None:
        """Measure once what many ask for: Arrow walks all buffers, 60 µs for 30 columns."""
        if measured is None:
            aside = [] if self.quarantined is None else [self.quarantined]
            measured = sum(int(table.nbytes) for table in (self.rows, *aside, *self.beside.values()))
        object.__setattr__(self, "nbytes", measured)

    def by_table(self, log_table: str, quarantine_table: str) -> dict[str, pa.Table]:
        """Table name to its rows, in the order in which they are committed: the one that answers comes last."""
        aside = {} if self.quarantined is None else {quarantine_table: self.quarantined}
        return {**self.beside, **aside, log_table: self.rows}
