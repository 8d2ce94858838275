from __future__ import annotations

import pickle
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfwriter import RunMode, WriterConfig, WriterValidationError
from sfwriter.naming import is_name, joined, moment, pattern_problems, split_name, time_values, variables_of

REFERENCE = WriterConfig(
    table_schema="analytics",
    table_name="base_logs",
    table_name_pattern="{schema}.{pipeline_id}_{run_mode}_{date}",
    table_suffix_pattern="_{run_mode}_{timestamp}",
)

NAMES = st.from_regex(r"[A-Za-z0-9_-]{1,20}", fullmatch=True)


def test_the_reference_s_example_gives_the_reference_s_name():
    name = REFERENCE.generate_table_name(pipeline_id="my-pipeline", run_mode="incremental", timestamp="20240101_120000")
    assert name == "analytics.my-pipeline_incremental_20240101_120000"


def test_the_default_pattern_is_the_configured_table():
    assert WriterConfig().generate_table_name() == "analytics.pipeline_logs"
    assert not WriterConfig().is_routed
    assert not WriterConfig(table_name_pattern="{schema}.{table_name}").is_routed
    assert REFERENCE.is_routed


@pytest.mark.parametrize(
    "timestamp",
    [
        datetime(2024, 1, 1, 12),  # noqa: DTZ001  naive on purpose: taken as UTC
        datetime(2024, 1, 1, 12, tzinfo=timezone.utc),
        datetime(2024, 1, 1, 14, tzinfo=timezone(timedelta(hours=2))),
        "20240101_120000",
        "20240101120000",
        "2024-01-01T12:00:00Z",
        "2024-01-01T14:00:00+02:00",
    ],
)
def test_a_timestamp_may_be_a_datetime_or_text(timestamp):
    config = WriterConfig(table_name_pattern="{schema}.x_{date}_{timestamp}")
    assert config.generate_table_name(timestamp=timestamp) == "analytics.x_20240101_20240101_120000"


def test_a_missing_timestamp_is_now():
    before = datetime.now(timezone.utc)
    name = WriterConfig(table_name_pattern="{schema}.{timestamp}").generate_table_name()
    at = moment(name.split(".")[1])
    assert before.replace(microsecond=0) <= at <= datetime.now(timezone.utc)


@pytest.mark.parametrize("text", ["yesterday", "20241301", "2024-01-01T25:00", "", "20240101_1200"])
def test_text_that_is_no_time_is_refused(text):
    config = WriterConfig(table_name_pattern="{schema}.{date}")
    with pytest.raises(WriterValidationError, match="no point in time") as caught:
        config.generate_table_name(timestamp=text)
    assert caught.value.suggestions


def test_a_moment_outside_of_utc_s_range_is_refused():
    with pytest.raises(WriterValidationError):
        moment(datetime.min.replace(tzinfo=timezone(timedelta(hours=5))))


@pytest.mark.parametrize("missing", [None, "", "  "])
def test_a_variable_without_a_value_is_an_error_and_no_made_up_name(missing):
    with pytest.raises(WriterValidationError, match="pipeline_id") as caught:
        REFERENCE.generate_table_name(pipeline_id=missing, run_mode="initial")
    assert caught.value.context["missing"] == ["pipeline_id"]
    assert caught.value.suggestions


@pytest.mark.parametrize("value", ["a.b", "../../etc", "a/b", "ä", "a b", "x" * 121, "a\n", "{schema}"])
def test_a_value_that_makes_an_illegal_name_is_refused_and_never_cleaned(value):
    config = WriterConfig(table_name_pattern="{schema}.{pipeline_id}")
    with pytest.raises(WriterValidationError, match="no table name") as caught:
        config.generate_table_name(pipeline_id=value)
    assert caught.value.suggestions
    assert pickle.loads(pickle.dumps(caught.value)).context == caught.value.context


def test_a_value_that_is_no_text_is_refused():
    with pytest.raises(WriterValidationError, match="takes text"):
        REFERENCE.generate_table_name(pipeline_id=7, run_mode="initial", timestamp="20240101")


def test_a_run_mode_may_be_the_enum():
    config = WriterConfig(table_name_pattern="{schema}.{run_mode}")
    assert config.generate_table_name(run_mode=RunMode.FULL_REFRESH) == "analytics.full_refresh"


@pytest.mark.parametrize(
    ("name", "suffix", "whole"),
    [
        ("a.logs", "_x", "a.logs_x"),
        ("a.logs_x", "_x", "a.logs_x"),
        ("a.logs_a", "a_b", "a.logs_a_b"),
        ("a.aXa", "aXaXa", "a.aXaXa"),
        ("a.b", "", "a.b"),
    ],
)
def test_what_the_name_ends_with_is_not_repeated(name, suffix, whole):
    assert joined(name, suffix) == whole


@given(name=NAMES, suffix=NAMES)
def test_joining_keeps_both_ends_and_repeats_nothing_that_it_could_share(name, suffix):
    whole = joined(name, suffix)
    assert whole.startswith(name)
    assert whole.endswith(suffix)
    assert len(whole) <= len(name) + len(suffix)
    shared = len(name) + len(suffix) - len(whole)
    assert not any(name.endswith(suffix[:more]) for more in range(shared + 1, len(suffix) + 1))


@pytest.mark.parametrize(
    ("pattern", "word"),
    [
        ("{schema}.{nope}", "does not exist"),
        ("{schema}.{run_mod}", "did you mean {run_mode}"),
        ("{schema}.{}", "does not exist"),
        ("{schema}.{0}", "does not exist"),
        ("{schema}.{date.year}", "does not exist"),
        ("{schema}.{date[0]}", "does not exist"),
        ("{schema}.{date:>20}", "bare variable"),
        ("{schema}.{date!r}", "bare variable"),
        ("{schema}.{date", "not a pattern"),
        ("{schema}.date}", "not a pattern"),
        ("{schema}.{{x}}", "ASCII letters"),
        ("{schema}/{table_name}", "ASCII letters"),
        ("{schema}{table_name}", "exactly one"),
        ("a.b.{table_name}", "exactly one"),
    ],
)
def test_a_wrong_pattern_is_told_with_its_reason(pattern, word):
    assert any(word in problem for problem in pattern_problems(pattern))


def test_a_suffix_has_no_dot():
    assert pattern_problems("_{date}", suffix=True) == []
    assert pattern_problems(".{date}", suffix=True)


def test_variables_are_listed_once_in_their_order():
    assert variables_of("{schema}.{date}_{schema}_{run_mode}") == ("schema", "date", "run_mode")


@given(schema=NAMES, table=NAMES)
def test_a_legal_name_splits_into_its_parts(schema, table):
    assert split_name(f"{schema}.{table}") == (schema, table)


@given(st.text())
def test_only_letters_digits_underscores_and_hyphens_are_names(text):
    allowed = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")
    assert is_name(text) == (0 < len(text) <= 120 and set(text) <= allowed)


@given(st.datetimes(timezones=st.just(timezone.utc)))
def test_a_timestamp_s_text_means_the_same_second(at):
    values = time_values(at)
    assert moment(values["timestamp"]) == at.replace(microsecond=0)
    assert values["timestamp"].startswith(values["date"])
