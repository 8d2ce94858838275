"""Fast and slow roads agree with a plain reading of the contract, row by row; no row is lost."""

import json
import math
import string
from datetime import datetime, timedelta, timezone

import pyarrow as pa
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sfwriter.exceptions import WriterError, WriterSchemaError, WriterValidationError
from sfwriter.ingest.gate import Gate
from sfwriter.ingest.jsontext import parse_row
from sfwriter.schema import LOG_SCHEMA

UTC = timezone.utc
COLUMNS = [name for name in LOG_SCHEMA.names if name != "logged_at"]
KINDS = {field.name: str(field.type) for field in LOG_SCHEMA} | {"metadata": "object"}
QUICK = settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)

# ---------------------------------------------------------------- rows of every sort

texts = st.text(max_size=6) | st.sampled_from(
    ["", " ", "bronze", "BRONZE", "12", "1.5", "true", "null", "2024-01-31T12:00:00Z"]
)
numbers = st.sampled_from([0, 1, -1, 2**53, 2**53 + 1, 2**63 - 1, -(2**63), 2**63, 2**70]) | st.integers(-5, 200)
floats = st.sampled_from([0.0, -0.0, 0.5, 12.0, -1.0, 100.5, 1e300, math.nan, math.inf]) | st.floats()
zones = st.sampled_from([None, UTC, timezone(timedelta(hours=5, minutes=45)), timezone(-timedelta(hours=11))])
first, last = datetime(1, 1, 2), datetime(9999, 12, 30)  # noqa: DTZ001  Hypothesis adds the zones
moments = st.datetimes(first, last, timezones=zones) | st.sampled_from(
    [
        datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1))),
        datetime(9999, 12, 31, 23, tzinfo=timezone(-timedelta(hours=2))),
    ]
)
nested = st.recursive(
    st.none() | st.booleans() | numbers | floats | texts,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(string.ascii_letters, max_size=3), inner, max_size=3)
    ),
    max_leaves=5,
)
objects = st.dictionaries(st.text(max_size=3), nested, max_size=3) | st.just({1: 2})
anything = st.none() | st.booleans() | numbers | floats | texts | moments | objects | st.just(b"x") | st.just("\ud800")

FITTING = {
    "string": st.none() | texts,
    "int64": st.none() | numbers,
    "double": st.none() | floats | st.integers(-10, 10),
    "bool": st.none() | st.booleans(),
    "timestamp[us, tz=UTC]": st.none() | moments,
    "object": st.none() | objects | st.sampled_from(["{}", '{"a": 1}', "[]", "x"]),
}
SPECIAL = {
    "phase": st.sampled_from(["bronze", "silver", "gold", "pipeline", "GOLD", "x", None]),
    "run_mode": st.sampled_from(["initial", "Incremental", "x", None]),
    "step_name": st.sampled_from(["a", " ", "", None, "x"]),
}


def fitting(name):
    return SPECIAL.get(name, FITTING[KINDS[name]])


@st.composite
def rows(draw):
    """Rows most of whose columns fit, so that the fast roads are taken, with odd values here and there."""
    count = draw(st.integers(0, 6))
    names = draw(st.lists(st.sampled_from(COLUMNS), unique=True, max_size=6))
    made = [{"phase": "gold", "step_name": "a", **{name: draw(fitting(name)) for name in names}} for _ in range(count)]
    for row in made:
        if draw(st.integers(0, 4)) == 0:
            row[draw(st.sampled_from(COLUMNS))] = draw(anything)
        if names and draw(st.integers(0, 4)) == 0:
            row.pop(names[0], None)
    return made


# ---------------------------------------------------------------- the oracle

NOTHING = object()


def reading(name, value, exact):
    """What the table keeps of a value, or NOTHING where it is of the wrong type."""
    if value is None:
        return None
    kind = KINDS[name]
    if kind == "string":
        return read_text(value, exact)
    if kind == "int64":
        return read_int(value, exact)
    if kind == "double":
        return read_float(value, exact)
    if kind == "bool":
        return read_bool(value, exact)
    if kind == "object":
        return read_object(value)
    return read_moment(value, exact)


def unicode(text):
    try:
        text.encode()
    except UnicodeEncodeError:
        return NOTHING
    return text


def read_text(value, exact):
    if isinstance(value, str):
        return unicode(value)
    if exact or isinstance(value, bool):
        return NOTHING
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return str(value)
    return value.isoformat() if isinstance(value, datetime) else NOTHING


def read_int(value, exact):
    if isinstance(value, bool):
        return NOTHING
    if isinstance(value, str) and not exact:
        try:
            value = float(value) if "." in value else int(value)
        except ValueError:
            return NOTHING
    if isinstance(value, float) and not exact and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and -(2**63) <= value < 2**63 else NOTHING


def read_float(value, exact):
    if isinstance(value, bool):
        return NOTHING
    if isinstance(value, str) and not exact:
        try:
            return float(value)
        except ValueError:
            return NOTHING
    if isinstance(value, int):
        return float(value) if abs(value) <= 2**53 else NOTHING
    return value if isinstance(value, float) else NOTHING


def read_bool(value, exact):
    if isinstance(value, str) and not exact:
        return {"true": True, "false": False}.get(value.strip().lower(), NOTHING)
    return value if isinstance(value, bool) else NOTHING


def read_moment(value, exact):
    if isinstance(value, str) and not exact and value == "2024-01-31T12:00:00Z":
        return datetime(2024, 1, 31, 12, tzinfo=UTC)
    if not isinstance(value, datetime):
        return NOTHING
    try:
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    except OverflowError:
        return NOTHING


def read_object(value):
    try:
        found = json.loads(value, parse_constant=_no_constant) if isinstance(value, str) else value
        text = json.dumps(found, allow_nan=False)
        if not isinstance(found, dict) or any(not isinstance(key, str) for key in found):
            return NOTHING
        text.encode().decode("unicode_escape").encode("utf-16", "surrogatepass")
        json.dumps(found, ensure_ascii=False).encode()
    except (ValueError, TypeError):
        return NOTHING
    return found


def _no_constant(name):
    raise ValueError(name)


def complaints(kept, broken):
    """How many built-in rules the kept values break, in a row whose `broken` columns do not fit."""
    found = 0
    for name in ("phase", "step_name"):
        found += kept[name] is None and name not in broken
    for name in ("run_id", "step_name"):
        found += kept[name] is not None and not kept[name].strip()
    for name, allowed in (
        ("phase", {"bronze", "silver", "gold", "pipeline"}),
        ("run_mode", {"initial", "incremental", "full_refresh", "validation_only"}),
    ):
        found += kept[name] is not None and kept[name] not in allowed
    for name in COLUMNS:
        value = kept[name]
        if value is None or KINDS[name] not in {"int64", "double"}:
            continue
        if not math.isfinite(value):
            found += 1
        elif name == "validation_rate":
            found += not 0 <= value <= 100
        else:
            found += value < 0
    for start, end in (("start_time", "end_time"), ("run_started_at", "run_ended_at")):
        found += kept[start] is not None and kept[end] is not None and kept[end] < kept[start]
    return found


def lowered(name, value, allowed):
    return value.lower() if isinstance(value, str) and value.lower() in allowed else value


def oracle(row, exact):
    """Kept values, columns that do not fit, number of broken rules."""
    kept, broken = {}, set()
    for name in COLUMNS:
        found = reading(name, row.get(name), exact)
        if found is NOTHING:
            broken.add(name)
        kept[name] = None if found is NOTHING else found
    if not exact:
        kept["phase"] = lowered("phase", kept["phase"], {"bronze", "silver", "gold", "pipeline"})
        kept["run_mode"] = lowered(
            "run_mode", kept["run_mode"], {"initial", "incremental", "full_refresh", "validation_only"}
        )
    if kept["success"] is None and "success" not in broken:
        kept["success"] = kept["error_message"] is None and "error_message" not in broken
    if kept["run_id"] is None:
        kept["run_id"] = "call"
    return kept, broken, complaints(kept, broken)


def same(found, expected):
    found = dict(found)
    if found["metadata"] is not None:
        found["metadata"] = json.loads(found["metadata"])
    return repr(found) == repr({name: _shown(expected[name]) for name in COLUMNS})


def _shown(value):
    return value.replace(tzinfo=_zone(), fold=0) if isinstance(value, datetime) else value


def _zone():
    return pa.scalar(0, pa.timestamp("us", "UTC")).as_py().tzinfo


# ---------------------------------------------------------------- the promises


def outcome(mode, given_rows):
    """What came through the gate, or the error."""
    try:
        return Gate(mode).admit(given_rows, "call")
    except WriterError as error:
        return error


@QUICK
@given(rows())
@example([{"phase": "gold", "step_name": "a", "duration_secs": 2**53, "rows_written": True}])
@example(
    [
        {"phase": "gold", "step_name": "a", "metadata": {"a": None}},
        {"phase": "gold", "step_name": "a", "metadata": {"a": math.nan}},
    ]
)
def test_strict_takes_exactly_what_the_contract_takes(given_rows):
    expected = [oracle(row, exact=True) for row in given_rows]
    wrong = {(row, name) for row, (_, broken, _) in enumerate(expected) for name in broken}
    against = {row: count for row, (_, _, count) in enumerate(expected) if count}

    found = outcome("strict", given_rows)

    if wrong:
        assert isinstance(found, WriterSchemaError)
        entries = found.validation_errors
        assert {(entry["row"], value["column"]) for entry in entries for value in entry["values"]} == wrong
        assert [entry["row"] for entry in entries] == sorted({row for row, _ in wrong} | against.keys())
    elif against:
        assert isinstance(found, WriterValidationError)
        assert {entry["row"]: len(entry["reasons"]) for entry in found.validation_errors} == against
    else:
        kept = [kept for kept, _, _ in expected]
        assert all(same(*pair) for pair in zip(found.batch.rows.to_pylist(), kept, strict=True))


@QUICK
@given(rows())
def test_lenient_passes_good_rows_and_sets_aside_every_other_with_all_its_reasons(given_rows):
    expected = [oracle(row, exact=False) for row in given_rows]
    gated = Gate("lenient").admit(given_rows, "call")

    good = [kept for kept, broken, count in expected if not broken and not count]
    bad = [
        (len(broken) + count, row)
        for (_, broken, count), row in zip(expected, given_rows, strict=True)
        if broken or count
    ]
    aside = [] if gated.batch.quarantined is None else gated.batch.quarantined.to_pylist()
    assert gated.given == gated.accepted + gated.quarantined == len(given_rows)
    assert all(same(found, kept) for found, kept in zip(gated.batch.rows.to_pylist(), good, strict=True))
    assert [len(entry["reasons"]) for entry in aside] == [count for count, _ in bad]
    assert [set(parse_row(entry["row"])) for entry in aside] == [set(row) for _, row in bad]


@QUICK
@given(rows())
def test_ignore_writes_every_row_that_has_phase_and_step_name_and_loses_nothing(given_rows):
    expected = [oracle(row, exact=False) for row in given_rows]
    lacking = [i for i, (kept, _, _) in enumerate(expected) if kept["phase"] is None or kept["step_name"] is None]
    gated = outcome("ignore", given_rows)

    if lacking:
        assert [entry["row"] for entry in gated.validation_errors] == lacking
        return
    assert len(gated.breaches) == sum(count for _, _, count in expected)
    for found, (kept, broken, _) in zip(gated.batch.rows.to_pylist(), expected, strict=True):
        if broken:
            metadata = json.loads(found["metadata"])
            assert set(metadata.pop("_unconverted")) == broken
            found["metadata"] = json.dumps(metadata) if kept["metadata"] is not None else None
        assert same(found, kept)


@QUICK
@given(rows(), st.sampled_from(["strict", "lenient", "ignore"]))
def test_encoding_twice_gives_the_same_batch(given_rows, mode):
    one, other = outcome(mode, given_rows), outcome(mode, given_rows)

    if isinstance(one, WriterError):
        assert (str(one), one.validation_errors) == (str(other), other.validation_errors)
        return
    assert one.batch.digest == other.batch.digest
    assert repr(one.batch.rows.to_pylist()) == repr(other.batch.rows.to_pylist())
    if one.batch.quarantined is not None:
        asides = (gated.batch.quarantined.drop_columns(["quarantine_id"]) for gated in (one, other))
        assert next(asides).equals(next(asides))


@QUICK
@given(rows())
def test_an_accepted_batch_passes_again_as_arrow_unchanged(given_rows):
    first = Gate("lenient").encode(given_rows, "call")

    again = Gate("strict").encode(first.rows)

    assert again.rows.equals(first.rows) or repr(again.rows.to_pylist()) == repr(first.rows.to_pylist())
    assert again.rows.schema == first.rows.schema
    if not isinstance(outcome("strict", given_rows), WriterError):
        assert again.digest == first.digest


@QUICK
@given(st.lists(anything, min_size=1, max_size=8), st.sampled_from(["strict", "lenient", "ignore"]))
def test_a_new_column_of_any_values_loses_no_row(values, mode):
    given_rows = [{"phase": "gold", "step_name": "a", "new": value} for value in values]
    gated = outcome(mode, given_rows)

    if isinstance(gated, WriterError):
        assert (mode, bool(gated.validation_errors)) == ("strict", True)
        return
    assert gated.given == gated.accepted + gated.quarantined == len(values)
    if gated.batch.rows.num_rows and "new" in gated.batch.rows.column_names:
        kept = gated.batch.rows["new"].null_count
        missing = sum(value is None for value in values)
        assert kept == missing + (gated.unconverted if mode == "ignore" else 0)
