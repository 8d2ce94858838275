"""The files that staging writes: their encodings, statistics, sizes, and that they are on the disk."""

from __future__ import annotations

import json
import math
import threading
from datetime import date, datetime, timedelta, timezone
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from hypothesis import given
from hypothesis import strategies as st

from sfwriter.batch import Token
from sfwriter.exceptions import WriterTableError
from sfwriter.schema import LOG_SCHEMA, LOW_CARDINALITY, TIMESTAMP
from sfwriter.storage.checkpoints import READ_FOR_S, VERSIONS_PER_CHECKPOINT, expendable
from sfwriter.storage.engine import BatchToStage, Checkpoint, Compact
from sfwriter.storage.place import LocalPlace, ObjectPlace, local_root, place_of
from sfwriter.storage.staging import discard_files, stage_batches, staged_schema
from sfwriter.storage.statistics import STRING_PREFIX, rounded_up
from sfwriter.testing import ManualClock


def file_of(spec, staged):
    (file,) = staged.files
    return Path(spec.location, file.path)


def stats_of(staged):
    return json.loads(staged.files[0].statistics)


@pytest.fixture
def spec(delta):
    """A table's folder, and nothing in it."""
    found = delta.spec()
    Path(found.location).mkdir(parents=True)
    return found


def stage(spec, rows):
    return stage_batches(spec, [BatchToStage(Token("p", 0), rows)], ManualClock())


# ---------------------------------------------------------------- files


@pytest.mark.parametrize("codec", ["snappy", "zstd", "lz4", "gzip", "none"])
def test_each_codec_is_written_and_in_the_name(delta, spec, codec):
    spec = delta.spec(compression=codec)
    staged = stage(spec, delta.rows(100))
    path = file_of(spec, staged)
    assert path.name.endswith(f".{codec}.parquet")
    used = pq.read_metadata(path).row_group(0).column(0).compression
    assert used == {"none": "UNCOMPRESSED"}.get(codec, codec.upper())
    assert pq.read_table(path).num_rows == 100


def test_texts_that_repeat_are_dictionaries_and_numbers_are_packed(delta, spec):
    staged = stage(spec, delta.rows(1000, metadata=["{}"] * 1000, duration_secs=[0.5] * 1000))
    group = pq.read_metadata(file_of(spec, staged)).row_group(0)
    encodings = {group.column(index).path_in_schema: set(group.column(index).encodings) for index in range(26)}
    assert all("RLE_DICTIONARY" in encodings[name] for name in LOW_CARDINALITY if name in LOG_SCHEMA.names)
    for column in LOG_SCHEMA:
        if pa.types.is_integer(column.type) or pa.types.is_timestamp(column.type):
            assert "DELTA_BINARY_PACKED" in encodings[column.name]
    assert "RLE_DICTIONARY" not in encodings["metadata"]
    assert not any("BYTE_STREAM_SPLIT" in found for found in encodings.values())


def test_what_is_said_of_a_file_is_true(delta, spec):
    staged = stage(spec, delta.rows(10))
    (file,) = staged.files
    found = file_of(spec, staged).stat()
    assert (file.size_bytes, file.rows) == (found.st_size, 10)
    assert file.modified_ms == found.st_mtime_ns // 1_000_000
    assert not file.path.startswith((".", "_"))
    assert staged_schema(staged).names == LOG_SCHEMA.names


def test_the_schema_tells_which_columns_have_nulls(delta, spec):
    schema = staged_schema(stage(spec, delta.rows(2, phase=["gold", None])))
    assert schema.field("phase").nullable
    assert not schema.field("step_name").nullable


def test_nothing_but_whole_files_is_left(delta, spec):
    stage(spec, delta.rows(10))
    assert [path.suffix for path in Path(spec.location).iterdir()] == [".parquet"]


def test_row_groups_are_as_large_as_was_measured(delta, spec):
    staged = stage(spec, delta.rows(200_000))
    found = pq.read_metadata(file_of(spec, staged))
    assert [found.row_group(index).num_rows for index in range(found.num_row_groups)] == [131_072, 68_928]


# ---------------------------------------------------------------- on the disk


def test_a_staged_file_and_its_folder_are_flushed_before_staging_returns(delta, spec, fsynced):
    staged = stage(spec, delta.rows())
    final = file_of(spec, staged)
    assert fsynced == [final.with_name(f".{final.name}.tmp"), final.parent]


def test_new_partition_folders_are_flushed_with_their_parents(delta, fsynced):
    schema = pa.schema([("n", pa.int64()), ("day", pa.date32()), ("kind", pa.string())])
    spec = delta.spec(schema=schema, stamps={}, partition_columns=("day", "kind"))
    root = Path(spec.location)
    root.mkdir(parents=True)
    stage(spec, pa.table({"n": [1], "day": [date(2024, 1, 1)], "kind": ["a"]}))
    assert root in fsynced
    assert root / "day=2024-01-01" in fsynced
    assert fsynced[-1] == root / "day=2024-01-01" / "kind=a"


def test_without_fsync_nothing_is_flushed(delta, fsynced):
    table = delta.ready(delta.spec(fsync=False))
    delta.put(table, "p", 0)
    delta.sequence(table, "p")
    assert fsynced == []


def test_a_receipt_means_that_the_entry_and_the_log_folder_are_flushed(delta, fsynced):
    table = delta.ready()
    log = Path(table.spec.location, "_delta_log")
    assert {log / f"{0:020}.json", log, log.parent, log.parent.parent, delta.folder} <= set(fsynced)
    staged = delta.stage(table, "p", 0)
    del fsynced[:]
    table.commit(delta.group(delta.advance("p", 0), staged=[staged]))
    assert fsynced == [log / f"{1:020}.json", log]


def test_entries_of_others_are_flushed_before_anything_stands_on_them(delta, fsynced):
    table, careless = delta.ready(), delta.ready(delta.spec(fsync=False))
    delta.put(careless, "q", 0)
    delta.put(careless, "q", 1)
    del fsynced[:]
    table.commit(delta.group(delta.advance("p", 0)))
    log = Path(table.spec.location, "_delta_log")
    assert sorted(fsynced[:-1]) == [log / f"{number:020}.json" for number in (1, 2, 3)]
    assert fsynced[-1] == log


def test_files_that_stand_in_for_others_are_flushed_before_the_entry_that_names_them(delta, fsynced):
    table, careless = delta.ready(), delta.ready(delta.spec(fsync=False))
    for number in range(3):
        table.commit(delta.group(delta.advance("p", number), staged=[delta.stage(table, "p", number)]))
    careless.run(Compact((), 1 << 20))
    (uri,) = DeltaTable(table.spec.location).file_uris()
    del fsynced[:]
    table.commit(delta.group(delta.advance("p", 3)))
    root = Path(table.spec.location)
    log = root / "_delta_log"
    assert fsynced == [log / f"{5:020}.json", root / Path(uri).name, root, log / f"{4:020}.json", log]


def test_a_file_that_vacuum_took_away_again_does_not_hinder_flushing(delta):
    table, careless = delta.ready(), delta.ready(delta.spec(fsync=False))
    for number in range(3):
        delta.put(careless, "q", number)
    careless.run(Compact((), 1 << 20))
    (uri,) = DeltaTable(table.spec.location).file_uris()
    Path(uri.removeprefix("file://")).unlink()
    assert table.commit(delta.group(delta.advance("p", 0))).version == 5


def test_a_look_flushes_what_it_tells(delta, fsynced):
    table, careless = delta.ready(), delta.ready(delta.spec(fsync=False))
    delta.put(careless, "p", 0)
    del fsynced[:]
    assert delta.sequence(table, "p") == 0
    log = Path(table.spec.location, "_delta_log")
    assert fsynced == [log / f"{1:020}.json", log]
    delta.sequence(table, "p")
    assert len(fsynced) == 2


def test_a_checkpoint_is_flushed_before_readers_are_sent_to_it(delta, fsynced, checkpoints_written):
    table = delta.ready()
    for number in range(VERSIONS_PER_CHECKPOINT):
        table.commit(delta.group(delta.advance("p", number)))
    checkpoints_written()
    checkpoint = f"{VERSIONS_PER_CHECKPOINT:020}.checkpoint.parquet"
    assert [path.name for path in fsynced[-4:]] == [checkpoint, "_delta_log", "_last_checkpoint", "_delta_log"]
    assert {fsynced[-3], fsynced[-1]} == {Path(table.spec.location, "_delta_log")}


def test_a_checkpoint_is_flushed_before_the_log_is_tidied(delta, fsynced):
    table = delta.ready()
    table.run(Checkpoint())
    log = Path(table.spec.location, "_delta_log")
    assert fsynced[-3:] == [log / f"{0:020}.checkpoint.parquet", log / "_last_checkpoint", log]


def test_commits_go_on_beside_a_checkpoint(delta, monkeypatch, checkpoints_written):
    """And there is never a second one at the same time."""
    table = delta.ready()
    go_on = threading.Event()
    begun = []

    def slow(handle):
        begun.append(handle.version())
        go_on.wait(30)
        real(handle)

    real = DeltaTable.create_checkpoint
    monkeypatch.setattr(DeltaTable, "create_checkpoint", slow)
    for number in range(3 * VERSIONS_PER_CHECKPOINT):
        table.commit(delta.group(delta.advance("p", number)))
    assert len(begun) == 1
    go_on.set()
    checkpoints_written()
    table.commit(delta.group(delta.advance("p", 3 * VERSIONS_PER_CHECKPOINT)))
    checkpoints_written()
    assert begun[1:] == [3 * VERSIONS_PER_CHECKPOINT + 1]
    assert delta.sequence(delta.open(), "p") == 3 * VERSIONS_PER_CHECKPOINT


def test_writers_that_commit_once_each_write_checkpoints_too(delta, checkpoints_written):
    table = delta.ready()
    for number in range(2 * VERSIONS_PER_CHECKPOINT + 5):
        delta.open().commit(delta.group(delta.advance("p", number)))
        checkpoints_written()
    found = sorted(int(path.name[:20]) for path in Path(table.spec.location, "_delta_log").glob("*.checkpoint.parquet"))
    assert found == [VERSIONS_PER_CHECKPOINT, 2 * VERSIONS_PER_CHECKPOINT]


def test_two_writers_of_a_table_write_its_checkpoints_between_them(delta, checkpoints_written):
    both, news = [delta.ready(), delta.open()], [0, 0]
    for number in range(2 * VERSIONS_PER_CHECKPOINT + 5):
        both[number % 2].commit(delta.group(delta.advance("p", number)))
        checkpoints_written()
        news = [count + table._committer._checkpoints.has_new() for count, table in zip(news, both, strict=True)]
    assert news == [3, 3]  # at first, and of each, whoever wrote it
    log = Path(both[0].spec.location, "_delta_log")
    found = sorted(int(path.name[:20]) for path in log.glob("*.checkpoint.parquet"))
    assert found == [VERSIONS_PER_CHECKPOINT, 2 * VERSIONS_PER_CHECKPOINT]


def test_old_checkpoints_go_and_some_stay(delta, checkpoints_written):
    """What stays: the first of a thousand versions, and those that somebody may have begun to read."""
    clock = ManualClock()
    table = delta.ready(clock=clock)
    made = []
    for number in range(6 * VERSIONS_PER_CHECKPOINT):
        made.append(table.commit(delta.group(delta.advance("p", number))).version)
        checkpoints_written()
        if len(made) % VERSIONS_PER_CHECKPOINT == 0:
            clock.sleep(0.4 * READ_FOR_S)
    log = Path(table.spec.location, "_delta_log")
    left = sorted(int(path.name[:20]) for path in log.glob("*.checkpoint.parquet"))
    written = made[VERSIONS_PER_CHECKPOINT - 1 :: VERSIONS_PER_CHECKPOINT]
    assert left == [written[0], *written[3:]]
    assert delta.sequence(delta.open(), "p") == 6 * VERSIONS_PER_CHECKPOINT - 1
    assert [DeltaTable(table.spec.location, version=version).version() for version in (3, 120, 299)] == [3, 120, 299]


def test_one_checkpoint_in_a_thousand_versions_is_kept():
    written = dict.fromkeys(range(50, 5_001, 50), 0.0)
    gone = expendable(written, READ_FOR_S + 1)
    assert sorted(written.keys() - gone) == [50, 1_050, 2_050, 3_050, 4_050, 5_000]
    assert expendable(written, READ_FOR_S) == []


# ---------------------------------------------------------------- statistics


def test_only_the_columns_of_the_spec_have_statistics(delta):
    spec = delta.spec(statistics_columns=("run_id", "start_time", "success"))
    Path(spec.location).mkdir(parents=True)
    found = stats_of(stage(spec, delta.rows(3)))
    assert found == {
        "numRecords": 3,
        "minValues": {"run_id": "run-0", "start_time": "2024-01-01T00:00:00.000Z", "success": False},
        "maxValues": {"run_id": "run-1", "start_time": "2024-01-01T00:00:02.000Z", "success": True},
        "nullCount": {"run_id": 0, "start_time": 0, "success": 0},
    }


def test_moments_are_rounded_away_from_the_values(delta):
    spec = delta.spec(statistics_columns=("start_time",))
    Path(spec.location).mkdir(parents=True)
    moments = pa.array([-1, 1_704_067_200_000_001], TIMESTAMP)
    found = stats_of(stage(spec, delta.rows(2, start_time=moments)))
    assert found["minValues"] == {"start_time": "1969-12-31T23:59:59.999Z"}
    assert found["maxValues"] == {"start_time": "2024-01-01T00:00:00.001Z"}


def test_moments_beyond_what_a_text_can_tell_are_left_out(delta):
    spec = delta.spec(statistics_columns=("start_time",))
    Path(spec.location).mkdir(parents=True)
    found = stats_of(stage(spec, delta.rows(2, start_time=pa.array([-(2**62), 2**62], TIMESTAMP))))
    assert (found["minValues"], found["maxValues"]) == ({}, {})
    assert found["nullCount"] == {"start_time": 0}


@pytest.mark.parametrize("values", [[1.0, math.nan], [math.nan], [None, math.nan, 5.0]])
def test_minimum_and_maximum_are_left_out_where_a_nan_is(delta, values):
    spec = delta.spec(statistics_columns=("duration_secs",))
    Path(spec.location).mkdir(parents=True)
    found = stats_of(stage(spec, delta.rows(len(values), duration_secs=pa.array(values, pa.float64()))))
    assert (found["minValues"], found["maxValues"]) == ({}, {})


def test_infinities_are_left_out_for_json_has_none(delta):
    spec = delta.spec(statistics_columns=("duration_secs",))
    Path(spec.location).mkdir(parents=True)
    found = stats_of(stage(spec, delta.rows(2, duration_secs=[-math.inf, 2.5])))
    assert (found["minValues"], found["maxValues"]) == ({}, {"duration_secs": 2.5})


def test_a_column_of_nulls_has_their_count_alone(delta):
    spec = delta.spec(statistics_columns=("phase", "start_time"))
    Path(spec.location).mkdir(parents=True)
    found = stats_of(stage(spec, delta.rows(2, phase=pa.nulls(2, pa.string()))))
    assert found["nullCount"] == {"phase": 2, "start_time": 0}
    assert "phase" not in found["minValues"]


def test_a_row_group_of_nulls_hides_no_other(delta):
    spec = delta.spec(statistics_columns=("rows_written",))
    Path(spec.location).mkdir(parents=True)
    values = pa.array([None] * 131_072 + [7, 9], pa.int64())
    found = stats_of(stage(spec, pa.table({"rows_written": values})))
    assert (found["minValues"], found["maxValues"]) == ({"rows_written": 7}, {"rows_written": 9})


@given(st.text(min_size=1, max_size=STRING_PREFIX + 8))
def test_a_long_text_is_rounded_up_to_a_valid_text_above_it(text):
    prefix = text[:STRING_PREFIX]
    found = rounded_up(prefix)
    if found is None:
        assert set(prefix) == {"\U0010ffff"}
    else:
        assert len(found) <= STRING_PREFIX
        assert found.encode() > (prefix + "\U0010ffff" * 8).encode()


def test_very_long_texts_lose_their_statistics_and_nothing_else(delta):
    spec = delta.spec(statistics_columns=("run_id",))
    Path(spec.location).mkdir(parents=True)
    rows = delta.rows(2, run_id=["a" * 100_000, "b" * 100_000])
    staged = stage(spec, rows)
    found = stats_of(staged)
    assert found["minValues"].get("run_id", "a") <= "a" * 100_000
    assert found["maxValues"].get("run_id", "c") >= "b" * 100_000 or "run_id" not in found["maxValues"]
    assert pq.read_table(file_of(spec, staged)).column("run_id").to_pylist() == rows.column("run_id").to_pylist()


def test_an_independent_reader_sees_every_row_through_the_files(delta):
    table = delta.ready(delta.spec(max_file_bytes=100_000))
    rows = delta.rows(20_000, metadata=[f'{{"n": {index * 7919}}}' for index in range(20_000)])
    delta.put(table, "p", 0, rows)
    delta.put(table, "p", 1, delta.rows(10, phase=["gold"] * 10, host=["h"] * 10))
    from deltalake import DeltaTable

    files = DeltaTable(table.spec.location).file_uris()
    assert len(files) > 3
    seen = duckdb.sql(f"SELECT * FROM read_parquet({files!r}, union_by_name=true)")
    assert seen.count("*").fetchall() == [(20_010,)]
    for check, expected in (
        ("phase = 'gold'", 10),
        ("success", 13_333 + 6),
        ("start_time >= '2024-01-01 05:00:00+00'::TIMESTAMPTZ", 2_000),
        ("step_name = 'step-19999'", 1),
    ):
        assert seen.filter(check).count("*").fetchall() == [(expected,)]
        sql = check.replace("'2024-01-01 05:00:00+00'::TIMESTAMPTZ", "TIMESTAMP '2024-01-01T05:00:00Z'")
        assert len(delta.read(table, ["run_id"], sql)) == expected


# ---------------------------------------------------------------- places


@pytest.mark.parametrize(
    ("location", "local"), [("/a/b", "/a/b"), ("file:///a/b", "/a/b"), ("s3://bucket/a", None), ("abfss://c@a/b", None)]
)
def test_a_location_is_a_folder_or_an_object_store(delta, location, local):
    assert local_root(location) == (None if local is None else Path(local))
    assert isinstance(place_of(delta.spec(location=location)), ObjectPlace if local is None else LocalPlace)


def test_an_object_store_is_reached_through_delta_rs_with_the_same_promises(tmp_path):
    # delta-rs's own file system is the one for s3:// and the like; it serves local folders, too.
    place = ObjectPlace(tmp_path.as_uri(), {})
    new = place.create("day=1/part.parquet")
    new.sink.write(b"12345")
    facts = new.keep()
    place.settle(["day=1/part.parquet"])
    assert facts.size_bytes == 5
    assert place.facts("day=1/part.parquet") == facts
    assert (tmp_path / "day=1" / "part.parquet").read_bytes() == b"12345"
    assert place.open("day=1/part.parquet").read() == b"12345"
    place.remove("day=1/part.parquet")
    place.remove("day=1/part.parquet")
    assert place.facts("day=1/part.parquet") is None
    dropped = place.create("half.parquet")
    dropped.sink.write(b"1")
    dropped.drop()
    assert place.facts("half.parquet") is None


@pytest.mark.parametrize("name", ["with space", "hash#tag", "日本", "plus+and&", "what?", "100%", "[x]*", "a'b"])
def test_a_warehouse_may_have_any_name(delta, name):
    spec = delta.spec(location=str(delta.folder / name / "logs" / "runs"))
    table = delta.ready(spec)
    delta.put(table, "p", 0)
    delta.put(table, "p", 1)
    assert table.stats().rows == 6
    assert len(delta.read(delta.open(spec))) == 6


@pytest.mark.parametrize("name", ["per%20cent", "a%2Fb", "back\\slash"])
def test_a_path_that_delta_rs_would_take_for_another_is_refused(delta, name):
    spec = delta.spec(location=str(delta.folder / name / "runs"))
    for call in (delta.open(spec).ensure, delta.open(spec).stats):
        with pytest.raises(WriterTableError, match="Choose a `warehouse`"):
            call()
    assert list(delta.folder.iterdir()) == []


def test_a_relative_warehouse_is_the_same_table_wherever_the_process_goes(delta, monkeypatch):
    monkeypatch.chdir(delta.folder)
    spec = delta.spec(location="warehouse/logs/runs")
    table = delta.ready(spec)
    delta.put(table, "p", 0)
    assert delta.open(delta.spec(location=str(delta.folder / "warehouse/logs/runs"))).stats().rows == 3


def test_discarding_is_by_name_only(delta, spec):
    kept, gone = stage(spec, delta.rows()), stage(spec, delta.rows())
    discard_files(spec, gone)
    assert file_of(spec, kept).exists()
    assert not file_of(spec, gone).exists()


def test_stamps_are_microseconds_in_utc(delta, spec):
    clock = ManualClock(start=datetime(2024, 5, 1, 12, 0, 0, 123_456, tzinfo=timezone(timedelta(hours=2))))
    staged = stage_batches(spec, [BatchToStage(Token("p", 0), delta.rows(1))], clock)
    column = pq.read_table(file_of(spec, staged)).column("logged_at")
    assert column.type == TIMESTAMP
    assert column.to_pylist() == [datetime(2024, 5, 1, 10, 0, 0, 123_456, tzinfo=timezone.utc)]
