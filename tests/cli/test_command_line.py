"""Usage, exit codes and what is printed where. Every test starts real processes."""

import json
import subprocess
import sys

import pytest

from tests.cli.support import ENTRY, backfill, numbers, once, row, rows, sfwriter, write_jsonl, write_parquet

pytestmark = pytest.mark.timeout(300)


def test_help_shows_commands_exit_codes_and_examples(tmp_path):
    ended = sfwriter(tmp_path, "--help")
    assert ended.code == 0
    assert "backfill" in ended.out
    assert "130 interrupted" in ended.out
    ended = sfwriter(tmp_path, "backfill", "--help")
    assert ended.code == 0
    assert "sfwriter backfill runs/ --table analytics.pipeline_logs" in ended.out
    assert "[default: $SFWRITER_WAREHOUSE" in ended.out
    assert "sfwriter info --table" in sfwriter(tmp_path, "info", "--help").out
    assert sfwriter(tmp_path, "--version").out.startswith("sfwriter ")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["backfill", "a.csv"], "Missing option '--table'"),
        (["backfill", "--table", "a.b"], "Missing argument"),
        (["backfill", "a.csv", "--table", "runs"], "expected schema.name"),
        (["backfill", "a.csv", "--table", "a.b.c"], "expected schema.name"),
        (["backfill", "a.csv", "--table", "a.."], "expected schema.name"),
        (["backfill", "a.csv", "--table", "a.../x"], "expected schema.name"),
        (["backfill", "a.csv", "--table", "a.b c"], "table_name is 'b c'"),
        (["backfill", "a.csv", "--table", "a.b", "--mode", "loose"], "Invalid value for '--mode'"),
        (["backfill", "a.csv", "--table", "a.b", "--fast"], "No such option"),
        (["restore"], "No such command 'restore'"),
        (["info"], "Missing option '--table'"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(tmp_path, arguments, says):
    ended = sfwriter(tmp_path, *arguments)
    assert ended.code == 2
    assert says in ended.err
    assert ended.err.startswith("sfwriter: ")
    assert ended.err.count("\n") == 1
    assert ended.out == ""


def test_no_command_shows_the_help_as_it_is_and_is_wrong_usage(tmp_path):
    ended = sfwriter(tmp_path)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.strip() == sfwriter(tmp_path, "--help").out.strip()


LOADS = """
import sys
from sfwriter.cli import main
code = main(sys.argv[1:])
print(code, sorted({"pandas", "ray", "pyspark", "duckdb", "polars"} & set(sys.modules)))
"""


@pytest.mark.parametrize("mode", ["lenient", "ignore"])
def test_a_backfill_of_any_format_loads_no_library_that_it_does_not_need(tmp_path, mode):
    write_jsonl(tmp_path / "a.jsonl", range(5))
    with (tmp_path / "a.jsonl").open("a") as file:
        file.write('{"phase": "lead", "step_name": "s", "rows_written": "many"}\n')
    (tmp_path / "b.csv").write_text("phase,step_name,success,rows_written\ngold,a,true,1\ngold,b,FALSE,many\n")
    write_parquet(tmp_path / "c.parquet", 10)
    command = ["backfill", "a.jsonl", "b.csv", "c.parquet", "--table", "ops.runs", "--mode", mode, "--quiet"]
    done = subprocess.run(
        [sys.executable, "-c", LOADS, *command], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "0 []", done.stderr


def test_a_file_that_is_left_out_is_named(tmp_path):
    for name in ["a.csv", "README"]:
        (tmp_path / "in" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "in" / name).write_text("phase,step_name\ngold,a\n")
    assert "1 file is left out, its name says it is something else: README\n" in backfill(tmp_path, "in").err


def test_a_wrong_environment_is_wrong_usage_and_named(tmp_path):
    write_jsonl(tmp_path / "a.jsonl", range(3))
    ended = backfill(tmp_path, "a.jsonl", SFWRITER_BATCH_SIZE="many")
    assert ended.code == 2
    assert "SFWRITER_BATCH_SIZE" in ended.err
    ended = backfill(tmp_path, "a.jsonl", SFWRITER_WRITE_MODE="overwrite")
    assert ended.code == 2
    assert "only appends" in ended.err
    assert not (tmp_path / "warehouse").exists()


def test_the_environment_configures_and_flags_win(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps(row(1)) + "\n" + json.dumps({**row(2), "phase": "lead"}) + "\n")
    environment = {"SFWRITER_WAREHOUSE": "elsewhere", "SFWRITER_SCHEMA_VALIDATION_MODE": "lenient"}
    assert backfill(tmp_path, "a.jsonl", "--mode", "strict", **environment).code == 1
    ended = backfill(tmp_path, "a.jsonl", "--warehouse", "warehouse", **environment)
    assert (ended.code, ended.json["rows_written"], ended.json["quarantined_rows"]) == (0, 1, 1)
    assert numbers(tmp_path) == {1: 1}
    assert "lead" in rows(tmp_path, "row", "reasons", table="runs_quarantine")[0]["row"]


def test_json_is_one_object_on_stdout_also_when_it_fails(tmp_path):
    write_jsonl(tmp_path / "a.jsonl", range(5))
    ended = backfill(tmp_path, "a.jsonl", tmp_path / "a.jsonl", "*.jsonl", "--quiet")
    assert ended.err == ""
    assert set(ended.json) == {
        "rows_written", "already_written", "quarantined_rows", "sources", "version", "duration_secs", "rows_per_sec"
    }  # fmt: skip
    assert (ended.json["rows_written"], ended.json["sources"]) == (5, 1)
    ended = backfill(tmp_path, "b.jsonl")
    assert ended.code == 1
    assert "b.jsonl is not there" in ended.json["error"]["message"]
    assert ended.err.count("\n") == 1


def test_a_traceback_is_shown_only_with_debug(tmp_path):
    assert "Traceback" not in sfwriter(tmp_path, "backfill", "b.csv", "--table", "a.b").err
    assert "Traceback" in sfwriter(tmp_path, "backfill", "b.csv", "--table", "a.b", "--debug").err


def test_people_are_told_what_was_written_and_what_was_there(tmp_path):
    write_parquet(tmp_path / "a.parquet", 1000)
    said = sfwriter(tmp_path, "backfill", "a.parquet", "--table", "ops.runs").out
    assert said.startswith("ops.runs: 1,000 rows written from 1 source in ")
    said = sfwriter(tmp_path, "backfill", "a.parquet", "--table", "ops.runs").out
    assert "0 rows written" in said
    assert "1,000 rows were written by earlier runs" in said


def test_info_tells_what_the_table_is_and_that_it_is_not_there(tmp_path):
    ended = sfwriter(tmp_path, "info", "--table", "ops.runs", "--json")
    assert (ended.code, ended.json["exists"], ended.json["row_count"]) == (0, False, 0)
    assert "is not there" in sfwriter(tmp_path, "info", "--table", "ops.runs").out
    assert not (tmp_path / "warehouse").exists()
    write_jsonl(tmp_path / "a.jsonl", range(5))
    backfill(tmp_path, "a.jsonl")
    ended = sfwriter(tmp_path, "info", "--table", "ops.runs", "--json")
    assert (ended.json["exists"], ended.json["row_count"], ended.json["engine"]) == (True, 5, "delta-rs")
    said = sfwriter(tmp_path, "info", "--table", "ops.runs").out
    assert "rows       5" in said
    assert "logged_at" in said


def test_empty_sources_are_said_and_are_no_failure(tmp_path):
    (tmp_path / "empty.csv").touch()
    (tmp_path / "header.csv").write_text("phase,step_name\n")
    (tmp_path / "folder").mkdir()
    ended = backfill(tmp_path, "empty.csv", "header.csv", "folder")
    assert ended.code == 0
    assert (ended.json["rows_written"], ended.json["sources"]) == (0, 2)
    for name in ["empty.csv", "header.csv", "folder"]:
        assert f"{name} is empty" in ended.err


def test_a_warehouse_that_cannot_be_written_is_told(tmp_path):
    write_jsonl(tmp_path / "a.jsonl", range(5))
    (tmp_path / "file").touch()
    ended = backfill(tmp_path, "a.jsonl", "--warehouse", "file")
    assert ended.code == 1
    assert ended.err.count("\n") == 1
    assert "file" in ended.err


def test_a_service_that_is_not_there_is_told_with_what_to_do(tmp_path):
    write_jsonl(tmp_path / "a.jsonl", range(5))
    ended = backfill(tmp_path, "a.jsonl", "--service", "nobody", RAY_ADDRESS="127.0.0.1:1")
    assert ended.code == 1
    assert ended.err.strip().count("\n") == 0
    assert "RAY_ADDRESS" in ended.err


def test_a_ray_that_cannot_be_joined_is_named_and_no_failure_of_ours(tmp_path):
    write_jsonl(tmp_path / "a.jsonl", range(5))
    ended = backfill(tmp_path, "a.jsonl", "--service", "logs", RAY_ADDRESS="http://127.0.0.1:1")
    assert ended.code == 1
    assert ended.json["error"]["code"] == "unreachable"
    assert "the Ray at http://127.0.0.1:1 cannot be joined" in ended.err


def test_stdout_that_is_closed_is_no_traceback(tmp_path):
    command = f'"{sys.executable}" -c "{ENTRY}" info --table a.b | true'
    done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stderr == ""


def test_a_table_of_another_schema_takes_its_own_columns_from_text(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps({**row(0), "cost": 1.5, "team": "x"}) + "\n")
    assert backfill(tmp_path, "a.jsonl").json["rows_written"] == 1
    (tmp_path / "b.csv").write_text("phase,step_name,rows_written,cost,team\ngold,s,1,2.25,y\n")
    assert backfill(tmp_path, "b.csv").json["rows_written"] == 1
    assert sorted(entry["cost"] for entry in rows(tmp_path, "cost")) == [1.5, 2.25]
    assert numbers(tmp_path) == once(2)
