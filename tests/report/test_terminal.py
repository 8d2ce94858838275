"""What of a row is shown on terminals of every width."""

from __future__ import annotations

import io
import re

import pytest

from sfwriter.report.newest import SHOWN
from sfwriter.report.terminal import fitting, show_on_terminal

LONG = ["2024-01-31 12:00:00.123Z", "1708b16d-ab81-4c24-9cd5-affe4061adac", "pipeline", "extract_customers_from_source",
        "False", "1200.500", "100000", "99990", "Connection refused by the host"]  # fmt: skip
SHORT = ["2024-01-31 12:00:00.123Z", "run-1", "bronze", "load", "True", "1.500", "", "", ""]


def shown(rows, width, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm")
    out = io.StringIO()
    show_on_terminal(SHOWN, rows, [row[4] == "False" for row in rows], "title", out)
    return re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue())


@pytest.mark.parametrize("width", [60, 80, 100, 120, 160, 250])
def test_no_line_is_wider_than_the_terminal_and_what_is_shown_is_whole(width, monkeypatch):
    text = shown([LONG, SHORT], width, monkeypatch)

    assert max(map(len, text.splitlines())) <= width
    assert "False" in text
    assert "load" in text
    assert "Connection" in text
    said = text.partition("no room for ")[2].replace("\n", " ")
    for name, cell in zip(("logged_at", "phase", "duration_secs", "rows_processed", "rows_written"),
                          ("2024-01-31 12:00:00", "pipeline", "1200.500", "100000", "99990"), strict=True):  # fmt: skip
        assert (cell in text) != (name in said), name


def test_columns_without_a_value_take_no_room(monkeypatch):
    text = shown([SHORT, SHORT], 80, monkeypatch)

    assert "error_message" not in text
    assert "run-1" in text
    assert "no room" not in text


def test_what_there_is_goes_to_the_texts_and_never_beyond_what_they_need():
    full = {"step_name": 30, "success": 7, "error_message": 40}
    for width in range(50, 200):
        widths = fitting(full, width)
        assert widths["success"] == 7
        assert 12 <= widths["step_name"] <= 30
        assert 16 <= widths["error_message"] <= 40
        assert sum(widths.values()) + 3 * len(widths) + 1 <= width
    assert fitting(full, 200) == full
