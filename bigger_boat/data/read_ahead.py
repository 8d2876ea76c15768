"""Keeping both cores busy: an iterator one step ahead in a thread, and independent calls two at a time."""

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import Full, Queue
from threading import Event, Thread
from typing import TypeVar

T = TypeVar("T")


def read_ahead(items: Generator[T, None, None], depth: int = 2) -> Iterator[T]:
    """Yield the same items, up to ``depth`` of them made ahead; errors of the iterator are raised here."""
    queue: Queue = Queue(depth)
    stopped = Event()
    thread = Thread(target=_fill, args=(items, queue, stopped), daemon=True)
    thread.start()
    try:
        while True:
            kind, value = queue.get()
            if kind == "item":
                yield value
            elif kind == "error":
                raise value
            else:
                return
    finally:
        stopped.set()
        thread.join()


def side_by_side(calls: list[Callable[[], T]]) -> list[T]:
    """Make independent calls, two at a time, and return their results in order; the first error is raised here."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda call: call(), calls))


def _fill(items: Generator[T, None, None], queue: Queue, stopped: Event) -> None:
    try:
        for item in items:
            if not _put(queue, ("item", item), stopped):
                return
        _put(queue, ("end", None), stopped)
    except BaseException as error:  # handed over to the consumer, whatever it is
        _put(queue, ("error", error), stopped)
    finally:
        items.close()


def _put(queue: Queue, entry: tuple, stopped: Event) -> bool:
    while not stopped.is_set():
        try:
            queue.put(entry, timeout=0.1)
            return True
        except Full:
            continue
    return False
