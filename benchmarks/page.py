"""``python -m benchmarks.page``: how quickly the page of a large run opens and answers.

The run has 4,096 ranks and a million steps. Chromium opens its page from a file and from a server:
from `stretto ui` in the moment in which that says its address, and again; a page is there when all
its sections are drawn, and an input is answered when the frame after it has been. How fast the
machine is says a loop in the same browser, so that a promise made for one machine can be held to
another.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from stretto.cli.keys import Settings
from stretto.cli.rundir import RunDirectory, Start
from stretto.cli.shown import of_run
from stretto.cluster import find
from stretto.page.html import html
from stretto.page.server import Server
from stretto.page.shelf import Shelf
from stretto.plan import Batch, Memory, Numerics, Plan
from stretto.presets import preset
from stretto.recipe import Recipe

LOAD_S, INPUT_S = 2.0, 0.1
"""What is promised: seconds until all is drawn, and until an input is answered."""
LOOP_S = 0.1
"""Seconds that `_LOOP` takes on the machine that this is promised for: an idle core of a server."""

_LOOP = """() => {
  const begun = performance.now();
  let x = 1;
  for (let i = 0; i < 4e7; i++) { x ^= x << 13; x ^= x >>> 17; x ^= x << 5; }
  return [performance.now() - begun, x][0];
}"""
_WATCH = """
  window.answers = [];
  for (const kind of ["pointermove", "keydown", "click", "input", "change"]) {
    addEventListener(kind, (event) => requestAnimationFrame(() => {
      const { port1, port2 } = new MessageChannel();
      port1.onmessage = () => answers.push(performance.now() - event.timeStamp);
      port2.postMessage(0);  // after the frame
    }), { capture: true });
  }
"""


@dataclass(frozen=True, slots=True)
class Opened:
    """How a page opened and answered.

    Attributes:
        load_s: Seconds until all was drawn.
        input_s: By what was done, the seconds until it was answered, the median of a few.
        loop_s: Seconds of the loop that says how fast the machine was meanwhile.
    """

    load_s: float
    input_s: Mapping[str, float]
    loop_s: float

    @property
    def slowness(self) -> float:
        """How many times slower the machine is than the one of the promise; at least 1."""
        return max(1.0, self.loop_s / LOOP_S)


def large_run(path: Path, *, steps: int) -> Path:
    """Write a run of 4,096 ranks as `train` would.

    Args:
        path: Where.
        steps: That it has done.
    """
    plan = Plan.of(
        pp=8, dp=64, tp=8, zero=1, batch=Batch(sequences=1024, micro_batch=1, seq=8192),
        numerics=Numerics(dtype="bfloat16"), memory=Memory(recompute="selective"),
    )  # fmt: skip
    start = Start(preset("llama-3-70b"), plan, Recipe(steps=steps), Settings(), (path,))
    RunDirectory(path).write(start, command=["stretto", "train"], cluster=find("h100x4096"))
    line = (
        '{{"step": {s}, "steps": {n}, "loss": {loss:.6f}, "norm": {norm:.6f}, "lr": {lr:.6g}, '
        '"tokens": {tokens}, "tokens_per_s": {rate:.1f}, "mfu": {mfu:.6f}, "memory_bytes": '
        '76546048000, "step_s": {step_s:.6f}, "applied": true}}\n'
    )
    with (path / "metrics.jsonl").open("w", encoding="utf-8") as file:
        for s in range(1, steps + 1):
            wild = (s * 2654435761 % 2**32) / 2**32  # Knuth's hash: noise that is always the same
            file.write(
                line.format(
                    s=s, n=steps, loss=2 + 9 / s**0.3 + wild / 10, norm=1 + wild, lr=3e-4,
                    tokens=s * 8388608, rate=2.1e6 + 1e5 * wild, mfu=0.4 + wild / 50,
                    step_s=3.9 + wild / 10,
                )
            )  # fmt: skip
    return path


@contextmanager
def chromium() -> Iterator[Browser]:
    """Give Debian's Chromium."""
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=arguments)
        yield browser
        browser.close()


@contextmanager
def serving(run: Path) -> Iterator[Server]:
    """Serve a run."""
    shelf = Shelf([run], make=lambda path, own, others: of_run(path, metrics=own, others=others))
    with Server(shelf) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()


@contextmanager
def begun(run: Path) -> Iterator[str]:
    """Give where the page of a run is in the moment in which ``stretto ui`` says it."""
    command = [sys.executable, "-m", "stretto", "ui", str(run), "--no-open"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None, "it is a pipe"
        yield process.stdout.readline().split()[-1]
        process.terminate()


def file_of(run: Path) -> Path:
    """Write the page of a run into a file of it."""
    subject = of_run(run)
    assert subject.metrics is not None, "it is a run"
    subject.metrics.read()
    out = run / "report.html"
    out.write_text(html(subject), encoding="utf-8")
    return out


def opened(browser: Browser, url: str) -> Opened:
    """Open a page and use it."""
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    try:
        page.add_init_script(_WATCH)
        page.goto(url)
        page.wait_for_selector("html[data-ready]", timeout=120_000)
        load = page.evaluate("performance.getEntriesByName('stretto-ready')[0].startTime")
        answers = {name: _answer(page, act) for name, act in _ACTS.items()}
        loops = [page.evaluate(_LOOP) for _ in range(5)]
        return Opened(load / 1e3, answers, statistics.median(loops) / 1e3)
    finally:
        page.close()


def _answer(page: Page, act: Callable[[Page, int], None]) -> float:
    """Give the median of the seconds until a few inputs of a kind are answered."""
    act(page, 0)  # brings what is used into sight
    page.wait_for_timeout(300)
    page.evaluate("answers.length = 0")
    for i in range(1, 8):
        act(page, i)
        page.wait_for_function("count => answers.length >= count", arg=i)
    found: list[float] = page.evaluate("answers")
    return statistics.median(found) / 1e3


def _point(selector: str) -> Callable[[Page, int], None]:
    def act(page: Page, i: int) -> None:
        if not i:
            page.locator(selector).first.scroll_into_view_if_needed()
        box = page.locator(selector).first.bounding_box()
        assert box is not None, f"{selector} is not drawn"
        y = min(box["height"] / 2, 200.0)
        page.mouse.move(box["x"] + (0.1 + 0.1 * i) * box["width"], box["y"] + y)

    return act


def _press(selector: str, keys: str) -> Callable[[Page, int], None]:
    words = keys.split()

    def act(page: Page, i: int) -> None:
        if not i:
            page.locator(selector).first.focus()
        page.keyboard.press(words[i % len(words)])

    return act


_ACTS: Mapping[str, Callable[[Page, int], None]] = {
    "point at a device": _point(".plan-canvas .over"),
    "move from device to device": _press(".plan-canvas .over", "ArrowRight ArrowDown"),
    "colour devices by another axis": _press("#plan .segmented input", "ArrowRight"),
    "point at the map of all ranks": _point("#step .step-map"),
    "point at an instruction": _point("#step .step-rows"),
    "zoom into the step": _press("#step .step-rows", "+ + ArrowRight -"),
    "move through memory": _press("#memory .memory-chart", "ArrowRight"),
    "point at a curve": _point("#curves .chart"),
    "zoom into the curves": _press("#curves .chart", "+ + + 0"),
    "smooth the curves": _press("#curves input[type=range]", "ArrowRight"),
    "ask for another number of devices": _press("#explorer input[type=range]", "ArrowLeft"),
    "change the colours of the page": _press("#theme", "Enter"),
}


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page", description=__doc__)
    parser.add_argument("--steps", type=int, default=1_000_000, help="of the run (1,000,000)")
    steps = parser.parse_args().steps
    with tempfile.TemporaryDirectory() as directory, chromium() as browser:
        run = large_run(Path(directory) / "large", steps=steps)
        file = file_of(run)
        found = {"file": opened(browser, file.as_uri())}
        since = time.perf_counter()
        with begun(run) as url:
            said_s = time.perf_counter() - since
            found["server, first"] = opened(browser, url)
            found["server, again"] = opened(browser, url)
    print(f"| 4,096 ranks, {steps:,} steps | {' | '.join(found)} | promised |")
    print("| --- | " + "---: | " * (len(found) + 1))
    rows = [("load", [o.load_s for o in found.values()], LOAD_S)]
    rows += [(name, [o.input_s[name] for o in found.values()], INPUT_S) for name in _ACTS]
    for name, values, promise in rows:
        cells = " | ".join(f"{1e3 * value:,.0f} ms" for value in values)
        print(f"| {name} | {cells} | {1e3 * promise:,.0f} ms |")
    print(f"\n`stretto ui` said its address after {1e3 * said_s:,.0f} ms.")
    loops = ", ".join(f"{1e3 * o.loop_s:.0f} ms" for o in found.values())
    print(f"\nThe loop that says how fast the machine is took {loops}; it takes {1e3 * LOOP_S:.0f} "
          "ms on the machine of the promise.")  # fmt: skip


if __name__ == "__main__":
    main()
