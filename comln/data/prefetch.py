"""Make the next items in a background thread while the current one is used."""

__all__ = ["prefetch"]

import queue
import threading
from collections.abc import Callable, Generator
from typing import TypeVar

Item = TypeVar("Item")


def prefetch(make: Callable[[int], Item], start: int, stop: int, depth: int = 2) -> Generator[Item, None, None]:
    """Yield `make(start), ..., make(stop - 1)` in order, at most `depth` of them made ahead.

    An exception in `make` is raised here, at its place in the order. Closing the generator ends the thread.

    >>> list(prefetch(lambda i: i * i, 2, 5))
    [4, 9, 16]
    """
    made: queue.Queue[tuple[Item | None, BaseException | None]] = queue.Queue(maxsize=depth)
    closed = threading.Event()

    def hand_over(item: Item | None, error: BaseException | None) -> None:
        while not closed.is_set():
            try:
                made.put((item, error), timeout=0.1)
            except queue.Full:
                continue
            return

    def work() -> None:
        for index in range(start, stop):
            if closed.is_set():
                return
            try:
                item = make(index)
            except BaseException as error:
                hand_over(None, error)
                return
            hand_over(item, None)

    thread = threading.Thread(target=work, name="comln-prefetch", daemon=True)
    thread.start()
    try:
        for _ in range(start, stop):
            item, error = made.get()
            if error is not None:
                raise error
            yield item  # pyright: ignore[reportReturnType]  # an item that is None is a legitimate one
    finally:
        closed.set()
        thread.join()
