"""Pictures of figures: everything that was asked is in them."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from benchmarks.cli import app
from benchmarks.plots import draw


def judged(label, value, target, *, at_least=True):
    met = None if target is None else (value >= target if at_least else value <= target)
    return {"label": label, "value": value, "unit": "×", "target": target, "at_least": at_least, "met": met}


RUN = {
    "cases": [
        {"case": "one", "verdicts": [judged("fast / slow", 3.0, 1.5), judged("nothing asked", 9.0, None)]},
        {"case": "failed", "verdicts": []},
        {
            "case": "two",
            "verdicts": [judged("late / early", 2.0, 1.5, at_least=False), judged("free", 0.0, 1.0, at_least=False)],
        },
    ]
}

STEADY = {
    "points": [
        {"secs": 60 * at, "ray::Writer bytes": 2e8, "crew bytes": 4e8, "own bytes": 1e9, "ack_p99_ms": 90, "files": at}
        for at in range(3)
    ]
}


def test_every_target_is_in_the_picture_and_the_missed_ones_say_so(tmp_path):
    draw(RUN, tmp_path / "ratios.svg")
    text = (tmp_path / "ratios.svg").read_text()
    for told in ("one: fast / slow", "3 × (asked ≥ 1.5)", "two: late / early", "2 × (asked ≤ 1.5)", "two: free"):
        assert told in text
    assert "nothing asked" not in text
    assert "#d1495b" in text


def test_a_load_over_time_names_who_takes_the_memory(tmp_path):
    draw(STEADY, tmp_path / "steady.svg")
    text = (tmp_path / "steady.svg").read_text()
    for told in ("Writer", "clients", "p99 of an ack, ms", "files of the table", "minutes"):
        assert f">{told}<" in text
    assert "own" not in text


def test_the_same_figures_give_the_same_picture(tmp_path):
    for name in ("a.svg", "b.svg"):
        draw(RUN, tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


@pytest.mark.parametrize(
    ("figures", "into", "told"),
    [
        ("{}", "x.svg", "there are neither cases nor points"),
        ('{"cases": []}', "x.svg", "no case that was run has a target"),
        ('{"points": []}', "x.svg", "no points to draw"),
        ("no json", "x.svg", "is no JSON"),
        (json.dumps(RUN), "x.txt", "not supported"),
        (json.dumps(RUN), "missing/x.svg", "No such file"),
    ],
)
def test_what_cannot_be_drawn_is_a_wrong_use_with_a_reason(tmp_path, figures, into, told):
    (tmp_path / "figures.json").write_text(figures)
    result = CliRunner().invoke(
        app, ["plot", str(tmp_path / "figures.json"), str(tmp_path / into)], env={"COLUMNS": "400"}
    )
    assert result.exit_code == 2
    assert told in " ".join(result.output.replace("│", " ").split())
