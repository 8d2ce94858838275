import os
from pathlib import Path

import pytest

from sfwriter.exceptions import WriterValidationError
from sfwriter.sources import discover


def put(path: Path, data: bytes = b"") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def paths(found):
    return [source.path for source in found.sources]


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("a.parquet", ("parquet", None)),
        ("A.PARQUET", ("parquet", None)),
        ("part-0.snappy.parquet", ("parquet", None)),
        ("a.jsonl", ("jsonl", None)),
        ("a.ndjson.gz", ("jsonl", "gzip")),
        ("a.json.zst", ("jsonl", "zstd")),
        ("a.csv", ("csv", None)),
        ("a.csv.zstd", ("csv", "zstd")),
    ],
)
def test_the_name_tells_format_and_compression(tmp_path, name, shape):
    (source,) = discover([str(put(tmp_path / name))]).sources
    assert (source.format, source.compression) == shape


def test_a_file_that_is_named_in_several_ways_counts_once(tmp_path, monkeypatch):
    file = put(tmp_path / "in" / "a.jsonl")
    (tmp_path / "link.jsonl").symlink_to(file)
    (tmp_path / "folder").symlink_to(tmp_path / "in")
    monkeypatch.chdir(tmp_path)
    names = [str(file), "in/a.jsonl", "in/../in/a.jsonl", "in", "folder", "link.jsonl", "in/*.jsonl", "**/*.jsonl"]
    found = discover(names)
    assert paths(found) == [file.resolve()]
    assert found.sources[0].producer_id() == discover(["link.jsonl"]).sources[0].producer_id()


def test_a_folder_is_read_with_what_lies_below_it_but_for_hidden_names(tmp_path):
    wanted = [put(tmp_path / "a.csv"), put(tmp_path / "b" / "c.jsonl"), put(tmp_path / "b" / "d.parquet")]
    for name in [".hidden.csv", "_SUCCESS", "_temporary/x.csv", ".git/y.csv"]:
        put(tmp_path / name)
    readme = put(tmp_path / "README.md")
    found = discover([str(tmp_path)])
    assert paths(found) == [path.resolve() for path in wanted]
    assert found.skipped == [readme]


def test_a_glob_matches_through_folders_in_a_stable_order(tmp_path):
    for name in ["x/2.jsonl", "x/y/1.jsonl", "3.jsonl", "x/_no.jsonl"]:
        put(tmp_path / name)
    assert [path.name for path in paths(discover([str(tmp_path / "**" / "*.jsonl")]))] == [
        "3.jsonl",
        "2.jsonl",
        "1.jsonl",
    ]


def test_two_stars_pass_over_hidden_folders_and_never_go_round_in_circles(tmp_path):
    wanted = [put(tmp_path / "a" / "1.jsonl"), put(tmp_path / "a" / "b" / "2.jsonl")]
    put(tmp_path / "a" / "_temporary" / "3.jsonl")
    put(tmp_path / "a" / ".git" / "4.jsonl")
    for number in range(3):  # the standard library's `**` takes each of the 3 ** 40 ways
        (tmp_path / "a" / f"up{number}").symlink_to(tmp_path)
        (tmp_path / f"down{number}").symlink_to(tmp_path / "a")
    for pattern in ["**/*.jsonl", "a/**", "a/**/*.jsonl", "**/a/**/*.jsonl", "a/**/**/*.jsonl", "down1/**/*.jsonl"]:
        assert paths(discover([str(tmp_path / pattern)])) == [path.resolve() for path in wanted], pattern


def test_a_hidden_name_that_a_glob_spells_out_is_meant(tmp_path):
    file = put(tmp_path / "a" / "_temporary" / "1.jsonl")
    assert paths(discover([str(tmp_path / "**" / "_temporary" / "*.jsonl")])) == [file.resolve()]


def test_two_stars_over_a_delta_table_are_refused_as_its_folder_is(tmp_path):
    put(tmp_path / "runs" / "_delta_log" / "0.json")
    put(tmp_path / "runs" / "part-0.parquet")
    with pytest.raises(WriterValidationError, match="is a Delta table"):
        discover([str(tmp_path / "**" / "*.parquet")])


def test_a_name_that_exists_is_no_glob(tmp_path):
    file = put(tmp_path / "a[1].csv")
    put(tmp_path / "a1.csv")
    assert paths(discover([str(file)])) == [file.resolve()]


def test_an_empty_folder_is_told_and_is_no_error(tmp_path):
    assert discover([str(tmp_path)]).empty == [tmp_path]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nowhere.csv", "is not there"),
        ("*.csv", "matches nothing"),
        ("notes.txt", "is nothing that backfill reads"),
        ("a.parquet.gz", "is nothing that backfill reads"),
        ("texts", "holds nothing that backfill reads"),
        ("dead.csv", "is a symbolic link to nothing"),
        ("pipe.csv", "is no regular file"),
        ("delta", "is a Delta table"),
    ],
)
def test_what_cannot_be_read_is_named_with_what_can(tmp_path, monkeypatch, name, says):
    monkeypatch.chdir(tmp_path / put(tmp_path / "in" / "notes.txt").parent)
    put(Path("texts/a.txt"))
    put(Path("a.parquet.gz"))
    put(Path("delta/_delta_log/0.json"))
    Path("dead.csv").symlink_to("gone.csv")
    os.mkfifo("pipe.csv")
    if name == "*.csv":
        Path("dead.csv").unlink()
        Path("pipe.csv").unlink()
    with pytest.raises(WriterValidationError, match=says) as caught:
        discover([name])
    assert name in str(caught.value)
    assert caught.value.suggestions
    assert name == "delta" or ".parquet" in str(caught.value)
