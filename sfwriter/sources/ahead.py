"""Reading and preparing on threads of their own, so that the disk, the gate and the writer need not wait.

Receives: an iterator.
Produces: the same elements in the same order, and its error where it fails.
Guarantees: at most one element waits while one more is being read, and as many as there are threads while they
    are prepared; the threads have ended when the context ends.
Never does: read on when nobody takes.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

Element = TypeVar("Element")
Made = TypeVar("Made")

LOOK_S = 0.2
"""How often the one who waits looks whether it is to stop."""


@contextmanager
def read_ahead(elements: Iterator[Element], check: Callable[[], None]) -> Iterator[Iterator[Element]]:
    """The elements, read by a thread; `check` is called while there is nothing, and may raise."""
    reader = _Reader(elements)
    try:
        yield reader.taken(check)
    finally:
        reader.stop()


@contextmanager
def prepared_ahead(
    elements: Iterator[Element], prepare: Callable[[Element], Made], threads: int
) -> Iterator[Iterator[tuple[Element, Future[Made]]]]:
    """Each element with a future of what `prepare` makes of it, by so many threads at once."""
    pool = ThreadPoolExecutor(threads, thread_name_prefix="sfwriter-gate")
    try:
        yield _prepared(elements, prepare, pool, threads)
    finally:
        pool.shutdown(cancel_futures=True)


def _prepared(
    elements: Iterator[Element], prepare: Callable[[Element], Made], pool: ThreadPoolExecutor, most: int
) -> Iterator[tuple[Element, Future[Made]]]:
    ahead: deque[tuple[Element, Future[Made]]] = deque()
    for element in elements:
        ahead.append((element, pool.submit(prepare, element)))
        if len(ahead) == most:
            yield ahead.popleft()
    yield from ahead


class _End:
    def __init__(self, error: BaseException | None) -> None:
        self.error = error


class _Reader(Generic[Element]):
    def __init__(self, elements: Iterator[Element]) -> None:
        self._elements = elements
        self._ready: queue.Queue[Element | _End] = queue.Queue(1)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._read, name="sfwriter-read", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def taken(self, check: Callable[[], None]) -> Iterator[Element]:
        while True:
            check()
            try:
                item = self._ready.get(timeout=LOOK_S)
            except queue.Empty:
                continue
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            yield item

    def _read(self) -> None:
        try:
            for element in self._elements:
                self._put(element)
                if self._stopped.is_set():
                    return
        except BaseException as error:  # noqa: BLE001  it is raised where the elements are taken
            self._put(_End(error))
        else:
            self._put(_End(None))

    def _put(self, item: Element | _End) -> None:
        while not self._stopped.is_set():
            try:
                self._ready.put(item, timeout=LOOK_S)
            except queue.Full:
                continue
            return
