"""What is read from a table is what was given, value by value, whatever road the rows came by."""

import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sfwriter import LogWriter
from sfwriter.backfill import backfill
from sfwriter.sources import source_of
from sfwriter.testing.rows import log_table

ROWS = 23_000
TEXTS = (
    "run_mode", "pipeline_id", "schema", "phase", "step_name", "step_type", "table_fqn", "write_mode", "error_message",
)  # fmt: skip
"""Columns that have few values, which travel as numbers where they can."""


def mixed(rows, seed=5):
    """Rows of a log in an order of its own, a different one in each part of it, with holes where there may be some."""
    dice = random.Random(seed)
    order = list(range(rows))
    dice.shuffle(order)
    table = log_table(rows).take(pa.array(order))
    for name in ("step_type", "error_message", "table_fqn", "write_mode"):
        kept = pa.array([None if dice.random() < 0.1 else value for value in table.column(name).to_pylist()])
        table = table.set_column(table.column_names.index(name), table.schema.field(name), kept.cast(pa.string()))
    ids = pa.array([f"row-{number:06}" for number in range(rows)])
    return table.set_column(table.column_names.index("execution_id"), table.schema.field("execution_id"), ids)


def with_own_dictionaries(table, part, seed=9):
    """Each text column encoded part by part: by a dictionary in order, or one in none with a value that nobody uses."""
    dice = random.Random(seed)
    pieces = []
    for start in range(0, table.num_rows, part):
        piece = table.slice(start, part)
        for name in TEXTS:
            values = piece.column(name).to_pylist()
            texts = sorted({value for value in values if value is not None})
            if start // part % 2:
                texts.append(f"no {name} has this")
                dice.shuffle(texts)
            places = {text: place for place, text in enumerate(texts)}
            numbers = pa.array([places.get(value) for value in values], pa.int32())
            encoded = pa.DictionaryArray.from_arrays(numbers, pa.array(texts))
            piece = piece.set_column(piece.column_names.index(name), name, encoded)
        pieces.append(piece)
    return pieces


def by_dicts(config, table, folder):
    with LogWriter(config=config) as writer:
        writer.write_log_rows(table.to_pylist())


def by_few_dicts(config, table, folder):
    with LogWriter(config=config) as writer:
        writer.write_batches([table.slice(start, 200).to_pylist() for start in range(0, table.num_rows, 200)])


def by_arrow(config, table, folder):
    with LogWriter(config=config) as writer:
        writer.write_log_rows(table)


def by_encoded_arrow(config, table, folder):
    with LogWriter(config=config) as writer:
        writer.write_log_rows(pa.concat_tables(with_own_dictionaries(table, 4_000)))


def by_encoded_batches(config, table, folder):
    with LogWriter(config=config) as writer:
        writer.write_batches(with_own_dictionaries(table, 3_000))


def by_parquet(config, table, folder):
    for number, piece in enumerate(with_own_dictionaries(table, 6_000)):
        pq.write_table(piece, folder / f"{number}.parquet", row_group_size=2_500)
    with LogWriter(config=config) as writer:
        backfill(writer, [source_of(path) for path in sorted(folder.iterdir())])


ROADS = (by_dicts, by_few_dicts, by_arrow, by_encoded_arrow, by_encoded_batches, by_parquet)


@pytest.mark.parametrize("road", ROADS)
def test_what_is_read_is_what_was_given(tmp_path, config, read, road):
    given = mixed(ROWS)
    folder = tmp_path / "files"
    folder.mkdir()
    road(config(), given, folder)
    found = read().select(given.column_names).sort_by("execution_id")
    differ = [name for name in given.column_names if found.column(name).to_pylist() != given.column(name).to_pylist()]
    assert differ == []
