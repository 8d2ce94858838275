"""The rules that every row is measured by: all reasons for all rows, whatever the input was."""

from datetime import datetime, timedelta, timezone

import pyarrow as pa
import pytest

from sfwriter.exceptions import WriterValidationError
from sfwriter.ingest.gate import Gate
from sfwriter.quality.builtin import COUNTS, PHASES, RUN_MODES

NOON = datetime(2024, 1, 31, 12, tzinfo=timezone.utc)
EARLIER = NOON - timedelta(microseconds=1)
NAN, INF = float("nan"), float("inf")


def row(**fields):
    return {"run_id": "r", "phase": "bronze", "step_name": "a", **fields}


def as_table(rows):
    return pa.Table.from_pylist([{key: given.get(key) for key in {k for r in rows for k in r}} for given in rows])


GOOD = [
    *({"phase": phase} for phase in PHASES),
    *({"run_mode": mode} for mode in (*RUN_MODES, None)),
    {"duration_secs": 0.0},
    {"validation_rate": 0.0},
    {"validation_rate": 100.0},
    {"rows_processed": 0},
    {"start_time": NOON, "end_time": NOON},
    {"start_time": NOON, "end_time": None},
    {"start_time": NOON, "run_ended_at": EARLIER},
]

BAD = [
    ({"run_id": ""}, "run_id is empty"),
    ({"run_id": " \t\u3000"}, "run_id is empty"),
    ({"step_name": ""}, "step_name is empty"),
    ({"step_name": "\n"}, "step_name is empty"),
    ({"phase": "platinum"}, "phase is 'platinum', not one of bronze, silver, gold, pipeline"),
    ({"phase": ""}, "phase is ''"),
    ({"phase": None}, "phase is missing"),
    ({"step_name": None}, "step_name is missing"),
    ({"run_mode": "sometimes"}, "run_mode is 'sometimes', not one of"),
    ({"run_mode": ""}, "run_mode is ''"),
    ({"duration_secs": -0.001}, "duration_secs is negative: -0.001"),
    ({"duration_secs": NAN}, "duration_secs is nan, not a finite number"),
    ({"duration_secs": -INF}, "duration_secs is -inf, not a finite number"),
    *(({name: -1}, f"{name} is negative: -1") for name in COUNTS),
    ({"validation_rate": -0.1}, "validation_rate is outside 0 to 100: -0.1"),
    ({"validation_rate": 100.1}, "validation_rate is outside 0 to 100: 100.1"),
    ({"validation_rate": INF}, "validation_rate is inf"),
    ({"own_figure": NAN}, "own_figure is nan"),
    ({"start_time": NOON, "end_time": EARLIER}, "end_time 2024-01-31T11:59:59.999999+00:00 is before start_time"),
    ({"run_started_at": NOON, "run_ended_at": EARLIER}, "is before run_started_at"),
]


@pytest.mark.parametrize("fields", GOOD)
def test_rows_within_the_rules_pass(fields):
    assert Gate().admit([row(**fields)]).accepted == 1


@pytest.mark.parametrize("given", [list, as_table])
@pytest.mark.parametrize(("fields", "told"), BAD)
def test_a_broken_rule_is_told_with_row_column_and_value(fields, told, given):
    with pytest.raises(WriterValidationError) as refused:
        Gate().encode(given([row(), row(**fields)]))

    [entry] = refused.value.validation_errors
    assert entry["row"] == 1
    [reason] = entry["reasons"]
    assert told in reason
    assert reason in refused.value.message


@pytest.mark.parametrize("given", [list, as_table])
def test_every_bad_row_is_listed_once_with_all_its_reasons(given):
    rows = [row(), row(phase="x", duration_secs=-1.0, rows_written=-5), row(), row(run_id=" ", validation_rate=NAN)]

    with pytest.raises(WriterValidationError) as refused:
        Gate().encode(given(rows))

    assert [(entry["row"], len(entry["reasons"])) for entry in refused.value.validation_errors] == [(1, 3), (3, 2)]
    assert refused.value.context["bad_rows"] == 2


@pytest.mark.parametrize("given", [list, as_table])
def test_lenient_sets_aside_what_breaks_a_rule_with_all_its_reasons(given):
    rows = [row(), row(phase="x", duration_secs=-1.0, rows_written=-5), row(), row(run_id=" ", validation_rate=NAN)]

    gated = Gate("lenient").admit(given(rows))

    assert (gated.given, gated.accepted, gated.quarantined) == (4, 2, 2)
    assert [len(reasons) for reasons in gated.batch.quarantined["reasons"].to_pylist()] == [3, 2]


def test_the_message_stays_short_however_many_rows_are_bad():
    with pytest.raises(WriterValidationError) as refused:
        Gate().encode([row(phase="x")] * 3_000)

    assert len(refused.value.validation_errors) == 3_000
    assert len(refused.value.message) < 1_000
