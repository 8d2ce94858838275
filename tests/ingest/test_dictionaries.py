"""Texts of few values travel dictionary encoded, and nobody can tell from what is written."""

import enum
import json
from itertools import permutations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfwriter import LogWriter, WriterConfig
from sfwriter.dictionaries import (
    FEW_TEXTS,
    LEAST_ROWS,
    MOST_TEXTS,
    alike,
    few_texts,
    is_encoded,
    plain_table,
    taken_over,
)
from sfwriter.exceptions import WriterSchemaError, WriterValidationError
from sfwriter.ingest.encode import CHUNK_ROWS, NUMBERED_ROWS
from sfwriter.ingest.gate import Gate
from sfwriter.testing.rows import log_table

INDEX = pa.int32()
ENCODED = ("run_mode", "pipeline_id", "phase", "step_name", "error_message")


def encoded(table, *names, index=INDEX):
    for name in names or ENCODED:
        column = table.column(name).dictionary_encode()
        table = table.set_column(
            table.column_names.index(name), name, column.cast(pa.dictionary(index, column.type.value_type))
        )
    return table


def with_text(table, name, place, text):
    texts = table.column(name).to_pylist()
    texts[place] = text
    return table.set_column(table.column_names.index(name), name, pa.array(texts, pa.string()))


@pytest.mark.parametrize("mode", ["strict", "lenient", "ignore"])
def test_the_same_rows_with_and_without_dictionaries_are_the_same_batch(mode):
    plain = log_table(LEAST_ROWS + 3)
    one, other = Gate(mode).encode(plain), Gate(mode).encode(encoded(plain, index=pa.int16()))
    assert other.digest == one.digest
    assert plain_table(other.rows).equals(plain_table(one.rows))
    for batch in (one, other):
        assert {name for name in ENCODED if batch.rows.schema.field(name).type == FEW_TEXTS} == set(ENCODED)
    assert other.nbytes == one.nbytes < plain_table(one.rows).nbytes


def test_dicts_of_few_texts_are_the_same_batch_as_their_table():
    table = log_table(LEAST_ROWS + 3)
    rows = [{**row, "metadata": json.loads(row["metadata"])} for row in table.to_pylist()]
    one, other = Gate().encode(table), Gate().encode(rows)
    assert other.rows.schema.field("phase").type == FEW_TEXTS
    assert [other.rows.column(name).to_pylist() for name in ENCODED] == [
        one.rows.column(name).to_pylist() for name in ENCODED
    ]
    assert other.digest == one.digest


def test_many_texts_are_plain_however_they_came():
    texts = pa.array([f"text {number % (MOST_TEXTS + 1)}" for number in range(LEAST_ROWS)])
    table = log_table(LEAST_ROWS)
    place = table.column_names.index("step_name")
    plain = table.set_column(place, "step_name", texts)
    coded = table.set_column(place, "step_name", texts.dictionary_encode())
    one, other = Gate().encode(plain), Gate().encode(coded)
    assert {batch.rows.schema.field("step_name").type for batch in (one, other)} == {pa.string()}
    assert one.digest == other.digest


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_a_digest_sees_values_and_not_the_dictionaries_that_they_came_with(data):
    texts = data.draw(st.lists(st.sampled_from(["a", "b", "ü", "", None]), min_size=1, max_size=6))
    values = (texts * LEAST_ROWS)[:LEAST_ROWS]
    # Twice, unused, and in any order: what others may have made.
    vocabulary = data.draw(st.permutations(["b", "a", "unused", "ü", "", "b"]))
    numbers = [None if text is None else vocabulary.index(text) for text in values]
    cut = data.draw(st.integers(0, LEAST_ROWS))
    coded = pa.DictionaryArray.from_arrays(pa.array(numbers, pa.int16()), pa.array(vocabulary))
    table = log_table(LEAST_ROWS)
    place = table.column_names.index("step_type")
    plain = Gate().encode(table.set_column(place, "step_type", pa.array(values, pa.string())))
    pieces = pa.chunked_array([coded.slice(0, cut), coded.slice(cut)])
    given_so = Gate().encode(table.set_column(place, "step_type", pieces))
    assert given_so.digest == plain.digest
    assert given_so.rows.column("step_type").to_pylist() == values


def test_pieces_with_dictionaries_of_their_own_are_one_batch():
    parts = [log_table(3_000, first=first) for first in (0, 3_000)]
    whole = pa.concat_tables([encoded(part) for part in parts])
    assert Gate().encode(whole).digest == Gate().encode(pa.concat_tables(parts)).digest


def test_few_rows_and_additional_columns_are_plain():
    assert Gate().encode(encoded(log_table(100))).rows.schema.field("phase").type == pa.string()
    rows = log_table(LEAST_ROWS)
    extra = rows.append_column("team", rows.column("phase").dictionary_encode())
    assert Gate().encode(extra).rows.schema.field("team").type == pa.string()


@pytest.mark.parametrize(
    "dictionary",
    [
        pa.array(["a", None]),
        pa.array(["a", "x" * 70_000]),
        pa.array([1, 2]),
        pa.array([b"a", b"b"]),
    ],
    ids=["null", "long", "numbers", "bytes"],
)
def test_dictionaries_that_are_no_few_texts_are_left_to_others(dictionary):
    indices = pa.array([0, 1] * LEAST_ROWS, pa.int32())
    assert taken_over(pa.chunked_array([pa.DictionaryArray.from_arrays(indices, dictionary)])) is None


def test_broken_dictionaries_are_not_taken_over():
    indices = pa.array([0, 1] * LEAST_ROWS, pa.int32())
    text = pa.Array.from_buffers(pa.string(), 2, pa.array([b"a", b"\xff"]).buffers())
    assert taken_over(pa.chunked_array([pa.DictionaryArray.from_arrays(indices, text, safe=False)])) is None
    beyond = pa.array([0, 7] * LEAST_ROWS, pa.int32())
    assert taken_over(pa.chunked_array([pa.DictionaryArray.from_arrays(beyond, pa.array(["a"]), safe=False)])) is None


@given(st.lists(st.lists(st.sampled_from(["a", "b", "ü", "", None]), max_size=5), min_size=1, max_size=4), st.data())
@settings(max_examples=50)
def test_columns_made_alike_have_the_same_values(parts, data):
    arrays = [pa.chunked_array([pa.array(part, pa.string())]) for part in parts]
    given_ones = [array.dictionary_encode() if data.draw(st.booleans()) else array for array in arrays]
    found = alike([pa.chunked_array(one.chunks, one.type) for one in given_ones])
    assert len({one.type for one in found}) == 1
    assert [value for one in found for value in one.to_pylist()] == [value for part in parts for value in part]


def test_a_bad_text_among_encoded_ones_is_refused_with_its_row():
    rows = encoded(with_text(log_table(LEAST_ROWS), "phase", 4_000, "copper"))
    with pytest.raises(WriterValidationError, match="copper") as caught:
        Gate().encode(rows)
    assert [entry["row"] for entry in caught.value.validation_errors] == [4_000]
    aside = Gate("lenient").encode(rows)
    assert (aside.rows.num_rows, aside.quarantined.num_rows) == (LEAST_ROWS - 1, 1)


def test_names_of_other_case_blank_ones_and_missing_run_ids_are_seen_through_a_dictionary():
    rows = with_text(with_text(log_table(LEAST_ROWS), "phase", 0, "BRONZE"), "run_id", 1, None)
    batch = Gate("lenient").encode(encoded(rows, "phase", "run_id"), "given")
    assert batch.rows.column("phase")[0].as_py() == "bronze"
    assert batch.rows.column("run_id")[1].as_py() == "given"
    with pytest.raises(WriterValidationError, match="step_name is empty"):
        Gate().encode(encoded(with_text(log_table(LEAST_ROWS), "step_name", 2, " "), "step_name"))
    with pytest.raises(WriterValidationError, match="phase is missing"):
        Gate().encode(encoded(with_text(log_table(LEAST_ROWS), "phase", 2, None), "phase"))


def test_a_value_that_does_not_fit_another_column_is_refused_as_ever():
    rows = encoded(log_table(LEAST_ROWS)).drop_columns(["rows_written"])
    rows = rows.append_column("rows_written", pa.array(["many"] * LEAST_ROWS))
    with pytest.raises(WriterSchemaError, match="rows_written"):
        Gate().encode(rows)


def test_rules_and_files_see_the_texts(tmp_path):
    rows = log_table(2 * LEAST_ROWS)
    config = WriterConfig(
        warehouse=str(tmp_path),
        validation_rules={"phase": ["phase <> 'gold'"]},
        log_data_quality_results=True,
        partition_columns=["phase"],
        table_name="plain",
    )
    results = {}
    for name, given_rows in (("plain", rows), ("encoded", encoded(rows))):
        with LogWriter(config=config.model_copy(update={"table_name": name})) as writer:
            quality = writer.write_log_rows(given_rows, "r")["quality_results"]
            results[name] = {key: quality[key] for key in ("valid_rows", "invalid_rows", "quality_passed")}
    assert results["encoded"] == results["plain"]
    files = {name: sorted((tmp_path / "analytics" / name).rglob("*.parquet")) for name in results}
    read = {
        name: pa.concat_tables([pq.read_table(path, partitioning=None) for path in paths])
        for name, paths in files.items()
    }
    assert [path.parent.name for path in files["encoded"]] == [path.parent.name for path in files["plain"]]
    assert read["encoded"].schema.equals(read["plain"].schema)
    assert read["encoded"].drop_columns("logged_at").equals(read["plain"].drop_columns("logged_at"))


def test_files_keep_their_dictionaries_however_many_batches_they_join(tmp_path):
    with LogWriter(config=WriterConfig(warehouse=str(tmp_path), linger_ms=500)) as writer:
        writer.write_batches(
            [encoded(log_table(20_000, first=first), "table_fqn", "step_name") for first in range(0, 60_000, 20_000)]
        )
    groups = [
        pq.read_metadata(path).row_group(0) for path in (tmp_path / "analytics" / "pipeline_logs").glob("*.parquet")
    ]
    for group in groups:
        columns = {group.column(place).path_in_schema: group.column(place) for place in range(group.num_columns)}
        pages = columns["table_fqn"].total_uncompressed_size
        assert columns["table_fqn"].has_dictionary_page
        # Plain, each text takes some forty bytes.
        assert pages < 3 * group.num_rows + 40 * 300
        steps = columns["step_name"].statistics
        assert (steps.min, steps.max) == ("clean_customers", "join_orders_customers")


class Phase(str, enum.Enum):
    BRONZE = "bronze"


COLUMNS = {
    "few": lambda number: f"text {number % 3}",
    "none": lambda _number: None,
    "some": lambda number: "text" if number % 2 else None,
    "late": lambda number: "text" if number > 2 * CHUNK_ROWS else None,
    "early": lambda number: "text" if number < 5 else None,
    "many": lambda number: f"text {number}",
    "many later": lambda number: f"text {max(number, CHUNK_ROWS)}",
    "empty": lambda number: "" if number % 2 else "ü",
    "long": lambda number: "x" * 500 + str(number % 900),
}


@pytest.mark.parametrize("holes", [False, True], ids=["None", "no key"])
@pytest.mark.parametrize(
    "count", [NUMBERED_ROWS - 1, NUMBERED_ROWS, LEAST_ROWS - 1, LEAST_ROWS, CHUNK_ROWS, 3 * CHUNK_ROWS + 1]
)
@pytest.mark.parametrize("name", COLUMNS)
def test_dicts_and_arrow_columns_are_the_same_batch(name, count, holes):
    made = COLUMNS[name]
    texts = [made(number) for number in range(count)]
    errors = pa.array(texts, pa.string())
    table = pa.table({"phase": ["gold"] * count, "step_name": ["s"] * count, "error_message": errors})
    rows = table.to_pylist()
    if holes:
        rows = [{key: value for key, value in row.items() if value is not None} for row in rows]
    one, other = Gate().encode(table, "r"), Gate().encode(rows, "r")
    assert one.rows.drop(["run_id"]).schema == other.rows.drop(["run_id"]).schema
    assert one.rows.equals(other.rows)
    assert one.digest == other.digest


@pytest.mark.parametrize("place", [0, CHUNK_ROWS + 1, 3 * CHUNK_ROWS])
@pytest.mark.parametrize("odd", [7, True, ["text"], {"a": 1}, "\ud800", b"text"])
def test_what_is_no_text_is_found_wherever_it_stands(odd, place):
    rows = [{"phase": "gold", "step_name": f"s{number % 3}"} for number in range(3 * CHUNK_ROWS + 1)]
    rows[place] = {**rows[place], "step_name": odd}
    with pytest.raises(WriterSchemaError) as caught:
        Gate().encode(rows)
    assert [entry["row"] for entry in caught.value.validation_errors] == [place]
    gated = Gate("lenient").admit(rows)
    if gated.quarantined:
        assert (gated.accepted, gated.quarantined) == (len(rows) - 1, 1)
    else:
        assert odd == 7
        assert gated.batch.rows.column("step_name")[place].as_py() == "7"


def test_members_of_an_enumeration_are_their_texts():
    rows = [{"phase": Phase.BRONZE if number % 2 else "bronze", "step_name": "s"} for number in range(LEAST_ROWS)]
    for members in (rows, rows[1:]):
        assert set(Gate().encode(members).rows.column("phase").to_pylist()) == {"bronze"}


TOGETHER = {
    "few": lambda number: {"step_name": f"s{number % 7}", "step_type": f"t{number % 5}"},
    # Joined, these two are the same text.
    "separators": lambda number: (
        {"step_name": "a\0b", "step_type": "c"} if number % 2 else {"step_name": "a", "step_type": "b\0c"}
    ),
    "null later": lambda number: {"step_name": "s", "step_type": None if number == CHUNK_ROWS + 7 else "t"},
    "no key later": lambda number: {"step_name": "s", **({} if number > 2 * CHUNK_ROWS else {"step_type": "t"})},
    "many together": lambda number: {"step_name": f"s{number % 97}", "step_type": f"t{number % 89}"},
    "many later": lambda number: {"step_name": f"s{max(number, 2 * CHUNK_ROWS)}", "step_type": "ü"},
}


@pytest.mark.parametrize("count", [CHUNK_ROWS, 3 * CHUNK_ROWS + 1])
@pytest.mark.parametrize("name", TOGETHER)
def test_texts_of_a_row_are_told_apart_again(name, count):
    rows = [{"phase": "gold", **TOGETHER[name](number)} for number in range(count)]
    one, other = Gate().encode(pa.Table.from_pylist(rows), "r"), Gate().encode(rows, "r")
    assert other.rows.select(["step_name", "step_type"]).to_pylist() == [
        {"step_name": row["step_name"], "step_type": row.get("step_type")} for row in rows
    ]
    assert one.rows.equals(other.rows)
    assert one.digest == other.digest


@pytest.mark.parametrize("holes", [False, True])
def test_metadata_is_kept_row_by_row(holes):
    values = [{}, {"a": [{}, {"b": "},{"}]}, {"text": ",\0,"}, {"\0": "ü\n"}, *([None] if holes else [])]
    metadata = [values[number % len(values)] for number in range(CHUNK_ROWS + 3)]
    kept = Gate().encode([{"phase": "gold", "step_name": "s", "metadata": value} for value in metadata])
    texts = kept.rows.column("metadata").to_pylist()
    assert [None if text is None else json.loads(text) for text in texts] == metadata


@pytest.mark.parametrize("first", list(permutations(range(3))))
@pytest.mark.parametrize("texts", list(permutations("abc")))
def test_encoded_texts_stay_themselves_in_whatever_order_they_come_and_are_kept(texts, first):
    numbers = [None, *first, *([0, 1, 2, 2, None] * LEAST_ROWS)]
    column = pa.chunked_array([pa.DictionaryArray.from_arrays(pa.array(numbers, pa.int32()), pa.array(texts))])
    made = few_texts(column.slice(1))
    assert is_encoded(made.type)
    assert made.chunk(0).dictionary.to_pylist() == ["a", "b", "c"]
    assert made.to_pylist() == [None if number is None else texts[number] for number in numbers[1:]]
