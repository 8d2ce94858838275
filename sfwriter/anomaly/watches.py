"""Anomalies of rows that go to several tables: each row is compared with the history of its own table.

Receives: rows behind the gate, by the table that they go to.
Produces: one `AnomalyResult` for all of them.
Guarantees: as many tables are remembered as `MOST_TABLES`, those that were asked for last.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

from sfwriter.anomaly.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import pyarrow as pa

    from sfwriter.clock import Clock
    from sfwriter.results import AnomalyResult
    from sfwriter.storage.engine import TableReader

MOST_TABLES = 256


class Watches:
    """A `Watch` for each table. Thread-safe."""

    def __init__(self, open_table: Callable[[str], TableReader], clock: Clock) -> None:
        """Open no table yet."""
        self._open_table = open_table
        self._clock = clock
        self._lock = threading.Lock()
        self._watches: OrderedDict[str, Watch] = OrderedDict()

    def check(self, tables: Mapping[str, pa.Table], *, newest: bool = False) -> AnomalyResult:
        """Judge rows.

        Args:
            tables: table name to its rows, in the log table's types.
            newest: by the newest version of each table.

        Raises:
            WriterTableError: a table cannot be read.
        """
        results = [self._of(name).check(rows, newest=newest) for name, rows in tables.items()]
        anomalies = [anomaly for result in results for anomaly in result["anomalies"]]
        return {
            "anomalies_detected": bool(anomalies),
            "anomaly_count": len(anomalies),
            "anomalies": anomalies,
            "history_too_short": [short for result in results for short in result["history_too_short"]],
        }

    def remember(self, tables: Mapping[str, pa.Table]) -> None:
        """Take in rows that were written."""
        for name, rows in tables.items():
            self._of(name).remember(rows)

    def _of(self, name: str) -> Watch:
        with self._lock:
            watch = self._watches.pop(name, None) or Watch(self._open_table(name), self._clock)
            self._watches[name] = watch
            if len(self._watches) > MOST_TABLES:
                self._watches.popitem(last=False)
            return watch
