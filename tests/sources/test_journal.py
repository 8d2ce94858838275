from pathlib import Path

import pytest

from sfwriter.exceptions import WriterTableError
from sfwriter.sources import Limits, journal_of, source_of
from sfwriter.sources.cuts import Position, Record, Segment
from sfwriter.sources.journal import _ObjectJournal

RECORD = Record("/x", 2, Limits(5, 6), (Segment(Position(1, 2, 3, 4), 5, 6, "d"), Segment(Position(2), 7, 8, "e")), 1)


@pytest.fixture(params=["local", "object store"])
def journal(request, tmp_path):
    if request.param == "local":
        return journal_of("ops.runs", str(tmp_path / "ops" / "runs"), {})
    return _ObjectJournal(f"file://{tmp_path}", "_sfwriter/backfill/ops.runs", {})


@pytest.fixture
def source(tmp_path):
    return source_of(tmp_path / "a.csv")


def test_a_record_comes_back_as_it_was_kept(journal, source):
    assert journal.load(source) is None
    journal.keep(source, RECORD)
    journal.keep(source, RECORD)
    assert journal.load(source) == RECORD


def test_a_record_lies_in_the_warehouse_under_the_tables_name(journal, source, tmp_path):
    journal.keep(source, RECORD)
    path = tmp_path / "_sfwriter" / "backfill" / "ops.runs" / f"{source.key}.json"
    assert path.is_file()
    assert journal.where(source).endswith(str(path))


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": 9}'])
def test_a_record_that_is_something_else_is_an_error_that_names_the_file(journal, source, tmp_path, text):
    journal.keep(source, RECORD)
    (tmp_path / "_sfwriter" / "backfill" / "ops.runs" / f"{source.key}.json").write_text(text)
    with pytest.raises(WriterTableError, match=source.key):
        journal.load(source)


def test_a_warehouse_that_cannot_be_written_is_an_error(tmp_path, source):
    (tmp_path / "file").touch()
    journal = journal_of("ops.runs", str(tmp_path / "file" / "ops" / "runs"), {})
    with pytest.raises(WriterTableError, match="cannot be written"):
        journal.keep(source, RECORD)
    with pytest.raises(WriterTableError, match="cannot be made"), journal.held(source):
        pass


def test_the_warehouse_of_an_object_store_is_two_levels_above_the_table():
    journal = journal_of("ops.runs", "s3://bucket/wh/ops/runs", {"aws_region": "x"})
    source = source_of(Path("/a.csv"))
    assert journal.where(source) == f"s3://bucket/wh/_sfwriter/backfill/ops.runs/{source.key}.json"
