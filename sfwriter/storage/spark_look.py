"""What Spark's own commands tell of a Delta table, for sessions beside which no file can be opened.

Receives: a session, and a table's address in SQL.
Produces: `TableStats`, versions, and where producers stand.
Guarantees: a table that vanished, or was replaced by another, is an error.
Never does: write.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from sfwriter.exceptions import WriterTableError
from sfwriter.storage.commit_notes import REMEMBERED_COMMITS, CommitNote
from sfwriter.storage.engine import TableStats
from sfwriter.storage.place import LOG_FOLDER
from sfwriter.storage.spark_faults import reported_by_spark, said

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

    from sfwriter.storage.engine import Mark, TableSpec
    from sfwriter.storage.spark_bridge import SparkBridge

_TXN = "txn STRUCT<appId: STRING, version: BIGINT>"
_MISSING = re.compile(
    r"DELTA_MISSING_DELTA_TABLE|DELTA_TABLE_NOT_FOUND|TABLE_OR_VIEW_NOT_FOUND|PATH_NOT_FOUND"
    r"|DELTA_PATH_DOES_NOT_EXIST|DELTA_MISSING_TRANSACTION_LOG|is not a Delta table|doesn't exist"
)
_NEWEST = 20


class SparkLook:
    """Looks at one table. Thread-safe."""

    def __init__(self, spec: TableSpec, bridge: SparkBridge, address: str) -> None:
        """Touches nothing yet."""
        self._spec = spec
        self._bridge = bridge
        self._address = address
        self._by_path = address.startswith("delta.")
        self._table_id: str | None = None
        self._location = spec.location

    def stats(self, *, counted: bool = True) -> TableStats:
        """What is there; `counted` False leaves the number of rows out."""
        self._bridge.check()
        with reported_by_spark("look at", self._spec), self._bridge.acting() as session:
            detail = self._detail(session)
            self._check(None if detail is None else str(detail["id"]))
            if detail is None:
                return TableStats(exists=False)
            self._location = str(detail["location"])
            newest = session.sql(f"DESCRIBE HISTORY {self._address} LIMIT 1").collect()[0]
            rows = session.sql(f"SELECT count(*) FROM {self._address}").collect()[0][0] if counted else 0  # noqa: S608  quoted
            return TableStats(
                exists=True,
                version=int(newest["version"]),
                rows=int(rows),
                files=int(detail["numFiles"] or 0),
                size_bytes=int(detail["sizeInBytes"] or 0),
                schema=_schema_of(session.table(self._address).schema),
                partition_columns=tuple(detail["partitionColumns"]),
                last_modified_ms=int(newest["timestamp"].timestamp() * 1000),
                properties=dict(detail["properties"] or {}),
            )

    def _detail(self, session: Any) -> Any:
        try:
            (detail,) = session.sql(f"DESCRIBE DETAIL {self._address}").collect()
        except Exception as error:
            if _MISSING.search(said(error)):
                return None
            raise
        return detail if str(detail["format"]) == "delta" and detail["id"] else None

    def _check(self, found: str | None) -> None:
        if self._table_id is None:
            self._table_id = found
        elif found != self._table_id:
            what = "is gone" if found is None else "was replaced by another table"
            raise WriterTableError(
                f"Table {self._spec.name} at {self._address} {what} since it was opened.",
                context={"table": self._spec.name, "location": self._spec.location},
                suggestions=["See who removed it: rows that were acknowledged went with it."],
                code="table_gone",
            )

    def frame(self, session: Any) -> Any:
        """The table as a DataFrame."""
        return session.table(self._address)

    def save(self, writer: Any) -> None:
        """Carry a DataFrameWriter out on the table."""
        if self._by_path:
            writer.save(self._spec.location)
        else:
            writer.saveAsTable(self._address)

    def sequences(self, producers: Sequence[str]) -> dict[str, int | None]:
        """Highest committed numbers, from the entries and checkpoints of the log."""
        with reported_by_spark("read the log of", self._spec), self._bridge.acting() as session:
            log = f"{self._location.rstrip('/')}/{LOG_FOLDER}"
            entries = session.read.schema(_TXN).option("pathGlobFilter", "*.json").json(log)
            checkpoints = session.read.schema(_TXN).option("pathGlobFilter", "*.checkpoint*.parquet").parquet(log)
            found = (
                entries.select("txn.*").union(checkpoints.select("txn.*"))
                .where("appId IS NOT NULL").groupBy("appId").max("version").collect()
            )  # fmt: skip
        known = {row[0]: int(row[1]) for row in found}
        return {producer: known.get(producer) for producer in producers}

    def history(self, limit: int) -> list[dict[str, Any]]:
        """The newest entries, newest first."""
        with reported_by_spark("read the history of", self._spec), self._bridge.acting() as session:
            found = session.sql(f"DESCRIBE HISTORY {self._address} LIMIT {int(limit)}").collect()
        return [row.asDict(recursive=True) for row in found]

    def marks(self, producers: Sequence[str]) -> dict[str, dict[int, tuple[Mark, int]]]:
        """Each producer's marks, as far as the log remembers."""
        marks: dict[str, dict[int, tuple[Mark, int]]] = {producer: {} for producer in producers}
        for entry in self.history(REMEMBERED_COMMITS):
            note = CommitNote.from_entry(entry)
            for producer, found in {} if note is None else note.marks.items():
                if producer in marks:
                    marks[producer].update({number: (mark, int(entry["version"])) for number, mark in found.items()})
        return marks

    def version_of(self, note: CommitNote) -> int | None:
        """The version that was committed with this note; None where none of the newest was."""
        text = note.to_text()
        for entry in self.history(_NEWEST):
            if entry.get("userMetadata") == text:
                return int(entry["version"])
        return None


def _schema_of(kinds: Any) -> pa.Schema:
    from pyspark.sql.pandas.types import to_arrow_schema

    return to_arrow_schema(kinds, timezone="UTC")
