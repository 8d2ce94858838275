"""One source, from where it was left: joins the record, the table's number and the content.

Receives: a source, its table's journal, and a way to ask the table for a producer's number.
Produces: `SourceChunk`s, each under the number that it has in every run.
Guarantees: a number names the same rows for ever. What is about to be sent is in the journal before it is
    handed out. Content that was changed other than by growing is found before anything is handed out.
Never does: write rows; go on with content that it cannot tell from another.
"""

from __future__ import annotations

import threading
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, final

from sfwriter.exceptions import WriterError, WriterValidationError
from sfwriter.sources.content import content_of
from sfwriter.sources.cuts import Record, Segment
from sfwriter.sources.records import changed_while_read
from sfwriter.sources.streams import reading
from sfwriter.sources.typed_text import LOG_TYPES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sfwriter.sources.chunk import SourceChunk
    from sfwriter.sources.content import Content
    from sfwriter.sources.cuts import Limits, Position
    from sfwriter.sources.discover import Source
    from sfwriter.sources.journal import Journal
    from sfwriter.sources.records import Survey
    from sfwriter.sources.typed_text import Types


@dataclass(frozen=True, slots=True)
class Opened:
    """Where a source stands.

    Attributes:
        record: as it is in the journal.
        upto: the table's number, None where it has none.
        survey: of the content as it is now.
        facts: of the file before it was surveyed.
    """

    record: Record
    upto: int | None
    survey: Survey
    facts: tuple[int, ...] = ()


@final
class SourceReading:
    """Reads one source for one table. A context manager.

    One thread may iterate over `chunks` while another one calls `acknowledged`.

    Args:
        source: what to read.
        journal: of the table.
        watermark: a producer's highest committed number, None where it has none.
        types: what text is parsed for.
        as_new: take a source that was changed after a part was written as another one.
        limits: of the chunks, where the source is met for the first time.
        check: called often while the whole content is looked at; it may raise to stop.
        budget_bytes: memory that the writer may hold in flight; chunks are larger where it is large.
    """

    def __init__(
        self,
        source: Source,
        journal: Journal,
        watermark: Callable[[str], int | None],
        *,
        types: Types = LOG_TYPES,
        as_new: bool = False,
        limits: Limits | None = None,
        check: Callable[[], None] = lambda: None,
        budget_bytes: int = 0,
    ) -> None:
        self.source = source
        self.earlier_rows = 0
        self._journal = journal
        self._watermark = watermark
        self._as_new = as_new
        self._limits = limits
        self._content: Content = content_of(source, types, check, budget_bytes)
        self._opened: Opened | None = None
        self._behind: Position | None = None
        self._cleanup = ExitStack()
        self._changing = threading.Lock()

    def __enter__(self) -> SourceReading:
        """Look at the whole source once, and at what is known of it.

        Raises:
            WriterValidationError: it cannot be read, or was changed after a part of it was written.
            WriterError: another backfill reads it, or what is known of it does not fit the table.
        """
        self._cleanup.enter_context(self._journal.held(self.source))
        try:
            with reading(self.source):
                facts = self._facts()
                self._opened = replace(self._open(), facts=facts)
        except BaseException:
            self._cleanup.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        """Let others read it."""
        self._cleanup.close()

    @property
    def producer_id(self) -> str:
        """Whose numbers the chunks have."""
        return self.source.producer_id(self._now.record.generation)

    @property
    def _now(self) -> Opened:
        if self._opened is None:
            raise RuntimeError("the reading was not entered")
        return self._opened

    # ------------------------------------------------------------ where it stands

    def _facts(self) -> tuple[int, ...]:
        """What changes when the file does. A change that keeps all of it is not looked for while reading."""
        now = self.source.path.stat()
        return now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns

    def _open(self) -> Opened:
        record = self._journal.load(self.source)
        upto = self._watermark(self.source.producer_id(record.generation if record else 0))
        if record is None:
            generation = 0
            while upto is not None:
                if not self._as_new:
                    raise self._forgotten(generation, upto)
                generation += 1
                upto = self._watermark(self.source.producer_id(generation))
            return self._anew(self._content.look(0), generation, upto)
        if upto is not None and record.segments[0].start.sequence > upto + 1:
            raise self._lost(record, upto)
        last = record.segments[-1]
        found = self._content.look(last.end)
        begun = upto is not None or record.segments[0].start.sequence == 0
        if begun and self._fits(found, last):
            return Opened(record, upto, found)
        if upto is None:
            # Nothing of it is in the table: it was not committed, or the table is a new one. Something that an
            # earlier run sent may still be on its way.
            return self._anew(found, record.generation, upto, replanned=0)
        if not self._as_new:
            raise self._changed(f"has {upto + 1} part{'s' * (upto > 0)} of it as it was")
        generation = record.generation + 1
        while self._watermark(self.source.producer_id(generation)) is not None:
            generation += 1
        return self._anew(found, generation, None)

    def _fits(self, found: Survey, last: Segment) -> bool:
        if found.digest_at_mark != last.digest:
            return False
        return found.length == last.end or self._content.grows()

    def _anew(self, found: Survey, generation: int, upto: int | None, replanned: int | None = None) -> Opened:
        start, limits = self._content.begin()
        segment = Segment(start, max(found.body_end, start.offset), found.length, found.digest)
        record = Record(str(self.source), generation, self._limits or limits, (segment,), replanned)
        if found.length > start.offset:
            self._journal.keep(self.source, record)
        return Opened(record, upto, found)

    # ------------------------------------------------------------ what is to be written

    def chunks(self) -> Iterator[SourceChunk]:
        """The chunks that the table does not have, in order.

        Raises:
            WriterValidationError: the content is broken or changed under our hands.
        """
        with reading(self.source):
            yield from self._chunks()

    def _chunks(self) -> Iterator[SourceChunk]:
        now = self._now
        upto = -1 if now.upto is None else now.upto
        skip = upto + 1 if now.record.replanned is None else min(upto + 1, now.record.replanned)
        behind = now.record.segments[0].start
        self.earlier_rows = behind.row
        place = 0
        while place < len(self._now.record.segments):
            segment = self._now.record.segments[place]
            start = replace(behind, offset=max(behind.offset, segment.start.offset))
            grown = now.survey.length > segment.end and place == len(self._now.record.segments) - 1
            for chunk in self._content.chunks(segment, start, self._now.record.limits, skip):
                if chunk.end.sequence == chunk.sequence:
                    behind = chunk.end
                    continue
                if grown and chunk.end.offset > segment.body_end and chunk.sequence >= skip:
                    break  # its last row was unfinished, and nobody has it: it is read with what came after it
                behind = chunk.end
                if chunk.sequence < skip:
                    self.earlier_rows = behind.row
                else:
                    yield chunk
            if grown:
                self._grow(segment, behind)
            place += 1
        if behind.sequence <= upto:
            raise self._lost(self._now.record, upto)
        self._check_unchanged()
        self._behind = behind

    def _grow(self, last: Segment, behind: Position) -> None:
        """Add what came since the last segment was met to the record."""
        now = self._now
        taken = behind.offset > last.body_end
        if taken and now.survey.joined_at_mark:
            raise self._changed("has its last row, which was not finished when it was read and goes on now")
        end = last.end if taken else last.body_end
        start = replace(behind, offset=max(end, behind.offset))
        replanned = now.record.replanned
        if not taken and last.end > last.body_end:
            replanned = behind.sequence if replanned is None else min(replanned, behind.sequence)
        kept = (*now.record.segments[:-1], replace(last, end=end))
        fresh = Segment(start, max(now.survey.body_end, start.offset), now.survey.length, now.survey.digest)
        self._remember(segments=(*kept, fresh), replanned=replanned)

    def _check_unchanged(self) -> None:
        """See that what was read is what was surveyed."""
        if self._facts() == self._now.facts:
            return
        before = self._now.survey
        after = self._content.look(before.length)
        if after.digest_at_mark != before.digest or not (after.length == before.length or self._content.grows()):
            raise changed_while_read(self.source)

    # ------------------------------------------------------------ what became of it

    def acknowledged(self, sequence: int) -> None:
        """The table has this number, with these rows."""
        replanned = self._now.record.replanned
        if replanned is not None and sequence >= replanned:
            self._remember(replanned=None)

    def finished(self) -> None:
        """The table has every chunk: fold the record."""
        now, behind = self._now, self._behind
        if behind is None:
            raise RuntimeError("the source was not read to its end")
        folded = (replace(now.record.segments[-1], start=behind),)
        if behind.sequence > 0 and (folded != now.record.segments or now.record.replanned is not None):
            self._remember(segments=folded, replanned=None)

    def _remember(self, **changes: Any) -> None:
        """Change the record, here and in the journal. The one who reads and the one who is answered may both."""
        with self._changing:
            record = replace(self._now.record, **changes)
            self._journal.keep(self.source, record)
            self._opened = replace(self._now, record=record)

    # ------------------------------------------------------------ what may be wrong

    def _changed(self, what: str) -> WriterValidationError:
        return WriterValidationError(
            f"{self.source} was changed after a part of it was written, other than by growing: the table {what}",
            context={"source": str(self.source), "producer_id": self.source.producer_id()},
            suggestions=[
                "bring the file back as it was and run the command again, with --mode lenient where a row was refused",
                "or give --as-new: then it is another source, and all rows that it has now are written",
            ],
            code="source_changed",
        )

    def _forgotten(self, generation: int, upto: int) -> WriterError:
        return WriterError(
            f"the table has {upto + 1} parts of {self.source}, but the record of how it was divided is gone:"
            f" {self._journal.where(self.source)}",
            context={"source": str(self.source), "producer_id": self.source.producer_id(generation)},
            suggestions=[
                "bring that file back",
                "or give --as-new: then it is another source, and all its rows are written",
            ],
            code="journal_lost",
        )

    def _lost(self, record: Record, upto: int | None) -> WriterError:
        known = "no part" if upto is None else f"{upto + 1} parts"
        return WriterError(
            f"the table has {known} of {self.source}, which does not fit the record {self._journal.where(self.source)}:"
            " one of them was brought back from another time, or two machines have different files of this name",
            context={"source": str(self.source), "producer_id": self.source.producer_id(record.generation)},
            suggestions=[
                "bring both back to the same time",
                "or remove that file and give --as-new to write all its rows again",
            ],
            code="journal_mismatch",
        )
