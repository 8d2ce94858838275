"""What is worth doing: pure decisions."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfwriter.maintenance.plan import LEAST_SAVED, compactions, overlap, pays, recompressions, sortings
from sfwriter.storage.engine import Compact, Partition, Sort

TARGET = 1000


def partition(*sizes, codecs=("snappy",), filters=(), ranges=()):
    return Partition(filters, tuple(sizes), len(sizes), frozenset(codecs), tuple(ranges))


@given(st.dictionaries(st.text(max_size=3), st.lists(st.integers(1, 3000), max_size=30), max_size=4))
def test_a_compaction_always_leaves_fewer_files(sizes):
    partitions = {name: partition(*found) for name, found in sizes.items()}
    jobs = compactions(partitions, TARGET)
    assert len(jobs) <= len(partitions)
    for job in jobs:
        assert isinstance(job.action, Compact)
        assert job.saved >= 1
        assert job.files_after >= math.ceil(job.rewritten_bytes / TARGET)
    assert not compactions({name: partition(*(TARGET for _ in found)) for name, found in sizes.items()}, TARGET)


@pytest.mark.parametrize("sizes", [(), (10,), (TARGET, TARGET), (TARGET, 10), (10, 2 * TARGET, 10), (600, 600, 600)])
def test_where_nothing_is_gained_there_is_no_job(sizes):
    assert not compactions({"": partition(*sizes)}, TARGET)


def test_only_the_partitions_in_need_are_rewritten():
    tidy, untidy = partition(TARGET, filters=(("a", "=", "1"),)), partition(5, 5, filters=(("a", "=", "2"),))
    (job,) = compactions({"a=1": tidy, "a=2": untidy}, TARGET)
    assert job.action == Compact((("a", "=", "2"),), TARGET)


def test_maintenance_starts_by_itself_only_where_it_saves_more_than_it_costs():
    small = compactions({"": partition(*[10] * (LEAST_SAVED - 10))}, 128 << 20)
    many = compactions({"": partition(*[10] * (LEAST_SAVED + 10))}, 128 << 20)
    heavy = compactions({"": partition(*[60 << 20] * (LEAST_SAVED + 10) * 2)}, 128 << 20)
    assert (pays(small), pays(many), pays(heavy), pays([])) == (False, True, False, False)


def test_files_of_another_codec_are_rewritten():
    mixed = {"a": partition(5, codecs=("snappy", "zstd")), "b": partition(5), "c": partition(5, codecs=())}
    (job,) = recompressions(mixed, "snappy", TARGET)
    assert isinstance(job.action, Sort)


def test_sorting_needs_several_files_worth_and_times_that_overlap():
    over, apart = [(0, 9), (1, 8)], [(0, 4), (5, 9)]
    assert [job.files_after for job in sortings({"": partition(900, 900, ranges=over)}, TARGET)] == [2]
    assert not sortings({"": partition(900, 900, ranges=apart)}, TARGET)
    assert not sortings({"": partition(900, 900, ranges=[None, None])}, TARGET)
    assert not sortings({"": partition(400, 400, ranges=over)}, TARGET)


@given(st.lists(st.none() | st.tuples(st.integers(0, 50), st.integers(0, 50)).map(sorted), max_size=20))
def test_overlap_is_what_counting_pairs_gives(ranges):
    known = [found for found in ranges if found is not None]
    pairs = sum(a is b or (a[0] < b[1] and b[0] < a[1]) for a in known for b in known)
    assert overlap(partition(ranges=ranges)) == (pairs / len(known) if known else 1.0)
