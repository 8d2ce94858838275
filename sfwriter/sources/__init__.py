"""Readers of what a backfill reads: Parquet, JSON lines and CSV, in chunks that have a number."""

from sfwriter.sources.chunk import SourceChunk
from sfwriter.sources.cuts import Limits
from sfwriter.sources.discover import ACCEPTED, PRODUCER_PREFIX, Found, Source, discover, source_of
from sfwriter.sources.journal import Journal, journal_of
from sfwriter.sources.reading import SourceReading
from sfwriter.sources.typed_text import LOG_TYPES, Types, types_of

__all__ = [
    "ACCEPTED", "LOG_TYPES", "PRODUCER_PREFIX", "Found", "Journal", "Limits", "Source", "SourceChunk", "SourceReading",
    "Types", "discover", "journal_of", "source_of", "types_of",
]  # fmt: skip
