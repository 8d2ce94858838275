from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deploy.demo.ledger import Ledger
from deploy.demo.proof import acknowledged_rows, live_files, prove_backfilled, prove_given

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import HandMadeTable

GIVEN = [("run-1", "a"), ("run-1", "b"), ("run-2", "a")]


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    folder = tmp_path / "ledger"
    for number, run in enumerate(("run-1", "run-2")):
        with Ledger(folder, number) as ledger:
            names = [step for run_id, step in GIVEN if run_id == run]
            ledger.given(run, names)
            ledger.acknowledged({"batch_id": f"p:{number}", "rows_written": len(names), "version": number})
    return folder


def test_it_holds_where_every_row_is_there_once(table: HandMadeTable, ledger: Path) -> None:
    table.commit(GIVEN[:2])
    table.commit(GIVEN[2:])
    proof = prove_given(table.folder, ledger)
    assert proof.holds
    assert (proof.given, proof.held, len(proof.live.paths), proof.live.commits) == (3, 3, 2, 2)
    assert acknowledged_rows(ledger) == 3


def test_a_missing_row_is_found(table: HandMadeTable, ledger: Path) -> None:
    table.commit(GIVEN[:2])
    proof = prove_given(table.folder, ledger)
    assert not proof.holds
    assert (proof.missing, proof.surplus, proof.doubled) == (1, 0, 0)
    assert proof.examples == ("run-2 / a: given 1, in the table 0",)


def test_a_doubled_row_is_found(table: HandMadeTable, ledger: Path) -> None:
    table.commit(GIVEN)
    table.commit(GIVEN[:1])
    proof = prove_given(table.folder, ledger)
    assert not proof.holds
    assert (proof.missing, proof.surplus, proof.doubled) == (0, 1, 1)


def test_a_doubled_row_is_found_where_the_sum_is_right(table: HandMadeTable, ledger: Path) -> None:
    table.commit([GIVEN[0], GIVEN[0], GIVEN[1]])
    proof = prove_given(table.folder, ledger)
    assert proof.given == proof.held
    assert not proof.holds
    assert (proof.missing, proof.surplus, proof.doubled) == (1, 1, 1)


def test_a_row_that_nobody_gave_is_found(table: HandMadeTable, ledger: Path) -> None:
    table.commit([*GIVEN, ("run-3", "a")])
    proof = prove_given(table.folder, ledger)
    assert not proof.holds
    assert (proof.missing, proof.surplus) == (0, 1)


def test_files_that_were_removed_or_never_committed_do_not_count(table: HandMadeTable, ledger: Path) -> None:
    first = table.commit(GIVEN[:2])
    table.commit(GIVEN, remove=(first,))
    pq.write_table(pa.table({"run_id": ["run-9"], "step_name": ["orphan"]}), table.folder / "orphan.parquet")
    proof = prove_given(table.folder, ledger)
    assert proof.holds
    assert len(proof.live.paths) == 1


def test_other_content_of_a_backfilled_row_is_found(table: HandMadeTable, tmp_path: Path) -> None:
    table.commit(GIVEN)
    rows = {"run_id": [run for run, _ in GIVEN], "step_name": [step for _, step in GIVEN]}
    source = tmp_path / "source.parquet"
    pq.write_table(pa.table({**rows, "rows_written": [1, 2, 3]}), source)
    (held,) = live_files(table.folder).paths
    pq.write_table(pa.table({**rows, "rows_written": [1, 2, 3]}), held)
    assert prove_backfilled(table.folder, [source]).holds
    pq.write_table(pa.table({**rows, "rows_written": [1, 3, 2]}), held)
    proof = prove_backfilled(table.folder, [source])
    assert not proof.holds
    assert proof.differing == ("rows_written",)


def test_a_log_with_a_gap_proves_nothing(table: HandMadeTable) -> None:
    table.commit(GIVEN)
    table.commit(GIVEN)
    (table.folder / "_delta_log" / f"{0:020}.json").unlink()
    with pytest.raises(ValueError, match="version 0"):
        live_files(table.folder)
