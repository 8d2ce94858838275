"""Which columns fit a Delta table, and where two schemas differ.

Receives: Arrow schemas of staged files, and of the table.
Produces: the columns to add, or a `WriterSchemaError` that names what does not fit.
Guarantees: what passes can be committed by either engine and read by both.
Never does: read data, or change a column's type.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pyarrow as pa

from sfwriter.arrays import is_unicode
from sfwriter.dictionaries import is_encoded, plain_schema, plain_type
from sfwriter.exceptions import WriterSchemaError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sfwriter.storage.engine import TableSpec

_TIMESTAMP = pa.timestamp("us", "UTC")
_NAIVE = pa.timestamp("us")
_PRIMITIVE = (pa.string(), pa.int64(), _TIMESTAMP, pa.bool_(), pa.float64(), pa.date32(), pa.binary(), pa.float32())
_FORBIDDEN = re.compile(r"[ ,;{}()\n\t=]")


def plain(kind: pa.DataType) -> pa.DataType:
    """The type as Delta sees it: without Arrow's variants of one and the same thing."""
    if is_encoded(kind):
        return plain(plain_type(kind))
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind) or pa.types.is_fixed_size_binary(kind):
        return pa.binary()
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return pa.list_(pa.field("element", plain(kind.value_type)))
    if pa.types.is_map(kind):
        return pa.map_(plain(kind.key_type), plain(kind.item_type))
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(entry.name, plain(entry.type)) for entry in kind.fields])
    return kind


def is_narrower(kept: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether a table that others made may keep a column of the type `wanted` in the type `kept`.

    Counts in narrower integers (those that fit), durations and rates in FLOAT (rounded to its 24 bits), moments
    without a zone (in UTC). Everything else would change what a value means.
    """
    if wanted == pa.int64():
        return bool(pa.types.is_signed_integer(kept)) and kept != wanted
    return bool((wanted == pa.float64() and kept == pa.float32()) or (wanted == _TIMESTAMP and kept == _NAIVE))


def adopted_schema(wanted: pa.Schema, table: Iterable[pa.Field]) -> pa.Schema:
    """The columns wanted, each in the narrower type that the table keeps it in, where it does."""
    kept = {column.name: column.type for column in table}
    return pa.schema(
        [
            column.with_type(kept[column.name])
            if column.name in kept and is_narrower(kept[column.name], column.type)
            else column
            for column in wanted
        ]
    )


def in_kept_type(column: pa.ChunkedArray, kept: pa.DataType) -> pa.ChunkedArray:
    """A column in the narrower type that its table keeps it in.

    Raises:
        pa.ArrowInvalid: a whole number is beyond the type, or a number beyond a FLOAT.
    """
    made = column.cast(kept)
    if pa.types.is_floating(kept):
        import pyarrow.compute as pc  # 30 ms at import, and few tables have such columns

        beyond = pc.and_(pc.is_inf(made), pc.is_finite(column))
        if pc.any(beyond).as_py():
            raise pa.ArrowInvalid(f"a value is beyond {kept}")
    return made


def chosen(schema: pa.Schema, columns: Sequence[str] | None, spec: TableSpec) -> pa.Schema:
    """The columns asked for, in that order; all of them for None.

    Raises:
        WriterSchemaError: one is not there.
    """
    wanted = schema.names if columns is None else columns
    unknown = [name for name in wanted if name not in schema.names]
    if unknown:
        raise WriterSchemaError(
            f"{spec.name} has no column {', '.join(map(repr, unknown))}.",
            expected_schema=schema_texts(schema),
            suggestions=["Ask for columns that it has."],
        )
    return pa.schema([schema.field(name) for name in wanted])


def schema_texts(schema: pa.Schema) -> dict[str, str]:
    """Column to type, as errors show it."""
    return {column.name: str(plain(column.type)) for column in schema}


def check_writable(schema: pa.Schema, spec: TableSpec) -> None:
    """Raise `WriterSchemaError` for a column that a Delta table cannot hold as it is."""
    lowered: dict[str, str] = {}
    for column in schema:
        clash = lowered.setdefault(column.name.lower(), column.name)
        problem = None
        if clash != column.name:
            problem = f"differs from {clash!r} only in upper and lower case"
        elif not column.name or _FORBIDDEN.search(column.name) or not is_unicode(column.name):
            problem = "has a name that Delta does not allow (none of ` ,;{}()=`, tabs and line breaks)"
        elif not _holds(column.type) and not (column.type == _NAIVE and _has_naive(spec, column.name)):
            problem = f"is {column.type}, which Delta cannot hold"
        if problem:
            raise WriterSchemaError(
                f"Column {column.name!r} for {spec.name} {problem}.",
                expected_schema=schema_texts(spec.schema),
                actual_schema=schema_texts(schema),
                context={"table": spec.name, "column": column.name},
                suggestions=["Rename the column." if "type" not in problem else "Convert it to a type of the table."],
                code="unwritable_column",
            )


def _has_naive(spec: TableSpec, name: str) -> bool:
    """Whether the table keeps this column without a zone: only those that others made do."""
    return name in spec.schema.names and bool(spec.schema.field(name).type == _NAIVE)


def _holds(kind: pa.DataType) -> bool:
    if kind in _PRIMITIVE:
        return True
    kind = plain(kind)
    if pa.types.is_list(kind):
        return _holds(kind.value_type)
    if pa.types.is_map(kind):
        return _holds(kind.key_type) and _holds(kind.item_type)
    if pa.types.is_struct(kind):
        return kind.num_fields > 0 and all(_holds(entry.type) for entry in kind.fields)
    return bool(kind in _PRIMITIVE or pa.types.is_signed_integer(kind) or pa.types.is_decimal128(kind))


def with_null_marks(table: pa.Table) -> pa.Schema:
    """The schema of the table's values; a column is non-nullable where no row has a null in it."""
    schema = plain_schema(table.schema)
    return pa.schema([column.with_nullable(table.column(column.name).null_count > 0) for column in schema])


def columns_to_add(table: pa.Schema, staged: Mapping[int, pa.Schema], spec: TableSpec) -> list[pa.Field]:
    """Columns that staged files have and the table lacks, nullable, in the order they came.

    Args:
        table: as it is.
        staged: position in the group to the schema of the files there.
        spec: for the error.

    Raises:
        WriterSchemaError: a column has another type in the table or in files before it, a column that the
            table wants filled has nulls, or a name differs only in case. `context["positions"]` has the
            position of the files at fault.
    """
    wider = _Wider(table, spec)
    for position, schema in staged.items():
        try:
            wider.take(schema)
        except WriterSchemaError as error:  # noqa: PERF203  a group has few
            error.context["positions"] = (position,)
            raise
    return list(wider.new.values())


class _Wider:
    """A table's columns, and those that files bring."""

    def __init__(self, table: pa.Schema, spec: TableSpec) -> None:
        self.new: dict[str, pa.Field] = {}
        self._table = table
        self._spec = spec
        self._known = {column.name: column for column in table}
        self._lowered = {name.lower(): name for name in self._known}

    def take(self, schema: pa.Schema) -> None:
        table, spec = self._table, self._spec
        for column in schema:
            low = column.name.lower()
            target = self._known.get(column.name) or self.new.get(column.name)
            if target is None and low in self._lowered:
                raise _misfit(table, schema, spec, column, f"is spelled {self._lowered[low]!r} in the table")
            if target is not None and not plain(target.type).equals(plain(column.type)):
                raise _misfit(
                    table, schema, spec, column, f"is {plain(target.type)} in the table and {plain(column.type)} here"
                )
        _check_filled(table, schema, spec)
        # Only now: files that are refused bring no column.
        for column in schema:
            if column.name not in self._known and column.name not in self.new:
                self.new[column.name] = column.with_nullable(True)
                self._lowered[column.name.lower()] = column.name


def _check_filled(table: pa.Schema, schema: pa.Schema, spec: TableSpec) -> None:
    present = {column.name: column for column in schema}
    for column in table:
        if column.nullable:
            continue
        found = present.get(column.name)
        if found is None or found.nullable:
            raise _misfit(table, schema, spec, column, "may not be null in the table, and rows here lack it")


def _misfit(table: pa.Schema, staged: pa.Schema, spec: TableSpec, column: pa.Field, what: str) -> WriterSchemaError:
    expected, actual = schema_texts(table), schema_texts(staged)
    return WriterSchemaError(
        f"Column {column.name!r} {what} ({spec.name}).",
        expected_schema=expected,
        actual_schema=actual,
        context={
            "table": spec.name,
            "column": column.name,
            "expected": expected.get(column.name),
            "actual": actual.get(column.name),
        },
        suggestions=["Send the column in the table's type, or under another name."],
        code="type_clash",
    )
