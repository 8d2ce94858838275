"""Figures within bounds, and the text that Prometheus reads."""

from __future__ import annotations

import gc

from prometheus_client.parser import text_string_to_metric_families

from actors.coordinator import _keep_what_stays
from actors.exposition import exposition
from actors.figures import Figures
from actors.tally import BOUNDS_S, OTHER, Histogram, Tally


def test_a_histogram_counts_up_to_each_bound() -> None:
    histogram = Histogram()
    for secs in (0.001, 0.005, 0.2, 1_000.0):
        histogram.add(secs)
    figures = histogram.figures()
    assert (figures["count"], figures["sum_secs"]) == (4, 1000.206)
    assert figures["buckets"]["0.005"] == 2
    assert figures["buckets"][str(BOUNDS_S[-1])] == 3
    assert figures["buckets"]["+Inf"] == 4


def test_the_least_active_keys_become_other_and_nothing_is_lost() -> None:
    tally = Tally(most=3)
    for number in range(10):
        tally.add("steady", 1, 10, 0.1)
        tally.add(f"p{number}", 2, 20, 0.1)
    figures = tally.figures()
    assert set(figures) == {OTHER, "steady", "p8", "p9"}
    assert sum(entry["rows"] for entry in figures.values()) == 30
    assert sum(entry["latency"]["count"] for entry in figures.values()) == 20
    assert figures["steady"] == {**figures["steady"], "batches": 10, "rows": 10, "bytes": 100}
    assert Tally().figures() == {}


def test_what_was_looked_at_stays_as_it_was_while_more_is_counted() -> None:
    figures = Figures("logs.a", "logs.q")
    figures.took("stage", 0.1, ["logs.a"], ["p"])
    looked = figures.times()
    before = [looked[name].figures() for name in ("tables", "producers")], looked["histograms"]["stage"].figures()
    figures.took("stage", 0.1, ["logs.a", "logs.b"], ["p", "other"])
    after = [looked[name].figures() for name in ("tables", "producers")], looked["histograms"]["stage"].figures()
    assert before == after
    assert before[1]["count"] == 1
    assert figures.times()["histograms"]["stage"].figures()["count"] == 2


def test_the_exposition_is_what_prometheus_parses() -> None:
    tally = Tally()
    tally.add('odd "name"\n', 7, 700, 0.3)
    text = exposition(
        "logs",
        {
            "rows_total": 7,
            "budget_bytes": 100,
            "actor_memory_bytes": {"coordinator": 5, "writer-0": None},
            "histograms": {"commit": Histogram().figures()},
            "tables": tally.figures(),
        },
    )
    samples = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    service = ("service", "logs")
    assert samples["sfwriter_rows_total", service] == 7
    assert samples["sfwriter_budget_bytes", service] == 100
    assert samples["sfwriter_actor_memory_bytes", ("actor", "coordinator"), service] == 5
    assert samples["sfwriter_table_rows_total", service, ("table", 'odd "name"\n')] == 7
    assert samples["sfwriter_table_ack_secs_count", service, ("table", 'odd "name"\n')] == 1
    assert samples["sfwriter_stage_secs_count", service, ("stage", "commit")] == 0


def test_what_a_full_collection_leaves_is_never_walked_again() -> None:
    frozen = gc.get_freeze_count()
    try:
        _keep_what_stays("start", {"generation": 2})
        _keep_what_stays("stop", {"generation": 1})
        assert gc.get_freeze_count() == frozen
        _keep_what_stays("stop", {"generation": 2})
        assert gc.get_freeze_count() > frozen
    finally:
        gc.unfreeze()
