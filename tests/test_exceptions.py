from __future__ import annotations

import pickle
import threading

import pytest

from sfwriter import exceptions
from sfwriter.exceptions import (
    WriterConfigurationError,
    WriterDataQualityError,
    WriterError,
    WriterPerformanceError,
    WriterSchemaError,
    WriterTableError,
    WriterValidationError,
)

CLASSES = [
    WriterError,
    WriterConfigurationError,
    WriterValidationError,
    WriterTableError,
    WriterDataQualityError,
    WriterPerformanceError,
    WriterSchemaError,
]

COMMON = {"context": {"table": "a.b"}, "suggestions": ["do this", "or that"], "code": "word", "retriable": True}
OWN = {
    WriterConfigurationError: {"problems": ["x is no option"]},
    WriterValidationError: {"validation_errors": [{"row": 3, "reasons": ["phase is empty"]}]},
    WriterTableError: {"outcome_unknown": True},
    WriterDataQualityError: {"quality_issues": [{"rule": "a > 0", "column": "a", "failed_rows": 1, "sample": []}]},
    WriterSchemaError: {
        "expected_schema": {"a": "int64"},
        "actual_schema": {"a": "string"},
        "validation_errors": [{"row": 0, "column": "a"}],
    },
}


def full(kind):
    return kind("it broke", **COMMON, **OWN.get(kind, {}))


@pytest.mark.parametrize("kind", CLASSES)
def test_an_error_can_be_made_from_a_message_alone(kind):
    error = kind("it broke")
    assert str(error) == "it broke"
    assert (error.context, error.suggestions, error.code, error.retriable) == ({}, [], None, False)
    assert isinstance(error, WriterError)


@pytest.mark.parametrize("kind", CLASSES)
def test_every_attribute_survives_pickling(kind):
    error = full(kind)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert str(again) == str(error)
    assert vars(again) == vars(error)
    assert again.args == error.args
    for name, value in {**COMMON, **OWN.get(kind, {})}.items():
        assert getattr(again, name) == value


@pytest.mark.parametrize("kind", CLASSES)
def test_ray_s_copy_of_an_error_has_the_same_class_and_attributes(kind):
    ray_exceptions = pytest.importorskip("ray.exceptions")
    # A proctitle, pid and ip of its own keep it from asking a cluster.
    remote = ray_exceptions.RayTaskError("f", "traceback", full(kind), "title", 1, "127.0.0.1").as_instanceof_cause()
    assert isinstance(remote, kind)
    for name, value in {**COMMON, **OWN.get(kind, {})}.items():
        assert getattr(remote, name) == value


def test_the_cause_survives_pickling():
    cause = WriterTableError("disk full", context={"path": "/x"})
    cause.__cause__ = OSError(28, "No space left")
    error = WriterError("could not stage")
    error.__cause__ = cause
    again = pickle.loads(pickle.dumps(error))
    assert again.__cause__.context == {"path": "/x"}
    assert isinstance(again.__cause__.__cause__, OSError)
    assert again.__suppress_context__


def test_what_cannot_be_pickled_travels_as_its_text():
    class LocalError(Exception):  # no other process knows it
        pass

    error = WriterTableError("broken", context={"lock": threading.Lock(), "row": 3, "deep": [threading.Lock(), 1]})
    error.__cause__ = LocalError("inner")
    again = pickle.loads(pickle.dumps(error))
    assert again.context["row"] == 3
    assert "lock" in again.context["lock"]
    assert again.context["deep"][1] == 1
    assert str(again.__cause__) == "LocalError: inner"


def test_the_text_is_the_message_and_then_the_suggestions():
    assert str(full(WriterError)) == "it broke\n  - do this\n  - or that"
    assert repr(full(WriterTableError)) == "WriterTableError('it broke')"


def test_a_wrong_configuration_is_also_a_value_error():
    with pytest.raises(ValueError, match="no"):
        raise WriterConfigurationError("no")


def test_attributes_are_the_error_s_own_copies():
    context, suggestions = {"a": 1}, ["x"]
    error = WriterError("m", context=context, suggestions=suggestions)
    context["b"] = 2
    suggestions.append("y")
    assert error.context == {"a": 1}
    assert error.suggestions == ["x"]


def test_the_module_draws_every_class_of_the_tree():
    public = [name for name, value in vars(exceptions).items() if isinstance(value, type) and name.startswith("Writer")]
    assert {kind.__name__ for kind in CLASSES} == set(public)
    assert all(name in exceptions.__doc__ for name in public)
