"""Queries of DuckDB that can be stopped.

Receives: a connection and what to ask it.
Produces: the answer. Ctrl-C, or whatever a signal's handler raises, ends the waiting at once and stops the query;
    so does a limit of time.
Never does: touch the handlers of signals.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future
from concurrent.futures import TimeoutError as LateError
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

Answer = TypeVar("Answer")

_AGAIN_S = 0.05


def stoppable(connection: Any, ask: Callable[[], Answer], limit_s: float | None = None) -> Answer:
    """What `ask` gives.

    It runs on a thread of its own: a query in the main thread sees a signal between its tasks only, and waits for
    DuckDB's other threads first.

    Args:
        connection: what `ask` uses.
        ask: the query, up to the last of its rows.
        limit_s: how long it may take.

    Raises:
        duckdb.InterruptException: it took longer.
    """
    answer: Future[Answer] = Future()
    asked = threading.Thread(target=_answered, args=(answer, ask), daemon=True, name="sfwriter-query")
    try:
        asked.start()
        return answer.result(limit_s)
    except LateError:
        _stop(connection, asked)
        return answer.result()
    except BaseException:
        _stop(connection, asked)
        raise


def _answered(answer: Future[Any], ask: Callable[[], Any]) -> None:
    try:
        answer.set_result(ask())
    except BaseException as error:  # noqa: BLE001  raised where it was asked for
        answer.set_exception(error)


def _stop(connection: Any, asked: threading.Thread) -> None:
    # More than once: an interrupt before the query has begun is lost.
    while asked.is_alive():
        connection.interrupt()
        asked.join(_AGAIN_S)
