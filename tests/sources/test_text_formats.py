import gzip
import math
from datetime import datetime, timezone

import orjson
import pyarrow as pa
import pytest
import zstandard

from sfwriter.exceptions import WriterValidationError
from sfwriter.ingest.unreadable import Unreadable
from sfwriter.sources import Limits, SourceReading, source_of
from sfwriter.sources.delimited import rows_of_records
from sfwriter.sources.jsonl import rows_of_lines
from sfwriter.sources.typed_text import LOG_TYPES, parse_column, parse_text, types_of
from tests.sources.support import FakeTable, lines, run

UTC = timezone.utc
LIMITS = Limits(1000, 1 << 20)
HEADER = b"phase,step_name,rows_written\n"


def read(path, limits=LIMITS):
    """All chunks of a file that was never met."""
    table = FakeTable(str(path) + ".table")
    with SourceReading(source_of(path), table.journal(), table.watermark, limits=limits) as reading:
        return list(reading.chunks())


def rows_of(path):
    return [row for chunk in read(path) for row in as_rows(chunk.rows)]


def as_rows(rows):
    return rows.to_pylist() if isinstance(rows, pa.Table) else rows


def json_rows(*texts):
    rows, faults = rows_of_lines(
        [(text if isinstance(text, bytes) else text.encode()) + b"\n" for text in texts], LOG_TYPES
    )
    return rows, faults


# ---------------------------------------------------------------- JSON lines


def test_clean_lines_become_a_table_in_the_columns_types():
    rows, faults = json_rows(
        '{"run_id":"a","start_time":"2024-01-01T00:00:00Z","duration_secs":1,"success":true,"metadata":{"a":[1]}}',
        '{"run_id":null,"start_time":"2024-01-01T02:30:00.5+02:00","rows_written":"12","extra":"x"}',
    )
    assert isinstance(rows, pa.Table)
    assert not faults
    assert rows.to_pylist() == [
        {"run_id": "a", "start_time": datetime(2024, 1, 1, tzinfo=UTC), "duration_secs": 1.0, "success": True,
         "metadata": '{"a":[1]}', "rows_written": None, "extra": None},
        {"run_id": None, "start_time": datetime(2024, 1, 1, 0, 30, 0, 500_000, UTC), "duration_secs": None,
         "success": None, "metadata": None, "rows_written": 12, "extra": "x"},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "column", "value"),
    [
        ('{"rows_written": 9223372036854775808}', "rows_written", 2**63),
        ('{"rows_written": 123456789012345678901234567890}', "rows_written", 123456789012345678901234567890),
        ('{"duration_secs": 123456789012345678901234567890}', "duration_secs", 123456789012345678901234567890),
        ('{"metadata": {"id": 123456789012345678901234567890}}', "metadata", {"id": 123456789012345678901234567890}),
        ('{"rows_written": 12.0}', "rows_written", 12.0),
        ('{"rows_written": true}', "rows_written", True),
        ('{"duration_secs": NaN}', "duration_secs", math.nan),
        ('{"duration_secs": -Infinity}', "duration_secs", -math.inf),
        ('{"step_name": 5}', "step_name", 5),
        ('{"step_name": "\\ud800"}', "step_name", "\ud800"),
        ('{"start_time": 17}', "start_time", 17),
        ('{"start_time": "soon"}', "start_time", "soon"),
        ('{"start_time": "2024-01-01T00:00:00.123456789Z"}', "start_time", "2024-01-01T00:00:00.123456789Z"),
        ('{"extra": {"a": [1]}}', "extra", {"a": [1]}),
    ],
)
def test_a_value_of_another_type_reaches_the_gate_as_it_is(text, column, value):
    good = '{"rows_written": 1, "duration_secs": 2.5, "step_name": "s"}'
    rows, faults = json_rows(good, text)
    assert not faults
    assert isinstance(rows, list)
    found = rows[1][column]
    assert type(found) is type(value)
    assert found == value or (math.isnan(found) and math.isnan(value))
    assert rows[0] == {"rows_written": 1, "duration_secs": 2.5, "step_name": "s"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a":', "is no valid JSON"),
        ("{", "each line must hold one"),
        ("[1, 2]", "is an array and no JSON object"),
        ('"text"', "is a text and no JSON object"),
        ("null", "is null and no JSON object"),
        ("12", "is a number and no JSON object"),
        ('{"a": 1} {"b": 2}', "is no valid JSON"),
        ("[" * 100_000, "is nested too deeply"),
        (b'{"a": "\xff"}', "is not UTF-8 (byte 8 of the line)"),
        ("\0", "is no valid JSON"),
    ],
)
def test_a_line_that_is_no_object_stays_in_its_place_as_text_with_the_reason(text, reason):
    rows, faults = json_rows('{"step_name": "a"}', text, '{"step_name": "b"}')
    assert list(faults) == [1]
    assert reason in faults[1]
    assert isinstance(rows[1], Unreadable)
    assert rows[1].reason == faults[1]
    assert [rows[0], rows[2]] == [{"step_name": "a"}, {"step_name": "b"}]


def test_a_column_of_several_types_over_many_lines_is_left_to_the_gate():
    texts = [f'{{"extra": {number}}}' for number in range(5000)] + ['{"extra": 0.5}']
    rows, _ = json_rows(*texts)
    assert rows[4999]["extra"] == 4999
    assert type(rows[4999]["extra"]) is int
    assert rows[5000]["extra"] == 0.5


def test_keys_that_come_late_are_null_before(tmp_path):
    rows, _ = json_rows(*['{"step_name": "s"}'] * 5000, '{"rows_written": 7}')
    assert rows.column("rows_written").null_count == 5000
    assert rows.column("step_name").null_count == 1


# ---------------------------------------------------------------- lines and bytes, both formats


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("last", [True, False])
def test_line_ends_byte_order_marks_and_blank_lines_make_no_difference(tmp_path, end, mark, last):
    path = tmp_path / "a.jsonl"
    data = mark + end.join([b'{"rows_written":1}', b"", b"  ", b'{"rows_written":2}']) + (end if last else b"")
    path.write_bytes(data)
    chunks = read(path)
    assert [row["rows_written"] for chunk in chunks for row in as_rows(chunk.rows)] == [1, 2]
    assert [list(chunk.lines) for chunk in chunks] == ([[1, 4]] if last else [[1], [4]])
    assert chunks[-1].place_of(chunks[-1].count - 1) == "row 2 (line 4)"
    path = tmp_path / "a.csv"
    data = mark + end.join([b"", b"phase,rows_written", b"bronze,1", b"", b"gold,2"]) + (end if last else b"")
    path.write_bytes(data)
    assert rows_of(path) == [{"phase": "bronze", "rows_written": 1}, {"phase": "gold", "rows_written": 2}]


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.jsonl.gz", "a.csv.zst"])
def test_an_empty_file_has_no_chunks(tmp_path, name):
    (tmp_path / name).touch()
    assert read(tmp_path / name) == []


def test_utf_16_is_told(tmp_path):
    (tmp_path / "a.csv").write_bytes("phase,step_name\nbronze,s\n".encode("utf-16"))
    with pytest.raises(WriterValidationError, match="is UTF-16"):
        read(tmp_path / "a.csv")


@pytest.mark.parametrize(("name", "pack"), [("a.jsonl.gz", gzip.compress), ("a.jsonl.zst", zstandard.compress)])
def test_a_truncated_or_broken_compressed_file_is_refused_before_anything_is_written(tmp_path, table, name, pack):
    path = tmp_path / name
    whole = pack(lines(*range(1000)))
    for cut in [5, len(whole) // 2, len(whole) - 3]:
        path.write_bytes(whole[:cut])
        with pytest.raises(WriterValidationError, match="ends in the middle of its compressed data") as caught:
            run(table, path)
        assert str(path) in str(caught.value)
    path.write_bytes(b"this is plain text, long enough for any header")
    with pytest.raises(WriterValidationError, match="is no valid"):
        run(table, path)
    path.write_bytes(whole + b"garbage behind the data")
    with pytest.raises(WriterValidationError, match="is no valid"):
        run(table, path)
    assert table.rows == {}


def test_a_file_that_may_not_be_read_is_named(tmp_path, table):
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines(1))
    source = source_of(path)
    path.unlink()
    with (
        pytest.raises(WriterValidationError, match=f"{path} cannot be read: No such file"),
        SourceReading(source, table.journal(), table.watermark),
    ):
        pass


def test_chunks_are_bounded_by_rows_and_by_bytes(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"".join(orjson.dumps({"step_name": "x" * size}) + b"\n" for size in [10] * 5 + [1000] * 5))
    assert [chunk.count for chunk in read(path, Limits(4, 2000))] == [4, 3, 2, 1]


def test_a_row_that_never_ends_is_refused_in_bounded_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("sfwriter.sources.records.MAX_RECORD_BYTES", 10_000)
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines(1) + b"x" * 20_000)
    with pytest.raises(WriterValidationError, match=r"a\.jsonl line 2: the row that begins there is longer than"):
        read(path)
    path = tmp_path / "b.csv"
    path.write_bytes(HEADER + b'bronze,"s,1\n' + b"bronze,s,1\n" * 2000 + b'x"\n')
    with pytest.raises(WriterValidationError, match=r"b\.csv line 2: .*never closed"):
        read(path)


# ---------------------------------------------------------------- CSV


def test_cells_are_parsed_to_their_columns_type_and_empty_ones_are_null(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(
        b"step_name,success,duration_secs,rows_written,start_time,metadata,extra\n"
        b's,true,1.5,12,2024-01-01 00:00:00,"{""a"":1}",5\n'
        b',FALSE,2,,,"",\n'
    )
    (chunk,) = read(path)
    assert isinstance(chunk.rows, pa.Table)
    assert chunk.rows.to_pylist() == [
        {"step_name": "s", "success": True, "duration_secs": 1.5, "rows_written": 12,
         "start_time": datetime(2024, 1, 1, tzinfo=UTC), "metadata": '{"a":1}', "extra": "5"},
        {"step_name": None, "success": False, "duration_secs": 2.0, "rows_written": None, "start_time": None,
         "metadata": None, "extra": None},
    ]  # fmt: skip


def test_a_cell_that_does_not_parse_stays_text_beside_the_others_parsed(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"step_name,rows_written,start_time,success\ns,1,2024-01-01,true\ns,many,soon,1\ns, 3 ,,\n")
    (chunk,) = read(path)
    assert chunk.rows == [
        {"step_name": "s", "rows_written": 1, "start_time": datetime(2024, 1, 1), "success": True},  # noqa: DTZ001  naive is UTC
        {"step_name": "s", "rows_written": "many", "start_time": "soon", "success": "1"},
        {"step_name": "s", "rows_written": 3, "start_time": None, "success": None},
    ]


def test_quoted_line_ends_belong_to_their_row_also_at_a_chunks_border(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"phase,error_message\n" + b'gold,"one\ntwo ""x"",\r\n\nthree"\nsilver,plain\n' * 50)
    chunks = read(path, Limits(3, 1 << 20))
    rows = [row for chunk in chunks for row in as_rows(chunk.rows)]
    assert len(rows) == 100
    assert all(row["error_message"] == 'one\ntwo "x",\r\n\nthree' for row in rows[::2])
    assert [chunk.count for chunk in chunks] == [3] * 33 + [1]
    assert chunks[1].place_of(0) == "row 4 (line 11)"


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (b"gold,s\n", "has 2 cells where the header has 3"),
        (b"gold,s,1,2\n", "has 4 cells where the header has 3"),
        (b'gold,5" pipe,1\ngold,6" pipe,2\n', "its quotes do not match"),
        (b'gold,"s"x,1\n', "is no valid CSV"),
        (b"gold,\xff,1\n", "is not UTF-8 (byte 6 of the row)"),
    ],
)
def test_a_broken_record_stays_in_its_place_as_text_with_the_reason(record, reason):
    records = [b"gold,a,1\n", record, b"gold,b,2\n"]
    if b'"s"x' in record:  # Arrow takes it; the look at each row, which a broken neighbour causes, does not
        records.append(b"gold\n")
    rows, faults = rows_of_records(records, ["phase", "step_name", "rows_written"], LOG_TYPES)
    assert reason in faults[1]
    assert isinstance(rows[1], Unreadable)
    assert rows[0] == {"phase": "gold", "step_name": "a", "rows_written": 1}
    assert rows[2] == {"phase": "gold", "step_name": "b", "rows_written": 2}


def test_a_quote_that_is_never_closed_makes_no_row_of_the_rest_of_the_file():
    records = [b"gold,a,1\n", b'gold,"b,2\ngold,c,3\ngold,d,4\n']
    rows, faults = rows_of_records(records, ["phase", "step_name", "rows_written"], LOG_TYPES)
    assert faults == {1: "opens a quote that is never closed"}
    assert rows[0] == {"phase": "gold", "step_name": "a", "rows_written": 1}


@pytest.mark.parametrize(
    ("header", "says"),
    [
        (b"phase,,step_name\n", "has no name for column 2"),
        (b"phase,step_name,phase\n", "names 'phase' more than once"),
        (b'phase,"step_name\n', "opens a quote that is never closed"),
        (b"phase;step_name\n", "is one name, 'phase;step_name'"),
        (b"phase\tstep_name\n", r"is one name, 'phase\\tstep_name'"),
        (b"ph\xffse,step_name\n", "is not UTF-8"),
    ],
)
def test_a_header_that_is_none_is_refused_with_its_line(tmp_path, header, says):
    path = tmp_path / "a.csv"
    path.write_bytes(header + b"bronze,s,1\n")
    with pytest.raises(WriterValidationError, match=f"line 1: the header {says}"):
        read(path)


# ---------------------------------------------------------------- single texts and whole columns


TEXTS = [
    "", " ", "0", "-1", "+5", "007", " 12 ", "12.0", "1e3", "1.5", ".5", "5.", "0x1A", "0X1a", "1_000", "nan", "inf",
    "-Infinity", "9223372036854775807", "9223372036854775808", "1e400", "true", "TRUE", "False", "t", "1", "yes",
    "2024-01-01", "2024-01-01T00:00:00Z", "2024-01-01 00:00:00", "2024-01-01T00:00:00.123456+05:30", "2024-01-01T00:00",
    "2024-01-01T00:00:00.1234567Z", "2024-13-01", "0001-01-01", "12:00", "2024-1-1", "1704067200",
]  # fmt: skip


@pytest.mark.parametrize("kept", [kept for kept in dict.fromkeys(LOG_TYPES.values()) if kept != pa.string()], ids=str)
@pytest.mark.parametrize("text", TEXTS)
def test_a_whole_column_gives_the_same_value_as_a_single_text_or_leaves_it(text, kept):
    column = parse_column(pa.chunked_array([[text, None]]), kept)
    if column is None:
        return
    assert column.type == kept
    fast, missing = column.to_pylist()
    assert missing is None
    slow = parse_text(text, kept)
    if isinstance(slow, datetime) and slow.tzinfo is None:
        slow = slow.replace(tzinfo=UTC)
    assert fast == slow or (math.isnan(fast) and math.isnan(slow))


def test_columns_that_the_table_has_beyond_the_logs_are_parsed_too():
    types = types_of({"cost": "double", "phase": "string", "team": "string", "odd": "list<item: int64>"})
    assert (types["cost"], types["team"], types["odd"]) == (pa.float64(), pa.string(), pa.string())
    rows, _ = rows_of_records([b"gold,1.5\n"], ["phase", "cost"], types)
    assert rows.to_pylist() == [{"phase": "gold", "cost": 1.5}]
