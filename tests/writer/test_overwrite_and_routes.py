"""Writes that replace, rows that go to tables by name, and runs that are written by the batch."""

from concurrent.futures import ThreadPoolExecutor

import duckdb
import pytest
from deltalake import DeltaTable

from sfwriter import LogWriter, WriterConfig
from sfwriter.exceptions import WriterSchemaError, WriterValidationError
from sfwriter.models import WriteMode


@pytest.fixture
def make(tmp_path):
    """Writers on one warehouse."""
    opened = []

    def writer(**options):
        opened.append(LogWriter(config=WriterConfig(warehouse=str(tmp_path), **options)))
        return opened[-1]

    yield writer
    for one in opened:
        one.close()


def rows(count=3, step="s", **columns):
    return [{"run_id": "r", "phase": "bronze", "step_name": f"{step}{n}", **columns} for n in range(count)]


def steps_of(folder, table="analytics/pipeline_logs"):
    files = DeltaTable(str(folder / table)).file_uris()
    if not files:
        return []
    return sorted(name for (name,) in duckdb.sql(f"SELECT step_name FROM read_parquet({files})").fetchall())


def execution(name, phase="bronze", steps=1):
    return {
        "context": {"run_id": name, "pipeline_id": "p", "mode": "incremental"},
        "step_results": [{"step_name": f"{name}-{n}", "phase": phase, "duration_secs": 1.0} for n in range(steps)],
    }


# ---------------------------------------------------------------- OVERWRITE


def test_every_overwriting_call_replaces_the_rows(make, tmp_path):
    make().write_log_rows(rows(2, "old"))
    writer = make(write_mode=WriteMode.OVERWRITE)
    assert writer.write_log_rows(rows(3, "new"))["rows_written"] == 3
    assert steps_of(tmp_path) == ["new0", "new1", "new2"]
    writer.write_log_rows(rows(1, "newer"))
    assert steps_of(tmp_path) == ["newer0"]
    assert writer.get_table_info()["row_count"] == 1


def test_a_refused_overwrite_leaves_the_old_rows(make, tmp_path):
    make().write_log_rows(rows(2, "old"))
    with pytest.raises(WriterSchemaError):
        make(write_mode="overwrite").write_log_rows([*rows(1), {"phase": "bronze", "step_name": 3}])
    assert steps_of(tmp_path) == ["old0", "old1"]


def test_an_empty_overwrite_writes_nothing(make, tmp_path):
    make().write_log_rows(rows(2, "old"))
    result = make(write_mode="overwrite").write_log_rows([])
    assert (result["rows_written"], result["version"]) == (0, None)
    assert steps_of(tmp_path) == ["old0", "old1"]


def test_a_lenient_overwrite_replaces_by_the_good_rows(make, tmp_path):
    make().write_log_rows(rows(2, "old"))
    writer = make(write_mode="overwrite", schema_validation_mode="lenient")
    result = writer.write_log_rows([*rows(2, "new"), {"phase": "no such", "step_name": "bad"}])
    assert (result["rows_written"], result["quarantined_rows"]) == (2, 1)
    assert steps_of(tmp_path) == ["new0", "new1"]
    writer.write_log_rows([*rows(1, "newer"), {"phase": "no such", "step_name": "bad"}])
    assert len(writer.quarantined()) == 2  # quarantine only grows


def test_numbers_survive_an_overwrite(make, tmp_path):
    appending = make(producer_id="appends")
    appending.write_log_rows(rows(2, "old"), sequence=0)
    writer = make(write_mode="overwrite", producer_id="replaces")
    writer.write_log_rows(rows(1, "new"), sequence=0)
    again = make(write_mode="overwrite", producer_id="replaces")
    assert again.committed_sequence == 0
    assert again.write_log_rows(rows(1, "new"), sequence=0)["already_written"]
    assert make(producer_id="appends").write_log_rows(rows(2, "old"), sequence=0)["already_written"]
    assert steps_of(tmp_path) == ["new0"]


def test_readers_never_see_an_empty_table(make, tmp_path):
    writer = make(write_mode="overwrite")
    writer.write_log_rows(rows(3))
    for _ in range(5):
        writer.write_log_rows(rows(3))
    table = DeltaTable(str(tmp_path / "analytics/pipeline_logs"))
    for version in range(1, table.version() + 1):
        table.load_as_version(version)
        assert len(table.file_uris()) == 1


def test_overwrites_at_once_leave_one_of_them(make, tmp_path):
    writer = make(write_mode="overwrite")
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda n: writer.write_log_rows(rows(2, f"w{n}-")), range(16)))
    left = steps_of(tmp_path)
    assert len(left) == 2
    assert left[0][:-1] == left[1][:-1]


def test_write_batches_replaces_once_and_then_appends(make, tmp_path):
    make().write_log_rows(rows(2, "old"))
    make(write_mode="overwrite").write_batches([rows(1, "a"), rows(1, "b"), rows(1, "c")])
    assert steps_of(tmp_path) == ["a0", "b0", "c0"]


# ---------------------------------------------------------------- tables by name

PATTERN = "{schema}.{pipeline_id}_{run_mode}_{date}"


def test_the_rows_of_one_call_go_to_the_tables_that_their_names_give(make, tmp_path):
    writer = make(table_name_pattern=PATTERN)
    given = [
        *rows(2, "a", pipeline_id="one", run_mode="initial", run_started_at=_at("2024-01-01T23:59:59+00:00")),
        *rows(1, "b", pipeline_id="one", run_mode="initial", run_started_at=_at("2024-01-02T00:00:00+00:00")),
        *rows(1, "c", pipeline_id="two", run_mode="initial", start_time=_at("2024-01-01T12:00:00+00:00")),
    ]
    result = writer.write_log_rows(given)
    assert result["rows_written"] == 4
    assert result["table_fqn"] is None
    assert result["version"] is None
    assert {name: part["rows"] for name, part in result["tables"].items()} == {
        "analytics.one_initial_20240101": 2,
        "analytics.one_initial_20240102": 1,
        "analytics.two_initial_20240101": 1,
    }
    assert all(part["version"] == 1 for part in result["tables"].values())
    assert steps_of(tmp_path, "analytics/one_initial_20240101") == ["a0", "a1"]
    assert steps_of(tmp_path, "analytics/one_initial_20240102") == ["b0"]
    assert steps_of(tmp_path, "analytics/two_initial_20240101") == ["c0"]
    assert steps_of(tmp_path) == []  # it keeps the numbers


def test_a_call_that_fills_one_table_names_it(make):
    writer = make(table_name_pattern="{schema}.logs_{pipeline_id}", table_suffix_pattern="_{run_mode}")
    result = writer.write_log_rows(rows(2, pipeline_id="p1", run_mode="incremental"))
    assert result["table_fqn"] == "analytics.logs_p1_incremental"
    assert result["version"] == 1
    assert "tables" not in result


def test_a_routed_call_is_written_once(make, tmp_path):
    given = rows(2, pipeline_id="x") + rows(1, "t", pipeline_id="y")
    first = make(table_name_pattern="{schema}.{pipeline_id}", producer_id="p")
    first.write_log_rows(given, sequence=0)
    again = make(table_name_pattern="{schema}.{pipeline_id}", producer_id="p")
    assert again.committed_sequence == 0
    result = again.write_log_rows(given, sequence=0)
    assert (result["already_written"], result["rows_written"]) == (True, 0)
    assert {name: table["rows"] for name, table in result["tables"].items()} == {"analytics.x": 0, "analytics.y": 0}
    assert steps_of(tmp_path, "analytics/x") == ["s0", "s1"]
    assert steps_of(tmp_path, "analytics/y") == ["t0"]


@pytest.mark.parametrize("pipeline_id", [None, "../away", "a b", "x" * 121, "ü"])
def test_a_row_without_a_legal_name_is_refused_and_never_cleaned(make, tmp_path, pipeline_id):
    writer = make(table_name_pattern="{schema}.{pipeline_id}")
    with pytest.raises(WriterValidationError) as caught:
        writer.write_log_rows([*rows(1, pipeline_id="good"), *rows(1, pipeline_id=pipeline_id)])
    assert [entry["row"] for entry in caught.value.validation_errors] == [1]
    assert not (tmp_path / "analytics/good").exists()
    assert [path.name for path in tmp_path.iterdir() if path.name != "analytics"] == []


def test_a_row_without_a_legal_name_is_quarantined_beside_the_configured_table(make, tmp_path):
    writer = make(table_name_pattern="{schema}.{pipeline_id}", schema_validation_mode="lenient")
    result = writer.write_log_rows([*rows(1, pipeline_id="good"), *rows(1, "bad")])
    assert (result["rows_written"], result["quarantined_rows"]) == (1, 1)
    (aside,) = writer.quarantined()
    assert aside["row"]["step_name"] == "bad0"
    assert "pipeline_id" in aside["reasons"][0]
    assert (tmp_path / "analytics/pipeline_logs_quarantine").exists()


def test_overwriting_replaces_only_the_tables_of_the_call(make, tmp_path):
    options = {"table_name_pattern": "{schema}.{pipeline_id}"}
    make(**options).write_log_rows(rows(2, "old", pipeline_id="x") + rows(2, "old", pipeline_id="y"))
    make(**options, write_mode="overwrite").write_log_rows(rows(1, "new", pipeline_id="x"))
    assert steps_of(tmp_path, "analytics/x") == ["new0"]
    assert steps_of(tmp_path, "analytics/y") == ["old0", "old1"]


# ---------------------------------------------------------------- files


def test_partition_count_spreads_a_large_batch_and_leaves_a_small_one_alone(make, tmp_path):
    writer = make(partition_count=4, batch_size=100)
    assert writer.write_log_rows(rows(99))["rows_written"] == 99
    assert writer.get_table_info()["num_files"] == 1
    writer.write_log_rows(rows(101))
    assert writer.get_table_info()["num_files"] == 5
    assert len(steps_of(tmp_path)) == 200


# ---------------------------------------------------------------- runs by the batch


def test_a_batch_of_runs_is_written_in_few_writes(make, tmp_path):
    writer = make()
    result = writer.write_execution_result_batch([execution(f"e{n}", steps=2) for n in range(5)], batch_size=2)
    assert result["total_executions"] == result["successful_writes"] == 5
    assert (result["failed_writes"], result["rows_written"], result["failed_executions"]) == (0, 10, [])
    assert writer.get_metrics()["total_writes"] == 3
    assert len(steps_of(tmp_path)) == 10


def test_one_bad_run_fails_alone(make, tmp_path):
    given = [execution("a"), execution("b", phase="no such"), "no run", execution("c")]
    result = make().write_execution_result_batch(given, run_id="whole")
    assert (result["total_executions"], result["successful_writes"], result["failed_writes"]) == (4, 2, 2)
    assert [failed["index"] for failed in result["failed_executions"]] == [1, 2]
    assert "no such" in result["failed_executions"][0]["error"]
    assert steps_of(tmp_path) == ["a-0", "c-0"]


@pytest.mark.parametrize("bad", [execution("bad", phase="no such"), 7])
@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_with_fail_fast_the_first_bad_run_raises_and_nothing_behind_it_is_written(make, tmp_path, bad, batch_size):
    writer = make(fail_fast=True)
    with pytest.raises(WriterValidationError) as caught:
        writer.write_execution_result_batch([execution("a"), execution("b"), bad, execution("c")], None, batch_size)
    assert caught.value.context["execution_index"] == 2
    assert steps_of(tmp_path) == ["a-0", "b-0"]


def test_under_overwrite_the_runs_replace_the_table_together(make, tmp_path):
    make().write_log_rows(rows(2, "old"))
    writer = make(write_mode="overwrite")
    writer.write_execution_result_batch([execution(f"e{n}") for n in range(5)], batch_size=2)
    assert steps_of(tmp_path) == [f"e{n}-0" for n in range(5)]
    strict = make(write_mode="overwrite", fail_fast=True)
    with pytest.raises(WriterValidationError):
        strict.write_execution_result_batch([execution("x"), execution("y", phase="no such")])
    assert len(steps_of(tmp_path)) == 5


def test_no_runs_are_no_write(make):
    writer = make()
    result = writer.write_execution_result_batch([])
    assert (result["total_executions"], result["rows_written"]) == (0, 0)
    assert not writer.get_table_info()["exists"]


@pytest.mark.parametrize("size", [0, -1, True, "2", 1.5])
def test_a_batch_size_that_is_none_is_refused(make, size):
    with pytest.raises(WriterValidationError, match="batch_size"):
        make().write_execution_result_batch([execution("a")], batch_size=size)


@pytest.mark.parametrize("given", ["text", {"a": 1}, 3, None])
def test_what_holds_no_runs_is_refused(make, given):
    with pytest.raises(WriterValidationError, match="execution_results"):
        make().write_execution_result_batch(given)


def test_a_batch_of_runs_can_be_repeated_under_its_key(make, tmp_path):
    given = [execution(f"e{n}") for n in range(4)]
    for _ in range(2):
        make().write_execution_result_batch(given, batch_size=2, idempotency_key="nightly")
    assert len(steps_of(tmp_path)) == 4


def test_runs_without_a_run_id_share_a_new_one(make, tmp_path):
    given = [{"step_results": [{"step_name": f"s{n}", "phase": "bronze"}]} for n in range(3)]
    make().write_execution_result_batch(given, batch_size=1)
    files = DeltaTable(str(tmp_path / "analytics/pipeline_logs")).file_uris()
    assert duckdb.sql(f"SELECT count(DISTINCT run_id), count(*) FROM read_parquet({files})").fetchall() == [(1, 3)]


def _at(text):
    from datetime import datetime

    return datetime.fromisoformat(text)


@pytest.mark.parametrize("beside", ["quarantine", "quality"])
def test_no_pattern_leads_into_the_tables_beside(open_writer, row, beside, location) -> None:
    writer = open_writer(table_name_pattern="{schema}.pipeline_logs_{pipeline_id}")
    with pytest.raises(WriterValidationError, match=beside):
        writer.write_log_rows([row(pipeline_id=beside)])
    assert not location(f"pipeline_logs_{beside}").exists()
