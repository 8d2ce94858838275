"""What the simulator says when the core breaks a promise."""

from __future__ import annotations


class Broken(AssertionError):  # noqa: N818  a finding, told with its story by the simulator
    """A promise of the core did not hold."""


def promise(kept: bool, told: str, *about: object) -> None:
    """Raise `Broken` where a promise is not kept.

    Args:
        kept: whether it is.
        told: the promise, in words.
        about: what it is about; formatted only when it is broken.
    """
    if not kept:
        raise Broken(": ".join([told, *map(str, about)]))
