import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sfwriter.exceptions import WriterValidationError
from sfwriter.sources import Limits, SourceReading, source_of
from sfwriter.sources.parquet import MAX_ROWS, limits_of
from sfwriter.testing.rows import log_table
from tests.sources.support import run


def write(path, rows, text="s", **options):
    pq.write_table(
        pa.table({"step_name": [text] * rows, "rows_written": pa.array(range(rows), pa.int32())}), path, **options
    )


def test_types_are_the_files_own(tmp_path, table):
    path = tmp_path / "a.parquet"
    write(path, 5)
    with SourceReading(source_of(path), table.journal(), table.watermark) as reading:
        (chunk,) = reading.chunks()
    assert chunk.rows.schema.field("rows_written").type == pa.int32()
    assert chunk.place_of(4) == "row 5"


def test_columns_of_few_values_come_as_they_are_stored_and_others_plain(tmp_path, table):
    rows = log_table(30_000)
    path = tmp_path / "a.parquet"
    pq.write_table(rows, path, row_group_size=12_000)
    with SourceReading(source_of(path), table.journal(), table.watermark, limits=Limits(9_000, 1 << 30)) as reading:
        chunks = [chunk.rows for chunk in reading.chunks()]
    read = chunks[0].schema
    assert [read.field(name).type for name in ("phase", "pipeline_id")] == [pa.dictionary(pa.int32(), pa.string())] * 2
    assert [read.field(name).type for name in ("run_id", "metadata")] == [pa.string()] * 2
    assert [chunk.num_rows for chunk in chunks] == [9_000, 9_000, 9_000, 3_000]
    assert pa.concat_tables(chunk.cast(rows.schema) for chunk in chunks).equals(rows)


def test_a_file_without_rows_has_no_chunks(tmp_path, table):
    write(tmp_path / "a.parquet", 0)
    assert run(table, tmp_path / "a.parquet").chunks == []


def test_wide_rows_make_small_chunks_even_where_they_are_stored_once(tmp_path):
    write(tmp_path / "narrow.parquet", 200_000)
    write(tmp_path / "wide.parquet", 20_000, text="x" * 5_000)
    assert limits_of(source_of(tmp_path / "narrow.parquet")).rows == MAX_ROWS
    assert limits_of(source_of(tmp_path / "wide.parquet")).rows < 3_400
    assert (tmp_path / "wide.parquet").stat().st_size < 1 << 20


def test_a_large_budget_allows_larger_chunks_within_bounds(tmp_path):
    pq.write_table(pa.table({"step_name": ["x" * 1_000] * 3_000}), tmp_path / "a.parquet", use_dictionary=False)
    small, large, largest = (limits_of(source_of(tmp_path / "a.parquet"), budget) for budget in (0, 1 << 30, 1 << 40))
    assert small.rows < large.rows < largest.rows
    assert (small.nbytes, large.nbytes, largest.nbytes) == (11 << 20, 16 << 20, 32 << 20)


@pytest.mark.parametrize("cut", [0, 3, 100, -8, -200])
def test_a_truncated_file_is_named_and_nothing_of_it_is_written(tmp_path, table, cut):
    path = tmp_path / "a.parquet"
    write(path, 1000)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(WriterValidationError, match="is no readable Parquet file") as caught:
        run(table, path)
    assert str(path) in str(caught.value)
    assert table.rows == {}


def test_a_file_that_is_broken_inside_is_named_and_what_was_read_before_stays(tmp_path, table):
    path = tmp_path / "a.parquet"
    write(path, 1000, row_group_size=100, compression="snappy")
    data = bytearray(path.read_bytes())
    place = pq.ParquetFile(path).metadata.row_group(5).column(1).data_page_offset
    data[place : place + 40] = b"\xff" * 40
    path.write_bytes(data)
    with pytest.raises(WriterValidationError, match="cannot be read to its end"):
        run(table, path)
    assert len(table.all_rows()) % 3 == 0


def test_something_else_under_the_name_is_refused(tmp_path, table):
    (tmp_path / "a.parquet").write_bytes(b"phase,step_name\nbronze,s\n" * 10)
    with pytest.raises(WriterValidationError, match="is no readable Parquet file"):
        run(table, tmp_path / "a.parquet")
