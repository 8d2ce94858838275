"""Rows out of quarantine, through the gate once more: each at most once, whoever tries and however often.

Receives: the quarantine table, and the calls that admit a row and send it on its way.
Produces: how many rows were written, stayed, and had been written before.
Guarantees: each row is a batch of a producer of its own (`producer_of`) with number 0, and the log table keeps
    that number for ever: a second replay, a crash in between or two replays at once cannot write a row twice.
Never does: change the quarantine table.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sfwriter.batch import KEY_PREFIX
from sfwriter.exceptions import WriterValidationError
from sfwriter.ingest.jsontext import parse_row
from sfwriter.runtime.bulk import BulkWrite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Future

    from sfwriter.clock import Clock
    from sfwriter.ingest.gate import Gated
    from sfwriter.results import ReplayResult, WriteResult
    from sfwriter.storage.engine import TableReader, TableWriter

    Repair = Callable[[dict[str, Any], list[str]], Any]

_LOOKED_UP = 10_000
"""Producers in one look at the log."""


def producer_of(quarantine_id: str) -> str:
    """The producer of one row out of quarantine."""
    return f"{KEY_PREFIX}replay:{quarantine_id}"


def replayed(log_table: TableWriter, quarantine_ids: Sequence[str]) -> set[str]:
    """Which of these rows were written since."""
    found: set[str] = set()
    for start in range(0, len(quarantine_ids), _LOOKED_UP):
        part = quarantine_ids[start : start + _LOOKED_UP]
        marks = log_table.last_sequence([producer_of(one) for one in part])
        found.update(one for one in part if marks[producer_of(one)].sequence is not None)
    return found


class QuarantineReplay:
    """One call of `replay_quarantine`. One thread."""

    def __init__(
        self,
        quarantine: TableReader,
        log_table: TableWriter,
        *,
        encode: Callable[[dict[str, Any]], Gated | None],
        send: Callable[[Gated, str], Future[WriteResult]],
        hurry: Callable[[], object],
        clock: Clock,
    ) -> None:
        """Prepare a call.

        Args:
            quarantine: the table of the rows.
            log_table: keeps the numbers.
            encode: admits one row; None where it is still invalid.
            send: sends what was admitted, as number 0 of a producer.
            hurry: says that nothing more comes for now.
            clock: for the duration.
        """
        self._quarantine = quarantine
        self._log_table = log_table
        self._encode = encode
        self._send = send
        self._hurry = hurry
        self._clock = clock
        self._still_invalid = 0

    def run(self, repair: Repair | None, limit: int | None) -> ReplayResult:
        """Send the oldest rows that were not written yet, `limit` of them at most."""
        chosen, already = self._chosen(limit)
        bulk = BulkWrite(
            lambda admitted, _: self._send(*admitted), self._hurry, None, self._clock, call="replay_quarantine"
        )
        result = bulk.run(self._admitted(chosen, repair))
        return {
            "replayed": result["rows_written"],
            "still_invalid": self._still_invalid,
            "already_replayed": already + result["already_written"],
        }

    def _chosen(self, limit: int | None) -> tuple[set[str], int]:
        """The rows to send, and how many were written before."""
        if not self._quarantine.stats().exists:
            return set(), 0
        rows = self._quarantine.scan(["quarantine_id", "quarantined_at"]).read_all()
        ids = rows.sort_by("quarantined_at").column("quarantine_id").to_pylist()
        done = replayed(self._log_table, ids)
        waiting = [one for one in ids if one not in done]
        return set(waiting if limit is None else waiting[:limit]), len(done)

    def _admitted(self, chosen: set[str], repair: Repair | None) -> Iterator[tuple[Gated, str]]:
        if not chosen:
            return
        for batch in self._quarantine.scan(["quarantine_id", "row", "reasons"]):
            for kept in batch.to_pylist():
                if kept["quarantine_id"] not in chosen:
                    continue
                row = parse_row(kept["row"])
                repaired = row if repair is None else repair(row, list(kept["reasons"]))
                gated = None if repaired is None else self._encode(_checked(repaired))
                if gated is None:
                    self._still_invalid += 1
                else:
                    yield gated, producer_of(kept["quarantine_id"])


def _checked(row: Any) -> Any:
    if isinstance(row, (str, bytes, list, tuple, bool, int, float)) or (
        not isinstance(row, Mapping) and not hasattr(row, "__dict__")
    ):
        raise WriterValidationError(
            f"repair gave a {type(row).__name__}, expected the row as a dict, or None to keep it in quarantine",
            context={"given": type(row).__name__},
            suggestions=["e.g. repair=lambda row, reasons: {**row, 'phase': 'bronze'}"],
        )
    return row
