"""The reference page keeps up with the code."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from sfwriter import LogWriter, WriterConfig

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")


def test_every_public_call_is_listed():
    calls = [
        name
        for name, member in inspect.getmembers(LogWriter)
        if not name.startswith("_") and (inspect.isfunction(member) or isinstance(member, property))
    ]
    missing = [name for name in calls if f"`{name}" not in PAGE and name != "producer_id"]
    assert not missing
    assert len(calls) > 20


def test_every_option_is_listed_with_its_default():
    listed = dict(re.findall(r"^\| `(\w+)` \| `(.*?)` \|", PAGE, re.MULTILINE))
    defaults = {}
    for name, field in WriterConfig.model_fields.items():
        value = field.get_default(call_default_factory=True)
        shown = getattr(value, "value", value)
        defaults[name] = f'"{shown}"' if isinstance(shown, str) else repr(shown)
    assert listed == defaults


def test_links_lead_somewhere():
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
