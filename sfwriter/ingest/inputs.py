"""What a caller may give for rows.

Receives: anything.
Produces: an Arrow table, or an iterator over what should be mappings.
Guarantees: pandas and polars are recognised by the Arrow PyCapsule interface and never imported; an
    iterator is consumed once.
Never does: look into rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from sfwriter.exceptions import WriterValidationError
from sfwriter.ingest.encoded import check_size
from sfwriter.ingest.frames import rows_of
from sfwriter.ingest.jsontext import bounded

if TYPE_CHECKING:
    from collections.abc import Callable

ACCEPTED = (
    "an iterable of dicts or LogRecords, an Arrow table, record batch or reader, an iterable of record batches, "
    "a pandas or polars frame"
)

_NOTHING = object()
_NAMELESS_INDEX = re.compile(r"__index_level_\d+__")


def opened(rows: Any, max_bytes: int | None = None) -> pa.Table | Iterator[Any]:
    """The rows as an Arrow table where they are Arrow, else an iterator over them.

    Raises:
        WriterValidationError: it is nothing that holds rows, or its Arrow data cannot be read.
        WriterPerformanceError: a stream came to more than `max_bytes`.
    """
    if isinstance(rows, (pa.Table, pa.RecordBatch, pa.RecordBatchReader)):
        return _table([rows], max_bytes)
    if is_arrow(rows):
        return _of_frame(rows, max_bytes)
    if isinstance(rows, Mapping) or callable(getattr(rows, "model_dump", None)):
        raise WriterValidationError(
            f"Rows are expected, but one row was given: {bounded(rows)}.",
            context={"given": type(rows).__name__},
            suggestions=["Put the row in a list: `[row]`."],
        )
    if isinstance(rows, (str, bytes, bytearray, memoryview)) or not isinstance(rows, Iterable):
        raise WriterValidationError(
            f"Rows are expected, but {bounded(rows)} was given.",
            context={"given": type(rows).__name__},
            suggestions=[f"Give {ACCEPTED}."],
        )
    if type(rows).__module__.partition(".")[0] == "pandas":
        raise WriterValidationError(
            f"Rows are expected, but a pandas {type(rows).__name__} without the Arrow interface was given.",
            context={"given": type(rows).__name__},
            suggestions=["Give a DataFrame of pandas 2.2 or later, or `pyarrow.Table.from_pandas(frame)`."],
        )
    return _of_iterable(rows, max_bytes)


def _of_frame(rows: Any, max_bytes: int | None) -> pa.Table | Iterator[Any]:
    try:
        return _table([rows], max_bytes)
    except WriterValidationError:
        # A column of mixed objects has no Arrow type; row by row each value is judged by itself.
        one_by_one = rows_of(rows)
        if one_by_one is None:
            raise
        return one_by_one


def _of_iterable(rows: Iterable[Any], max_bytes: int | None) -> pa.Table | Iterator[Any]:
    rest = iter(rows)
    first = next(rest, _NOTHING)
    if first is _NOTHING:
        return rest
    if isinstance(first, (pa.Table, pa.RecordBatch)) or is_arrow(first):
        return _table(chain([first], rest), max_bytes)
    return chain([first], rest)


def is_arrow(value: Any) -> bool:
    """Whether it offers its data through the Arrow PyCapsule interface."""
    return not isinstance(value, type) and (hasattr(value, "__arrow_c_stream__") or hasattr(value, "__arrow_c_array__"))


def _table(parts: Iterable[Any], max_bytes: int | None) -> pa.Table:
    """One table of all parts; a column that a part lacks is null there."""
    tables: list[pa.Table] = []
    nbytes = 0
    for position, part in enumerate(parts):
        rest = _tables_of(part, position)
        while (table := _readable(lambda: next(rest, None))) is not None:  # noqa: B023  called at once
            nbytes += table.nbytes
            check_size(nbytes, max_bytes)
            tables.append(_without_row_numbers(table))
    if len(tables) == 1:
        return tables[0]
    return _readable(lambda: pa.concat_tables(tables, promote_options="permissive"))


def _without_row_numbers(table: pa.Table) -> pa.Table:
    """Without what pandas makes of an index that has no name; one with a name is a column like others."""
    if b"pandas" not in (table.schema.metadata or {}):
        return table
    return table.drop_columns([name for name in table.column_names if _NAMELESS_INDEX.fullmatch(name)])


def _readable(read: Callable[[], Any]) -> Any:
    """What the call gives; only errors of Arrow data are translated, those of the caller's iterator pass."""
    try:
        return read()
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise WriterValidationError(
            f"The Arrow data cannot be read: {error}",
            suggestions=["A frame needs one type a column: convert columns of mixed objects, or give dicts instead."],
        ) from error


def _tables_of(part: Any, position: int) -> Iterator[pa.Table]:
    if isinstance(part, pa.Table):
        yield part
    elif isinstance(part, pa.RecordBatch):
        yield pa.Table.from_batches([part])
    elif isinstance(part, pa.RecordBatchReader) or hasattr(part, "__arrow_c_stream__"):
        reader = part if isinstance(part, pa.RecordBatchReader) else pa.RecordBatchReader.from_stream(part)
        yield reader.schema.empty_table()
        for batch in reader:
            yield pa.Table.from_batches([batch])
    elif hasattr(part, "__arrow_c_array__"):
        yield pa.Table.from_batches([pa.record_batch(part)])
    else:
        raise WriterValidationError(
            f"Element {position} is {bounded(part)}, while the elements before it are Arrow data.",
            context={"row": position, "given": type(part).__name__},
            suggestions=["Give rows of one kind in one call."],
        )
