"""What a client has given and not been answered: numbers, order, and what must be sent again. Pure.

A line is one producer's. Its batches are sent in the order of their numbers; where the caller chose
none, a batch gets its number when it is first sent and keeps it through every resending. Where a
number was refused, the line waits until all that it has sent is answered: then the batches behind the
refused one are numbered anew.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import TYPE_CHECKING

from sfwriter.flow.vocabulary import Reason

if TYPE_CHECKING:
    from concurrent.futures import Future

    from sfwriter.runtime.channel import Delivery, Receipt


_AHEAD = frozenset({Reason.GAP, Reason.OUTCOME_UNKNOWN})
"""How a batch is refused that came before its turn: a machine answers for sure only where it was never sent before."""


class Outbound:
    """One delivery that is not settled.

    Attributes:
        number: as sent, None while it has none.
        resent: it was sent before and the answer was lost.
        queued_at: when it joined the queue, the client's time.
        tables: that it has rows for, as its shares name them; empty before it is sent.
    """

    __slots__ = ("delivery", "future", "line", "nbytes", "number", "queued_at", "resent", "tables")

    def __init__(self, delivery: Delivery, future: Future[Receipt], line: Line, now: float) -> None:
        """Begin a delivery that was not sent."""
        self.delivery = delivery
        self.future = future
        self.line = line
        self.nbytes = delivery.batch.nbytes
        self.number = delivery.sequence
        self.resent = False
        self.queued_at = now
        self.tables: tuple[str | None, ...] = ()

    @property
    def assigned(self) -> bool:
        """Whether its number is the client's choice."""
        return self.delivery.sequence is None


class Line:
    """One producer's deliveries.

    Attributes:
        next_number: that the next batch without one gets; None while the table must be asked first.
        committed: the highest number that is known to be committed, and so are all below it; -1: none.
        broken: a number was refused, and not all that was sent is answered yet.
    """

    __slots__ = ("broken", "committed", "next_number", "producer_id", "queued", "sent")

    def __init__(self, producer_id: str, next_number: int | None) -> None:
        """Begin a line."""
        self.producer_id = producer_id
        self.next_number = next_number
        self.committed = -1
        self.queued: deque[Outbound] = deque()
        self.sent: dict[int, Outbound] = {}
        self.broken = False


class Window:
    """All lines of a client. Not thread-safe."""

    def __init__(self) -> None:
        """Begin empty."""
        self.lines: dict[str, Line] = {}
        self._ready: OrderedDict[str, Line] = OrderedDict()
        self.queued_bytes = 0
        self.held_bytes = 0
        self.held = 0

    def add(self, delivery: Delivery, future: Future[Receipt], now: float, *, fresh: bool) -> Outbound:
        """Queue a delivery. `fresh`: nobody can have used its producer before, so its numbers begin at 0."""
        line = self.lines.get(delivery.producer_id)
        if line is None:
            line = self.lines[delivery.producer_id] = Line(delivery.producer_id, 0 if fresh else None)
        outbound = Outbound(delivery, future, line, now)
        line.queued.append(outbound)
        self._ready.setdefault(line.producer_id, line)
        self.queued_bytes += outbound.nbytes
        self.held_bytes += outbound.nbytes
        self.held += 1
        return outbound

    def oldest(self) -> float | None:
        """When the longest waiting of the batches that could be sent was queued; None: there is none."""
        times = [line.queued[0].queued_at for line in self._ready.values() if not line.broken]
        return min(times, default=None)

    def must_ask(self) -> str | None:
        """A producer whose next number has to be read from the table before its batches can be sent."""
        for line in self._ready.values():
            if line.next_number is None and not line.broken and line.queued[0].number is None:
                return line.producer_id
        return None

    def take(self, max_bytes: int, max_batches: int) -> list[Outbound]:
        """Take the next batches to send together: in order, at least one if any is ready."""
        taken: list[Outbound] = []
        size = 0
        for line in list(self._ready.values()):
            while line.queued and not line.broken and not (line.queued[0].number is None and line.next_number is None):
                outbound = line.queued[0]
                if taken and (size + outbound.nbytes > max_bytes or len(taken) == max_batches):
                    return taken
                line.queued.popleft()
                self._number(line, outbound)
                self.queued_bytes -= outbound.nbytes
                size += outbound.nbytes
                taken.append(outbound)
            if not line.queued:
                self._ready.pop(line.producer_id, None)
        return taken

    def lost(self, outbounds: list[Outbound]) -> None:
        """The answer to these will not come: queue them again, in the order of their numbers."""
        for outbound in outbounds:
            outbound.resent = True
            self._requeue(outbound)

    def refused(self, outbound: Outbound, reason: Reason, expected: int | None) -> bool:
        """Take note of a refusal. True: the batch is sent again; False: its caller is to be told."""
        line = outbound.line
        if reason in _AHEAD and self._overtook(outbound, expected):
            # Those before it are still on their way, or were when it was refused.
            self._requeue(outbound)
            return True
        again = reason in {Reason.PREDECESSOR, Reason.GAP} and outbound.assigned and outbound.delivery.alone
        if outbound.assigned:
            self._break(line, outbound, expected)
        if again and not outbound.resent:
            line.sent.pop(outbound.number if outbound.number is not None else -1, None)
            outbound.number = None
            self._requeue(outbound, behind=True)
            self._mend(line)
            return True
        self.settled(outbound)
        return False

    def committed(self, outbound: Outbound) -> None:
        """Let go of a delivery that is acknowledged."""
        if outbound.number is not None:
            outbound.line.committed = max(outbound.line.committed, outbound.number)
        self.settled(outbound)

    def settled(self, outbound: Outbound) -> None:
        """Let go of a delivery that is answered, and of its line where nothing else is in it."""
        line = outbound.line
        if outbound.number is not None and line.sent.get(outbound.number) is outbound:
            del line.sent[outbound.number]
        self.held_bytes -= outbound.nbytes
        self.held -= 1
        self._mend(line)

    def withdraw(self, outbound: Outbound) -> bool:
        """Take back a delivery that was never sent; False: it was."""
        if outbound.resent or outbound not in outbound.line.queued:
            return False
        self.drop(outbound)
        return True

    def drop(self, outbound: Outbound) -> None:
        """Let go of a delivery, wherever it is."""
        line = outbound.line
        if outbound in line.queued:
            line.queued.remove(outbound)
            self.queued_bytes -= outbound.nbytes
            if not line.queued:
                self._ready.pop(line.producer_id, None)
        self.settled(outbound)

    def know(self, producer_id: str, committed: int | None) -> None:
        """Set where a line goes on."""
        line = self.lines.get(producer_id)
        if line is not None and line.next_number is None:
            line.next_number = 0 if committed is None else committed + 1

    def unsettled(self) -> list[Outbound]:
        """Everything that is held."""
        return [o for line in self.lines.values() for o in [*line.sent.values(), *line.queued]]

    def _number(self, line: Line, outbound: Outbound) -> None:
        if outbound.number is None:
            if line.next_number is None:
                raise ValueError(f"the next number of {line.producer_id!r} is not known")
            outbound.number = line.next_number
        if line.next_number is None or outbound.number >= line.next_number:
            line.next_number = outbound.number + 1
        line.sent[outbound.number] = outbound

    def _requeue(self, outbound: Outbound, *, behind: bool = False) -> None:
        """Put a batch back at its place: numbered ones in order, then those that lost their number."""
        line = outbound.line
        if outbound.number is not None and line.sent.get(outbound.number) is outbound:
            del line.sent[outbound.number]
        place = 0
        for other in line.queued:
            before = other.number is not None and (behind or other.number < (outbound.number or 0))
            if not (before or (behind and other.number is None and other.queued_at <= outbound.queued_at)):
                break
            place += 1
        line.queued.insert(place, outbound)
        self._ready.setdefault(line.producer_id, line)
        self.queued_bytes += outbound.nbytes

    def _break(self, line: Line, outbound: Outbound, expected: int | None) -> None:
        number = outbound.number if outbound.number is not None else 0
        restart = number if expected is None else expected
        line.next_number = restart if not line.broken or line.next_number is None else min(line.next_number, restart)
        line.broken = True

    def _mend(self, line: Line) -> None:
        if not line.sent:
            line.broken = False
            if line.queued:
                self._ready.setdefault(line.producer_id, line)

    @staticmethod
    def _overtook(outbound: Outbound, expected: int | None) -> bool:
        """Whether a batch came before others of its line, whose turn it was and who are not refused."""
        number = outbound.number
        if number is None or expected is None or expected >= number:
            return False
        line = outbound.line
        if expected <= line.committed:
            return True
        others = [*line.sent.values(), *line.queued]
        return any(other.number is not None and expected <= other.number < number for other in others)
