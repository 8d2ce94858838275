"""Those who give batches: with numbers, without, with numbers chosen for them, with keys; stubborn and careless."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sfwriter.flow.vocabulary import Acknowledged, Reason

if TYPE_CHECKING:
    from sfwriter.testing.simulation.tables import Call
    from sfwriter.testing.simulation.world import World

MAX_TRIES = 4
"""How often a caller gives the same rows again before it gives up."""


class Caller:
    """One that lets the writer number its batches, and never repeats one.

    Attributes:
        client: whose turns it takes.
        rests_until: the step of the world before which it gives nothing.
    """

    def __init__(self, world: World, producer: str, home: str) -> None:
        """Become a caller.

        Args:
            world: to call in.
            producer: whose id it uses; others may use it too.
            home: the table that answers.
        """
        self.world = world
        self.producer = producer
        self.home = home
        self.client = ""
        self.rests_until = 0
        self.window = world.random.randint(1, 8)
        self.unanswered = 0

    def act(self) -> bool:
        """Give a batch; False if it has nothing to give now."""
        if self.unanswered >= self.window:
            return False
        self.unanswered += 1
        self.world.submit(self, None, self.world.new_content(), self.world.new_stamp(), assigned=True)
        return True

    def heard(self, call: Call) -> None:  # noqa: ARG002  others look at it
        """Hear the answer to one of its calls."""
        self.unanswered -= 1

    def crashed(self, calls: list[Call]) -> None:
        """Learn that these calls will never be answered."""
        self.unanswered -= len(calls)


class Explicit(Caller):
    """One that numbers its batches itself, goes on after what was refused, and now and then makes mistakes."""

    def __init__(self, world: World, producer: str, home: str, source: str) -> None:
        """Read from `source`: batch `n` of one source is always the same."""
        super().__init__(world, producer, home)
        self.source = source
        self.cursor = 0

    def act(self) -> bool:
        """Give the next batch, an old one, one too far ahead, or other rows under a used number."""
        random = self.world.random
        if self.unanswered >= self.window:
            return False
        self.unanswered += 1
        roll = random.random()
        number = self.cursor
        content = None
        if roll < 0.7:
            self.cursor += 1
        elif roll < 0.85:
            number = random.randint(0, self.cursor)
        elif roll < 0.92:
            number = random.randint(0, self.cursor)
            content = self.world.new_content()
        else:
            number += random.randint(1, 3)
        self.world.submit(self, number, content or f"{self.source}:{number}", self.world.new_stamp())
        return True

    def heard(self, call: Call) -> None:
        """Go on where the answer says."""
        super().heard(call)
        answer, number = call.answer, call.given.sequence
        if isinstance(answer, Acknowledged):
            self.cursor = max(self.cursor, answer.token.sequence + 1)
        elif answer is not None and answer.expected is not None and answer.reason is not Reason.CONTENT_MISMATCH:
            self.cursor = answer.expected
        elif answer is not None and number is not None:
            self.cursor = min(self.cursor, number)

    def crashed(self, calls: list[Call]) -> None:
        """Start again: from the beginning, or after what the table has."""
        super().crashed(calls)
        self.cursor = 0 if self.world.random.random() < 0.3 else self.world.next_number(self)


@dataclass(slots=True)
class Letter:
    """Rows on their way: what a client keeps until they are answered."""

    content: str
    stamp: str
    tries: int = 0


class Numbered(Caller):
    """The service's client: chooses numbers for its callers, keeps its batches, and sends them again after a crash."""

    def __init__(self, world: World, producer: str, home: str) -> None:
        """Begin without a number."""
        super().__init__(world, producer, home)
        self.next_number: int | None = None
        self.sent: dict[int, Letter] = {}
        self.again: dict[int, Letter] = {}
        self.backlog: list[Letter] = []

    def act(self) -> bool:
        """Send again what must be, then what was refused because of others, then something new."""
        if self.again:
            number = min(self.again)
            self._send(number, self.again.pop(number), resent=True)
            return True
        if len(self.sent) >= self.window:
            return False
        if self.next_number is None:
            if self.sent:
                return False
            self.next_number = self.world.next_number(self)
        letter = self.backlog.pop(0) if self.backlog else Letter(self.world.new_content(), self.world.new_stamp())
        number = self.next_number
        self.next_number += 1
        self._send(number, letter, resent=False)
        return True

    def _send(self, number: int, letter: Letter, *, resent: bool) -> None:
        letter.tries += 1
        self.sent[number] = letter
        self.world.submit(self, number, letter.content, letter.stamp, assigned=True, resent=resent)

    def heard(self, call: Call) -> None:
        """Forget it, send it again, or give it another number."""
        answer, number = call.answer, call.given.sequence
        if answer is None or number is None:
            raise ValueError("an answer was expected to a numbered call")
        letter = self.sent.pop(number)
        if isinstance(answer, Acknowledged):
            return
        if answer.reason is Reason.OUTCOME_UNKNOWN and letter.tries < MAX_TRIES:
            self.again[number] = letter
            return
        self.next_number = None
        if answer.reason in {Reason.PREDECESSOR, Reason.GAP} and letter.tries < MAX_TRIES:
            self.backlog.append(letter)

    def crashed(self, calls: list[Call]) -> None:
        """Send them again under their numbers."""
        for call in calls:
            number = call.given.sequence
            if number is not None:
                self.again[number] = self.sent.pop(number)


class Keyed(Caller):
    """Tasks that may run twice: the same key, with the same or other rows."""

    def act(self) -> bool:
        """Give a batch under the key."""
        if self.unanswered >= self.window:
            return False
        self.unanswered += 1
        same = self.world.random.random() < 0.5
        content = f"{self.producer}:same" if same else self.world.new_content()
        self.world.submit(self, 0, content, self.world.new_stamp(), checked=False, expires=True)
        return True
