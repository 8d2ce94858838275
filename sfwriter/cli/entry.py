"""The way in and the ways out: arguments to a command, errors to one line and an exit code.

Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import TYPE_CHECKING, Any

import orjson

from sfwriter.exceptions import WriterConfigurationError, WriterError

if TYPE_CHECKING:
    from collections.abc import Sequence

FAILED, USAGE, INTERRUPTED = 1, 2, 130


class Interrupted(Exception):  # noqa: N818  an outcome, not a failure
    """Somebody pressed Ctrl-C. The framework would swallow a KeyboardInterrupt and its text."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line (default: the process's own) and return its exit code. Prints; never raises."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug, as_json = "--debug" in arguments, "--json" in arguments
    try:
        from sfwriter.cli.app import app  # typer and rich are loaded inside, so that Ctrl-C is ours from the start

        code = app(arguments, prog_name="sfwriter", standalone_mode=False)
        sys.stdout.flush()
    except (Interrupted, KeyboardInterrupt) as error:
        return _failed(INTERRUPTED, str(error) or "interrupted", error, debug=debug, as_json=as_json)
    except BrokenPipeError:
        # Whoever read our output has gone; nothing more can be said there, not even by the interpreter's exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except WriterConfigurationError as error:
        return _failed(USAGE, told(error), error, debug=debug, as_json=as_json)
    except WriterError as error:
        return _failed(FAILED, told(error), error, debug=debug, as_json=as_json)
    except Exception as error:  # noqa: BLE001  the last one who can say anything
        return _of_framework(error, debug=debug, as_json=as_json)
    if code == INTERRUPTED:
        return _failed(code, "interrupted", KeyboardInterrupt(), debug=False, as_json=as_json)
    return code if isinstance(code, int) else 0


def told(error: WriterError) -> str:
    """What went wrong and what to do, in one line."""
    return one_line("; ".join(part.rstrip(". ") for part in (error.message, *error.suggestions)))


def one_line(text: str) -> str:
    """The text without line ends and other control characters."""
    return "".join(char if char.isprintable() else " " for char in " ".join(text.split()))


def _of_framework(error: Exception, *, debug: bool, as_json: bool) -> int:
    """Typer's own exceptions by their shape: it brings a copy of click along, older versions do not."""
    if type(error).__name__ == "NoArgsIsHelpError":
        print(getattr(error, "message", error), file=sys.stderr)
        return USAGE
    if hasattr(error, "format_message"):
        context = getattr(error, "ctx", None)
        command = getattr(context, "command_path", None) or "sfwriter"
        text = f"{error.format_message().rstrip('. ')}; see {command} --help"
        return _failed(getattr(error, "exit_code", USAGE), text, error, debug=debug, as_json=as_json)
    if type(error).__name__ == "Exit":
        return int(getattr(error, "exit_code", 0))
    if type(error).__name__ == "Abort":
        return _failed(INTERRUPTED, "interrupted", error, debug=debug, as_json=as_json)
    text = f"unexpected {type(error).__name__}: {error}; --debug shows where"
    return _failed(FAILED, text, error, debug=debug, as_json=as_json)


def _failed(code: int, text: str, error: BaseException, *, debug: bool, as_json: bool) -> int:
    if debug:
        traceback.print_exception(error)
    print(f"sfwriter: {one_line(text)}", file=sys.stderr)
    if as_json:
        sys.stdout.write(_as_json(error, code, text) + "\n")
        sys.stdout.flush()
    return code


def _as_json(error: BaseException, code: int, text: str) -> str:
    details: dict[str, Any] = {"type": type(error).__name__, "message": one_line(text)}
    if isinstance(error, WriterError):
        details = {
            "type": type(error).__name__,
            "message": error.message,
            "suggestions": error.suggestions,
            "code": error.code,
            "context": error.context,
        }
    return printed({"success": False, "exit_code": code, "error": details})


def printed(found: object) -> str:
    """One JSON text; what JSON does not know as its text."""
    return orjson.dumps(found, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
