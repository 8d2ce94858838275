"""The road for a few clean rows gives what the general road gives, and is taken by ordinary rows."""

import math
import sys
from datetime import date, datetime, timedelta, timezone
from enum import Enum

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sfwriter.exceptions import WriterError
from sfwriter.ingest.few import FEW, clean_few
from sfwriter.ingest.gate import Gate
from sfwriter.ingest.kinds import LOG_KINDS
from sfwriter.ingest.names import TableColumns
from sfwriter.modes import Phase, RunMode
from sfwriter.quality.builtin import RUN_MODES, breaches, surely_kept
from sfwriter.schema import TIMESTAMP
from sfwriter.testing.rows import log_rows

NOON = datetime(2024, 1, 31, 12, tzinfo=timezone.utc)
TABLE = pa.schema(
    [
        ("kept", pa.string()),
        ("wide", pa.large_string()),
        ("small", pa.int32()),
        ("day", pa.date32()),
        ("local", pa.timestamp("us")),
        ("figure", pa.float64()),
    ]
)


class Own(Enum):
    PHASE = "gold"


texts = st.sampled_from(["", " ", "\u3000", "a", "é", "\ud800", "12"]) | st.text(max_size=4)
whole = st.sampled_from([0, 1, -1, 2**53 + 1, 2**63 - 1, 2**63]) | st.integers(0, 1_000)
doubles = st.sampled_from([0.0, -0.0, 1.0, 100.5, math.nan, math.inf, 2.0**63]) | st.floats(0, 100) | st.integers(0, 9)
zones = st.sampled_from([None, timezone.utc, timezone(timedelta(hours=5))])
moments = st.datetimes(datetime(2024, 1, 1), datetime(2024, 1, 3), timezones=zones)  # noqa: DTZ001  zones come in
objects = st.dictionaries(st.text(max_size=2), st.none() | st.integers(0, 3) | doubles, max_size=2)
OF_KIND = {
    "text": texts, "int": whole, "float": doubles, "bool": st.booleans(), "moment": moments,
    "object": objects | st.sampled_from(["{}", "[]"]),
}  # fmt: skip
SPECIAL = {
    "phase": st.sampled_from(["bronze", "gold", "pipeline", "GOLD", "x", Phase.GOLD, Own.PHASE]),
    "step_name": st.sampled_from(["a", "b", "a", " "]),
    "run_mode": st.sampled_from([*RUN_MODES, RunMode.INITIAL, "Initial"]),
    "new": texts | whole | doubles | moments | st.lists(st.integers(), max_size=2),
    "New": texts, "bad name": st.integers(), "logged_at": moments, "day": st.just(date(2024, 1, 31)), 7: texts,
    "kept": texts, "wide": texts, "small": whole, "local": moments, "figure": doubles,
}  # fmt: skip
KEYS = [*LOG_KINDS, *(key for key in SPECIAL if key not in LOG_KINDS)]
odd = st.none() | texts | whole | doubles | moments | st.booleans() | objects


def values_of(key):
    return SPECIAL.get(key) if key in SPECIAL else OF_KIND[LOG_KINDS[key].name]


@st.composite
def calls(draw):
    """Rows that mostly fit, each lacking some keys, with an odd value now and then."""
    keys = draw(st.lists(st.sampled_from(KEYS), unique=True, max_size=6))
    rows = []
    for _ in range(draw(st.integers(1, 9))):
        row = {"phase": "gold", "step_name": "a"}
        for key in keys:
            choice = draw(st.integers(0, 9))
            if choice:
                row[key] = None if choice == 1 else draw(values_of(key))
        rows.append(row)
    if keys and draw(st.integers(0, 5)) == 0:
        rows[-1][keys[0]] = draw(odd)
    return rows


def outcome(gate, rows, run_id):
    try:
        gated = gate.admit(rows, run_id)
    except WriterError as refused:
        return type(refused), refused.message, repr(refused.validation_errors), repr(refused.context)
    batch = gated.batch
    for column in batch.rows.columns:
        column.validate(full=True)
    aside = None
    if batch.quarantined is not None:
        aside = batch.quarantined.drop_columns(["quarantine_id"]).to_pylist()
    # repr tells NaN from null, and 0.0 from -0.0.
    shown = [repr(column.to_pylist()) for column in batch.rows.columns]
    return (
        batch.rows.schema, shown, aside, batch.digest, batch.run_id,
        gated.given, gated.breaches, gated.unconverted, gated.new_columns, gated.notes,
    )  # fmt: skip


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    calls(), st.sampled_from([None, "call"]), st.sampled_from(["strict", "lenient", "ignore"]), st.booleans(),
    st.sampled_from([None, TABLE]),
)  # fmt: skip
@example([{"phase": "gold", "step_name": "a", "new": 2.0**63}], None, "strict", True, None)
@example([{"phase": "gold", "step_name": "a", "new": -0.0}, {}], None, "lenient", True, None)
@example(
    [{"phase": "gold", "step_name": "a", "duration_secs": -0.0}, {"phase": "gold", "step_name": "b"}],
    None,
    "strict",
    True,
    None,
)
@example([{"phase": "gold", "step_name": "a", "error_message": "x"}] * 9, None, "strict", True, None)
def test_a_list_and_an_iterator_of_the_same_rows_have_the_same_outcome(rows, run_id, mode, evolution, table):
    # Iterators always take the general road.
    gate = Gate(mode, evolution=evolution, extra_fields=table, new_run_id=lambda: "made")

    assert outcome(gate, rows, run_id) == outcome(gate, iter(rows), run_id)


def few(rows, **options):
    columns = TableColumns.of(None, evolution=True)
    options = {"exact": True, "run_id": None, "new_run_id": lambda: "made", "max_bytes": None, **options}
    return clean_few(rows, columns, **options)


@pytest.mark.parametrize("count", [1, 7, 8, 9, FEW])
def test_ordinary_rows_take_the_short_road_and_come_out_alike(count):
    rows = log_rows(count, seed=count)
    found = few(rows)

    general = Gate().admit(iter(rows)).batch
    assert found is not None
    assert found.table.equals(general.rows, check_metadata=True)
    assert 0 <= found.nbytes - found.table.nbytes <= 4 * found.table.num_columns
    assert found.digest == general.digest


@pytest.mark.parametrize(
    "fields",
    [
        {"phase": Phase.GOLD}, {"metadata": {"a": None}}, {"metadata": '{"a": 1}'}, {"duration_secs": 3},
        {"start_time": NOON.replace(tzinfo=None)}, {"new": 1.5}, {"new": [1]}, {"logged_at": NOON}, {"new": None},
    ],
)  # fmt: skip
def test_what_rows_may_bring_besides_takes_the_short_road_too(fields):
    found = few([{"phase": "gold", "step_name": "a", **fields}])
    assert found is not None
    assert 0 <= found.nbytes - found.table.nbytes <= 4 * found.table.num_columns


def test_rows_that_may_be_beyond_the_budget_are_measured_by_the_general_road():
    rows = log_rows(7)
    assert few(rows, max_bytes=100) is None
    assert few(rows, max_bytes=1 << 20) is not None


def test_a_long_list_takes_the_general_road():
    assert few(log_rows(FEW + 1)) is None


# ---------------------------------------------------------------- the rules

plain_values = {
    "run_id": st.sampled_from(["", " ", "\u3000", "a", "é"]),
    "phase": st.sampled_from(["gold", "pipeline", "x", "", None]),
    "step_name": st.sampled_from(["a", "", " \t", "\u3000", None]),
    "run_mode": st.sampled_from([*RUN_MODES, "", None]),
    "duration_secs": st.none() | st.floats() | st.floats(0, 5),
    "validation_rate": st.none() | st.floats() | st.floats(-1, 101),
    "rows_written": st.none() | st.integers(-1, 2),
    "invalid_rows": st.none() | st.integers(-1, 2),
    **dict.fromkeys(
        ("start_time", "end_time", "run_started_at", "run_ended_at"), st.none() | st.integers(0, 2)
    ),
}  # fmt: skip


@st.composite
def columns_of_values(draw):
    count = draw(st.integers(1, 4))
    columns = {"phase": ["gold"] * count, "step_name": ["a"] * count}
    for name in draw(st.lists(st.sampled_from(list(plain_values)), unique=True, max_size=4)):
        columns[name] = draw(st.lists(plain_values[name], min_size=count, max_size=count))
    return columns


def as_table(columns):
    count = len(columns["phase"])

    def array(name, kind):
        given_values = columns.get(name, [None] * count)
        if kind.type == TIMESTAMP:
            return pa.array(given_values, pa.int64()).view(TIMESTAMP)
        return pa.array(given_values, kind.type)

    return pa.table({name: array(name, kind) for name, kind in LOG_KINDS.items()})


@settings(max_examples=200, deadline=None)
@given(columns_of_values())
@example({"phase": ["gold"], "step_name": [None]})
def test_the_short_look_at_the_rules_says_what_the_kernels_say(columns):
    floats = [columns[name] for name in ("duration_secs", "validation_rate") if name in columns]

    assert surely_kept(columns, floats) == (breaches(as_table(columns)) == [])


def test_what_is_blank_in_python_is_blank_in_arrow_and_the_other_way_round():
    letters = [chr(point) for point in range(sys.maxunicode + 1) if not 0xD800 <= point < 0xE000]

    found = breaches(as_table({"phase": ["gold"] * len(letters), "step_name": letters}))

    assert {letters[breach.row] for breach in found} == {letter for letter in letters if letter.isspace()}
