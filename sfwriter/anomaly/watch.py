"""Anomalies of the rows of one table: `detect_anomalies`, and the check at each write.

Receives: rows behind the gate, and the table.
Produces: an `AnomalyResult`.
Guarantees: a pipeline's history is read when it is first asked for, and again when it is older than `FRESH_S`, or
    the newest is asked for and the table has a newer version; in between it grows by what this process writes. The
    cost of a check at a write depends on the rows that are checked.
Never does: make a write fail.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from sfwriter.anomaly.history import Histories, Key, Pipeline, Run
from sfwriter.anomaly.judge import Judge, Verdict, missing
from sfwriter.anomaly.model import KEPT
from sfwriter.runtime.query import TIMES, figure, readable, rows_of, twice

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

    from sfwriter.clock import Clock
    from sfwriter.results import AnomalyResult
    from sfwriter.storage.engine import TableReader

FRESH_S = 600.0
"""What other processes write is seen after this time, where the newest is not asked for."""

MANY = 30
"""Runs of a step in one batch among which one of them does not move the median."""

_NUMBERS = ("duration_secs", "rows_processed", "validation_rate")
COLUMNS = ("run_id", "pipeline_id", "step_name", "run_mode", "success", *_NUMBERS, *TIMES)

_NEWEST = f"""
    SELECT pipeline_id, run_mode, step_name, run_id, epoch(moment)::DOUBLE AS happened_at, duration_secs,
           rows_processed, validation_rate, coalesce(success, true) AS success
    FROM (SELECT *, coalesce({", ".join(TIMES)}) AS moment FROM log)
    QUALIFY row_number() OVER (PARTITION BY pipeline_id, run_mode, step_name ORDER BY moment DESC) <= {KEPT}
    ORDER BY happened_at
"""  # noqa: S608  names of columns


class Watch:
    """Knows what is usual in one table. Thread-safe."""

    def __init__(self, table: TableReader, clock: Clock) -> None:
        """Read nothing yet."""
        self._table = table
        self._clock = clock
        self._lock = threading.Lock()
        self._histories = Histories()
        self._judge = Judge()

    def check(self, rows: pa.Table, *, newest: bool = False) -> AnomalyResult:
        """Judge rows.

        Args:
            rows: in the log table's types.
            newest: by the table's newest version.

        Raises:
            WriterTableError: the table cannot be read.
        """
        with self._lock:
            tested = sorted(self._runs(rows), key=lambda one: one[1].at)
            has_table = self._load({(key.pipeline_id, key.run_mode) for key, _ in tested}, newest=newest)
            verdict = self._judge.judge(tested, self._histories.of) if has_table else _among_themselves(tested)
        return {
            "anomalies_detected": bool(verdict.anomalies),
            "anomaly_count": len(verdict.anomalies),
            "anomalies": verdict.anomalies,
            "history_too_short": [{**key._asdict(), "earlier_runs": count} for key, count in verdict.too_short],
        }

    def remember(self, rows: pa.Table) -> None:
        """Take in rows that were written."""
        with self._lock:
            for key, run in self._runs(rows):
                pipeline = self._histories.of(key.pipeline_id, key.run_mode)
                if pipeline.loaded_at is not None:
                    pipeline.add(key.step_name, run)

    def _runs(self, rows: pa.Table) -> Iterator[tuple[Key, Run]]:
        now = self._clock.now().timestamp()
        names = [name for name in COLUMNS if name in rows.column_names]
        for row in rows.select(names).to_pylist():
            moment = next((row[name] for name in TIMES if row.get(name) is not None), None)
            at = now if moment is None else moment.timestamp()
            duration, processed, rate = (figure(row[name]) for name in _NUMBERS)
            yield (
                Key(row["pipeline_id"], row["step_name"], row["run_mode"]),
                Run(row["run_id"], at, duration, processed, rate, row["success"] is not False),
            )

    def _load(self, wanted: set[tuple[str | None, str | None]], *, newest: bool) -> bool:
        """Read the histories that are missing or old; False where there is no table."""
        now = self._clock.monotonic()
        version = self._table.stats().version if newest else None
        old = [key for key in wanted if self._histories.of(*key).is_old(now - FRESH_S, version)]
        if not old:
            return True
        found = twice(lambda: self._read({pipeline_id for pipeline_id, _ in old}))
        if found is None:
            return False
        read, pipelines = found
        for key in {*old, *(key for key in pipelines if key not in wanted)}:
            pipeline = pipelines.get(key, Pipeline())
            pipeline.loaded_at, pipeline.version = now, read
            self._histories.put(*key, pipeline)
        return True

    def _read(self, pipelines: set[str | None]) -> tuple[int, dict[tuple[str | None, str | None], Pipeline]] | None:
        """A version, and histories that are at least as new; None where there is no table."""
        stats = self._table.stats()
        if stats.schema is None:
            return None
        known = set(stats.schema.names)
        predicate = _one_of(pipelines) if "pipeline_id" in known else None
        reader = self._table.scan(readable(stats.schema, COLUMNS), predicate)
        found: dict[tuple[str | None, str | None], Pipeline] = {}
        with rows_of(reader, COLUMNS) as log:
            for pipeline_id, run_mode, step_name, *run in log.tuples(_NEWEST):
                pipeline = found.setdefault((pipeline_id, run_mode), Pipeline())
                pipeline.add(step_name, Run(*run))
        return stats.version, found


def _one_of(pipelines: set[str | None]) -> str:
    named = sorted(name for name in pipelines if name is not None)
    texts = ", ".join("'" + name.replace("'", "''") + "'" for name in named)
    parts = ([f'"pipeline_id" IN ({texts})'] if named else []) + (
        ['"pipeline_id" IS NULL'] if None in pipelines else []
    )
    return "(" + " OR ".join(parts) + ")"


def _among_themselves(tested: list[tuple[Key, Run]]) -> Verdict:
    """Without a table each row is judged by the others of the batch; among many it makes no difference itself."""
    histories = Histories()
    groups: dict[Key, list[tuple[Key, Run]]] = {}
    for key, run in tested:
        histories.of(key.pipeline_id, key.run_mode).add(key.step_name, run)
        groups.setdefault(key, []).append((key, run))
    verdicts = []
    for group in groups.values():
        if len(group) > MANY:
            verdicts.append(Judge().rows(group, histories.of, left_out=False))
        else:
            verdicts += [Judge().rows([one], histories.of) for one in group]
    short = {key: count for verdict in verdicts for key, count in verdict.too_short}
    found = [one for verdict in verdicts for one in verdict.anomalies]
    return Verdict([*found, *missing(tested, histories.of)], list(short.items()))
