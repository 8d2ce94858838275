"""The independent reader sees what the table's newest version holds."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake

from benchmarks.live import count_rows, live_files, look_at, query


@pytest.fixture
def table(tmp_path):
    for version in range(4):
        write_deltalake(
            str(tmp_path / "t"),
            pa.table({"n": [version * 2, version * 2 + 1]}),
            mode="append",
            commit_properties=CommitProperties(app_transactions=[Transaction("p", version)]),
        )
    return tmp_path / "t"


def test_appended_rows_are_counted(table):
    assert count_rows(table) == 8
    assert query(table, "count(*), count(DISTINCT n) FROM logs") == [(8, 8)]
    assert look_at(table).numbers == {"p": 3}


def test_files_that_were_removed_are_not_counted(table):
    DeltaTable(str(table)).optimize.compact()

    assert len(live_files(table)) == 1
    assert count_rows(table) == 8


def test_a_table_is_read_from_its_checkpoint_on(table):
    DeltaTable(str(table)).create_checkpoint()
    for version in range(3):
        (table / "_delta_log" / f"{version:020}.json").unlink()
    write_deltalake(str(table), pa.table({"n": [8]}), mode="append")

    assert count_rows(table) == 9
    assert look_at(table).numbers == {"p": 3}


def test_a_hole_in_the_log_is_an_error(table):
    (table / "_delta_log" / f"{2:020}.json").unlink()

    with pytest.raises(ValueError, match="version 2 is missing"):
        count_rows(table)


def test_an_entry_that_one_listing_did_not_show_is_no_hole(table, monkeypatch):
    """A listing of a folder that grows may show an entry and not the one before it."""
    whole, asked = Path.iterdir, []

    def listed(folder):
        asked.append(folder)
        return [path for path in whole(folder) if len(asked) > 1 or path.name != f"{2:020}.json"]

    monkeypatch.setattr(Path, "iterdir", listed)
    assert count_rows(table) == 8


def test_where_there_is_no_table_there_are_no_rows(tmp_path):
    assert count_rows(tmp_path / "none") == 0
