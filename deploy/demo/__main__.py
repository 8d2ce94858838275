"""`python -m deploy.demo`: reads the options, plays the story, cleans up. Exit codes: 0, 1, 2, 130."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deploy.demo.place import Place
    from deploy.demo.processes import Household
    from deploy.demo.show import Show

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Play the demo and return its exit code."""
    sys.unraisablehook = _told_unless_interrupt
    try:
        return _play(_options(arguments))
    except KeyboardInterrupt:
        return INTERRUPTED


def _told_unless_interrupt(unraisable: sys.UnraisableHookArgs) -> None:
    """An interrupt that lands in a finaliser cannot be raised; `Household.check` raises it at the next step."""
    if not issubclass(unraisable.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(unraisable)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m deploy.demo",
        description="Pipelines over the installed Python packages log their runs into a Delta table through the "
        "service; a writer is killed; a backfill is killed and resumed; then every row is counted.",
    )
    parser.add_argument("--rows", type=_number, default=1_000_000, help="rows of the backfill (default: 1,000,000)")
    parser.add_argument("--files", type=_number, default=60, help="source files of a package at most (default: 60)")
    parser.add_argument("--packages", type=_number, help="packages at most (default: all that are installed)")
    parser.add_argument("--pipelines", type=_number, default=3, help="pipeline processes at once (default: 3)")
    parser.add_argument("--folder", type=Path, help="where the tables go (default: warehouse/demo of the project)")
    parser.add_argument("--keep", action="store_true", help="move the tables of an earlier demo aside, do not delete")
    options = parser.parse_args(arguments)
    if options.pipelines > 16:
        parser.error("--pipelines: 16 processes at most")
    return options


def _number(text: str) -> int:
    number = int(text.replace(",", "").replace("_", ""))
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def _play(options: argparse.Namespace) -> int:
    from deploy.demo.place import FOLDER, Place, PlaceError
    from deploy.demo.processes import Household
    from deploy.demo.show import Show

    show, household = Show(), Household()
    place: Place | None = None
    code = 1
    try:
        place = Place(options.folder or FOLDER, keep=options.keep)
        code = _story(options, place, household, show)
    except KeyboardInterrupt:
        code = INTERRUPTED
    except PlaceError as error:
        show.bad(str(error))
        code = 2
    finally:
        left = _clean_up(code, place, household, show)
    return code if not left else code or 1


def _story(options: argparse.Namespace, place: Place, household: Household, show: Show) -> int:
    from deploy.demo.story import Demo, DemoError

    try:
        held = Demo(options, place, household, show).play()
    except KeyboardInterrupt:
        raise
    except DemoError as error:
        show.verdict(f"The demo failed: {error}", good=False)
        return 1
    except Exception as error:
        if household.interrupted is not None:  # the exception is the interrupt's, in a library's clothes
            raise KeyboardInterrupt from error
        show.console.print_exception()
        show.verdict(f"The demo failed: {type(error).__name__}: {error}", good=False)
        return 1
    return 0 if held else 1


def _clean_up(code: int, place: Place | None, household: Household, show: Show) -> bool:
    """End every process; remove the tables of an interrupted demo. Returns whether a process would not go."""
    household.ignore_signals()
    if code == INTERRUPTED:
        show.console.print("\nInterrupted: ending what runs …")
    left = household.end()
    if code == INTERRUPTED and place is not None:
        place.remove()
        show.console.print(f"Nothing runs any more; {place.folder} is removed.")
    for process in left:
        show.bad(f"process {process.pid} does not end")
    return bool(left)


if __name__ == "__main__":
    sys.exit(main())
