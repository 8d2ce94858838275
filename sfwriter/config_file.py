"""Options from a file: TOML or YAML.

Receives: a path.
Produces: the options that it names, as the file's own types.
Guarantees: whatever is wrong with the file is said with its path and place.
Never does: know what options there are (`WriterConfig` does).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sfwriter.exceptions import WriterConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def read_options(path: str | Path) -> dict[str, Any]:
    """The options of a file `….toml`, `….yaml` or `….yml`: one table of them, without sections.

    Raises:
        WriterConfigurationError: it cannot be read, is no such file, or is not one table.
    """
    place = Path(path)
    readers: dict[str, Callable[[str], Any]] = {".toml": tomllib.loads, ".yaml": _yaml, ".yml": _yaml}
    read = readers.get(place.suffix.lower())
    if read is None:
        raise _wrong(place, f"ends in {place.suffix!r}, expected .toml, .yaml or .yml", "rename or convert it")
    try:
        found = read(place.read_text(encoding="utf-8"))
    except OSError as error:
        raise _wrong(place, f"cannot be read: {error.strerror}", "give the path of a file") from error
    except ValueError as error:
        text = " ".join(str(error).split())
        raise _wrong(place, f"is not {place.suffix[1:].upper()}: {text}", "correct it at this place") from error
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise _wrong(place, f"holds a {type(found).__name__}, expected options with values", "e.g. warehouse: /data/wh")
    sections = [str(name) for name in found if not isinstance(name, str)]
    if sections:
        raise _wrong(place, f"has the key {sections[0]}, expected the name of an option", "put names in quotes")
    return found


def _yaml(text: str) -> Any:
    try:
        import yaml
    except ImportError as error:
        raise ValueError("YAML needs PyYAML here (pip install pyyaml); TOML needs nothing") from error

    class Loader(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML has no types
        """Takes no key twice; YAML itself keeps the last one."""

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            names = [key.value for key, _ in node.value]
            for key, _ in node.value:
                if names.count(key.value) > 1:
                    raise ValueError(f"line {key.start_mark.line + 1} has a key that stands there twice")
            return super().construct_mapping(node, deep=deep)

    try:
        return yaml.load(text, Loader)  # noqa: S506  a safe one
    except yaml.YAMLError as error:
        # Its own text shows the line, which may hold a secret.
        mark = getattr(error, "problem_mark", None)
        place = "" if mark is None else f" at line {mark.line + 1}, column {mark.column + 1}"
        raise ValueError(f"cannot be parsed{place}") from None


def _wrong(path: Path, what: str, advice: str) -> WriterConfigurationError:
    text = f"the configuration file {path} {what}"
    return WriterConfigurationError(text, problems=[text], suggestions=[advice], code="config_file")
