"""Rows of any accepted kind, to one Arrow table in the log table's types.

Receives: mappings or an Arrow table, and what is known of the table.
Produces: one table of all rows given, with the columns of the log that rows may fill, then additional ones
    by first appearance; and a `Fault` for each value that it could not take (null there).
Guarantees: as many rows, in the same order, as were given. The same rows give the same table whether they
    came as mappings or as Arrow.
Never does: leave a row out; fill in a default; raise for a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from itertools import islice
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from sfwriter.dictionaries import LEAST_ROWS, few_texts, taken_over
from sfwriter.exceptions import WriterSchemaError
from sfwriter.ingest.arrow_columns import convert_column, kind_of_type, python_value, python_values, simplified
from sfwriter.ingest.columns import build_column
from sfwriter.ingest.encoded import Encoded, Fault, GrowingColumns, check_size
from sfwriter.ingest.jsontext import bounded, original_text
from sfwriter.ingest.kinds import LOG_KINDS, OPEN_TEXT, Kind, kind_of_values
from sfwriter.ingest.names import CallNames, Fate, TableColumns
from sfwriter.ingest.numbering import JoinedTexts, NumberedTexts
from sfwriter.ingest.unreadable import Unreadable
from sfwriter.ingest.values import Misfit

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Sequence

CHUNK_ROWS = 5_000
"""Rows that are turned column by column at a time.

Each column fetches every dict of the chunk once, so the chunk has to stay in the processor's cache: 100,000
rows at once take twice as long. Below, the fixed costs of the calls for each column show: 2,000 take 6 % longer,
1,000 a fifth.
"""

NUMBERED_ROWS = 2_000
"""Rows of a first chunk from which on texts are numbered."""

_SAMPLED = 61
"""Every so many rows of the first chunk are asked which columns have texts throughout."""

_FEW_TEXTS = (
    "run_mode", "pipeline_id", "schema", "phase", "step_name", "step_type", "table_fqn", "write_mode", "error_message",
)  # fmt: skip
"""Columns whose texts stay dictionary encoded where a batch has few of them. Ids of runs are new in every run."""


def encode_mappings(
    given: Iterable[Any], columns: TableColumns, *, exact: bool, max_bytes: int | None = None
) -> Encoded:
    """Encode mappings and pydantic models; anything else among them is a fault of its whole row.

    Raises:
        WriterPerformanceError: they came to more than `max_bytes` of Arrow; what was read until then is gone
            from an iterator.
    """
    work = _Mappings(CallNames(columns), exact)
    rest = iter(given)
    while chunk := list(islice(rest, CHUNK_ROWS)):
        work.take(chunk)
        check_size(work.nbytes, max_bytes)
    return work.finish()


class _Mappings:
    """Mappings, chunk by chunk. Values of new columns wait for the last chunk: together they decide the type."""

    def __init__(self, names: CallNames, exact: bool) -> None:
        self.columns = GrowingColumns()
        self._names = names
        self._exact = exact
        self._joined: JoinedTexts | None = None
        self._numbered: dict[str, NumberedTexts] = {}
        self._given: list[Any] = []
        self._keys: dict[Any, None] = {}
        self._new: dict[str, list[Any]] = {}
        self._extras: dict[str, None] = {}
        self._faults: list[Fault] = []
        self._stamped = False

    @property
    def nbytes(self) -> int:
        numbers = sum(numbered.nbytes for numbered in self._numbered.values())
        return self.columns.nbytes + numbers + (0 if self._joined is None else self._joined.nbytes)

    def take(self, chunk: list[Any]) -> None:
        start = len(self._given)
        self._given.extend(chunk)
        rows = chunk if set(map(type, chunk)) == {dict} else self._mappings(chunk, start)
        for key, values in self._by_column(rows, but=self._join(rows, start)):
            self._column(key, values, start)

    def _join(self, rows: list[dict[Any, Any]], start: int) -> Container[str]:
        """Number texts that are few together; the columns that need no other look."""
        if start == 0 and len(rows) >= NUMBERED_ROWS:
            some = rows[::_SAMPLED]
            names = [name for name in _FEW_TEXTS if {type(row.get(name)) for row in some} == {str}]
            self._joined = JoinedTexts(names) if len(names) > 1 else None
        if self._joined is None:
            return ()
        if self._joined.take(rows):
            return self._joined.names
        self._part()
        return ()

    def _part(self) -> None:
        """From here on each column is numbered by itself."""
        if self._joined is not None:
            self._numbered.update(self._joined.apart())
            self._joined = None

    def _by_column(self, rows: list[dict[Any, Any]], but: Container[str]) -> Iterator[tuple[Any, Sequence[Any]]]:
        """Every key of the rows, but for some, with its values; None where a row lacks it."""
        keys = tuple(rows[0])
        if set(map(len, rows)) == {len(keys)}:
            # 0.6 µs a row for 20 keys; `get` takes 0.9. Walking all rows side by side takes 0.4, and its thousands
            # of iterators call for Python's collector, which looks at every row that the caller holds.
            with suppress(KeyError):
                yield from [(key, list(map(itemgetter(key), rows))) for key in keys if key not in but]
                return
        present = set().union(*rows)
        if not present <= self._keys.keys():
            for row in rows:
                self._keys.update(dict.fromkeys(row))
        for key in self._keys:
            if key in present and key not in but:
                yield key, [row.get(key) for row in rows]

    def _mappings(self, chunk: list[Any], start: int) -> list[dict[Any, Any]]:
        rows: list[dict[Any, Any]] = []
        for position, row in enumerate(chunk, start):
            found = as_mapping(row)
            if found is None:
                reason = row.reason if isinstance(row, Unreadable) else f"is {bounded(row)}, not a mapping"
                self._faults.append(Fault(position, None, row, reason))
            else:
                self._given[position] = found
            rows.append(found or {})
        return rows

    def _column(self, key: Any, values: Sequence[Any], start: int) -> None:
        fate = self._names.resolve(key)
        if isinstance(fate, Kind):
            if key not in LOG_KINDS:
                self._extras[key] = None
            self._fill(key, fate, values, start)
        elif fate is Fate.NEW:
            self._extras[key] = None
            known = self._new.setdefault(key, [])
            known.extend([None] * (start - len(known)))
            known.extend(values)
        elif isinstance(fate, Misfit):
            name = key if isinstance(key, str) else original_text(key)
            present = ((row, value) for row, value in enumerate(values, start) if value is not None)
            self._faults.extend(Fault(row, name, value, fate.reason) for row, value in present)
        else:
            self._stamped = self._stamped or any(value is not None for value in values)

    def _fill(self, name: str, kind: Kind, values: Sequence[Any], start: int) -> None:
        if name in _FEW_TEXTS and self._is_numbered(name, values, start):
            return
        array, misfits = build_column(values, kind, exact=self._exact)
        self.columns.add(name, kind, start, array)
        self._faults.extend(
            Fault(start + place, name, values[place], misfit.reason, kind.expected) for place, misfit in misfits
        )

    def _is_numbered(self, name: str, values: Sequence[Any], start: int) -> bool:
        if start == 0 and len(values) >= NUMBERED_ROWS:
            self._numbered[name] = NumberedTexts()
        numbered = self._numbered.get(name)
        if numbered is None:
            return False
        if numbered.take(values, start):
            return True
        del self._numbered[name]
        if start:
            self.columns.add(name, LOG_KINDS[name], 0, numbered.plain())
        return False

    def finish(self) -> Encoded:
        for name, values in self._new.items():
            self._fill(name, kind_of_values(values) or OPEN_TEXT, values, 0)
        given = self._given
        self._part()
        for name, numbered in self._numbered.items():
            self.columns.add(name, LOG_KINDS[name], 0, numbered.column(len(given)))
        return Encoded(
            rows=_with_few_texts(self.columns.table(len(given), self._extras), but=self._numbered),
            faults=sorted(self._faults, key=lambda fault: fault.row),
            original=given.__getitem__,
            actual=lambda: _types_of(given),
            stamped=self._stamped,
        )


def as_mapping(row: Any) -> dict[Any, Any] | None:
    """A row as a dict: from any mapping or pydantic model, None from anything else."""
    if isinstance(row, Mapping):
        return dict(row)
    dump = getattr(row, "model_dump", None)
    # By alias: a field may not bear the name of the column `schema`, which is taken in pydantic.
    found = dump(by_alias=True) if callable(dump) and not isinstance(row, type) else None
    return found if isinstance(found, dict) else None


def _types_of(given: list[Any]) -> dict[str, str]:
    """Key to the Python types of its values, over all rows."""
    seen: dict[str, dict[str, None]] = {}
    for row in given:
        for key, value in row.items() if isinstance(row, dict) else ():
            names = seen.setdefault(key if isinstance(key, str) else repr(key), {})
            if value is not None:
                names[type(value).__name__] = None
    return {key: " | ".join(names) or "None" for key, names in seen.items()}


def encode_table(given: pa.Table, columns: TableColumns, *, exact: bool) -> Encoded:
    """Encode Arrow columns. Texts of the log's columns stay dictionary encoded where they have few values.

    Raises:
        WriterSchemaError: two columns have the same name.
    """
    _check_twins(given, columns)
    names = CallNames(columns)
    made = GrowingColumns()
    extras: dict[str, None] = {}
    faults: list[Fault] = []
    stamped = False
    for name, raw in zip(given.column_names, given.columns, strict=True):
        fate = names.resolve(name)
        if raw.null_count == len(raw):
            continue
        if isinstance(fate, Misfit):
            present = pc.indices_nonzero(pc.is_valid(raw)).to_pylist()
            faults.extend(Fault(place, name, python_value(raw[place]), fate.reason) for place in present)
            continue
        if fate is Fate.STAMPED:
            stamped = True
            continue
        given_few = taken_over(raw) if name in _FEW_TEXTS else None
        if given_few is not None:
            made.add(name, LOG_KINDS[name], 0, given_few)
            continue
        column = simplified(raw)
        kind = fate if isinstance(fate, Kind) else kind_of_type(column.type) or OPEN_TEXT
        converted, misfits = convert_column(column, kind, exact=exact)
        made.add(name, kind, 0, converted)
        if name not in LOG_KINDS:
            extras[name] = None
        faults.extend(
            Fault(place, name, python_value(column[place]), misfit.reason, kind.expected) for place, misfit in misfits
        )
    return Encoded(
        rows=_with_few_texts(made.table(given.num_rows, extras)),
        faults=sorted(faults, key=lambda fault: fault.row),
        original=lambda place: row_of_table(given, place),
        actual=lambda: {field.name: str(field.type) for field in given.schema},
        stamped=stamped,
    )


def _with_few_texts(table: pa.Table, but: Container[str] = ()) -> pa.Table:
    """The table with texts of few values dictionary encoded, whoever brought them; some columns are so already."""
    if table.num_rows < LEAST_ROWS:
        return table
    for name in _FEW_TEXTS:
        if name in but:
            continue
        place, column = table.schema.get_field_index(name), table.column(name)
        few = few_texts(column)
        if few is not column:
            table = table.set_column(place, table.schema.field(place).with_type(few.type), few)
    return table


def _check_twins(given: pa.Table, columns: TableColumns) -> None:
    names = given.column_names
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise WriterSchemaError(
            f"The Arrow data has more than one column named {', '.join(map(repr, twice))}.",
            expected_schema=columns.expected(),
            actual_schema={field.name: str(field.type) for field in given.schema},
            suggestions=["Rename or drop the columns that appear twice."],
        )


def row_of_table(given: pa.Table, place: int) -> dict[str, Any]:
    """One row as a dict, without its nulls."""
    row = {}
    for name, column in zip(given.column_names, given.columns, strict=True):
        value = python_values(simplified(column.slice(place, 1)).combine_chunks())[0]
        if value is not None:
            row[name] = value
    return row
