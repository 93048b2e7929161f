"""Pages of runs over HTTP, live: for this machine only, and to be read only.

Whoever may open a socket here can read what is served; nobody can change anything. Requests of
other machines do not arrive; those that a browser makes for other sites are refused by their
``Host`` (names that were bound anew to this address) and their ``Origin``.
"""

from __future__ import annotations

import itertools
import json
import re
import threading
import traceback
import urllib.parse
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from stretto.errors import MachineError, Problem, StrettoError
from stretto.page.html import as_json, missing, shell
from stretto.page.news import news
from stretto.page.sections import EARLY, LATE, RUNS, SECTIONS, STYLES, static
from stretto.page.shelf import Shelf

ADDRESS = "127.0.0.1"
NAMES = ("127.0.0.1", "localhost", "[::1]")
"""What a browser on this machine, or at the other end of a tunnel, calls it."""

HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; object-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
STREAMS = 32
"""The most pages that are told of news at once; others ask again."""

_STATIC = {*STYLES, *EARLY, *LATE, *RUNS}
_TITLES = {HTTPStatus.NOT_FOUND: "There is nothing here", HTTPStatus.FORBIDDEN: "Refused"}
_PORT = re.compile(r":\d*$")
_TYPES = {"css": "text/css", "js": "text/javascript"}


class Server(ThreadingHTTPServer):
    """Serves the runs of a shelf on loopback; `serve_forever` begins."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, shelf: Shelf, *, port: int = 0) -> None:
        """Listen.

        Args:
            shelf: What to serve.
            port: Where; 0 for any that is free.

        Raises:
            MachineError: The port is taken, or may not be used.
        """
        self.shelf, self.sections = shelf, {section.name: section for section in SECTIONS}
        self.streams = threading.BoundedSemaphore(STREAMS)
        self.stopping = threading.Event()
        try:
            super().__init__((ADDRESS, port), _Handler)
        except OSError as error:
            rule = f"cannot be listened on: {error.strerror}"
            remedy = "name another, or 0 for any that is free"
            raise MachineError(Problem(f"port {port}", rule, remedy)) from None

    @property
    def url(self) -> str:
        """Where the list of runs is."""
        return f"http://{ADDRESS}:{self.server_port}/"

    def run_url(self, name: str) -> str:
        """Give where the page of a run is."""
        return f"{self.url}run?{urllib.parse.urlencode({'run': name})}"

    def shutdown(self) -> None:
        """Stop serving, streams too."""
        self.stopping.set()
        super().shutdown()

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: whoever asked has gone."""


class _Refused(Exception):
    def __init__(self, status: HTTPStatus, text: str) -> None:
        super().__init__(text)
        self.status = status


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "stretto", ""
    timeout = 60

    def __getattr__(self, name: str) -> Any:
        """Refuse every method but those below: none is forgotten."""
        if name.startswith("do_"):
            return self._refuse_method
        raise AttributeError(name)

    def do_GET(self) -> None:
        """Answer."""
        try:
            self._check()
            self._route()
        except _Refused as refused:
            self._error(refused.status, str(refused))
        except StrettoError as error:
            self._error(HTTPStatus.BAD_REQUEST, "; ".join(map(str, error.problems)))
        except LookupError:
            self._error(HTTPStatus.NOT_FOUND, "There is no such page here.")
        except (ConnectionError, TimeoutError):
            self.close_connection = True
        except Exception:
            traceback.print_exc()
            self._error(HTTPStatus.INTERNAL_SERVER_ERROR, "a bug: stretto ui has printed it")

    do_HEAD = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing of requests."""

    def _refuse_method(self) -> None:
        self._error(HTTPStatus.METHOD_NOT_ALLOWED, "this is only for reading", Allow="GET, HEAD")

    def _check(self) -> None:
        """Refuse what is not asked by a page of this server or by a person."""
        hosts = self.headers.get_all("Host") or []
        names = [_PORT.sub("", host).lower() for host in hosts]
        if len(names) != 1 or names[0] not in NAMES:
            raise _Refused(HTTPStatus.MISDIRECTED_REQUEST, f"ask for one of {', '.join(NAMES)}")
        origin = self.headers.get("Origin")
        if origin is not None and origin != f"http://{hosts[0]}":
            raise _Refused(HTTPStatus.FORBIDDEN, "pages of other sites may not ask")
        if self.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
            raise _Refused(HTTPStatus.FORBIDDEN, "pages of other sites may not ask")

    def _route(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        pairs = urllib.parse.parse_qsl(url.query, max_num_fields=64)
        query, shelf = dict(pairs), self.server.shelf
        if url.netloc or url.scheme:  # as proxies are asked
            raise LookupError(self.path)
        match url.path.strip("/").split("/"):
            case [""]:
                runs = {"runs": shelf.listed()}
                self._send(shell("Runs", {"runs": runs}, scripts=RUNS), "text/html")
            case ["run"]:
                name = query["run"]
                if name not in shelf.runs():
                    raise _Refused(HTTPStatus.NOT_FOUND, f"There is no run called “{name}” here.")
                self._send(shell(name, {"page": {"run": name}}), "text/html")
            case ["static", *rest] if "/".join(rest) in _STATIC:
                name = "/".join(rest)
                self._send(static(name), _TYPES[name.rpartition(".")[2]])
            case ["api", "runs"]:
                self._json({"runs": shelf.listed()})
            case ["api", "events"]:
                self._stream(query["run"])
            case ["api", "page"]:
                self._json(shelf.data(query["run"], self.server.sections[query["section"]]))
            case ["api", name] if (answer := self.server.sections[name].answer) is not None:
                self._json(answer(shelf.subject(query["run"]), query))
            case _:
                raise LookupError(url.path)

    # ── answers ──────────────────────────────────────────────────────────────────────────────

    def _json(self, value: Mapping[str, Any]) -> None:
        self._send(as_json(value), "application/json")

    def _error(self, status: HTTPStatus, text: str, **headers: str) -> None:
        self.close_connection = True  # a body may follow that nobody reads
        body, kind = json.dumps({"error": text}), "application/json"
        if self._for_people():
            known = status is HTTPStatus.NOT_FOUND  # whoever is refused is not told of runs
            runs = [*self.server.shelf.runs()] if known else []
            body = missing(_TITLES.get(status, status.phrase), text, runs=runs)
            kind = "text/html"
        self._send(body, kind, status=status, **headers)

    def _for_people(self) -> bool:
        """Tell whether a person opens a page, rather than a program that asks for data."""
        data = self.path.startswith(("/api/", "/static/"))
        return not data and "text/html" in self.headers.get("Accept", "")

    def _send(
        self, text: str, kind: str, *, status: HTTPStatus = HTTPStatus.OK, **headers: str
    ) -> None:
        body = text.encode()
        self.send_response(status)
        self._head(f"{kind}; charset=utf-8", {"Content-Length": str(len(body)), **headers})
        if self.command != "HEAD":
            self.wfile.write(body)

    def _head(self, kind: str, more: Mapping[str, str]) -> None:
        if self.close_connection:
            more = {**more, "Connection": "close"}
        for name, value in {**HEADERS, "Content-Type": kind, **more}.items():
            self.send_header(name, value)
        self.end_headers()

    def _stream(self, name: str) -> None:
        """Tell of a run's news until the page is closed, the run deleted, or the server stopped."""
        told = news(self.server.shelf, name, stopping=self.server.stopping)
        first = next(told)  # there is such a run
        if not self.server.streams.acquire(blocking=False):
            text = f"{STREAMS} pages are open already"
            raise _Refused(HTTPStatus.SERVICE_UNAVAILABLE, text)
        try:
            self.close_connection = True
            self.send_response(HTTPStatus.OK)
            self._head("text/event-stream", {})
            if self.command != "HEAD":
                for kind, value in itertools.chain([first], told):
                    self.wfile.write(f"event: {kind}\ndata: {as_json(value)}\n\n".encode())
                    self.wfile.flush()
        finally:
            self.server.streams.release()
