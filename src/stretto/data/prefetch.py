"""Work done ahead of need, in a thread."""

from __future__ import annotations

import time
from collections.abc import Callable
from queue import SimpleQueue
from threading import Semaphore, Thread
from typing import Generic, Self, TypeVar

T = TypeVar("T")


class Prefetch(Generic[T]):
    """Gives ``build(start)``, ``build(start + 1)``, …, made ahead by a thread of its own.

    Iterate over it; use it as a context manager, or close it when it is no longer needed. What
    `build` raises is raised where its step would have been given, and nothing follows.

    Attributes:
        wait_s: Seconds that the reader has waited so far.
    """

    def __init__(self, build: Callable[[int], T], *, start: int, stop: int, ahead: int = 2) -> None:
        """Begin to build at once.

        Args:
            build: Makes what belongs to a step; called in the thread, in order.
            start: The first step.
            stop: The step after the last.
            ahead: The most steps that are ready and not yet read, at least 1.
        """
        assert ahead >= 1
        self.wait_s = 0.0
        self._build = build
        self._room = Semaphore(ahead)
        self._ready: SimpleQueue[tuple[T] | BaseException] = SimpleQueue()
        self._ended = False
        self._thread = Thread(target=self._run, args=(start, stop), name="prefetch", daemon=True)
        self._thread.start()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        if self._ended:
            raise StopIteration
        began = time.perf_counter()
        item = self._ready.get()
        self.wait_s += time.perf_counter() - began
        if isinstance(item, BaseException):
            self.close()
            raise item
        self._room.release()
        return item[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop building, and wait until the step that is being built is done."""
        self._ended = True
        self._room.release()
        self._thread.join()

    def _run(self, start: int, stop: int) -> None:
        try:
            for step in range(start, stop):
                self._room.acquire()
                if self._ended:
                    return
                self._ready.put((self._build(step),))
            self._ready.put(StopIteration())
        except BaseException as error:  # raised again where it is read
            self._ready.put(error)
