"""Runs to show, a server that shows them, and a real browser that looks."""

from __future__ import annotations

import contextlib
import math
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Request, expect, sync_playwright
from runs import Look, Serve, a_run

from stretto.cli.shown import of_run
from stretto.page.server import Server
from stretto.page.shelf import Shelf


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium; gone with the module: it brings a thread, and other tests fork."""
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    expect.set_options(timeout=30_000)  # a machine that is busy is late, and not wrong
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def look(browser: Browser) -> Iterator[Look]:
    """Open an address and wait until all of it is drawn.

    A page that complains, breaks its policy or asks anybody but its own server fails the test.
    """
    complaints: list[str] = []
    contexts = []

    def open_page(url: str, *, width: int = 1280, height: int = 900, **options: str) -> Page:
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        page = context.new_page()
        home = url.split("/", 3)[:3]

        def asked(request: Request) -> None:
            if request.url.split("/", 3)[:3] != home and not request.url.startswith("data:"):
                complaints.append(f"asked for {request.url}")

        page.on("request", asked)
        page.on("console", lambda m: m.type in ("error", "warning") and complaints.append(m.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(url)
        page.wait_for_selector("html[data-ready]")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serve the runs in some places until the test ends."""
    with serving() as start:
        yield start


@pytest.fixture(scope="module")
def serve_all() -> Iterator[Serve]:
    """Serve runs that no test changes to all tests of a module."""
    with serving() as start:
        yield start


@contextlib.contextmanager
def serving() -> Iterator[Serve]:
    servers = []

    def start(*places: Path) -> Server:
        shelf = Shelf(
            places, make=lambda path, own, others: of_run(path, metrics=own, others=others)
        )
        server = Server(shelf)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A directory of two runs."""
    place = tmp_path / "runs"
    a_run(place / "first", steps=60, loss=lambda s: 6 - math.log(s))
    a_run(place / "second", steps=40, loss=lambda s: 7 - math.log(s))
    return place
