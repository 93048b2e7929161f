"""What is served, to whom, and what is refused."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from runs import Serve, a_run, append, record

from stretto.errors import MachineError
from stretto.page.server import HEADERS, STREAMS, Server
from stretto.page.shelf import Shelf


def ask(
    server: Server, path: str, *, method: str = "GET", **headers: str
) -> tuple[http.client.HTTPResponse, bytes]:
    """Ask as a browser does; headers are written with underscores, and None leaves one out."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    sent = {"Host": f"127.0.0.1:{server.server_port}"}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
    for name, value in sent.items():
        connection.putheader(name, value)
    connection.endheaders()
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response, body


def told(server: Server, path: str) -> Mapping[str, Any]:
    response, body = ask(server, path)
    assert response.status == 200, body
    found: Mapping[str, Any] = json.loads(body)
    return found


@pytest.fixture
def empty(tmp_path: Path, serve: Serve) -> Server:
    return serve(tmp_path)


# ── who may ask ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "localhost.:1", "0"]
)
def test_a_name_that_was_bound_anew_to_this_address_is_misdirected(
    empty: Server, host: str
) -> None:
    response, body = ask(empty, "/", Host=host)
    assert response.status == 421
    assert b"Runs" not in body


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:1", "LOCALHOST:8000", "[::1]:8000"])
def test_this_machine_may_be_called_by_its_names_at_any_port_of_a_tunnel(
    empty: Server, host: str
) -> None:
    assert ask(empty, "/", Host=host)[0].status == 200


def test_two_hosts_are_misdirected(empty: Server) -> None:
    with socket.create_connection(("127.0.0.1", empty.server_port)) as s:
        s.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n")
        assert s.recv(64).startswith(b"HTTP/1.1 421")


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "https://127.0.0.1", "http://localhost:1"]
)
def test_pages_of_other_origins_are_refused(empty: Server, origin: str) -> None:
    assert ask(empty, "/api/runs", Origin=origin)[0].status == 403


def test_a_page_of_its_own_origin_is_answered(empty: Server) -> None:
    origin = f"http://127.0.0.1:{empty.server_port}"
    assert ask(empty, "/api/runs", Origin=origin)[0].status == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_what_a_browser_asks_for_another_site_is_refused(empty: Server, site: str) -> None:
    assert ask(empty, "/", Sec_Fetch_Site=site)[0].status == 403


@pytest.mark.parametrize(
    "method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "FROBNICATE"]
)
def test_every_method_that_does_not_read_is_refused(empty: Server, method: str) -> None:
    response, _ = ask(empty, "/", method=method)
    assert response.status == 405
    assert response.headers["Allow"] == "GET, HEAD"


def test_a_refused_body_is_not_read_as_the_next_request(empty: Server) -> None:
    inner = b"GET /api/runs HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with socket.create_connection(("127.0.0.1", empty.server_port)) as s:
        s.sendall(
            b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(inner) + inner
        )
        found = b""
        while piece := s.recv(4096):
            found += piece
    assert found.count(b"HTTP/1.1 ") == 1


def test_only_loopback_is_listened_on(empty: Server) -> None:
    assert empty.server_address[0] == "127.0.0.1"
    listening = [
        line.split()[1]
        for name in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]
        if line.split()[3] == "0A" and line.split()[1].endswith(f":{empty.server_port:04X}")
    ]
    assert listening == [f"0100007F:{empty.server_port:04X}"]  # 127.0.0.1, as the kernel writes it


# ── what is answered ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", ["/", "/api/runs", "/static/core.js", "/nothing"])
def test_every_answer_carries_the_policy(empty: Server, path: str) -> None:
    response, _ = ask(empty, path)
    assert HEADERS.items() <= dict(response.headers).items()
    assert "default-src 'self'" in HEADERS["Content-Security-Policy"]
    assert "unsafe" not in HEADERS["Content-Security-Policy"]
    assert "Python" not in response.headers["Server"]


def test_head_is_get_without_a_body(empty: Server) -> None:
    response, body = ask(empty, "/", method="HEAD")
    assert (response.status, body) == (200, b"")
    assert int(response.headers["Content-Length"]) == len(ask(empty, "/")[1])


@pytest.mark.parametrize(
    "path",
    [
        "/../../etc/passwd",
        "/static/../server.py",
        "/static/..%2fserver.py",
        "/static/%2e%2e/server.py",
        "/static//etc/passwd",
        "/static/index.html",  # of the pages, not for others
        "/run?run=../../etc",
        "/run?run=/etc",
        "/api/page?section=plan&run=..",
        "/api/page?section=plan&run=%2Fetc",
        "/api/page?section=../head&run=first",
        "/api/__class__?run=first",
        "/api/plan?run=first",  # it has nothing to answer
        "/api/events?run=..",
        "http://evil.example/",
        "//evil.example/",
    ],
)
def test_nothing_is_found_by_going_up_or_elsewhere(serve: Serve, runs: Path, path: str) -> None:
    response, body = ask(serve(runs), path)
    assert response.status == 404
    assert b"root:" not in body and b"import" not in body


def test_what_lies_beside_the_runs_is_not_served(serve: Serve, runs: Path) -> None:
    (runs / "secret").mkdir()
    (runs / "secret" / "metrics.jsonl").write_text(json.dumps(record(1)), encoding="utf-8")
    server = serve(runs)
    assert {run["name"] for run in told(server, "/api/runs")["runs"]} == {"first", "second"}
    assert ask(server, "/run?run=secret")[0].status == 404


def test_a_name_that_is_markup_is_escaped_wherever_it_is_written(
    serve: Serve, tmp_path: Path
) -> None:
    name = "<img src=x onerror=alert(1)>"
    a_run(tmp_path / name, steps=1)
    server = serve(tmp_path)
    for path in ("/", f"/run?run={quote(name)}"):
        assert b"<img" not in ask(server, path)[1]


def test_a_query_that_cannot_be_says_why(serve: Serve, runs: Path) -> None:
    response, body = ask(serve(runs), "/api/curves?run=first&from=here")
    assert response.status == 400
    assert json.loads(body) == {"error": "from: is 'here', which is no number; write a step"}


def test_a_part_of_a_curve_is_what_was_asked_for(serve: Serve, runs: Path) -> None:
    found = told(serve(runs), "/api/curves?run=first&of=second&from=10&to=19")
    assert (found["name"], found["rows"], found["last"]) == ("second", 40, 40)
    assert found["x"]["step"]["shape"] == [12]  # 10 to 19, and one on each side


def test_a_section_that_has_nothing_to_show_says_so(serve: Serve, runs: Path) -> None:
    (runs / "first" / "metrics.jsonl").unlink()
    found = told(serve(runs), "/api/page?section=head&run=first")
    assert found["state"] == "starting"


# ── news ─────────────────────────────────────────────────────────────────────────────────────────


class Listener:
    """Reads the events of a run."""

    def __init__(self, server: Server, name: str) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
        self.connection.request("GET", f"/api/events?run={name}")
        self.response = self.connection.getresponse()

    def next(self) -> tuple[str, Mapping[str, Any]]:
        kind = self.response.readline().decode().removeprefix("event: ").strip()
        data = json.loads(self.response.readline().decode().removeprefix("data: "))
        assert self.response.readline() == b"\n"
        return kind, data


def test_a_run_s_news_are_told_as_they_are_written(serve: Serve, runs: Path) -> None:
    server = serve(runs)
    told(server, "/api/page?section=head&run=first")  # what was there is no news
    listener = Listener(server, "first")
    assert listener.response.headers["Content-Type"].startswith("text/event-stream")
    assert listener.next() == ("begin", {})
    append(runs / "first", record(61))
    assert listener.next() == ("metrics", {"rows": 61, "read": 1.0})
    (runs / "first" / "plan.toml").write_text("", encoding="utf-8")
    assert listener.next() == ("plan", {})
    listener.connection.close()


def test_more_pages_than_there_is_room_for_are_told_to_ask_again(serve: Serve, runs: Path) -> None:
    server = serve(runs)
    listeners = [Listener(server, "first") for _ in range(STREAMS)]
    for listener in listeners:
        listener.next()
    assert ask(server, "/api/events?run=first")[0].status == 503
    assert ask(server, "/")[0].status == 200
    for listener in listeners:
        listener.connection.close()


def test_streams_end_when_the_server_does(runs: Path) -> None:
    server = Server(Shelf([runs], make=lambda *_: pytest.fail("nothing is drawn")))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    listener = Listener(server, "first")
    listener.next()
    server.shutdown()
    server.server_close()
    thread.join(timeout=30)
    assert listener.response.read() == b""  # it ends by itself, before the listener gives up


def test_a_port_that_is_taken_is_said_to_be(empty: Server) -> None:
    with pytest.raises(MachineError) as caught:
        Server(empty.shelf, port=empty.server_port)
    (problem,) = caught.value.problems
    assert problem.field == f"port {empty.server_port}"
    assert "in use" in problem.rule


# ── what there is not ────────────────────────────────────────────────────────────────────────────

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


def test_a_person_who_asks_for_a_run_that_is_gone_is_shown_what_there_is(
    serve: Serve, runs: Path
) -> None:
    response, body = ask(serve(runs), "/run?run=<gone>", Accept=BROWSER)
    assert response.status == 404
    assert (response.getheader("Content-Type") or "").startswith("text/html")
    assert b"There is no run called \xe2\x80\x9c&lt;gone&gt;\xe2\x80\x9d here." in body
    assert b'href="/run?run=first"' in body and b'href="/"' in body and b"<gone>" not in body


@pytest.mark.parametrize(
    ("path", "accept"),
    [
        ("/run?run=gone", "application/json"),
        ("/run?run=gone", "*/*"),
        ("/api/head?run=gone", BROWSER),
        ("/static/gone.js", BROWSER),
    ],
)
def test_a_program_that_asks_for_what_there_is_not_is_answered_in_json(
    serve: Serve, runs: Path, path: str, accept: str
) -> None:
    response, body = ask(serve(runs), path, Accept=accept)
    assert response.status == 404 and set(json.loads(body)) == {"error"}


def test_who_is_refused_is_not_told_of_any_run(serve: Serve, runs: Path) -> None:
    response, body = ask(serve(runs), "/", Accept=BROWSER, Host="evil.example")
    assert response.status == 421
    assert b"<h1>" in body and b"first" not in body and b"second" not in body
