"""The machine that decides: events in, commands out.

Receives: events of `sfwriter.flow.vocabulary`, with the time at which they happened.
Produces: the commands that follow, in the order in which they are to be begun.
Guarantees: every submission is answered once; an acknowledged batch is in its table once; each
    producer's numbers land without gaps; reserved bytes never exceed the budget and all come back;
    what waits for memory is let in by turns, each client as many bytes as its weight gives it.
Never does: I/O, waiting, locking, reading a clock. One thread at a time.

The theory. A commit carries, for each producer in it, the highest number that it brings (`upto`) and
the one that it was planned on (`after`); the engine refuses it where the table has another one. So of
two commits that were planned on the same state only one lands, and a commit that comes late, from a
committer that was frozen, meets a table that has gone on and is refused. What is left is the commit of
which nobody knows how it ended: the machine looks at the table before it does anything else with those
producers, and the marks kept with each commit tell its own batches from a rival's.

A refused batch takes those behind it with it (`PREDECESSOR`), and its number is free again. The other
way, committing the number without its rows, would make a caller who numbers its own batches read
"already written" when it tries the refused one again.

The parts. `core` keeps the books and settles batches; `admission`, `staging`, `committing` and
`looking` each handle their events on it, and leave notes of what may go on. This module hands events
to them, rings timers, and follows the notes until nothing more can begin.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sfwriter.flow.admission import Admission
from sfwriter.flow.batches import Batch, BatchState
from sfwriter.flow.committing import Committing
from sfwriter.flow.core import Core
from sfwriter.flow.lane import Lane
from sfwriter.flow.looking import Looking
from sfwriter.flow.staging import Staging
from sfwriter.flow.vocabulary import (
    Closed,
    CommitConflicted,
    CommitInDoubt,
    CommitLanded,
    CommitRefused,
    Flushed,
    Reason,
    SlotsChanged,
    Staged,
    StagedLost,
    StagingFailed,
    Submitted,
    Ticked,
    WatermarksFailed,
    WatermarksRead,
    Withdrawn,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from sfwriter.flow.budget import Budget
    from sfwriter.flow.limits import FlowLimits
    from sfwriter.flow.producers import Producer
    from sfwriter.flow.vocabulary import Command, Event


class Machine:
    """The state of everything that was submitted and is not answered. See the module's docstring."""

    def __init__(self, limits: FlowLimits, *, name: str = "", seed: int = 0) -> None:
        """Begin empty.

        Args:
            limits: the bounds to keep to.
            name: begins the ids of commit groups; unique to this machine's life, so that a group in
                the log is never taken for another's.
            seed: of the jitter of retries.
        """
        self.limits = limits
        self._core = core = Core(limits, name, seed)
        self._admission = Admission(core)
        self._staging = Staging(core)
        self._committing = Committing(core, self._staging)
        self._looking = Looking(core)
        self._handlers: dict[type, Callable[..., None]] = {
            Submitted: self._admission.submitted,
            Withdrawn: self._admission.withdrawn,
            Staged: self._staging.staged,
            StagingFailed: self._staging.failed,
            CommitLanded: self._committing.landed,
            CommitConflicted: self._committing.conflicted,
            CommitInDoubt: self._committing.in_doubt,
            CommitRefused: self._committing.refused,
            StagedLost: self._committing.lost,
            WatermarksRead: self._looking.read,
            WatermarksFailed: self._looking.failed,
            SlotsChanged: self._slots_changed,
            Ticked: self._ticked,
            Flushed: self._admission.flushed,
            Closed: self._admission.closed,
        }

    def handle(self, event: Event, now: float) -> list[Command]:
        """Take one event and return the commands that follow from it.

        Args:
            event: what happened.
            now: when, in seconds of any clock; one that goes backwards is taken to stand still.
        """
        return self.handle_all((event,), now)

    def handle_all(self, events: Iterable[Event], now: float) -> list[Command]:
        """Take events that happened together: what may begin does so when all are known.

        Batches that come together find an idle table together, and share a job.

        Args:
            events: in their order.
            now: as in `handle`.
        """
        core = self._core
        core.now = max(now, core.now)
        for event in events:
            self._handlers[type(event)](event)
        if core.rings:
            self._ring()
        if core.dirty or core.queue or core.unplaced:
            self._go_on()
        commands, core.out = core.out, []
        return commands

    def wake_at(self) -> float | None:
        """When the machine wants a `Ticked` at the latest; None: not before the next event."""
        return self._core.next_timer()

    @property
    def in_flight(self) -> int:
        """Submissions that are not answered."""
        return len(self._core.tickets)

    def is_waiting(self, ticket: int) -> bool:
        """Whether a submission has not been let in yet: it has no number, or no memory."""
        batch = self._core.tickets.get(ticket)
        return batch is not None and batch.state in {BatchState.PLACING, BatchState.WAITING}

    @property
    def budget(self) -> Budget:
        """Of the bytes that are in flight. To be read only."""
        return self._core.budget

    @property
    def slots(self) -> int:
        """Staging jobs that may run at once."""
        return self._core.slots

    @property
    def closed(self) -> bool:
        """Whether nothing more is taken."""
        return self._core.closed

    @property
    def producers(self) -> Mapping[str, Producer]:
        """Those that are remembered, by id. To be read only."""
        return self._core.producers

    def _slots_changed(self, event: SlotsChanged) -> None:
        self._core.slots = event.slots
        self._core.dirty.update(self._core.turns)

    def _ticked(self, _: Ticked) -> None:
        """Nothing but the timers, which every event rings."""

    def _ring(self) -> None:
        """Do what has its time."""
        core = self._core
        for what in core.due_timers():
            if isinstance(what, Lane):
                core.touch(what)
            elif isinstance(what, Batch):
                core.refuse(what, Reason.QUEUE_TIMEOUT)
            else:
                self._staging.overdue(what)

    def _go_on(self) -> None:
        """Follow the notes: begin whatever can begin now."""
        core = self._core
        while True:
            while core.unplaced:
                producer, _ = core.unplaced.popitem()
                self._admission.place(producer)
            if core.queue:
                self._admission.let_in_waiting()
            if not core.dirty:
                return
            dirty, core.dirty = core.dirty, {}
            if core.untidy:
                self._staging.tidy()
            for lane in dirty.values():
                if lane.due(core.now):
                    core.seal(lane)
            if core.turns:
                self._staging.begin()
            for lane in dirty.values():
                if lane.wanted:
                    self._looking.begin(lane)
                if lane.staged:
                    self._committing.begin(lane)
