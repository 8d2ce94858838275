"""What the Spark tests need: writers on both engines over one warehouse."""

from __future__ import annotations

import pytest

from sfwriter import LogWriter, WriterConfig
from sfwriter.runtime.blueprint import log_table_spec
from sfwriter.storage.spark_catalog import creation_sql
from sfwriter.storage.spark_scan import by_path


def pytest_collection_modifyitems(items):
    for item in items:
        if "spark" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.spark)


@pytest.fixture
def config(tmp_path):
    """Makes a configuration on the test's own warehouse."""
    return lambda **options: WriterConfig(
        **{"warehouse": str(tmp_path / "warehouse"), "retry_delay_secs": 0, "enable_optimization": False, **options}
    )


@pytest.fixture
def open_writer(config, request):
    """Opens writers that are closed when the test ends: `engine` is `spark` or `embedded`."""
    opened = []

    def open_one(engine="spark", **options):
        session = request.getfixturevalue("spark") if engine == "spark" else None
        writer = LogWriter(session, config(**options))
        opened.append(writer)
        return writer

    yield open_one
    for writer in opened:
        writer.close()


@pytest.fixture
def made_by_spark(spark, config):
    """Makes the log table through Spark's SQL, with more columns and properties; gives its address for SQL."""

    def make(columns="", properties="", more="", **options):
        spec = log_table_spec(config(**options))
        text = creation_sql(by_path(spec.location), spec)
        if columns:
            text = text.replace(") USING delta", f", {columns}) USING delta", 1)
        if more:
            text = text.replace(" TBLPROPERTIES", f" {more} TBLPROPERTIES", 1)
        if properties:
            text = f"{text.removesuffix(')')}, {properties})"
        spark.sql(text)
        return by_path(spec.location)

    return make
