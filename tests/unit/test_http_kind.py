"""HTTP jobs, against a real server."""

from __future__ import annotations

import http.server
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from django_q.exceptions import TimeoutException
from django_q.timeout import TimeoutHandler

from scheduling.jobs import JobFailed, JobStopped
from tests.unit.support import make_context, run, stop_when

pytestmark = pytest.mark.usefixtures("job_modules")


class Server(http.server.ThreadingHTTPServer):
    """Answers by path, and remembers what it was asked."""

    daemon_threads = True
    released: threading.Event
    asked: list[dict[str, Any]]


class Answer(http.server.BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked.append(
            {"method": self.command, "path": self.path, "headers": dict(self.headers), "body": body.decode()}
        )
        if self.path.startswith("/hang"):
            self.server.released.wait(30)
        if self.path.startswith("/drip"):
            self.send_response(200)
            self.send_header("Content-Length", "1000000")
            self.end_headers()
            self.wfile.write(b"first drop\n")
            self.wfile.flush()
            self.server.released.wait(30)
            return
        status = int(self.path[1:]) if self.path[1:].isdigit() else 200
        payload = (
            b"x" * 200_000 if self.path == "/large" else b"answer " + self.headers.get("X-Key", "").encode()
        )
        self.send_response(status)
        if status in {301, 302}:
            self.send_header("Location", "/200")
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    do_GET = do_POST = do_PUT = answer  # noqa: N815 - the names that http.server looks for

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server(("127.0.0.1", 0), Answer)
    server.released, server.asked = threading.Event(), []
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        thread.join()
        server.server_close()


def url(server: Server, path: str = "/") -> str:
    return f"http://127.0.0.1:{server.server_port}{path}"


def test_an_http_job_logs_the_answer_and_gives_its_status(server: Server) -> None:
    context = make_context()

    assert run("http", context, url=url(server)) == {"status": 200, "bytes": 7}
    assert context.log.whole == f"GET {url(server)}\nHTTP/1.1 200 OK\nanswer \n"


def test_an_http_job_is_judged_by_its_status(server: Server) -> None:
    with pytest.raises(JobFailed, match="the answer was status 503, and 2xx was expected") as failure:
        run("http", url=url(server, "/503"))
    assert failure.value.result == {"status": 503, "bytes": 7}
    with pytest.raises(JobFailed, match="status 200, and 201, 204 was expected"):
        run("http", url=url(server), expect=[204, 201])
    assert run("http", url=url(server, "/404"), expect=404) == {"status": 404, "bytes": 7}


def test_redirects_are_not_followed(server: Server) -> None:
    with pytest.raises(JobFailed, match="status 302"):
        run("http", url=url(server, "/302"))
    assert len(server.asked) == 1


def test_parameters_and_secrets_are_filled_in_and_the_log_shows_no_secret(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAILRACE_SECRET_KEY_A", 'k"1 ${batch_id}')
    context = make_context(parameters={"table": "a&b=c/d"})
    run(
        "http",
        context,
        url=url(server, "/put?day=${data_date-1d:%Y%m%d}&table=${table}&key=${secret:key_a}"),
        method="PUT",
        headers={"X-Key": "${secret:KEY_A}", "X-Day": "${data_date}"},
        body={"rows": [{"day": "${data_date}", "n": 1, "cost": "$${x}"}], "key": "${secret:KEY_A}"},
    )
    (asked,) = server.asked

    assert asked["method"] == "PUT"
    assert asked["path"] == "/put?day=20260228&table=a%26b%3Dc%2Fd&key=k%221%20%24%7Bbatch_id%7D"
    assert (asked["headers"]["X-Key"], asked["headers"]["X-Day"]) == ('k"1 ${batch_id}', "2026-03-01")
    assert json.loads(asked["body"]) == {
        "rows": [{"day": "2026-03-01", "n": 1, "cost": "${x}"}],
        "key": 'k"1 ${batch_id}',
    }
    assert "k%221" not in context.log.whole
    assert 'k"1' not in context.log.whole
    assert "answer ***" in context.log.whole


def test_a_text_body_is_sent_as_it_is(server: Server) -> None:
    run("http", url=url(server), method="POST", body="day=${data_date}")
    assert server.asked[0]["body"] == "day=2026-03-01"


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"url": "http://x/${nope}"}, "the request cannot be made: url: '${nope}' names 'nope'"),
        ({"url": "http://x/", "headers": {"A": "${split}"}}, "the header A would hold a line break"),
        ({"url": "http://x/${secret:NOPE}"}, "the secret 'NOPE' is not set on this node"),
    ],
)
def test_a_request_that_cannot_be_made_says_why(spec: dict[str, Any], said: str) -> None:
    with pytest.raises(JobFailed) as failure:
        run("http", make_context(parameters={"split": "a\r\nB: c"}), **spec)
    assert said in failure.value.message


def test_a_large_answer_is_shown_up_to_a_cap_and_counted_whole(server: Server) -> None:
    context = make_context()

    assert run("http", context, url=url(server, "/large"))["bytes"] == 200_000
    assert context.log.whole.endswith("x\n(134,464 more bytes not shown)\n")


def test_nobody_listening_fails_the_job_in_words(server: Server) -> None:
    with pytest.raises(JobFailed, match=r"no answer from 127\.0\.0\.1: "):
        run("http", url="http://127.0.0.1:1/")


@pytest.mark.parametrize(("path", "sign"), [("/hang", "GET"), ("/drip", "first drop")])
def test_a_stop_aborts_a_request_at_once(server: Server, path: str, sign: str) -> None:
    context = make_context()
    stop_when(context, sign)
    began = time.monotonic()
    with pytest.raises(JobStopped):
        run("http", context, url=url(server, path))
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("path", ["/hang", "/drip"])
def test_a_time_out_aborts_a_request(server: Server, path: str) -> None:
    with pytest.raises(TimeoutException), TimeoutHandler(1):
        run("http", url=url(server, path))
