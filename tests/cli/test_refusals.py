"""A row that is refused, in each format: file and row are named, and the same sources can be finished."""

import json
from datetime import date, datetime, timezone
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sfwriter.backfill import backfill
from sfwriter.config import WriterConfig
from sfwriter.exceptions import WriterSchemaError, WriterValidationError
from sfwriter.sources import Limits, discover
from sfwriter.sources.typed_text import LOG_TYPES
from sfwriter.sources.widening import widened
from sfwriter.testing import MemoryEngine
from sfwriter.writer import LogWriter
from tests.cli.support import row, write_jsonl

LIMITS = Limits(10, 1 << 20)
UTC = timezone.utc


@pytest.fixture
def engine():
    return MemoryEngine()


def run(folder, engine, *names, mode="strict", limits=LIMITS, **options):
    config = WriterConfig(
        warehouse=folder / "warehouse", table_schema="ops", table_name="runs", schema_validation_mode=mode
    )
    with LogWriter.start(config, engine=engine) as writer:
        found = discover([str(folder / name) for name in names])
        result = backfill(writer, found.sources, limits=limits, **options)
        return result, writer.get_table_info()["row_count"], writer.quarantined(1000)


def broken(folder, engine, *names, error=WriterValidationError, **options):
    with pytest.raises(error) as caught:
        run(folder, engine, *names, **options)
    return caught.value


def test_a_malformed_line_is_named_and_lenient_sets_it_aside(tmp_path, engine):
    path = tmp_path / "a.jsonl"
    write_jsonl(path, range(24))
    with path.open("a") as file:
        file.write("\n{torn\n")
    write_jsonl(path, range(24, 30), append=True)
    error = broken(tmp_path, engine, "a.jsonl")
    assert f"{path} row 25 (line 26) is no valid JSON" in error.message
    assert "--mode lenient" in error.suggestions[0]
    assert error.validation_errors[0]["row"] == 25
    assert error.context["rows_written"] == 20
    result, count, aside = run(tmp_path, engine, "a.jsonl", mode="lenient")
    assert (result["rows_written"], result["already_written"], result["quarantined_rows"], count) == (10, 20, 1, 30)
    assert "{torn" in str(aside[0]["row"])
    assert aside[0]["reasons"] == [
        "row is no valid JSON (Expecting property name enclosed in double quotes at column 2)"
    ]
    result, count, _ = run(tmp_path, engine, "a.jsonl")
    assert (result["rows_written"], result["already_written"], count) == (0, 31, 30)


def test_a_wrong_value_in_csv_is_named_with_column_and_line(tmp_path, engine):
    path = tmp_path / "a.csv"
    path.write_text("phase,step_name,error_message,rows_written\n" + 'gold,s,"two\nlines",1\n' * 12 + "gold,s,,many\n")
    error = broken(tmp_path, engine, "a.csv", error=WriterSchemaError)
    assert f"{path} row 13 (line 26) rows_written = 'many'" in error.message
    assert error.expected_schema["rows_written"]
    result, count, _ = run(tmp_path, engine, "a.csv", mode="lenient")
    assert (result["rows_written"], result["quarantined_rows"], count) == (2, 1, 12)


def test_a_broken_rule_in_parquet_is_named(tmp_path, engine):
    path = tmp_path / "a.parquet"
    phases = ["gold"] * 14 + ["lead", "tin"] + ["gold"] * 4
    pq.write_table(pa.table({"phase": phases, "step_name": ["s"] * 20}), path)
    error = broken(tmp_path, engine, "a.parquet")
    assert f"{path} row 15 " in error.message
    assert "row 16 " in error.message
    assert [entry["row"] for entry in error.validation_errors] == [15, 16]
    result, count, _ = run(tmp_path, engine, "a.parquet", mode="lenient")
    assert (result["rows_written"], result["already_written"], result["quarantined_rows"], count) == (8, 10, 2, 18)


def test_a_refusal_in_the_first_rows_may_be_mended_in_the_file(tmp_path, engine):
    path = tmp_path / "a.jsonl"
    path.write_text(
        "".join(json.dumps(row(number, phase="lead" if number == 5 else "gold")) + "\n" for number in range(30))
    )
    error = broken(tmp_path, engine, "a.jsonl")
    assert "row 6 " in error.message
    assert "mend the file" in str(error.suggestions)
    path.write_text(path.read_text().replace("lead", "gold"))
    assert run(tmp_path, engine, "a.jsonl")[:2][1] == 30


def test_sources_after_a_refusal_are_left_and_finished_later(tmp_path, engine):
    write_jsonl(tmp_path / "1.jsonl", range(15))
    (tmp_path / "2.jsonl").write_text(json.dumps(row(15)) + "\nnull\n")
    write_jsonl(tmp_path / "3.jsonl", range(16, 20))
    error = broken(tmp_path, engine, "1.jsonl", "2.jsonl", "3.jsonl")
    assert "2.jsonl row 2 is null and no JSON object" in error.message
    result, count, _ = run(tmp_path, engine, "1.jsonl", "2.jsonl", "3.jsonl", mode="lenient")
    assert count == 20
    assert result["already_written"] + result["rows_written"] == 20


def test_unknown_columns_follow_the_config(tmp_path, engine):
    (tmp_path / "a.csv").write_text("phase,step_name,colour\ngold,s,red\n")
    config = WriterConfig(warehouse=tmp_path / "warehouse", enable_schema_evolution=False)
    with LogWriter.start(config, engine=engine) as writer, pytest.raises(WriterSchemaError) as caught:
        backfill(writer, discover([str(tmp_path / "a.csv")]).sources)
    assert "a.csv row 1" in caught.value.message
    assert "'colour'" in caught.value.message
    assert run(tmp_path, engine, "a.csv")[1] == 1


def test_a_whole_file_of_bad_rows_shows_a_few_and_lists_all(tmp_path, engine):
    (tmp_path / "a.jsonl").write_text("no\n" * 9)
    error = broken(tmp_path, engine, "a.jsonl")
    assert "and 6 more rows" in error.message
    assert len(error.validation_errors) == 9


def test_ignore_writes_what_fits(tmp_path, engine):
    (tmp_path / "a.csv").write_text("phase,step_name,rows_written\ngold,s,many\nlead,s,1\n")
    result, count, _ = run(tmp_path, engine, "a.csv", mode="ignore")
    assert (result["rows_written"], count) == (2, 2)


def test_parquet_types_that_widen_without_loss_are_taken_in_strict(tmp_path, engine):
    table = pa.table(
        {
            "phase": pa.array(["gold"]).dictionary_encode(),
            "step_name": pa.array(["s"], pa.large_string()),
            "rows_written": pa.array([1], pa.int8()),
            "rows_processed": pa.array([1], pa.uint32()),
            "duration_secs": pa.array([1.5], pa.float32()),
            "validation_rate": pa.array([99], pa.int16()),
            "start_time": pa.array([0], pa.timestamp("ms")),
            "end_time": pa.array([1000], pa.timestamp("ns", "Europe/Berlin")),
            "run_started_at": pa.array([date(1970, 1, 1)]),
            "input_rows": pa.array([Decimal(7)], pa.decimal128(18, 0)),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    assert run(tmp_path, engine, "a.parquet")[1] == 1


@pytest.mark.parametrize(
    ("column", "given", "kept"),
    [
        ("start_time", pa.array([date(2024, 1, 31), None], pa.date32()), [datetime(2024, 1, 31, tzinfo=UTC), None]),
        ("start_time", pa.array([date(2024, 1, 31), None], pa.date64()), [datetime(2024, 1, 31, tzinfo=UTC), None]),
        ("rows_written", pa.array([Decimal(10**18 - 1), None], pa.decimal128(18, 0)), [10**18 - 1, None]),
        ("duration_secs", pa.array([Decimal("1.10"), None], pa.decimal128(15, 2)), [1.1, None]),
        ("day", pa.array([date(2024, 1, 31), None]), [date(2024, 1, 31), None]),
    ],
)
def test_a_files_days_and_decimals_become_what_the_column_keeps(column, given, kept):
    assert widened(pa.table({column: given}), LOG_TYPES).column(column).to_pylist() == kept


@pytest.mark.parametrize(
    ("column", "given"),
    [
        ("rows_written", pa.array([Decimal(1)], pa.decimal128(19, 0))),
        ("rows_written", pa.array([Decimal("1.5")], pa.decimal128(3, 1))),
        ("duration_secs", pa.array([Decimal("1.5")], pa.decimal128(16, 1))),
        ("start_time", pa.array([2**31 - 1], pa.date32())),
    ],
)
def test_what_a_column_might_lose_of_a_files_type_is_refused_in_strict(tmp_path, engine, column, given):
    pq.write_table(pa.table({"phase": ["gold"], "step_name": ["s"], column: given}), tmp_path / "a.parquet")
    error = broken(tmp_path, engine, "a.parquet", error=WriterSchemaError)
    assert f"row 1 {column} = " in str(error)


def test_progress_ends_with_everything_done(tmp_path, engine):
    write_jsonl(tmp_path / "1.jsonl", range(35))
    write_jsonl(tmp_path / "2.jsonl", range(35, 40))
    seen = []
    run(tmp_path, engine, "1.jsonl", "2.jsonl", progress=seen.append)
    last = seen[-1]
    assert (last.sources, last.finished, last.rows_written) == (2, 2, 40)
    assert last.bytes_done == last.bytes_total == sum(path.stat().st_size for path in tmp_path.glob("*.jsonl"))
    assert [one.bytes_done for one in seen] == sorted(one.bytes_done for one in seen)


def test_a_stop_keeps_what_is_committed_and_the_next_run_writes_the_rest(tmp_path, engine):
    write_jsonl(tmp_path / "a.jsonl", range(100))
    calls = []

    def check():
        calls.append(1)
        if len(calls) > 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, engine, "a.jsonl", check=check)
    result, count, _ = run(tmp_path, engine, "a.jsonl")
    assert count == 100
    assert result["rows_written"] + result["already_written"] == 100


@pytest.mark.parametrize("window", [1, 3])
def test_a_full_window_never_stands_still(tmp_path, engine, monkeypatch, window):
    monkeypatch.setattr("sfwriter.backfill.MAX_FLYING", window)
    monkeypatch.setattr("sfwriter.backfill.PATIENCE_S", 0.01)
    write_jsonl(tmp_path / "a.jsonl", range(60))
    assert run(tmp_path, engine, "a.jsonl")[1] == 60
