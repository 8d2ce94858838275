"""What a coordinator counts: batches, rows, bytes, and how long each stage took, in all, by table, by producer. Pure.

Receives: what came, what was done, what was answered, and the seconds that it took.
Produces: the figures that the metrics are made of.
Guarantees: as much memory as keys are kept for (`Tally`), however many tables and producers there are.
Never does: read a clock.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING, Any

from actors.tally import Histogram, Tally
from sfwriter.metrics import percentile

if TYPE_CHECKING:
    from collections.abc import Iterable

    from actors.wire import Ack, Entry, Parcel
    from sfwriter.flow.vocabulary import Acknowledged

KEPT_LATENCIES = 4096
STAGES = ("gate", "encode", "wait", "stage", "commit", "total", "ack")
"""The client's gate, and its packing for the wire; waiting for a writer; its work; the commit; from the batch's
arrival to its answer; from the call to the client's having the answer (which it tells with what it sends next)."""


KEPT_PRODUCERS = 10_000
"""Whose quarantined rows are counted by themselves; whoever came first is forgotten first."""


class Figures:
    """The counts of one life of a coordinator."""

    def __init__(self, log_table: str, quarantine_table: str) -> None:
        """Begin at zero.

        Args:
            log_table: the table that answers, which shares do not name.
            quarantine_table: whose rows are counted apart.
        """
        self._log_table = log_table
        self._quarantine_table = quarantine_table
        self.commits: Counter[str] = Counter()
        self.retries = self.refusals = self.quarantined = 0
        self.quarantined_of: Counter[str] = Counter()
        self._rows = self._bytes = self._batches = 0
        self._latencies: dict[str, deque[float]] = {stage: deque(maxlen=KEPT_LATENCIES) for stage in STAGES}
        self._histograms = {stage: Histogram() for stage in STAGES}
        self._by_table, self._by_producer = Tally(), Tally()

    def came(self, parcel: Parcel) -> None:
        """A client sent this, with what it measured on its side."""
        tables: dict[str, None] = {}
        producers: dict[str, None] = {}
        for entry in parcel.entries:
            own = dict.fromkeys(share.table or self._log_table for share in entry.shares)
            self.took("gate", entry.gate_secs, own, [entry.producer_id])
            tables.update(own)
            producers[entry.producer_id] = None
        self.took("encode", parcel.packed_secs, tables, producers)
        self.heard(parcel.acks)

    def heard(self, acks: Iterable[Ack]) -> None:
        """A client has had these answers."""
        for ack in acks:
            tables = [table or self._log_table for table in ack.tables]
            self.took("ack", ack.secs, tables, [ack.producer_id])

    def took(self, stage: str, secs: float, tables: Iterable[str], producers: Iterable[str]) -> None:
        """A stage took so long, for these tables and producers."""
        self._latencies[stage].append(secs)
        self._histograms[stage].add(secs)
        for table in tables:
            self._by_table.took(table, stage, secs)
        for producer in producers:
            self._by_producer.took(producer, stage, secs)

    def acknowledged(self, entry: Entry, answer: Acknowledged, secs: float) -> None:
        """A batch was acknowledged `secs` after it came."""
        self._batches += 1
        if answer.already:
            return
        rows = sum(share.rows for share in entry.shares if share.table != self._quarantine_table)
        nbytes = sum(share.nbytes for share in entry.shares)
        self._by_producer.add(answer.token.producer_id, rows, nbytes, secs)
        for share in entry.shares:
            self._by_table.add(share.table or self._log_table, share.rows, share.nbytes, secs)
            if share.table == self._quarantine_table:
                self.quarantined += share.rows
                self.quarantined_of[answer.token.producer_id] += share.rows
                if len(self.quarantined_of) > KEPT_PRODUCERS:
                    del self.quarantined_of[next(iter(self.quarantined_of))]
            else:
                self._rows += share.rows
                self._bytes += share.nbytes

    def counts(self) -> dict[str, int]:
        """What there was in all."""
        return {
            "rows_total": self._rows,
            "bytes_total": self._bytes,
            "batches_total": self._batches,
            "commits_total": self.commits.total(),
            "quarantined_rows_total": self.quarantined,
            "refusals_total": self.refusals,
            "retries_total": self.retries,
        }

    def times(self) -> dict[str, Any]:
        """Percentiles; histograms and tallies as such: spelling them out is for whoever shows them.

        They are copies: Ray packs what a method returns on another thread, while the next call counts on.
        """
        latencies = {
            stage: {f"p{p}": percentile(ordered, p) for p in (50, 95, 99)}
            for stage, ordered in ((stage, sorted(kept)) for stage, kept in self._latencies.items())
        }
        return {
            "latency_secs": latencies,
            "histograms": {stage: histogram.copy() for stage, histogram in self._histograms.items()},
            "tables": self._by_table.copy(),
            "producers": self._by_producer.copy(),
        }
