"""A Delta table as the core sees it: watermarks, marks, and who put which rows where."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sfwriter.flow.vocabulary import Acknowledged, Reason, Refused
from sfwriter.storage.engine import Watermark
from sfwriter.testing.simulation.promises import promise

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sfwriter.batch import Token
    from sfwriter.flow.vocabulary import Submitted
    from sfwriter.storage.engine import CommitGroup, Mark

    Answered = Acknowledged | Refused


@dataclass(slots=True, eq=False)
class Call:
    """One submission to one host, and all that is known of its fate.

    Attributes:
        given: the event.
        content: the identity of its rows; calls with the same content are copies of each other.
        poison: what its rows do to those that touch them: "", "stage", "kill" or "commit".
        host: index of the host that got it.
        answer: what the host said, None so far.
        troubles: names of the faults that were injected into what held it: a refusal needs a reason.
    """

    given: Submitted
    content: str
    poison: str
    host: int
    answer: Answered | None = None
    troubles: dict[str, None] = field(default_factory=dict)

    @property
    def refused_for_good(self) -> bool:
        """Whether its rows must never be seen."""
        return isinstance(self.answer, Refused) and self.answer.reason is not Reason.OUTCOME_UNKNOWN


@dataclass(slots=True)
class State:
    """What one version of a table holds.

    Attributes:
        watermarks: producer to highest committed number.
        marks: producer to its newest marks, by number.
        paths: visible files.
        calls: (producer, number) to the call whose rows are visible under it, and since which version.
            A table beside the answering one may hold rows of several calls under one number.
        contents: visible contents of an answering table.
    """

    watermarks: dict[str, int] = field(default_factory=dict)
    marks: dict[str, dict[int, tuple[Mark, int]]] = field(default_factory=dict)
    paths: dict[str, int] = field(default_factory=dict)
    calls: dict[tuple[str, int], list[tuple[Call, int]]] = field(default_factory=dict)
    contents: dict[str, int] = field(default_factory=dict)

    def copy(self) -> State:
        """The same state, which later changes do not touch."""
        return State(
            dict(self.watermarks),
            {producer: dict(marks) for producer, marks in self.marks.items()},
            dict(self.paths),
            {key: list(calls) for key, calls in self.calls.items()},
            dict(self.contents),
        )


class ModelTable:
    """One table: commits are compared with it for each producer, as `sfwriter.storage.engine` promises."""

    def __init__(self, name: str, *, answers: bool, remembered: int, kept_marks: int, keep_history: bool) -> None:
        """Begin empty at version 0.

        Args:
            name: of the table.
            answers: whether it answers for its producers, else it stands beside one that does.
            remembered: as many of a producer's newest marks come with each commit.
            kept_marks: how many marks of each producer the log remembers.
            keep_history: whether it can be restored.
        """
        self.name = name
        self.answers = answers
        self.version = 0
        self.state = State()
        self.undone: dict[tuple[str, int], None] = {}
        self._remembered = remembered
        self._kept_marks = kept_marks
        self._history: list[State] | None = [State()] if keep_history else None

    def look(self, producers: Iterable[str]) -> dict[str, Watermark]:
        """A fresh look."""
        state = self.state
        return {
            producer: Watermark(state.watermarks.get(producer), self.version, dict(state.marks.get(producer, {})))
            for producer in producers
        }

    def accepts(self, group: CommitGroup) -> bool:
        """Whether every producer stands where the group was planned on."""
        return all(self.state.watermarks.get(step.producer_id) == step.after for step in group.advances)

    def commit(self, group: CommitGroup, contents: dict[str, tuple[tuple[Token, Call], ...]]) -> int:
        """Make an accepted group visible and return the version; `contents` says what each file holds."""
        self.version += 1
        state = self.state
        for file in (file for staged in group.staged for file in staged.files):
            promise(file.path not in state.paths, "a file is committed once", file.path)
            state.paths[file.path] = self.version
            for token, call in contents[file.path]:
                self._land(token, call)
        for step in group.advances:
            promise(step.upto > (-1 if step.after is None else step.after), "a commit moves its producers on", step)
            if self.answers:
                first = 0 if step.after is None else step.after + 1
                for number in range(first, step.upto + 1):
                    # A batch without rows shows in nothing but its mark; of many marks only the newest are kept.
                    marked = number in step.marks or number < min(step.marks)
                    there = marked or (step.producer_id, number) in state.calls
                    promise(there, "a producer's numbers land without gaps", number, step)
            state.watermarks[step.producer_id] = step.upto
            marks = state.marks.setdefault(step.producer_id, {})
            marks.update({number: (mark, self.version) for number, mark in step.marks.items()})
            for number in sorted(marks)[: -self._kept_marks]:
                del marks[number]
        if self._history is not None:
            self._history.append(state.copy())
        return self.version

    def touch(self) -> None:
        """A commit of somebody who carries no producer."""
        self.version += 1
        if self._history is not None:
            self._history.append(self.state.copy())

    def restore(self, version: int) -> None:
        """RESTORE an older version; numbers that were committed since are remembered in `undone`."""
        if self._history is None:
            raise ValueError(f"{self.name} keeps no history")
        old = self._history[version].copy()
        for producer, number in self.state.watermarks.items():  # batches without rows are in no file
            for undone in range(old.watermarks.get(producer, -1) + 1, number + 1):
                self.undone[producer, undone] = None
        for key, calls in self.state.calls.items():
            if old.calls.get(key) != calls:
                self.undone[key] = None
        self.state = old
        self.version += 1
        self._history.append(old.copy())

    def forgotten(self, producer: str, number: int) -> bool:
        """Whether what is remembered of a committed number may be gone."""
        return sum(other > number for other in self.state.marks.get(producer, ())) >= self._remembered

    def _land(self, token: Token, call: Call) -> None:
        state = self.state
        key = (token.producer_id, token.sequence)
        there = state.calls.setdefault(key, [])
        if self.answers:
            promise(not call.refused_for_good, "a refused batch is never seen", self.name, token, call)
            promise(not there, "one batch under a number", self.name, token, call, there)
            promise(call.content not in state.contents, "a content lands once", self.name, call, state.contents)
            state.contents[call.content] = self.version
        else:
            copies = [other for other, _ in there if other.content == call.content]
            # Of a part whose mark is forgotten, nobody can say whether it is there.
            told = not self.forgotten(token.producer_id, token.sequence)
            promise(not (copies and told), "a part lands once under its number", self.name, token, call, copies)
        there.append((call, self.version))
