"""Rows that come to the coordinator without a client: gate, rules and anomalies for them, beside its loop."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sfwriter.anomaly.watches import Watches
from sfwriter.exceptions import WriterError, WriterSchemaError
from sfwriter.ingest.gate import Gate
from sfwriter.ingest.partitions import rules_with_partitions
from sfwriter.ingest.routes import Router
from sfwriter.runtime.examining import Examiner, Findings, rules_of
from sfwriter.runtime.routing import by_table, routed
from sfwriter.runtime.telling import Teller

if TYPE_CHECKING:
    from collections.abc import Callable

    from sfwriter.batch import EncodedBatch
    from sfwriter.clock import Clock
    from sfwriter.config import WriterConfig
    from sfwriter.ingest.gate import Gated
    from sfwriter.storage.engine import Table


class Direct:
    """What a client does on its own side. Its calls go to `thread`, one at a time."""

    def __init__(
        self, config: WriterConfig, log_table: Table, open_table: Callable[[str], Table], clock: Clock
    ) -> None:
        """Prepare; the table is looked at, and may be missing or unreadable. `open_table` opens any."""
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="gate")
        self._config = config
        self._clock = clock
        self._table = log_table
        self._log = Teller(None)
        schema = self._schema()
        rules = rules_of(config, schema, clock.now)
        self.router = Router(config, clock) if config.is_routed else None
        gate = Gate(
            config.schema_validation_mode,
            evolution=config.enable_schema_evolution,
            more_rules=rules_with_partitions(
                self.router.breaches if self.router is not None else None,
                config.partition_columns,
                config.schema_validation_mode,
            ),
            rules=rules,
        )
        self._gate = gate if schema is None else gate.with_schema(schema)
        self._examiner = Examiner(config, rules)
        self._watches = Watches(open_table, clock)

    def admit(self, rows: Any, run_id: str | None) -> tuple[Gated, EncodedBatch, Findings, float]:
        """What the gate says, the batch with what is committed beside it, what was found out, and the seconds it took.

        Raises:
            WriterError: as `LogWriter.write_log_rows`.
        """
        began = self._clock.monotonic()
        try:
            gated = self._gate.admit(rows, run_id)
        except WriterSchemaError:
            # Somebody may have changed the table meanwhile.
            if not self._know_columns():
                raise
            gated = self._gate.admit(rows, run_id)
        batch = gated.batch if self.router is None else routed(self._config, gated.batch, self.router)
        findings = self._examiner.findings(gated.judged, gated.batch.run_id)
        if self._config.enable_anomaly_detection:
            findings = replace(findings, anomalies=self._anomalies(gated))
        batch = replace(batch, beside={**batch.beside, **findings.beside})
        return gated, batch, findings, self._clock.monotonic() - began

    def remember(self, gated: Gated) -> None:
        """Rows that are committed belong to the history of their steps."""
        self._watches.remember(by_table(self._config, gated.batch.rows, self.router))

    def _anomalies(self, gated: Gated) -> Any:
        try:
            return self._watches.check(by_table(self._config, gated.batch.rows, self.router))
        except WriterError as error:  # which fails no write
            self._log.warning("{}: anomalies not looked for: {}", self._table.spec.name, error.message)
            return None

    def _know_columns(self) -> bool:
        schema = self._schema()
        if schema is None:
            return False
        self._gate = self._gate.with_schema(schema)
        return True

    def _schema(self) -> Any:
        """Of the table; None where there is none, or none that can be read (writing says so)."""
        try:
            return self._table.stats().schema
        except WriterError:
            return None
