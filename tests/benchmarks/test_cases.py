"""Each case runs, checks what it did, and gives a figure for every verdict. No figure is judged here."""

from __future__ import annotations

import gc
import json
import os
import warnings

import pytest
import ray
from typer.testing import CliRunner

from actors.cluster import end_ray, start_ray
from benchmarks import cli
from benchmarks.case import Case, Peer, Scale, Verdict, expect, run_case
from benchmarks.cases import CASES
from benchmarks.steady import steady

THROUGH_RAY = {name for name in CASES if name.startswith("service-")}


@pytest.fixture(scope="module")
def one_ray():
    """A Ray that all cases of this module use, where each would start one of its own."""
    pid = start_ray()
    try:
        os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
        ray.shutdown()  # the cases' own processes join it
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # Ray leaves a file of its own open
            gc.collect()
        yield
    finally:
        os.environ.pop("RAY_ADDRESS", None)
        end_ray(pid)


@pytest.mark.parametrize("name", [name for name in CASES if name not in THROUGH_RAY])
def test_a_case_checks_its_outcome_and_gives_its_figures(name, tmp_path, request):
    if name == "spark":
        request.getfixturevalue("spark")  # is there one here?
    report = run_case(CASES[name], tmp_path, scale=Scale.TINY)

    assert report.failure is None
    assert {peer: len(runs) for peer, runs in report.rounds.items()} == {peer.name: 1 for peer in CASES[name].peers}
    assert [judged.label for judged in report.verdicts] == [verdict.label for verdict in CASES[name].verdicts]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.ray
@pytest.mark.timeout(240)
@pytest.mark.usefixtures("one_ray")
@pytest.mark.parametrize("name", sorted(THROUGH_RAY))
def test_a_case_through_the_service_does_so_too(name, tmp_path, request):
    test_a_case_checks_its_outcome_and_gives_its_figures(name, tmp_path, request)


@pytest.mark.ray
@pytest.mark.timeout(240)
@pytest.mark.usefixtures("one_ray")
def test_a_steady_load_is_looked_at_from_its_beginning_to_its_end(tmp_path):
    looks = []
    found = steady(3.0, tmp_path, lambda secs, look: looks.append((secs, look)), own_ray=False)

    assert len(looks) == len(found["points"]) >= 2
    assert looks[-1][1]["commits"] <= found["commits"]
    assert found["rows"] > 7 * found["calls"]
    assert {"memory_growth", "latency_growth", "p50_ms", "p99_ms", "most_files", "most_log_entries"} <= set(found)


def _case(first, second):
    return Case(
        "made-up",
        "two peers",
        (Peer("a", first), Peer("b", second)),
        (Verdict("a / b", ("a", "rows_per_s"), ("b", "rows_per_s"), target=2.0),),
    )


def test_peers_run_in_turns_and_medians_are_compared(tmp_path):
    order, rates = [], iter([30.0, 10.0, 90.0, 20.0, 40.0, 10.0])

    def peer(name):
        return lambda setting: order.append(name) or {"rows_per_s": next(rates)}

    report = run_case(_case(peer("a"), peer("b")), tmp_path, scale=Scale.FULL, rounds=3)

    assert order == ["a", "b"] * 3
    assert report.verdicts[0].value == 4.0
    assert report.verdicts[0].met is True
    assert report.spread(("a", "rows_per_s")) == (30.0, 90.0)


def test_a_wrong_outcome_is_a_failure_and_no_ratio(tmp_path, monkeypatch):
    def wrong(setting):
        expect(False, "6 rows of 7 are there")
        return {"rows_per_s": 1e9}

    case = _case(lambda setting: {"rows_per_s": 1.0}, wrong)
    monkeypatch.setattr(cli, "CASES", {case.name: case})
    said = CliRunner().invoke(cli.app, ["run", "--json", str(tmp_path / "figures.json")])

    assert said.exit_code == 1
    assert "6 rows of 7 are there" in said.output
    assert "a / b" not in said.output
    written = json.loads((tmp_path / "figures.json").read_text())
    assert written["cases"][0]["verdicts"] == []
    assert written["machine"]["cores"] >= 1


def test_an_unknown_case_is_named(tmp_path):
    said = CliRunner().invoke(cli.app, ["run", "no-such-case"])

    assert said.exit_code == 2
    assert "no-such-case" in said.output
