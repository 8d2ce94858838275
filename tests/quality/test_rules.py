"""Rules: what they may say, and what they find."""

from __future__ import annotations

import math
from datetime import datetime, timezone

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfwriter.column import Column
from sfwriter.exceptions import WriterValidationError
from sfwriter.quality import sandbox
from sfwriter.quality.rules import RulesError, RuleSet
from sfwriter.schema import LOG_SCHEMA

NOW = datetime(2026, 5, 1, tzinfo=timezone.utc)


def rule_set(**rules):
    return RuleSet({name: given if isinstance(given, list) else [given] for name, given in rules.items()},
                   LOG_SCHEMA, lambda: NOW)  # fmt: skip


def rows(**columns):
    count = len(next(iter(columns.values())))
    return pa.table(
        [pa.array(columns.get(field.name, [None] * count), field.type) for field in LOG_SCHEMA], schema=LOG_SCHEMA
    ).drop_columns(["logged_at"])


def failing(rules, table):
    return {broken.rule.text: broken.rows.to_pylist() for broken in rules.broken(table)}


def test_sql_columns_and_arrow_expressions_say_the_same():
    rules = rule_set(
        duration_secs=["duration_secs >= 1", Column("duration_secs >= 1 "), pc.field("duration_secs") >= 1]
    )
    found = rules.broken(rows(duration_secs=[0.5, 1.0, None, 3.0]))
    assert [broken.rows.to_pylist() for broken in found] == [[0, 2]] * 3


@pytest.mark.parametrize(
    ("rule", "kept"),
    [
        ("duration_secs BETWEEN 1 AND 2", [False, True, True, False, False]),
        ("duration_secs IN (1, 5) OR step_name LIKE 'e%'", [True, True, False, True, False]),
        ("CASE WHEN step_name = 'e' THEN true ELSE duration_secs > 1.5 END", [True, False, True, True, False]),
        ("NOT (duration_secs > 1) AND step_name IS NOT NULL", [True, True, False, False, False]),
        ("step_name::INTEGER > 0", [False, False, False, False, False]),
        ("1 / (duration_secs - 1) > -100", [True, True, True, True, False]),
        ("logged_at < now() -- a comment at the end", [True, True, True, True, True]),
        ("length(step_name) = 1 AND logged_at > TIMESTAMPTZ '2026-01-01T00:00:00Z'", [True, True, True, False, True]),
    ],
)
def test_a_rule_is_kept_only_where_it_is_true(rule, kept):
    table = rows(duration_secs=[0.5, 1.0, 2.0, 5.0, None], step_name=["e", "f", "f", "extract", "x"])
    found = failing(rule_set(duration_secs=rule), table).get(rule, [])
    assert [place not in found for place in range(5)] == kept


@pytest.mark.parametrize(
    "text",
    [
        "",
        "duration_secs >",
        "duration_secs",
        "'text'",
        "NULL",
        "nope > 1",
        "log.duration_secs > 1",
        "*",
        "duration_secs > 1; DROP TABLE batch",
        "1 = 1), (2 = 2",
        "step_name <> '\ud800'",
        "duration_secs > 0) OR (1 = 1",
        "1 = 1) FROM read_text('/etc/passwd') WHERE (1 = 1",
        "1 = 1) WHERE (1 = 1",
        "1 = 1) ORDER BY (1",
        "(SELECT count(*) FROM read_csv('/etc/passwd')) > 0",
        "EXISTS (SELECT 1)",
        "duration_secs > ALL (SELECT 1)",
        "getenv('HOME') = 'x'",
        "current_setting('threads') = '1'",
        "read_text('/etc/passwd') = 'x'",
        "count(*) > 1",
        "sum(duration_secs) > 1",
        "row_number() OVER () > 1",
        "list_filter([1], x -> x > 1) = [1]",
        "repeat(step_name, 1000000000) = 'x'",
        "length(range(1000000000)) > 1",
        "random() > 0.5",
        "duration_secs > ?",
        "duration_secs > $1",
        "getvariable('x') = 1",
        "nextval('x') = 1",
        "duckdb_settings() = 1",
        "main.abs(duration_secs) > 1",
        "ATTACH 'x'",
        "COPY batch TO 'x'",
        "SET threads = 4",
        "PRAGMA version",
        "INSTALL httpfs",
        "((" * 2000 + "true" + "))" * 2000,
        "true AND " * 3000 + "true",
    ],
)
def test_what_is_no_harmless_boolean_expression_is_refused(text):
    with pytest.raises(RulesError, match="validation_rules"):
        rule_set(duration_secs=text)


def test_all_problems_are_told_at_once():
    with pytest.raises(RulesError) as caught:
        RuleSet(
            {"nope": ["1 = 1"], "phase": ["phase", "x = 1"], "step_name": [pc.field("no")]}, LOG_SCHEMA, lambda: NOW
        )
    assert len(caught.value.problems) == 4


def test_the_sandbox_has_no_files_settings_or_other_tables(tmp_path):
    outside = pa.table({"a": [1]})
    secret = tmp_path / "secret.csv"
    secret.write_text("a\n1\n")
    connection = sandbox.Sandbox()._connection
    for statement in (
        f"SELECT * FROM read_csv('{secret}')",
        f"SELECT * FROM '{secret}'",
        f"COPY (SELECT 1) TO '{tmp_path / 'out.csv'}'",
        f"ATTACH '{tmp_path / 'a.db'}'",
        "INSTALL httpfs",
        "SET threads = 4",
        "SET enable_external_access = true",
        "SELECT * FROM outside",
    ):
        with pytest.raises(Exception, match=r"(?i)error"):
            connection.execute(statement).fetchall()
    assert outside.num_rows == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["secret.csv"]


def test_rules_that_take_too_long_are_stopped(monkeypatch):
    monkeypatch.setattr(sandbox, "TIME_LIMIT_S", 0.01)
    rule = " AND ".join(f"NOT regexp_matches(error_message, '(a|b)*c{place}(x|y)+z')" for place in range(40))
    rules = rule_set(error_message=rule)
    table = rows(error_message=["ab" * 500] * 20_000)
    with pytest.raises(WriterValidationError, match="took longer than"):
        rules.broken(table)
    monkeypatch.setattr(sandbox, "TIME_LIMIT_S", 30.0)
    assert not rules.broken(table.slice(0, 2)), "the sandbox goes on after it"


values = st.lists(
    st.tuples(
        st.one_of(st.none(), st.floats(-10, 10), st.just(math.nan)),
        st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)),
        st.one_of(st.none(), st.sampled_from(["", "a", "ab", "'", "é"])),
    ),
    min_size=1,
    max_size=40,
)


@settings(max_examples=60)
@given(values)
def test_rules_find_what_plain_python_finds(found):
    durations, counts, names = (list(column) for column in zip(*found, strict=True))
    rules = rule_set(
        duration_secs="duration_secs >= 0 AND NOT isnan(duration_secs)",
        rows_processed="rows_processed % 2 = 0",
        step_name=["step_name IS NULL OR length(step_name) < 2", pc.field("step_name") != "a"],
    )
    got = failing(rules, rows(duration_secs=durations, rows_processed=counts, step_name=names))
    expected = [
        [i for i, value in enumerate(durations) if value is None or math.isnan(value) or not value >= 0],
        [i for i, value in enumerate(counts) if value is None or value % 2],
        [i for i, value in enumerate(names) if value is not None and len(value) >= 2],
        [i for i, value in enumerate(names) if value is None or value == "a"],
    ]
    assert [got.get(rule.text, []) for rule in rules.rules] == expected
