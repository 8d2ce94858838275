"""What a caller may give for rows, and what is said of the rest."""

from types import MappingProxyType

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from sfwriter.exceptions import WriterPerformanceError, WriterSchemaError, WriterValidationError
from sfwriter.ingest.gate import Gate
from sfwriter.models import LogRecord
from sfwriter.schema import LOG_SCHEMA

ROWS = [
    {"run_id": "r", "phase": "bronze", "step_name": "a", "rows_processed": 1, "duration_secs": 0.5},
    {"run_id": "r", "phase": "gold", "step_name": "b", "rows_processed": 2, "duration_secs": 1.5},
]
TABLE = pa.Table.from_pylist(ROWS)


class OnlyStream:
    """Anything with the PyCapsule interface, such as a DuckDB relation."""

    def __init__(self, table):
        self._table = table

    def __arrow_c_stream__(self, requested_schema=None):
        return self._table.__arrow_c_stream__(requested_schema)


class OnlyArray:
    def __init__(self, batch):
        self._batch = batch

    def __arrow_c_array__(self, requested_schema=None):
        return self._batch.__arrow_c_array__(requested_schema)


ACCEPTED = {
    "a list of dicts": lambda: ROWS,
    "a tuple": lambda: tuple(ROWS),
    "a generator": lambda: (dict(row) for row in ROWS),
    "mappings that are no dicts": lambda: [MappingProxyType(row) for row in ROWS],
    "LogRecords": lambda: [LogRecord(**row) for row in ROWS],
    "a mix of dicts and LogRecords": lambda: [ROWS[0], LogRecord(**ROWS[1])],
    "an Arrow table": lambda: TABLE,
    "a record batch": lambda: TABLE.to_batches()[0],
    "a reader": lambda: TABLE.to_reader(max_chunksize=1),
    "an iterable of batches": lambda: iter(TABLE.to_batches(max_chunksize=1)),
    "a list of tables": lambda: [TABLE.slice(0, 1), TABLE.slice(1)],
    "a pandas frame": lambda: pd.DataFrame(ROWS, index=["x", "y"]),
    "a polars frame": lambda: pl.DataFrame(ROWS),
    "a stream by the PyCapsule interface": lambda: OnlyStream(TABLE),
    "an array by the PyCapsule interface": lambda: OnlyArray(TABLE.to_batches()[0]),
    "large strings": lambda: TABLE.cast(
        pa.schema([("run_id", pa.large_string()), *[TABLE.schema.field(i) for i in range(1, 5)]])
    ),
    "dictionary columns": lambda: TABLE.set_column(1, "phase", TABLE["phase"].dictionary_encode()),
    "narrow numbers": lambda: TABLE.set_column(3, "rows_processed", TABLE["rows_processed"].cast(pa.int16())),
}


@pytest.mark.parametrize("kind", ACCEPTED)
@pytest.mark.parametrize("mode", ["strict", "lenient", "ignore"])
def test_every_accepted_kind_of_input_gives_the_same_rows_and_the_same_digest(kind, mode):
    expected = Gate("strict").encode(ROWS)

    batch = Gate(mode).encode(ACCEPTED[kind]())

    assert batch.rows.to_pylist() == expected.rows.to_pylist()
    assert batch.rows.schema == expected.rows.schema
    assert batch.digest == expected.digest
    assert batch.quarantined is None


def test_rows_have_the_columns_of_the_log_without_the_one_that_staging_stamps():
    batch = Gate().encode(ROWS)

    assert batch.rows.schema.names == [name for name in LOG_SCHEMA.names if name != "logged_at"]
    assert all(batch.rows.schema.field(name).type == LOG_SCHEMA.field(name).type for name in batch.rows.schema.names)


@pytest.mark.parametrize(
    "empty",
    [[], (), iter([]), pa.table({}), TABLE.slice(0, 0), TABLE.slice(0, 0).to_reader(), pl.DataFrame(), pd.DataFrame()],
)
def test_empty_input_is_a_batch_of_no_rows(empty):
    gated = Gate().admit(empty)

    assert (gated.given, gated.accepted, gated.quarantined) == (0, 0, 0)
    assert gated.batch.rows.schema.names[:2] == ["run_id", "run_mode"]
    assert gated.batch.run_id


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (None, "None"),
        (7, "7 (int)"),
        ("text", "'text' (str)"),
        (b"bytes", "(bytes)"),
        (object(), "object"),
    ],
)
def test_what_holds_no_rows_is_refused_by_its_name_and_with_what_is_accepted(given, told):
    with pytest.raises(WriterValidationError, match="Rows are expected") as refused:
        Gate("lenient").encode(given)

    assert told in str(refused.value)
    assert "record batch" in str(refused.value)


@pytest.mark.parametrize("row", [{"phase": "bronze", "step_name": "a"}, LogRecord(phase="bronze", step_name="a")])
def test_a_single_row_is_refused_with_the_advice_to_wrap_it(row):
    with pytest.raises(WriterValidationError, match=r"\[row\]"):
        Gate().encode(row)


def test_a_pandas_index_with_a_name_is_a_column_and_one_without_is_not():
    frame = pd.DataFrame(ROWS).set_index("step_name")

    assert Gate().encode(frame).rows["step_name"].to_pylist() == ["a", "b"]
    assert Gate().admit(pd.DataFrame(ROWS, index=[5, 6])).new_columns == ()


def test_a_series_is_no_table():
    with pytest.raises(WriterValidationError, match="cannot be read"):
        Gate().encode(pl.Series([1, 2]))


def test_rows_that_are_no_mappings_are_named_by_position_in_strict():
    with pytest.raises(WriterValidationError) as refused:
        Gate().encode([ROWS[0], 7, None, "x"])

    assert [entry["row"] for entry in refused.value.validation_errors] == [1, 2, 3]
    assert "7 (int)" in refused.value.validation_errors[0]["reasons"][0]


def test_rows_that_are_no_mappings_go_to_quarantine_in_lenient():
    gated = Gate("lenient").admit([ROWS[0], 7, None, "x"])

    assert gated.accepted == 1
    assert gated.batch.quarantined["row"].to_pylist() == ["7", "null", '"x"']


def test_rows_that_are_no_mappings_refuse_the_call_in_ignore():
    with pytest.raises(WriterValidationError, match="not a mapping"):
        Gate("ignore").encode([ROWS[0], 7])


def test_dicts_among_arrow_batches_are_refused_by_position():
    with pytest.raises(WriterValidationError, match="Element 1 is"):
        Gate().encode([TABLE, ROWS[0]])


def test_two_arrow_columns_of_one_name_are_refused_in_every_mode():
    table = pa.Table.from_arrays([pa.array(["bronze"]), pa.array(["gold"])], names=["phase", "phase"])

    for mode in ("strict", "lenient", "ignore"):
        with pytest.raises(WriterSchemaError, match="more than one column named 'phase'"):
            Gate(mode).encode(table)


def test_an_error_of_the_callers_own_generator_passes_as_it_is():
    def rows():
        yield ROWS[0]
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        Gate().encode(rows())


@pytest.mark.parametrize(
    "given", [lambda: (dict(row) for row in ROWS * 5000), lambda: pa.concat_tables([TABLE] * 5000).to_reader()]
)
def test_rows_beyond_the_budget_are_refused_while_they_are_read(given):
    with pytest.raises(WriterPerformanceError, match="write_batches"):
        Gate().encode(given(), max_bytes=100_000)


def test_an_endless_generator_is_refused_and_not_read_for_ever():
    def rows():
        while True:
            yield dict(ROWS[0])

    with pytest.raises(WriterPerformanceError):
        Gate().encode(rows(), max_bytes=1 << 20)


def test_rows_given_are_never_changed():
    row = {"phase": "BRONZE", "step_name": "a", "metadata": {"a": 1}, "new": [1], "rows_processed": "x"}
    before = repr(row)

    Gate("ignore").encode([row])

    assert repr(row) == before


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="strict, lenient and ignore"):
        Gate("Strict")


MIXED = {"phase": ["bronze"] * 3, "step_name": ["a", "b", "c"], "rows_processed": [1, "many", None]}
FRAMES = {
    "pandas": lambda: pd.DataFrame(MIXED, index=["x", "y", "z"]),
    "polars": lambda: pl.DataFrame({**MIXED, "rows_processed": pl.Series([1, 2**90, None], dtype=pl.Int128)}),
}


@pytest.mark.parametrize("library", FRAMES)
def test_a_frame_whose_column_has_no_arrow_type_is_judged_row_by_row(library):
    frame = FRAMES[library]()

    with pytest.raises(WriterSchemaError) as refused:
        Gate("strict").encode(frame)
    lenient = Gate("lenient").encode(frame)
    every = Gate("ignore").encode(frame)

    assert [(entry["row"], entry["column"]) for entry in refused.value.validation_errors] == [(1, "rows_processed")]
    assert lenient.rows["step_name"].to_pylist() == ["a", "c"]
    assert lenient.rows["rows_processed"].to_pylist() == [1, None]
    assert lenient.quarantined.num_rows == 1
    assert every.rows["rows_processed"].to_pylist() == [1, None, None]
    assert "_unconverted" in every.rows["metadata"].to_pylist()[1]


def test_missing_values_of_a_mixed_pandas_frame_are_null_and_a_named_index_is_a_column():
    frame = pd.DataFrame(
        {
            **MIXED,
            "pipeline_id": [float("nan"), "p", None],
            "start_time": [pd.Timestamp("2024-01-01"), pd.NaT, pd.NaT],
            "duration_secs": [1.5, float("nan"), 2.0],
        },
        index=pd.Index([7, 8, 9], name="attempt"),
    )

    rows = Gate("ignore").encode(frame).rows

    assert rows["pipeline_id"].to_pylist() == [None, "p", None]
    assert rows["start_time"].null_count == 2
    assert rows["duration_secs"].to_pylist() == [1.5, None, 2.0]
    assert rows["attempt"].to_pylist() == [7, 8, 9]


def test_polars_categories_and_enums_are_texts_however_few_rows_there_are():
    for count in (2, 5000):
        frame = pl.DataFrame(
            {
                "phase": pl.Series(["bronze"] * count, dtype=pl.Categorical),
                "step_name": pl.Series(["a", "b"] * (count // 2), dtype=pl.Enum(["a", "b"])),
                "pipeline_id": pl.Series(["p", None] * (count // 2), dtype=pl.Categorical),
            }
        )

        rows = Gate("strict").encode(frame).rows

        assert rows["step_name"].to_pylist() == ["a", "b"] * (count // 2)
        assert rows["pipeline_id"].to_pylist() == ["p", None] * (count // 2)
