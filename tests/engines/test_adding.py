"""Tables that others made: columns that are added, narrower types that are kept."""

from dataclasses import replace
from datetime import datetime, timezone

import pyarrow as pa
import pytest

from sfwriter.exceptions import WriterSchemaError, WriterTableError
from sfwriter.schema import LOG_SCHEMA
from sfwriter.storage.engine import AddColumns

FOREIGN = pa.schema(
    [("run_id", pa.string()), ("phase", pa.string()), ("step_name", pa.string()), ("rows_written", pa.int32()),
     ("duration_secs", pa.float32()), ("host", pa.string())]
)  # fmt: skip


def foreign(lab):
    """A table as another writer would make it, with three rows."""
    spec = lab.spec(schema=FOREIGN, stamps={}, statistics_columns=(), dictionary_columns=())
    table = lab.ready(spec)
    rows = pa.table({"phase": ["gold"] * 3, "rows_written": pa.array([1, 2, 3], pa.int32())})
    lab.put(table, "old", 0, rows)
    return spec


@pytest.mark.every_road
def test_columns_are_added_once_and_rows_and_files_stay(lab):
    foreign(lab)
    table = lab.open()
    before = table.stats()

    planned = table.run(AddColumns(LOG_SCHEMA, dry_run=True))
    unchanged = table.stats()
    done = table.run(AddColumns(LOG_SCHEMA))
    again = table.run(AddColumns(LOG_SCHEMA))

    after = table.stats()
    missing = [name for name in LOG_SCHEMA.names if name not in FOREIGN.names]
    assert unchanged == before
    assert planned["added"] == done["added"] == missing
    assert again == {"refused": [], "added": [], "version": done["version"]}
    assert (after.version, after.rows, after.files) == (before.version + 1, 3, before.files)
    assert set(after.schema.names) == {*LOG_SCHEMA.names, "host"}
    assert after.schema.field("rows_written").type == pa.int32()


def test_a_table_that_is_not_there_is_not_made_for_its_columns(lab):
    table = lab.open()

    with pytest.raises(WriterTableError):
        table.run(AddColumns(LOG_SCHEMA))

    assert not table.stats().exists


@pytest.mark.every_road
def test_narrower_columns_are_written_in_the_tables_own_types(lab):
    foreign(lab)
    table = lab.ready()

    lab.put(table, "p", 0, lab.rows(2, duration_secs=[0.1, 2.5]))

    assert table.spec.schema.field("rows_written").type == pa.int32()
    found = table.scan(["rows_written", "duration_secs"]).read_all()
    assert found.schema.types == [pa.int32(), pa.float32()]
    assert sorted(found["rows_written"].to_pylist()) == [0, 1, 1, 2, 3]
    assert sorted(found["duration_secs"].drop_null().to_pylist()) == [pytest.approx(0.1), 2.5]


def test_a_number_beyond_a_narrower_column_is_refused_when_it_is_staged(lab):
    foreign(lab)
    table = lab.ready()

    with pytest.raises(WriterSchemaError, match=r"rows_written.*int32"):
        lab.stage(table, "p", 0, lab.rows(1, rows_written=[2**31]))
    with pytest.raises(WriterSchemaError, match=r"duration_secs.*float"):
        lab.stage(table, "p", 0, lab.rows(1, duration_secs=[1e39]))


def test_a_column_of_another_type_is_still_refused(lab):
    lab.ready(replace(lab.spec(schema=pa.schema([("rows_written", pa.string())])), stamps={}, statistics_columns=()))

    with pytest.raises(WriterSchemaError, match="rows_written"):
        lab.open().ensure()


def test_moments_without_a_zone_are_written_in_utc(lab):
    naive = pa.schema([("phase", pa.string()), ("start_time", pa.timestamp("us"))])
    if lab.name == "memory":
        pytest.skip("it makes no tables of other types")
    made_by_delta_rs(lab, naive)
    table = lab.ready()

    lab.put(table, "p", 0, lab.rows(1))

    found = table.scan(["start_time"]).read_all()["start_time"].to_pylist()
    assert found == [datetime(2024, 1, 1, tzinfo=timezone.utc).replace(tzinfo=None)]


def made_by_delta_rs(lab, schema):
    from deltalake import DeltaTable

    DeltaTable.create(lab.spec().location, schema)
