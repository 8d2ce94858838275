"""The demo's input: the source files of the Python packages that are installed here.

A package is a distribution of the environment, or a package of the standard library (`python.<name>`),
whose test data has files that no parser takes.
"""

from __future__ import annotations

import sysconfig
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

FEWEST_FILES = 3
"""A package of fewer files is no pipeline worth showing."""


@dataclass(frozen=True)
class Package:
    """What one pipeline reads.

    Attributes:
        name: the distribution's, or `python.<name>`.
        version: its version.
        root: folder that `files` are relative to.
        files: paths with `/`, sorted.
    """

    name: str
    version: str
    root: str
    files: tuple[str, ...]


def installed(most_files: int) -> list[Package]:
    """The environment's distributions and the standard library's packages, by name.

    Args:
        most_files: of a larger package so many files are taken, evenly over its sorted list.
    """
    found = {package.name: package for package in [*_distributions(), *_standard_library()]}
    return [
        Package(package.name, package.version, package.root, tuple(evenly(package.files, most_files)))
        for _, package in sorted(found.items())
        if len(package.files) >= FEWEST_FILES
    ]


def evenly(items: tuple[str, ...], most: int) -> tuple[str, ...]:
    """At most `most` of the items, at equal distances, in their order."""
    if len(items) <= most:
        return items
    return tuple(items[place * len(items) // most] for place in range(most))


def dealt(packages: Iterable[Package], hands: int) -> list[list[Package]]:
    """The packages in `hands` lists of nearly equal numbers of files, each list by name."""
    lists: list[list[Package]] = [[] for _ in range(hands)]
    sizes = [0] * hands
    for package in sorted(packages, key=lambda package: (-len(package.files), package.name)):
        least = sizes.index(min(sizes))
        lists[least].append(package)
        sizes[least] += len(package.files)
    return [sorted(dealt_to, key=lambda package: package.name) for dealt_to in lists]


def _distributions() -> Iterator[Package]:
    for distribution in metadata.distributions():
        paths = sorted(str(path) for path in distribution.files or () if path.suffix == ".py")
        yield Package(
            distribution.metadata["Name"], distribution.version, str(distribution.locate_file("")), tuple(paths)
        )


def _standard_library() -> Iterator[Package]:
    root = Path(sysconfig.get_path("stdlib"))
    for folder in sorted(root.iterdir()):
        if not (folder / "__init__.py").is_file():
            continue
        paths = sorted(path.relative_to(root).as_posix() for path in folder.rglob("*.py"))
        yield Package(f"python.{folder.name}", sysconfig.get_python_version(), str(root), tuple(paths))
