"""Every error that the library raises says what can be done."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import sfwriter
import sfwriter.exceptions

ROOT = Path(sfwriter.__file__).parent
KINDS = {name for name in dir(sfwriter.exceptions) if name.startswith("Writer")}


def made_errors():
    """File, line and call of each place where an error of the library is made."""
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in KINDS:
                yield f"{path.relative_to(ROOT)}:{node.lineno}", node


def test_the_places_are_found() -> None:
    assert len(list(made_errors())) > 40


def test_every_error_is_made_with_a_suggestion() -> None:
    bare = [
        place for place, call in made_errors() if not {"suggestions", None} & {keyword.arg for keyword in call.keywords}
    ]
    assert bare == []


def test_no_error_is_made_with_an_empty_list_of_suggestions() -> None:
    empty = [
        place
        for place, call in made_errors()
        for keyword in call.keywords
        if keyword.arg == "suggestions" and isinstance(keyword.value, (ast.List, ast.Tuple)) and not keyword.value.elts
    ]
    assert empty == []


@pytest.mark.parametrize("name", sorted(KINDS))
def test_every_error_can_be_made_from_a_message_alone(name) -> None:
    error = getattr(sfwriter.exceptions, name)("it broke")
    assert str(error) == "it broke"
    assert error.suggestions == []
