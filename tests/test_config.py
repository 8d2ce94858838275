from __future__ import annotations

import io
import pickle
import typing
from pathlib import Path
from pprint import pformat

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfwriter import Column, WriteMode, WriterConfig, WriterConfigurationError
from sfwriter.config import PARTITIONABLE
from sfwriter.schema import LOG_SCHEMA

DEFAULTS = {
    "table_schema": "analytics",
    "table_name": "pipeline_logs",
    "write_mode": WriteMode.APPEND,
    "batch_size": 1000,
    "max_file_size_mb": 128,
    "parallel_write_threads": 4,
    "memory_fraction": 0.6,
    "log_data_quality_results": False,
    "enable_anomaly_detection": False,
    "min_validation_rate": 95.0,
    "max_invalid_rows_percent": 5.0,
    "enable_schema_evolution": True,
    "auto_optimize_schema": True,
    "schema_validation_mode": "strict",
    "enable_optimization": True,
    "partition_count": None,
    "compression": "snappy",
    "table_name_pattern": None,
    "table_suffix_pattern": None,
    "max_retries": 3,
    "retry_delay_secs": 1.0,
    "fail_fast": False,
    "retry_exponential_backoff": True,
    "warehouse": "warehouse",
    "storage_options": {},
    "producer_id": None,
    "linger_ms": 50,
    "max_batch_mb": 64,
    "queue_timeout_secs": 30,
    "durability": "fsync",
    "validation_rules": {},
    "partition_columns": [],
    "idempotency_retention_days": 7,
    "client_weights": {},
    "engine": "delta-rs",
    "spark_conf": {},
}

SECRET = "s3cr3t-v4lue"


def problems(**options):
    with pytest.raises(WriterConfigurationError) as caught:
        WriterConfig(**options)
    assert isinstance(caught.value, ValueError)
    assert caught.value.suggestions
    assert "\n" not in caught.value.message
    return caught.value.problems


def test_every_option_has_the_default_of_the_reference_and_the_contract():
    config = WriterConfig()
    assert {name: getattr(config, name) for name in WriterConfig.model_fields} == DEFAULTS


def test_every_option_is_described():
    documented = WriterConfig.__doc__
    assert [name for name in DEFAULTS if f"        {name}: " not in documented] == []


@pytest.mark.parametrize(
    "options",
    [
        {"table_schema": "analytics", "table_name": "pipeline_logs", "write_mode": WriteMode.APPEND},
        {"batch_size": 5000, "max_file_size_mb": 512, "parallel_write_threads": 8},
        {"memory_fraction": 0.4, "batch_size": 500, "parallel_write_threads": 2},
        {"enable_optimization": True, "auto_optimize_schema": True, "compression": "snappy", "partition_count": 20},
        {"max_retries": 1, "retry_delay_secs": 0.5, "retry_exponential_backoff": False, "fail_fast": True},
        {"table_name_pattern": "{schema}.{pipeline_id}_{run_mode}_{date}", "min_validation_rate": 98.0},
    ],
)
def test_the_reference_s_examples_are_accepted(options):
    config = WriterConfig(**options)
    assert {name: getattr(config, name) for name in options} == options


WRONG = [
    ("table_schema", ["", " ", "a.b", "a/b", "..", "ä", "x" * 121, None, 7, "a\n"]),
    ("table_name", ["", "a b", "a\x00", b"x"]),
    ("write_mode", ["merge", None, 1, ""]),
    ("batch_size", [0, -1, 1.0, "12", True, None, 10**9, float("nan")]),
    ("max_file_size_mb", [0, -1, "128", True, float("inf"), None]),
    ("parallel_write_threads", [0, 257, 2.5, True, "4"]),
    ("memory_fraction", [0, 0.0, -0.1, 1.01, float("nan"), True, "0.5", None]),
    ("log_data_quality_results", [1, 0, "true", None]),
    ("enable_anomaly_detection", ["no"]),
    ("min_validation_rate", [-0.1, 100.1, "95", True]),
    ("max_invalid_rows_percent", [-1, 101]),
    ("enable_schema_evolution", [1]),
    ("auto_optimize_schema", ["x"]),
    ("schema_validation_mode", ["loose", None, 1]),
    ("enable_optimization", [None]),
    ("partition_count", [0, -1, True, 2.0, "2"]),
    ("compression", ["brotli", "", None, 3]),
    ("table_name_pattern", ["", "{schema}", "{nope}.x", "{schema}.{date:>9}", "{schema}.{date.year}", 5, "a.{"]),
    ("table_suffix_pattern", ["", ".x", "{nope}", "/x", 5]),
    ("max_retries", [-1, True, 1.5]),
    ("retry_delay_secs", [-0.1, True, "1", float("inf")]),
    ("fail_fast", ["False"]),
    ("retry_exponential_backoff", [2]),
    ("warehouse", ["", "  ", None, 5, "a\x00b", b"bytes"]),
    ("storage_options", [None, [], {"a": 1}, {1: "a"}, {"": "a"}, "x=y"]),
    ("producer_id", ["", " ", "x" * 257, "a\nb", "\x7f", "key:x", 5, "\ud800"]),
    ("linger_ms", [-1, "50", True, float("nan")]),
    ("max_batch_mb", [0, -1, None]),
    ("queue_timeout_secs", [-1, None, True, float("inf")]),
    ("durability", ["none", True, None]),
    ("validation_rules", [None, [], {"": "a > 0"}, {"a": ""}, {"a": [" "]}, {"a": [5]}, {"a": Column("")}, {1: "a"}]),
    ("partition_columns", ["phase", ["phase", "phase"], ["nope"], ["start_time"], [1], None, ["metadata"]]),
    ("idempotency_retention_days", [0, -1, True, "7"]),
    ("client_weights", [None, [], {"a": 0}, {"a": -1}, {"a": True}, {"a": "2"}, {"": 1}, {1: 1}, {"a": float("nan")}]),
    ("engine", [None, 1, "", "flink", "Spark "]),
    ("spark_conf", [None, [], {"a": 1}, {1: "a"}, {"": "a"}, "spark.a=b"]),
]


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG for value in values])
def test_a_wrong_value_is_refused_with_the_option_s_name_and_what_it_takes(name, value):
    (problem,) = problems(**{name: value})
    assert problem.startswith(f"{name} is ")
    assert ", but " in problem
    if name not in {"storage_options", "spark_conf"} and len(repr(value)) < 80:
        assert repr(value) in problem


def test_every_option_has_wrong_values_in_these_tests():
    assert {name for name, _ in WRONG} == set(DEFAULTS)


def test_all_problems_are_told_at_once():
    found = problems(batch_size=0, memory_fraction=2, table_schema="", tabel_name="x", zzz=1)
    assert len(found) == 5
    assert any("tabel_name is no option; did you mean table_name?" in problem for problem in found)
    assert "zzz is no option" in found


def test_a_misspelt_option_is_suggested():
    with pytest.raises(WriterConfigurationError) as caught:
        WriterConfig(batchsize=5)
    assert caught.value.suggestions[0] == "use batch_size"


def test_options_are_keyword_only():
    with pytest.raises(TypeError):
        WriterConfig("analytics")


@pytest.mark.parametrize("value", ["overwrite", "OVERWRITE", WriteMode.OVERWRITE])
def test_words_may_be_text_in_upper_or_lower_case(value):
    assert WriterConfig(write_mode=value).write_mode is WriteMode.OVERWRITE
    assert WriterConfig(compression="ZSTD", durability="OS").compression == "zstd"


def test_a_warehouse_may_be_a_path_and_is_kept_as_text():
    assert WriterConfig(warehouse=Path("/data/logs")).warehouse == "/data/logs"


def test_a_single_rule_may_stand_for_a_list():
    config = WriterConfig(validation_rules={"a": "a > 0", "b": Column("b > 0"), "c": [pc.field("c") > 0, "c < 9"]})
    assert config.validation_rules["a"] == ["a > 0"]
    assert config.validation_rules["b"] == [Column("b > 0")]
    assert len(config.validation_rules["c"]) == 2


def test_a_config_cannot_be_changed():
    config = WriterConfig(partition_columns=["phase"], storage_options={"a": "b"}, validation_rules={"a": ["a > 0"]})
    changes = [
        lambda: setattr(config, "batch_size", 5),
        lambda: config.partition_columns.append("x"),
        lambda: config.partition_columns.__iadd__(["x"]),
        lambda: config.storage_options.update(a="c"),
        lambda: config.storage_options.pop("a"),
        lambda: config.validation_rules.__setitem__("b", []),
        config.validation_rules["a"].clear,
    ]
    for change in changes:
        with pytest.raises((TypeError, ValueError)):
            change()
    assert config == config.replace()


@pytest.mark.parametrize("change", [lambda c: setattr(c, "batch_size", 5), lambda c: delattr(c, "batch_size")])
def test_who_tries_to_change_a_config_is_told_of_replace(change):
    with pytest.raises(WriterConfigurationError, match="immutable") as refused:
        change(WriterConfig())
    assert "replace(batch_size=" in refused.value.suggestions[0]


def test_a_config_keeps_its_own_copies_of_what_it_was_given():
    options, rules, columns = {"a": "b"}, {"a": ["a > 0"]}, ["phase"]
    config = WriterConfig(storage_options=options, validation_rules=rules, partition_columns=columns)
    options["a"], columns[0] = "c", "x"
    rules["a"].append("x")
    assert (config.storage_options, config.validation_rules) == ({"a": "b"}, {"a": ["a > 0"]})
    assert config.partition_columns == ["phase"]


def test_replace_gives_a_changed_config_and_leaves_the_old_one():
    config = WriterConfig(batch_size=5)
    changed = config.replace(linger_ms=0)
    assert (changed.batch_size, changed.linger_ms, config.linger_ms) == (5, 0, 50)
    assert changed != config
    assert changed.is_given("linger_ms")
    assert not changed.is_given("warehouse")


def test_replace_checks_like_a_new_config():
    with pytest.raises(WriterConfigurationError) as caught:
        WriterConfig().replace(batch_size=0, batchsize=1)
    assert len(caught.value.problems) == 2


def test_configs_are_equal_by_value_and_survive_pickling():
    rules = {"a": [pc.field("a") > 0, Column("a < 9"), "a <> 5"]}
    config = WriterConfig(
        validation_rules=rules, storage_options={"k": SECRET}, warehouse="w", partition_columns=["phase"]
    )
    again = pickle.loads(pickle.dumps(config))
    assert again == config
    assert again.is_given("warehouse")
    assert again.storage_options["k"] == SECRET
    assert config != config.replace(validation_rules={"a": [pc.field("a") > 1, Column("a < 9"), "a <> 5"]})
    assert config != config.replace(validation_rules={})
    assert WriterConfig(warehouse="warehouse") == WriterConfig()
    assert WriterConfig() != "config"


def test_no_text_shows_a_storage_option_s_value():
    from rich.console import Console

    config = WriterConfig(storage_options={"aws_secret_access_key": SECRET})
    console = Console(file=io.StringIO(), width=200)
    console.print(config, config.storage_options)
    texts = [
        repr(config),
        str(config),
        f"{config}",
        repr(config.storage_options),
        str(config.storage_options),
        pformat(config.storage_options),
        str(config.differences(WriterConfig())),
        console.file.getvalue(),
        *problems(storage_options={"a": SECRET, "b": 5}),
        *problems(storage_options=SECRET),
        *problems(storage_option={"a": SECRET}),
        *problems(aws_secret_access_key=SECRET),
    ]
    assert "aws_secret_access_key" in texts[0]
    assert [text for text in texts if SECRET in text] == []


def test_differences_name_the_options_that_differ():
    here, there = WriterConfig(batch_size=5), WriterConfig(batch_size=6, durability="os")
    assert here.differences(there) == {"batch_size": ("5", "6"), "durability": ("'fsync'", "'os'")}
    assert here.differences(here.replace()) == {}


def test_names_and_sizes_that_follow_from_the_options():
    config = WriterConfig(table_schema="s", table_name="t", max_file_size_mb=0.5, max_batch_mb=2)
    assert (config.table_fqn, config.quarantine_table_name, config.quality_table_name) == (
        "s.t",
        "t_quarantine",
        "t_quality",
    )
    assert (config.max_file_bytes, config.max_batch_bytes) == (1 << 19, 2 << 20)


def test_the_environment_is_read_only_when_asked(monkeypatch):
    monkeypatch.setenv("SFWRITER_BATCH_SIZE", "77")
    assert WriterConfig().batch_size == 1000
    assert WriterConfig.from_env().batch_size == 77


def test_every_option_can_be_set_by_a_variable():
    environ = {
        "SFWRITER_TABLE_SCHEMA": "s",
        "SFWRITER_WRITE_MODE": "overwrite",
        "SFWRITER_BATCH_SIZE": " 5 ",
        "SFWRITER_MAX_FILE_SIZE_MB": "0.5",
        "SFWRITER_LINGER_MS": "20",
        "SFWRITER_FAIL_FAST": "Yes",
        "SFWRITER_ENABLE_OPTIMIZATION": "0",
        "SFWRITER_PARTITION_COUNT": "none",
        "SFWRITER_TABLE_NAME_PATTERN": "",
        "SFWRITER_COMPRESSION": "zstd",
        "SFWRITER_STORAGE_OPTIONS": '{"region": "x"}',
        "SFWRITER_PARTITION_COLUMNS": "phase, run_mode,",
        "SFWRITER_VALIDATION_RULES": '{"a": "a > 0"}',
        "SFWRITER_PRODUCER_ID": "",
        "SFWRITER_WAREHOUSE": "s3://bucket/x",
        "PATH": "/bin",
    }
    assert WriterConfig.from_env(environ) == WriterConfig(
        table_schema="s",
        write_mode="overwrite",
        batch_size=5,
        max_file_size_mb=0.5,
        linger_ms=20,
        fail_fast=True,
        enable_optimization=False,
        compression="zstd",
        storage_options={"region": "x"},
        partition_columns=["phase", "run_mode"],
        validation_rules={"a": ["a > 0"]},
        warehouse="s3://bucket/x",
    )
    assert WriterConfig.from_env({"SFWRITER_PARTITION_COLUMNS": '["phase"]'}).partition_columns == ["phase"]


def test_a_wrong_variable_is_named_and_all_are_told_at_once():
    environ = {
        "SFWRITER_BATCH_SIZE": "many",
        "SFWRITER_LINGER_MS": "-1",
        "SFWRITER_FAIL_FAST": "perhaps",
        "SFWRITER_STORAGE_OPTIONS": f"{{{SECRET}",
        "SFWRITER_BATCHSIZE": "5",
        "SFWRITER_PARTITION_COLUMNS": "[1",
        "SFWRITER_SOMETHING_ELSE": "5",
    }
    with pytest.raises(WriterConfigurationError) as caught:
        WriterConfig.from_env(environ, memory_fraction=3)
    found = caught.value.problems
    for variable in list(environ)[:-1]:
        assert any(problem.startswith(variable) for problem in found), variable
    assert any(problem.startswith("memory_fraction is 3") for problem in found)
    assert len(found) == 7
    assert SECRET not in str(caught.value)


def test_overrides_win_over_variables():
    config = WriterConfig.from_env({"SFWRITER_BATCH_SIZE": "many"}, batch_size=9)
    assert config.batch_size == 9
    with pytest.raises(WriterConfigurationError) as caught:
        WriterConfig.from_env({"SFWRITER_BATCH_SIZE": "5"}, batch_size=0)
    assert caught.value.problems[0].startswith("batch_size is 0")


def config_or_problems(make):
    try:
        return make(), []
    except WriterConfigurationError as error:
        return None, error.problems


@given(st.dictionaries(st.sampled_from(sorted(DEFAULTS)), st.one_of(st.none(), st.booleans(), st.floats(), st.text())))
def test_any_value_gives_a_config_or_a_configuration_error(options):
    config, found = config_or_problems(lambda: WriterConfig(**options))
    if config is None:
        assert 1 <= len(found) <= len(options)
    else:
        assert pickle.loads(pickle.dumps(config)) == config


@given(st.dictionaries(st.sampled_from([f"SFWRITER_{name.upper()}" for name in DEFAULTS]), st.text()))
def test_any_text_of_a_variable_gives_a_config_or_a_configuration_error(environ):
    config, found = config_or_problems(lambda: WriterConfig.from_env(environ))
    assert (config is None) == bool(found)
    assert len(found) <= len(environ)


def test_a_table_can_be_partitioned_by_columns_that_it_has():
    assert set(PARTITIONABLE) <= set(LOG_SCHEMA.names)
    for name in PARTITIONABLE:
        assert LOG_SCHEMA.field(name).type in {pa.string(), pa.bool_()}


def test_the_signature_that_editors_show_is_the_real_one():
    source = Path(typing.cast("str", __import__("sfwriter.config", fromlist=["x"]).__file__)).read_text()
    signature = source[source.index("if TYPE_CHECKING:\n\n        def __init__") : source.index("-> None: ...")]
    assert [name for name in DEFAULTS if f"            {name}: " not in signature] == []


def test_the_engine_of_a_service_comes_from_a_file_a_variable_or_a_flag(tmp_path):
    path = tmp_path / "service.toml"
    path.write_text('engine = "spark"\n[spark_conf]\n"spark.driver.memory" = "2g"\n')
    config = WriterConfig.from_file(path, {})
    assert (config.engine, dict(config.spark_conf)) == ("spark", {"spark.driver.memory": "2g"})
    assert "2g" not in repr(config)
    assert WriterConfig.from_env({"SFWRITER_ENGINE": "spark"}).engine == "spark"
    assert problems(engine="flink")
    assert problems(spark_conf={"spark.driver.memory": 2})
