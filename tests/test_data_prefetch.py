from __future__ import annotations

import threading
from itertools import islice

import pytest

from stretto.data.prefetch import Prefetch


def running() -> bool:
    return any(thread.name == "prefetch" for thread in threading.enumerate())


@pytest.mark.parametrize("ahead", [1, 2, 7])
@pytest.mark.parametrize(("start", "stop"), [(0, 20), (17, 20), (5, 5)])
def test_steps_come_in_order_from_any_start(start: int, stop: int, ahead: int) -> None:
    with Prefetch(lambda step: step * step, start=start, stop=stop, ahead=ahead) as steps:
        assert list(steps) == [step * step for step in range(start, stop)]
        assert list(steps) == []
    assert not running()


def test_no_more_steps_are_built_than_were_asked_ahead() -> None:
    built: list[int] = []
    full = threading.Event()

    def build(step: int) -> int:
        built.append(step)
        if len(built) == 3:
            full.set()
        return step

    with Prefetch(build, start=4, stop=1000, ahead=3):
        full.wait()
    assert built == [4, 5, 6]
    assert not running()


def test_steps_are_built_while_the_reader_is_at_work() -> None:
    built = threading.Semaphore(0)

    def build(step: int) -> int:
        built.release()
        return step

    with Prefetch(build, start=0, stop=3, ahead=2) as steps:
        built.acquire()
        built.acquire()
        assert next(steps) == 0
        built.acquire()  # the third: room was made by reading one
        assert list(steps) == [1, 2]


def test_an_error_comes_where_its_step_would_and_nothing_after_it() -> None:
    def build(step: int) -> int:
        if step == 2:
            raise ValueError("step two")
        return step

    steps = Prefetch(build, start=0, stop=9, ahead=5)
    assert list(islice(steps, 2)) == [0, 1]
    with pytest.raises(ValueError, match="step two"):
        next(steps)
    assert list(steps) == []
    assert not running()


def test_a_reader_that_leaves_early_leaves_no_thread() -> None:
    steps = Prefetch(lambda step: step, start=0, stop=9, ahead=1)

    def leave() -> None:
        with steps:
            next(steps)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        leave()
    assert not running()
    steps.close()
    assert list(steps) == []


def test_waiting_is_counted_and_is_none_before_the_first_read() -> None:
    asked = threading.Event()

    def build(step: int) -> int:
        asked.wait()
        return step

    with Prefetch(build, start=0, stop=1) as steps:
        assert steps.wait_s == 0
        threading.Timer(0.01, asked.set).start()
        next(steps)
        assert steps.wait_s > 0
