"""Spark's columns as rules, beside the SQL text that says the same."""

import pytest
from pyspark.sql import Window
from pyspark.sql import functions as F  # noqa: N812  its usual name

from sfwriter import WriterConfigurationError
from sfwriter.exceptions import WriterError, WriterValidationError

ROWS = [
    {"phase": "gold", "step_name": "a", "duration_secs": 5.0, "rows_processed": 10, "rows_written": 10},
    {"phase": "gold", "step_name": "b", "duration_secs": -0.0, "rows_processed": 0, "rows_written": 3},
    {"phase": "silver", "step_name": "c", "duration_secs": None, "rows_processed": None, "rows_written": 0},
    {"phase": "silver", "step_name": "d", "duration_secs": 500.0, "rows_processed": 4, "error_message": "boom"},
]
TEXTS = {
    "duration_secs": ["duration_secs >= 0", "duration_secs < 100"],
    "rows_written": ["rows_written <= rows_processed"],
    "success": ["success"],
    "step_name": ["step_name IN ('a', 'b')"],
}


def columns():
    return {
        "duration_secs": [F.col("duration_secs") >= 0, F.col("duration_secs") < 100],
        "rows_written": [F.col("rows_written") <= F.col("rows_processed")],
        "success": [F.col("success")],
        "step_name": [F.col("step_name").isin("a", "b")],
    }  # fmt: skip


def told(quality):
    """Without the rules' own texts."""
    issues = [(one["column"], one["failed_rows"]) for one in quality["issues"]]
    return quality["valid_rows"], quality["invalid_rows"], quality["quality_passed"], sorted(issues)


def frame_of(spark):
    fields = "phase string, step_name string, duration_secs double, rows_processed bigint, rows_written bigint"
    names = ["phase", "step_name", "duration_secs", "rows_processed", "rows_written", "error_message"]
    rows = [tuple(row.get(name) for name in names) for row in ROWS]
    return spark.createDataFrame(rows, f"{fields}, error_message string").repartition(2)


def test_columns_of_spark_judge_as_the_same_rules_in_sql(spark, open_writer):
    writer = open_writer()

    by_text = writer.validate_log_data_quality(ROWS, TEXTS)
    by_column = writer.validate_log_data_quality(ROWS, columns())
    assert told(by_column) == told(by_text)
    assert by_column["validation_rules_applied"][0] == ">=(duration_secs, 0)"
    samples = [[sample["row"] for sample in one["sample"]] for one in by_column["issues"]]
    assert samples == [[sample["row"] for sample in one["sample"]] for one in by_text["issues"]]


def test_columns_of_spark_judge_a_frame_as_sql_does_on_the_executors(spark, open_writer):
    writer = open_writer()

    frames = [writer.validate_log_data_quality(frame_of(spark), rules) for rules in (TEXTS, columns())]
    by_text = writer.validate_log_data_quality(ROWS, TEXTS)
    ratio = {"rows_written": [F.col("rows_written") / F.col("rows_processed") > 0]}

    assert [told(one) for one in frames] == [told(by_text)] * 2
    # Rows in a frame are judged under its own session's settings, in which a division by zero is an error.
    with pytest.raises(WriterError, match=r"nothing was written.*DIVIDE_BY_ZERO"):
        writer.validate_log_data_quality(frame_of(spark), ratio)
    assert writer.validate_log_data_quality(ROWS, ratio)["invalid_rows"] == 3


@pytest.mark.parametrize("given", ["dicts", "frame"])
def test_rules_of_the_configuration_set_rows_aside(spark, open_writer, given):
    rules = {"duration_secs": [F.col("duration_secs") >= 0], "step_name": ["step_name <> 'b'"]}
    writer = open_writer(validation_rules=rules, schema_validation_mode="lenient")

    result = writer.write_log_rows(ROWS if given == "dicts" else frame_of(spark))

    assert (result["rows_written"], result["quarantined_rows"]) == (2, 2)
    reasons = sorted(reason for entry in writer.quarantined() for reason in entry["reasons"])
    assert reasons == ["duration_secs fails the rule >=(duration_secs, 0)", "step_name fails the rule step_name <> 'b'"]


WRONG = {
    "not boolean": (lambda: F.col("duration_secs") + 1, "gives double, and a rule is true or false"),
    "an unknown column": (lambda: F.col("no_such") > 1, "no_such"),
    "an aggregate": (lambda: F.sum("rows_written") > 1, "duration_secs"),
    "a window": (lambda: F.row_number().over(Window.orderBy("phase")) > 1, "one row only"),
}


@pytest.mark.parametrize(("make", "said"), WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("given", ["dicts", "frame"])
def test_what_is_no_rule_is_refused_as_sql_text_would_be(spark, open_writer, make, said, given):
    writer = open_writer()

    with pytest.raises(WriterValidationError, match=said) as refused:
        writer.validate_log_data_quality(ROWS if given == "dicts" else frame_of(spark), {"duration_secs": [make()]})

    assert refused.value.context["field"] == "validation_rules"


def test_a_configuration_with_such_a_rule_is_refused_when_the_writer_opens(spark, open_writer):
    rules = {"duration_secs": [F.col("duration_secs") + 1]}

    with pytest.raises(WriterConfigurationError, match="gives double"):
        open_writer(validation_rules=rules)
    with pytest.raises(WriterConfigurationError, match="needs the Spark engine"):
        open_writer("embedded", validation_rules=rules)
