import http.server
import json
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django_q.exceptions import TimeoutException
from django_q.timeout import TimeoutHandler

from scheduling import jobs, kinds
from scheduling.jobs import JobContext, JobFailed, JobStopped, job
from scheduling.kinds import Kind, SpecErrors, UnknownKind, kind
from scheduling.kinds.shell import job_environment
from tests.unit.support import make_context, until

JOBS = "tests.unit.jobs_for_tests"


@pytest.fixture(autouse=True)
def job_modules(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.TAILRACE = {**settings.TAILRACE, "JOB_MODULES": [JOBS], "KINDS": []}
    monkeypatch.setenv("TAILRACE_JOB_MODULES", JOBS)


def run(name: str, context: JobContext | None = None, **spec: Any) -> Any:
    chosen = kind(name)
    return chosen.run(chosen.clean(spec), context or make_context())


def call(name: str, context: JobContext | None = None) -> Any:
    return run("python", context, call=f"{JOBS}.{name}")


def stop_when(context: JobContext, text: str) -> None:
    """Ask for a stop once the log says `text`."""
    threading.Thread(target=lambda: (until(lambda: text in context.log.text), context.stop.set())).start()


class CountsKind(Kind):
    name = "counts"
    fields = {"to": True}


class TwinKind(Kind):
    name = "shell"
    fields = {}


class NamelessKind(Kind):
    fields = {}


# The registry


def test_the_four_kinds_are_there_and_an_installation_adds_its_own(settings: Any) -> None:
    assert list(kinds.kinds()) == ["python", "shell", "sql", "http"]

    settings.TAILRACE = {**settings.TAILRACE, "KINDS": ["tests.unit.test_kinds.CountsKind"]}
    assert type(kind("counts")).__name__ == "CountsKind"


def test_an_unknown_kind_is_refused_with_those_there_are() -> None:
    with pytest.raises(
        UnknownKind, match=r"no job kind 'shel'; there are python, shell, sql, http\. Did you mean 'shell'"
    ):
        kind("shel")


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("no.such.Kind", "'no.such.Kind', which does not import"),
        ("tests.unit.test_kinds.TwinKind", "is called 'shell', as is ShellKind"),
        ("tests.unit.test_kinds.NamelessKind", "needs a `name`"),
        ("tests.unit.test_kinds.run", "is no subclass of scheduling.kinds.Kind"),
    ],
)
def test_a_mistake_in_the_setting_is_named(settings: Any, path: str, said: str) -> None:
    settings.TAILRACE = {**settings.TAILRACE, "KINDS": [path]}
    with pytest.raises(ImproperlyConfigured) as refusal:
        kinds.kinds()
    assert said in str(refusal.value)


# Specs


@pytest.mark.parametrize(
    ("name", "spec", "field", "said"),
    [
        ("shell", {"comand": "ls"}, "comand", "Did you mean “command”?"),
        ("shell", {"comand": "ls"}, "command", "This field is required."),
        ("shell", {"command": "ls", "zz": 1}, "zz", "no such field; it has command, workdir, env, secrets."),
        ("shell", {"command": "  "}, "command", "It is empty."),
        ("shell", {"command": 3}, "command", "It must be a text, or a list"),
        ("shell", {"command": []}, "command", "A list must hold texts"),
        ("shell", {"command": ["ls", 1]}, "command", "A list must hold texts"),
        ("shell", {"command": "a\0b"}, "command", "NUL"),
        ("shell", {"command": "ls", "workdir": "data"}, "workdir", "absolute path"),
        ("shell", {"command": "ls", "env": ["A"]}, "env", "It must be a map"),
        ("shell", {"command": "ls", "env": {"A": [1]}}, "env", "The value of A must be a text."),
        ("shell", {"command": "ls", "env": {"A-B": "x"}}, "env", "'A-B' cannot be set"),
        ("shell", {"command": "ls", "env": {"WORKDIR": "x"}}, "env", "'WORKDIR' cannot be set"),
        ("shell", {"command": "ls", "secrets": "KEY"}, "secrets", "It must be a list of names."),
        ("shell", {"command": "ls", "secrets": ["K=1"]}, "secrets", "'K=1' is no name of a secret"),
        ("python", {}, "call", "This field is required."),
        ("python", {"call": "os.system"}, "call", "No job is registered as “os.system”"),
        ("python", {"call": f"{JOBS}.nothin"}, "call", f"Did you mean “{JOBS}.nothing”?"),
        ("http", {"url": "ftp://x/y"}, "url", "It must begin with http://"),
        ("http", {"url": "http:///y"}, "url", "name a host"),
        ("http", {"url": "http://u:p@x/"}, "url", "holds a password for everyone to read"),
        ("http", {"url": "http://x/${nope"}, "url", "is never closed"),
        ("http", {"url": "http://x/${secret:a b}"}, "url", "'a b' is no name of a secret"),
        ("http", {"url": "http://x", "method": "FETCH"}, "method", "It must be one of GET, HEAD"),
        ("http", {"url": "http://x", "headers": {"a b": "c"}}, "headers", "'a b' is no header"),
        ("http", {"url": "http://x", "headers": {"a": "b\nc"}}, "headers", "'a' is no header"),
        ("http", {"url": "http://x", "expect": 99}, "expect", "from 100 to 599"),
        ("http", {"url": "http://x", "expect": []}, "expect", "from 100 to 599"),
        ("http", {"url": "http://x", "expect": True}, "expect", "It must be a status"),
        ("http", {"url": "http://x", "body": {"a": float("nan")}}, "body", "cannot be written as JSON"),
        ("http", {"url": "http://x", "body": ["${a"]}, "body", "is never closed"),
        ("http", {"url": "http://x", "connect_timeout": 0}, "connect_timeout", "more than 0"),
    ],
)
def test_a_mistake_in_a_spec_is_named_by_its_field(
    name: str, spec: dict[str, Any], field: str, said: str
) -> None:
    with pytest.raises(SpecErrors) as refusal:
        kind(name).clean(spec)
    assert said in refusal.value.errors[field]


def test_every_mistake_is_told_at_once() -> None:
    with pytest.raises(SpecErrors) as refusal:
        kind("http").clean({"url": "x", "method": "y", "expect": 1, "header": {}})
    assert set(refusal.value.errors) == {"url", "method", "expect", "header"}


@pytest.mark.parametrize("name", ["python", "shell", "sql", "http"])
def test_a_spec_that_is_no_map_is_refused(name: str) -> None:
    with pytest.raises(SpecErrors, match="A job is a map of fields"):
        kind(name).clean(["ls"])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "spec", "cleaned"),
    [
        ("shell", {"command": "ls"}, {"command": "ls"}),
        ("shell", {"command": ("ls", "-l"), "env": {"N": 3}}, {"command": ["ls", "-l"], "env": {"N": "3"}}),
        ("shell", {"command": "ls", "secrets": ["A", "A"]}, {"command": "ls", "secrets": ["A"]}),
        ("python", {"call": f"{JOBS}.nothing"}, {"call": f"{JOBS}.nothing"}),
        (
            "http",
            {"url": "http://x", "method": "post", "expect": 201},
            {"url": "http://x", "method": "POST", "expect": [201]},
        ),
        ("http", {"url": "http://x", "connect_timeout": 3}, {"url": "http://x", "connect_timeout": 3.0}),
    ],
)
def test_a_cleaned_spec_has_one_way_to_write_each_thing_and_stays_as_it_is(
    name: str, spec: Any, cleaned: Any
) -> None:
    assert kind(name).clean(spec) == cleaned
    assert kind(name).clean(cleaned) == cleaned
    json.dumps(cleaned)


# Python


def test_a_python_job_gets_its_context_and_its_output_is_the_log() -> None:
    context = make_context(parameters={"limit": 3}, shard_index=1, shard_count=4)

    assert call("describes_itself", context) == {"shard": [1, 4], "day": "2026-03-01"}
    lines = context.log.whole.splitlines()
    assert lines[:3] == ["printed", "complained", "raw \ufffd"]
    time_, level, message = lines[3].split(" ", 2)
    assert (level, message) == ("WARNING", "logged {'limit': 3}")
    assert time_.endswith("Z")


def test_standard_output_is_the_workers_again_afterwards() -> None:
    before = sys.stdout, sys.stderr
    call("describes_itself")
    assert (sys.stdout, sys.stderr) == before


def test_a_failing_python_job_leaves_its_traceback_in_the_log_and_its_headline_in_the_failure() -> None:
    context = make_context()
    context.log.redact("2026-03")
    with pytest.raises(JobFailed, match=r"^ValueError: no flights for \*\*\*-01$"):
        call("raises", context)
    assert "in raises" in context.log.whole
    assert "scheduling/kinds" not in context.log.whole


def test_a_python_job_that_gives_up_says_why_without_a_traceback() -> None:
    context = make_context()
    with pytest.raises(JobFailed, match="the source is empty") as failure:
        call("gives_up", context)
    assert (failure.value.exit_code, failure.value.result) == (7, {"rows": 0})
    assert context.log.whole == ""


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("object", "not JSON: Object of type object"),
        ("nan", "not JSON: Out of range float"),
        ("large", "is 70,002 bytes as JSON, and at most 65,536 are kept"),
        ("nul", "holds a NUL character"),
        ("half a character", "not JSON"),
    ],
)
def test_a_result_that_cannot_be_kept_fails_the_job_and_says_so(what: str, said: str) -> None:
    with pytest.raises(JobFailed) as failure:
        call("returns", make_context(parameters={"what": what}))
    assert said in failure.value.message


@pytest.mark.parametrize(("code", "exit_code"), [(3, 3), ("no source", 1)])
def test_a_job_that_calls_sys_exit_fails_with_its_code(code: object, exit_code: int) -> None:
    with pytest.raises(JobFailed, match=r"the job called sys\.exit") as failure:
        call("leaves", make_context(parameters={"code": code}))
    assert failure.value.exit_code == exit_code


def test_a_job_that_calls_sys_exit_with_nothing_succeeds() -> None:
    assert call("leaves", make_context(parameters={"code": None})) is None


def test_a_stop_wakes_a_job_that_sleeps() -> None:
    context = make_context()
    threading.Timer(0.1, context.stop.set).start()
    with pytest.raises(JobStopped):
        call("waits", context)
    assert context.stop_requested
    with pytest.raises(JobStopped):
        context.check_stop()


def test_a_time_out_passes_through_a_python_job() -> None:
    with pytest.raises(TimeoutException), TimeoutHandler(1):
        call("waits")


def test_a_process_that_a_python_job_left_behind_is_ended() -> None:
    assert not Path(f"/proc/{call('leaves_a_child')}").exists()


def test_a_job_that_this_node_does_not_know_fails_in_words() -> None:
    with pytest.raises(JobFailed, match="no job is registered as 'gone' on this node"):
        kind("python").run({"call": "gone"}, make_context())


def test_an_isolated_job_runs_in_a_process_of_its_own_with_all_its_output() -> None:
    context = make_context()
    result = call("isolated", context)

    assert result == {"cycle": "2026-03-02 01:00:00+00:00", "zone": "UTC", "task": "extract"}
    lines = context.log.whole.splitlines()
    assert lines[:2] == ["printed in a process of its own", "from a program"]
    assert lines[2].endswith("INFO logged")


def test_an_isolated_job_fails_like_any_other() -> None:
    context = make_context()
    with pytest.raises(JobFailed, match=r"^KeyError: 'carrier'$"):
        call("isolated_raises", context)
    assert "in isolated_raises" in context.log.whole


def test_an_isolated_job_that_dies_says_how() -> None:
    with pytest.raises(JobFailed, match=r"ended without a result: exit code 9") as failure:
        call("isolated_dies")
    assert failure.value.exit_code == 9


def test_an_isolated_job_that_computes_is_stopped_and_may_tidy_up() -> None:
    context = make_context(stop_grace=10.0)
    stop_when(context, "blocking")
    with pytest.raises(JobStopped):
        call("isolated_blocks", context)
    assert context.log.whole.endswith("tidied up\n")


def test_a_job_may_have_a_name_of_its_own() -> None:
    assert run("python", call="tests.renamed") == "renamed"


def test_the_zone_of_a_cycle_survives_the_way_to_another_process() -> None:
    import datetime as dt
    from zoneinfo import ZoneInfo

    there = dt.datetime(2026, 3, 7, 12, tzinfo=ZoneInfo("America/New_York"))
    context = make_context(cycle_time=there, parameters={"a": [1]})
    copy = JobContext.from_message(
        json.loads(json.dumps(context.to_message())), log=context.log, stop=context.stop
    )

    assert (copy.cycle_time, str(copy.cycle_time.tzinfo)) == (there, "America/New_York")
    assert copy.to_message() == context.to_message()


# Registration


def test_only_a_plain_module_level_function_can_be_a_job() -> None:
    async def coroutine(context: JobContext) -> None: ...

    with pytest.raises(TypeError, match="needs a module-level function"):
        job(lambda context: None)
    with pytest.raises(TypeError, match="needs a module-level function"):
        job(coroutine)
    with pytest.raises(TypeError, match="needs a module-level function"):
        job(42)  # type: ignore[call-overload]


def test_two_functions_cannot_share_a_name() -> None:
    with pytest.raises(
        ValueError, match=r"the name 'tests\.renamed' belongs to tests\.unit\.jobs_for_tests\.named"
    ):
        job(name="tests.renamed")(make_context)


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("no.such.module", "names 'no.such.module', and there is no module 'no'"),
        ("tests.unit.no_jobs", "there is no module 'tests.unit.no_jobs'"),
    ],
)
def test_a_missing_job_module_is_named_with_the_setting(settings: Any, module: str, said: str) -> None:
    settings.TAILRACE = {**settings.TAILRACE, "JOB_MODULES": [module]}
    with pytest.raises(ImproperlyConfigured) as refusal:
        jobs.load_job_modules()
    assert said in str(refusal.value)
    assert "JOB_MODULES" in str(refusal.value)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import no_such_library", "needs 'no_such_library', which is not installed"),
        ("1/0", "does not import: ZeroDivisionError"),
    ],
)
def test_a_broken_job_module_is_named_with_its_error(
    settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, said: str
) -> None:
    (tmp_path / "broken_jobs.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    settings.TAILRACE = {**settings.TAILRACE, "JOB_MODULES": ["broken_jobs"]}
    with pytest.raises(ImproperlyConfigured) as refusal:
        jobs.load_job_modules()
    assert said in str(refusal.value)


def test_a_context_is_made_in_microseconds() -> None:
    fields = {name: getattr(make_context(), name) for name in JobContext.__slots__ if name != "_logger"}
    began = time.perf_counter()
    for _ in range(10_000):
        JobContext(**fields)
    assert time.perf_counter() - began < 0.5


# Shell


def test_a_shell_job_gets_its_parameters_as_environment_and_nothing_else_of_the_node(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://u:secret@h/db")
    monkeypatch.setenv("TAILRACE_SECRET_KEY", "very secret")
    monkeypatch.setenv("KRB5CCNAME", "/tmp/ticket")  # noqa: S108
    monkeypatch.setenv("TAILRACE_JOB_ENV", "KRB5CCNAME, NOT_SET")
    context = make_context(
        parameters={"table": "a; rm -rf /", "days": [1, "é"], "full": True, "none": None, "n": 3},
        shard_index=1,
        shard_count=2,
        shard_parameter="AA",
        attempt=2,
    )
    run("shell", context, command="env -0 | tr '\\0' '\\n'", env={"EXTRA": "more"})
    found = dict(line.split("=", 1) for line in context.log.whole.splitlines())

    for name in (
        "PATH",
        "HOME",
        "LANG",
        "LC_ALL",
        "TZ",
        "USER",
        "LOGNAME",
        "TMPDIR",
        "PWD",
        "SHLVL",
        "_",
        "OLDPWD",
    ):
        found.pop(name, None)
    assert Path(found.pop("WORKDIR")).name.startswith("tailrace-")
    assert found == {
        "PARAM_TABLE": "a; rm -rf /",
        "PARAM_DAYS": '[1, "é"]',
        "PARAM_FULL": "true",
        "PARAM_NONE": "",
        "PARAM_N": "3",
        "CYCLE_TIME": "2026-03-02T01:00:00+00:00",
        "DATA_DATE": "2026-03-01",
        "SHARD_INDEX": "1",
        "TAILRACE_NODE": "",
        "SHARD_COUNT": "2",
        "SHARD_PARAM": "AA",
        "TAILRACE_TASK": "extract",
        "TAILRACE_BATCH_ID": "47",
        "TAILRACE_INSTANCE_ID": "471",
        "TAILRACE_EXECUTION_ID": "4711",
        "TAILRACE_ATTEMPT": "2",
        "EXTRA": "more",
        "KRB5CCNAME": "/tmp/ticket",  # noqa: S108
    }


def test_the_content_of_a_parameter_is_never_executed() -> None:
    context = make_context(parameters={"name": "$(echo pwned); echo `id`"})
    run("shell", context, command='printf %s "$PARAM_NAME"')
    assert context.log.whole == "$(echo pwned); echo `id`"


def test_a_command_as_a_list_goes_through_no_shell() -> None:
    context = make_context()
    run("shell", context, command=["printf", "%s|", "$HOME", "a b"])
    assert context.log.whole == "$HOME|a b|"


def test_a_shell_job_runs_in_its_directory(tmp_path: Path) -> None:
    context = make_context()
    run("shell", context, command="pwd", workdir=str(tmp_path))
    assert context.log.whole == f"{tmp_path}\n"


def test_a_shell_job_fails_by_its_exit_code() -> None:
    with pytest.raises(JobFailed, match=r"^exit code 3$") as failure:
        run("shell", command="exit 3")
    assert failure.value.exit_code == 3
    with pytest.raises(JobFailed, match=r"^killed by SIGKILL$") as failure:
        run("shell", command="kill -9 $$")
    assert failure.value.exit_code == 137


def test_a_secret_reaches_the_job_and_not_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAILRACE_SECRET_API_KEY", "hunter2")
    context = make_context()
    run("shell", context, command='test "$api_key" = hunter2 && echo "key: $api_key"', secrets=["api_key"])
    assert context.log.whole == "key: ***\n"


def test_a_missing_secret_fails_the_job_and_is_named() -> None:
    with pytest.raises(
        JobFailed, match="the secret 'NOPE' is not set on this node: start it with TAILRACE_SECRET_NOPE"
    ):
        run("shell", command="true", secrets=["NOPE"])


def test_a_parameter_that_no_environment_holds_fails_the_job() -> None:
    with pytest.raises(JobFailed, match="the parameter 'p' holds a NUL character"):
        job_environment(make_context(parameters={"p": "a\0b"}))


def test_a_shell_job_is_stopped_and_timed_out() -> None:
    context = make_context()
    stop_when(context, "started")
    with pytest.raises(JobStopped):
        run("shell", context, command="echo started; sleep 300")
    with pytest.raises(TimeoutException), TimeoutHandler(1):
        run("shell", command="sleep 300")


# HTTP


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
