"""A source is read again and again while its file grows, is changed, and the reader dies."""

import gzip
import random
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sfwriter.exceptions import WriterError, WriterValidationError
from sfwriter.sources import Limits, SourceReading, source_of
from tests.sources.support import FakeTable, append, line, lines, packed, run

TEXTS = ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst"]
HEADER = b"run_id,phase,step_name,rows_written\n"


def numbers(table):
    return table.column("rows_written")


@pytest.mark.parametrize("name", TEXTS)
def test_a_file_that_grew_continues_with_its_new_rows(tmp_path, table, name):
    path = tmp_path / name
    append(path, lines(0, 1, 2, 3))
    assert run(table, path).written == 4
    append(path, lines(4))
    again = run(table, path)
    assert (again.written, again.earlier) == (1, 4)
    append(path, lines(5, 6, 7, 8, 9))
    run(table, path)
    assert numbers(table) == list(range(10))


@pytest.mark.parametrize("name", TEXTS)
def test_a_finished_source_is_not_written_again(tmp_path, table, name):
    path = tmp_path / name
    append(path, lines(*range(7)))
    run(table, path)
    again = run(table, path)
    assert (again.written, again.earlier, again.chunks) == (0, 7, [])


def test_growth_that_was_compressed_anew_is_growth_all_the_same(tmp_path, table):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(lines(0, 1, 2, 3), 1))
    run(table, path)
    path.write_bytes(gzip.compress(lines(*range(6)), 9))
    run(table, path)
    assert numbers(table) == list(range(6))


def test_a_last_line_without_an_end_is_a_row_and_growth_goes_on_behind_it(tmp_path, table):
    path = tmp_path / "a.jsonl"
    append(path, lines(0, 1) + line(2).rstrip())
    assert run(table, path).chunks == [2, 1]
    assert run(table, path).written == 0
    append(path, b"\n" + lines(3))
    run(table, path)
    assert numbers(table) == [0, 1, 2, 3]


def test_a_written_last_line_that_goes_on_is_a_change(tmp_path, table):
    path = tmp_path / "a.csv"
    append(path, HEADER + b"r,bronze,s,1")
    run(table, path)
    append(path, b"2\nr,bronze,s,3\n")
    with pytest.raises(WriterValidationError, match="its last row, which was not finished"):
        run(table, path)
    assert numbers(table) == [1]


def test_an_unfinished_last_line_that_nobody_has_is_read_when_it_is_whole(tmp_path, table):
    path = tmp_path / "a.jsonl"
    whole = lines(*range(5))
    append(path, whole[:-20])
    first = run(table, path, stop_after=1)  # the third chunk, the torn line, is never sent
    assert first.chunks == [3, 1]
    append(path, whole[-20:] + lines(5))
    run(table, path)
    assert numbers(table) == list(range(6))
    assert run(table, path).written == 0


def test_a_torn_line_that_was_sent_and_lost_is_compared_when_it_is_sent_again(tmp_path, table):
    path = tmp_path / "a.jsonl"
    whole = lines(*range(4))
    append(path, whole[:-20])
    torn = run(table, path, stop_after=1, lose_last=True)
    assert torn.chunks == [3, 1]
    append(path, whole[-20:])
    zombie = FakeTable(table.location, dict(table.rows))
    # The service still held the torn chunk, and it lands while the next run is under way.
    table.rows = {producer: [*parts, ["torn"]] for producer, parts in zombie.rows.items()}
    table.watermark, real = zombie.watermark, table.watermark
    with pytest.raises(AssertionError, match="other content"):
        run(table, path)
    table.watermark = real
    with pytest.raises(AssertionError, match="other content"):
        run(table, path)


def test_an_empty_file_may_grow(tmp_path, table):
    path = tmp_path / "a.csv"
    path.touch()
    assert run(table, path).chunks == []
    append(path, HEADER)
    assert run(table, path).chunks == []
    append(path, b"r,bronze,s,1\n\n\n")
    assert run(table, path).chunks == [1]
    append(path, b"\nr,bronze,s,2")
    assert run(table, path).chunks == [1]
    assert numbers(table) == [1, 2]


@pytest.mark.parametrize("change", ["edited", "before", "shorter", "unwritten part"])
@pytest.mark.parametrize("name", TEXTS)
def test_a_change_after_a_part_was_written_is_an_error_and_writes_nothing(tmp_path, table, name, change):
    path = tmp_path / name
    append(path, lines(*range(9)))
    run(table, path, stop_after=1)
    before = numbers(table)
    content = {
        "edited": lines(0, 7, *range(2, 9)),
        "before": lines(9, *range(9)),
        "shorter": lines(*range(7)),
        "unwritten part": lines(*range(8), 9),
    }[change]
    path.write_bytes(packed(path, content))
    with pytest.raises(WriterValidationError, match="was changed after a part of it was written") as caught:
        run(table, path)
    assert str(path) in str(caught.value)
    assert "--as-new" in str(caught.value)
    assert numbers(table) == before


def test_a_changed_source_is_another_one_with_as_new_and_goes_on_exactly(tmp_path, table):
    path = tmp_path / "a.jsonl"
    append(path, lines(*range(7)))
    run(table, path, stop_after=0)
    path.write_bytes(lines(*range(10, 20)))
    run(table, path, as_new=True, stop_after=1)
    assert run(table, path, as_new=True).earlier == 6
    append(path, lines(20))
    assert run(table, path).written == 1  # from now on this is the source of that path
    assert run(table, path, as_new=True).written == 0
    assert numbers(table) == [0, 1, 2, *range(10, 21)]


def test_a_file_of_which_nothing_was_written_may_change_as_it_likes(tmp_path, table):
    path = tmp_path / "a.jsonl"
    append(path, lines(*range(7)))
    run(table, path, stop_after=0, lose_last=True)
    path.write_bytes(lines(*range(5)))
    run(table, path)
    assert numbers(table) == list(range(5))


def test_a_record_that_is_gone_is_told_and_nothing_is_written(tmp_path, table):
    path = tmp_path / "a.jsonl"
    append(path, lines(*range(7)))
    run(table, path)
    shutil.rmtree(table.location)
    with pytest.raises(WriterError, match="the record of how it was divided is gone"):
        run(table, path)
    assert run(table, path, as_new=True).written == 7


def test_a_table_that_was_made_anew_gets_everything_again(tmp_path, table):
    path = tmp_path / "a.jsonl"
    append(path, lines(*range(7)))
    run(table, path)
    table.rows.clear()
    append(path, lines(7))
    run(table, path)
    assert numbers(table) == list(range(8))
    assert run(table, path).written == 0


def test_a_table_that_knows_less_or_more_than_the_record_is_an_error(tmp_path, table):
    path = tmp_path / "a.jsonl"
    append(path, lines(*range(7)))
    run(table, path)
    (parts,) = table.rows.values()
    parts.pop()
    with pytest.raises(WriterError, match="does not fit the record"):
        run(table, path)
    parts.extend([[], []])
    with pytest.raises(WriterError, match="does not fit the record"):
        run(table, path)


def test_the_record_stays_small_however_often_the_file_grows(tmp_path, table):
    path = tmp_path / "a.jsonl"
    for number in range(50):
        append(path, line(number))
        run(table, path)
    (record,) = (tmp_path / "table" / "_sfwriter" / "backfill").rglob("*.json")
    assert record.stat().st_size < 1000
    assert numbers(table) == list(range(50))


def test_a_source_that_another_process_reads_is_left_alone(tmp_path, table):
    path = tmp_path / "a.jsonl"
    append(path, lines(1))
    with SourceReading(source_of(path), table.journal(), table.watermark):
        with pytest.raises(WriterError, match="is being backfilled into this table by another process") as caught:
            run(table, path)
        assert caught.value.code == "source_busy"
    run(table, path)
    assert numbers(table) == [1]


def test_a_file_that_changes_while_it_is_read_is_an_error(tmp_path, table):
    path = tmp_path / "a.jsonl"
    append(path, lines(*range(9)))
    reading = SourceReading(source_of(path), table.journal(), table.watermark, limits=Limits(3, 1000))
    with reading:
        chunks = reading.chunks()
        next(chunks)
        path.write_bytes(lines(*range(1, 10)))
        with pytest.raises(WriterValidationError, match="changed while it was read"):
            list(chunks)


def test_a_file_that_grows_while_it_is_read_is_read_as_it_was(tmp_path, table):
    path = tmp_path / "a.jsonl"
    append(path, lines(*range(4)))
    reading = SourceReading(source_of(path), table.journal(), table.watermark, limits=Limits(3, 1000))
    with reading:
        for chunk in reading.chunks():
            append(path, lines(8, 9))
            table.take(reading.producer_id, chunk)
        reading.finished()
    assert numbers(table) == list(range(4))
    run(table, path)
    assert numbers(table) == [0, 1, 2, 3, 8, 9, 8, 9]


def parquet(path, values, **options):
    rows = len(values)
    pq.write_table(pa.table({"step_name": ["s"] * rows, "rows_written": values}), path, **options)


@pytest.mark.parametrize("group", [1, 4, 7, 100])
def test_a_parquet_file_goes_on_where_it_was_left_whatever_its_row_groups_are(tmp_path, table, group):
    path = tmp_path / "a.parquet"
    parquet(path, list(range(20)), row_group_size=group)
    assert run(table, path, stop_after=1).chunks == [3, 3]
    again = run(table, path)
    assert (again.earlier, again.written) == (6, 14)
    assert numbers(table) == list(range(20))
    assert run(table, path).chunks == []
    assert run(table, path).earlier == 20


def test_a_parquet_file_that_changed_in_any_way_is_an_error(tmp_path, table):
    path = tmp_path / "a.parquet"
    parquet(path, list(range(20)))
    run(table, path)
    parquet(path, list(range(21)))
    with pytest.raises(WriterValidationError, match="was changed"):
        run(table, path)
    parquet(path, [*range(10), 11, 10, *range(12, 20)])  # same size, same statistics
    with pytest.raises(WriterValidationError, match="was changed"):
        run(table, path)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    steps=st.lists(st.tuples(st.integers(0, 90), st.one_of(st.none(), st.integers(0, 4)), st.booleans()), max_size=8),
    name=st.sampled_from([*TEXTS, "a.csv", "a.csv.gz"]),
    limit=st.integers(1, 4),
)
def test_rows_are_there_once_and_in_order_however_often_the_file_grows_and_the_reader_dies(
    tmp_path_factory, steps, name, limit
):
    """Growth cuts anywhere; a torn line is only ever left to the next run where nobody took it."""
    folder = tmp_path_factory.mktemp("grow")
    table = FakeTable(str(folder / "table"))
    path = folder / name
    csv = ".csv" in name
    rows = (
        [f'"r{number}\n""x""",bronze,s,{number}\n'.encode() for number in range(12)]
        if csv
        else [line(n) for n in range(12)]
    )
    content = (HEADER if csv else b"") + b"".join(rows)
    path.touch()
    done = 0
    for size, dies, loses in steps:
        upto = min(done + size, len(content))
        append(path, content[done:upto])
        done = upto
        some = Limits(limit, 1 << 20)
        if content[:done].endswith(b"\n") and content[:done].count(b'"') % 2 == 0:
            run(table, path, limits=some, stop_after=dies, lose_last=loses)
            continue
        whole = min(dies or 0, whole_chunks(content[:done], rows, csv, limit) - taken(table))
        if whole > 0:
            run(table, path, limits=some, stop_after=whole - 1, lose_last=loses)
    append(path, content[done:])
    run(table, path, limits=Limits(limit, 1 << 20))
    assert numbers(table) == list(range(12))
    assert run(table, path, limits=Limits(limit, 1 << 20)).chunks == []


def taken(table):
    return sum(len(parts) for parts in table.rows.values())


def whole_chunks(content, rows, csv, limit):
    """A lower bound of the chunks of whole rows: what may be read without touching the torn one."""
    size, count = len(HEADER) if csv else 0, 0
    for row in rows:
        size += len(row)
        if size > len(content):
            break
        count += 1
    return count // limit


def test_zstd_frames_and_gzip_members_of_any_size_read_as_one_content(tmp_path, table):
    rng = random.Random(5)
    rows = [line(number, metadata={"x": "y" * rng.randrange(3000)}) for number in range(300)]
    for name, pack in [("a.jsonl.gz", gzip.compress), ("b.jsonl.zst", zstandard.ZstdCompressor(3).compress)]:
        path = tmp_path / name
        rest = b"".join(rows)
        with path.open("wb") as file:
            while rest:
                size = rng.choice([1, 100, 20_000, 200_000])
                file.write(pack(rest[:size]))
                rest = rest[size:]
            file.write(b"\0" * 512 if name.endswith("gz") else b"")
        fresh = FakeTable(str(tmp_path / f"table of {name}"))
        run(fresh, path, limits=Limits(50, 1 << 20))
        assert numbers(fresh) == list(range(300))
