"""Spark `Column`s as rules: worked out by Spark, row by row.

Receives: columns as users write them (`F.col("duration_secs") >= 0`), and rows in the log table's types.
Produces: true, false or null for each row, in the rows' order.
Guarantees: the answers that SQL text gives where both languages mean the same; Spark's own where they differ (a
    division by zero is null, not an error, and a rule that gives null has failed). What is not boolean, names
    unknown columns, or looks at more than one row is said before any row is judged.
Never does: run in the caller's session.
"""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING, Any

from sfwriter.dictionaries import plain_table
from sfwriter.exceptions import WriterValidationError
from sfwriter.storage.spark_faults import first_words_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

    from sfwriter.storage.spark_bridge import SparkBridge

_OVER = re.compile(r"\bOVER\b|windowspecdefinition", re.IGNORECASE)
_CONF = {"spark.sql.ansi.enabled": "false", "spark.sql.execution.arrow.maxRecordsPerBatch": "1000000"}


class SparkColumnRules:
    """Works columns out through a session of its own. Thread-safe."""

    def __init__(self, bridge: SparkBridge) -> None:
        """Ask nothing yet."""
        self._bridge = bridge
        self._lock = threading.Lock()
        self._session: Any = None

    def problem(self, column: Any, empty: pa.Table) -> str | None:
        """What is wrong with a rule: a phrase that continues its text; None where it is one."""
        if _OVER.search(str(column)):
            return "looks at other rows, and a rule looks at the values of one row only"
        try:
            found = self._frame(empty).select(column)
            kind = found.schema.fields[0].dataType.simpleString()
            if kind != "boolean":
                return f"gives {kind}, and a rule is true or false"
            if found.toArrow().num_rows:
                return "looks at many rows, and a rule looks at the values of one row only"
        except Exception as error:  # noqa: BLE001  py4j and Spark raise many kinds
            return f"is none for Spark: {first_words_of(error)}"
        return None

    def kept(self, columns: Sequence[Any], rows: pa.Table) -> list[Any]:
        """For each column what it says of each row."""
        named = [column.alias(f"r{place}") for place, column in enumerate(columns)]
        try:
            found = self._frame(rows).select(*named).toArrow()
        except Exception as error:
            raise WriterValidationError(
                f"Spark could not work the rules out: {first_words_of(error)}",
                suggestions=["See the rules of validation_rules that are Spark columns."],
            ) from error
        if found.num_rows != rows.num_rows:
            raise WriterValidationError(
                f"The rules gave {found.num_rows} rows for the {rows.num_rows} that there are.",
                suggestions=["A rule looks at one row at a time: no explode(), no aggregate."],
            )
        return list(found.columns)

    def _frame(self, rows: pa.Table) -> Any:
        self._bridge.check()
        with self._lock:
            if self._session is None:
                self._session = self._bridge.private(_CONF)
        return self._session.createDataFrame(plain_table(rows)).coalesce(1)
