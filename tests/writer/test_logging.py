"""What a writer says, and to whom."""

from __future__ import annotations

import io
import logging

import pytest

from sfwriter import WriterValidationError


def test_records_of_writes_have_structured_fields(open_writer, row, caplog):
    caplog.set_level(logging.INFO, "sfwriter")
    writer = open_writer()
    result = writer.write_log_rows([row()])
    record = caplog.records[-1]
    assert record.name == "sfwriter"
    assert record.sfwriter_table == "analytics.pipeline_logs"
    for name in (
        "run_id",
        "batch_id",
        "version",
        "rows_written",
        "quarantined_rows",
        "already_written",
        "duration_secs",
    ):
        assert getattr(record, f"sfwriter_{name}") == result[name]
    with pytest.raises(WriterValidationError):
        writer.write_log_rows([row(phase="copper")])
    assert caplog.records[-1].sfwriter_error == "WriterValidationError"


def test_the_library_installs_no_handler():
    assert logging.getLogger("sfwriter").handlers == []


def test_an_object_with_the_two_methods_is_a_logger(open_writer, row):
    said = []

    class Mine:
        def info(self, text):
            said.append(text)

        warning = info

    open_writer(logger=Mine()).write_log_rows([row()])
    adapter = logging.LoggerAdapter(logging.getLogger("sfwriter.mine"), {})
    open_writer(logger=adapter).write_log_rows([row()])
    assert "1 rows written" in said[-1]


def test_secrets_are_in_no_record(open_writer, row, caplog):
    caplog.set_level(logging.DEBUG)
    open_writer(storage_options={"password": "hush-hush"}).write_log_rows([row()])
    assert "hush-hush" not in caplog.text


def test_a_terminal_that_knows_few_letters_shows_what_it_can(open_writer, row, monkeypatch):
    writer = open_writer()
    writer.write_log_rows([row(step_name="é→\x1b[31mred", error_message="x" * 100, success=False)])
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", out)
    writer.show_logs()
    out.flush()
    text = out.buffer.getvalue().decode("ascii")
    assert "\x1b" not in text
    assert "red" in text
    assert "x" * 41 not in text
