"""How the machine looks at a table, and what it concludes for what is pending."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sfwriter.flow.batches import BatchState
from sfwriter.flow.vocabulary import ReadWatermarks, Reason, Refused

if TYPE_CHECKING:
    from sfwriter.flow.core import Core
    from sfwriter.flow.lane import Lane
    from sfwriter.flow.producers import Stand
    from sfwriter.flow.vocabulary import Fault, WatermarksFailed, WatermarksRead


class Looking:
    """Asks for watermarks, one look at a time for each table, and compares them with what is pending."""

    def __init__(self, core: Core) -> None:
        """Work on a machine's state."""
        self._core = core

    def begin(self, lane: Lane) -> None:
        """Begin a look if one is wanted and may begin."""
        if lane.wanted and lane.reading is None and lane.read_not_before <= self._core.now:
            lane.reading, lane.wanted = lane.wanted, {}
            self._core.out.append(ReadWatermarks(lane.table, tuple(lane.reading)))

    def read(self, event: WatermarksRead) -> None:
        """A look has ended well."""
        lane = self._core.lanes[event.table]
        lane.read_failures = 0
        for identity, stand in self._end(lane).items():
            stand.read(event.marks[identity])
            self._settle(stand)
            self._core.unplaced[stand.producer] = None

    def failed(self, event: WatermarksFailed) -> None:
        """A look has ended badly: try again, or answer what depends on it."""
        core, lane = self._core, self._core.lanes[event.table]
        stands = self._end(lane)
        if event.fault.retriable and lane.read_failures < core.limits.retry.max_retries:
            lane.read_failures += 1
            lane.read_not_before = core.retry_at(lane.read_failures)
            core.ring_at(lane.read_not_before, lane)
            lane.wanted = {**stands, **lane.wanted}
            return
        lane.read_failures = 0
        for stand in stands.values():
            self._give_up(stand, event.fault)

    def _end(self, lane: Lane) -> dict[str, Stand]:
        if lane.reading is None:
            raise ValueError(f"nobody looks at {lane.table}")
        stands, lane.reading = lane.reading, None
        self._core.touch(lane)
        return stands

    def _settle(self, stand: Stand) -> None:
        """Compare what is pending with what the table says."""
        core = self._core
        if stand.pending and stand.pending[0].answers:
            self._settle_answering(stand)
        else:
            core.settle_parts(stand)
        if stand.pending:
            head = stand.pending[0]
            spent = head.job.spent if head.job is not None else None
            if spent is not None:
                core.refuse(head.batch, Reason.COMMIT_FAILED, spent)

    def _settle_answering(self, stand: Stand) -> None:
        """Answer what is there; refuse what is another's, and what the table has gone back behind."""
        while stand.pending and stand.pending[0].number != stand.next_number():
            self._core.settle(stand.pending[0].batch, stand)

    def _give_up(self, stand: Stand, fault: Fault) -> None:
        """Answer what depends on a look at a table that cannot be had."""
        core, producer, table = self._core, stand.producer, stand.lane.table
        stand.asked = False
        for piece in list(stand.pending):
            if piece.batch.state is not BatchState.DONE:
                core.refuse(piece.batch, Reason.TABLE_FAILED, fault)
        if producer.stands.get(table) is not stand:
            return
        for batch in [batch for batch in producer.placing if any(part.table == table for part in batch.given.parts)]:
            producer.placing.remove(batch)
            reason = Reason.OUTCOME_UNKNOWN if batch.in_doubt else Reason.TABLE_FAILED
            core.finish(batch, Refused(reason, batch.sequence, None, fault))
        core.unplaced[producer] = None
