"""Generated rows are the same for the same seed, pass the gate, and look like a log."""

import pyarrow as pa
import pyarrow.compute as pc

from sfwriter.dictionaries import plain_table
from sfwriter.ingest.gate import Gate
from sfwriter.testing.rows import log_rows, log_table, log_tables


def test_the_same_seed_gives_the_same_rows_and_another_seed_gives_others():
    assert log_table(500, 1).equals(log_table(500, 1))
    assert not log_table(500, 1).equals(log_table(500, 2))
    assert log_rows(50, 1) == log_rows(50, 1)


def test_generated_rows_pass_the_strict_gate_unchanged():
    table = log_table(5_000, 7)

    gated = Gate("strict").admit(table)

    assert plain_table(gated.batch.rows).equals(table)
    assert gated.new_columns == ()


def test_tables_go_on_where_the_one_before_ended():
    whole = pa.concat_tables(log_tables(1_000, chunk=300, seed=5))

    assert whole.num_rows == 1_000
    assert whole["run_id"].equals(log_table(1_000, 5)["run_id"])
    assert whole["start_time"].equals(log_table(1_000, 5)["start_time"])


def test_some_steps_fail_with_a_message_and_without_output():
    table = log_table(10_000, 3)
    failed = table.filter(pc.invert(table["success"]))

    assert 100 < failed.num_rows < 400
    assert failed["error_message"].null_count == 0
    assert failed["output_rows"].null_count == failed.num_rows
    assert len(pc.unique(table["run_id"])) == 1429


def test_dicts_have_the_keys_of_the_reference_and_no_rows_is_no_rows():
    assert len(log_rows(3)[0]) == 20
    assert isinstance(log_rows(3)[0]["metadata"], dict)
    assert log_rows(0) == []
    assert log_table(0).num_rows == 0
