"""``stretto ui``."""

from __future__ import annotations

import argparse
import contextlib
import gc
import itertools
import os
import signal
import sys
import threading
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from stretto.cli.arguments import Parser
from stretto.cli.rundir import RunDirectory
from stretto.errors import InputError, Problem, StrettoError

if TYPE_CHECKING:
    from stretto.page.shelf import Shelf

_ABOUT = """\
Serves the pages of runs, live, to browsers on this machine: they may be looked at and nothing else.
RUNS are runs or directories of runs; what is begun in one later appears by itself.

To look from elsewhere, bring the port there: ssh -L 8000:localhost:8000 HOST
"""

_EXAMPLES = """\
examples:
  stretto ui
  stretto ui runs/2026-05-01-120000-stretto-1m --port 8000 --no-open
"""


def run(arguments: Sequence[str]) -> int:
    """Serve until somebody presses Ctrl-C."""
    options, keys, problems = _parser().read(arguments)
    problems += [Problem(key, "this command has no keys", "leave it out") for key, _ in keys]
    places = [Path(word) for word in options.runs] or [Path("runs")]
    problems += [
        Problem(str(place), "is no directory", "name a run, or a directory of runs")
        for place in places
        if options.runs and not place.is_dir()
    ]
    if problems:
        raise InputError(problems)
    from stretto.cli.shown import of_run
    from stretto.page.server import Server
    from stretto.page.shelf import Shelf

    for ended in (signal.SIGINT, signal.SIGTERM):  # also where a shell behind `&` has them ignored
        signal.signal(ended, signal.default_int_handler)
    gc.set_threshold(100_000)  # a program has many parts, and they stay: looking for others is slow
    shelf = Shelf(places, make=lambda path, own, others: of_run(path, metrics=own, others=others))
    with Server(shelf, port=options.port) as server:
        url = server.url
        if len(places) == 1 and RunDirectory(places[0]).is_one:
            (name,) = shelf.runs()
            url = server.run_url(name)
        try:
            print(f"serving {', '.join(map(str, places))} on {url}\nCtrl-C ends it", flush=True)
            threading.Thread(target=_prepare, args=(shelf,), daemon=True).start()
            if options.open and _has_screen():
                threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
            server.serve_forever()
        except KeyboardInterrupt:
            server.stopping.set()
            print(file=sys.stderr)
    _leave()


def _leave() -> NoReturn:
    """End the process with nothing taken down; a server that only shows has nothing to lose.

    A thread that is still making a page may be in C++ or Rust, which abort where CPython ends the
    threads it comes back to while it takes itself down (https://docs.python.org/3.11/c-api/init.html,
    ``PyEval_RestoreThread``); and to wait for it would keep whoever pressed Ctrl-C waiting.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _prepare(shelf: Shelf) -> None:
    """Make the page of the run that wrote last, which is most likely looked at, before it is."""
    from stretto.page.sections import SECTIONS

    with contextlib.suppress(StrettoError, LookupError):  # its page will say what is wrong
        for name in itertools.islice(shelf.runs(), 1):
            print(f"preparing the page of {name}", file=sys.stderr, flush=True)
            shelf.prepare(name, SECTIONS)
            print(f"the page of {name} is ready", file=sys.stderr, flush=True)


def _has_screen() -> bool:
    """Tell whether a browser could open here; in a terminal alone none should."""
    here = sys.platform in ("darwin", "win32")
    return here or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


def _parser() -> Parser:
    parser = Parser("ui", usage="[RUNS …] [--port N] [--no-open]", about=_ABOUT, examples=_EXAMPLES)
    add = parser.add_argument
    add("runs", nargs="*", metavar="RUNS", help="runs, or directories of them (default: runs)")
    add("--port", type=_port, default=0, metavar="N", help="where to listen; 0 for any (default)")
    add("--no-open", dest="open", action="store_false", help="open no browser")
    return parser


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"is {text!r}; write a number from 0 to 65535")
    return int(text)
