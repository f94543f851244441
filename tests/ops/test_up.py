"""`manage.py up` as the newcomer runs it: everything for real, in a directory and on a port of its own."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psutil
import psycopg
import pytest

from config.embedded import EmbeddedServer
from scheduling.management.commands import up as up_command
from tests.processes import ROOT, eventually


class Up:
    """One installation of its own; `start` may be called again after an end."""

    def __init__(self, var: Path, port: int) -> None:
        self.var = var
        self.port = port
        self.log = var.parent / "up.log"
        self.process: subprocess.Popen[bytes] | None = None

    def environment(self, **more: str) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if key != "DATABASE_URL"}
        return kept | {"TAILRACE_VAR": str(self.var), "PORT": str(self.port), "PYTHONUNBUFFERED": "1"} | more

    def start(self, **more: str) -> Up:
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "manage.py", "up"],
                cwd=ROOT,
                env=self.environment(**more),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self

    def refused(self, **more: str) -> str:
        """Run it where it must refuse; its words."""
        done = subprocess.run(
            [sys.executable, "manage.py", "up"],
            cwd=ROOT,
            env=self.environment(**more),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        return done.stderr

    def said(self) -> str:
        return self.log.read_text()

    def ready(self) -> Up:
        eventually(lambda: "Tailrace is at" in self.said(), within=60, log=self.log)
        return self

    def healthy(self) -> bool:
        with suppress(OSError), urlopen(f"http://127.0.0.1:{self.port}/healthz", timeout=5) as answer:
            return bool(answer.status == 200)
        return False

    def programs(self, *words: str) -> list[psutil.Process]:
        """The direct children of `up` whose command has all the words."""
        assert self.process is not None
        found = []
        for child in psutil.Process(self.process.pid).children():
            with suppress(psutil.Error):
                if all(word in child.cmdline() for word in words):
                    found.append(child)
        return found

    def left(self) -> list[psutil.Process]:
        """Every living process that belongs to this installation."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                ours = process.environ().get("TAILRACE_VAR") == str(self.var)
                database = any(str(self.var) in part for part in process.cmdline())
                if (
                    (ours or database)
                    and process.status() != psutil.STATUS_ZOMBIE
                    and process.pid != os.getpid()
                ):
                    found.append(process)
        return found

    def ended_within(self, seconds: float) -> None:
        assert self.process is not None
        self.process.wait(seconds)
        assert self.left() == []


@pytest.fixture(scope="module")
def made() -> Iterator[Path]:
    """An installation after its first start: its log, and a var/ to be copied."""
    with tempfile.TemporaryDirectory(prefix="tailrace-up-") as directory:
        up = Up(Path(directory) / "var", _free_port())
        try:
            up.start(DEMO_PASSWORD="open sesame 7").ready()
            assert up.process is not None
            up.process.terminate()
            up.ended_within(10)
            yield Path(directory)
        finally:
            _end(up)


@pytest.fixture
def up(made: Path) -> Iterator[Up]:
    with tempfile.TemporaryDirectory(prefix="tailrace-up-") as directory:
        subprocess.run(["cp", "-a", made / "var", directory], check=True)
        one = Up(Path(directory) / "var", _free_port())
        yield one
        _end(one)


def _end(up: Up) -> None:
    for process in up.left():
        with suppress(psutil.NoSuchProcess):
            process.kill()
    if up.process is not None:
        up.process.wait()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_the_first_start_tells_the_accounts_and_where_the_web_is(made):
    said = (made / "up.log").read_text()

    assert "owner, operator, developer, viewer" in said
    assert "open sesame 7" in said
    assert re.search(r"Tailrace is at http://127\.0\.0\.1:\d+/ \(Ctrl-C ends it\)", said)
    assert said.endswith("tailrace: stopped\n")


def test_a_later_start_tells_no_password_but_how_to_set_one_and_refuses_a_second_beside_it(up):
    up.start().ready()

    assert "manage.py changepassword owner" in up.said()
    assert "password of all" not in up.said()
    eventually(up.healthy, within=20, log=up.log)
    assert "Tailrace runs already from" in up.refused()
    assert f"http://127.0.0.1:{up.port}/" in up.refused(PORT=str(_free_port()))

    up.process.send_signal(signal.SIGINT)
    up.process.send_signal(signal.SIGINT)
    up.ended_within(10)
    assert up.process.returncode == 0


def test_a_killed_web_node_scheduler_or_database_comes_back(up):
    up.start().ready()
    # The nodes let the web start first.
    eventually(lambda: up.programs("demo-1"), log=up.log)
    killed = [*up.programs("gunicorn"), *up.programs("scheduler"), *up.programs("demo-1")]
    assert len(killed) == 3

    for process in killed:
        process.kill()
    [guard] = up.programs(str(up.var / "postgres"))
    [postmaster] = guard.children()
    postmaster.kill()

    names = ("gunicorn", "scheduler", "demo-1", "demo-2")
    eventually(lambda: all(up.programs(name) for name in names), log=up.log)
    eventually(lambda: EmbeddedServer(up.var / "postgres").is_running() and up.healthy(), within=20, log=up.log)
    assert not {process.pid for process in killed} & {one.pid for one in up.left()}
    assert "node demo-1 was killed by SIGKILL; starting it again" in up.said()
    assert "the embedded PostgreSQL is gone; starting it again" in up.said()


def test_the_first_start_makes_history_by_running_it(up):
    up.start().ready()

    def succeeded(workflow: str) -> int:
        with psycopg.connect(EmbeddedServer(up.var / "postgres").url) as connection:
            counted = connection.execute(
                "SELECT count(*) FROM workflows_cycleinstance c JOIN workflows_workflow w ON w.id = workflow_id"
                " WHERE w.name = %s AND c.state = 'success'",
                [workflow],
            )
            return counted.fetchone()[0]

    # The end of the chain over four teams needs the hours of a day, and what three teams make of them.
    eventually(lambda: succeeded("briefing_daily") > 0, within=120, log=up.log)
    assert succeeded("weather_hourly") >= 24
    assert "Traceback" not in up.said()


def test_when_it_is_killed_itself_everything_ends_and_the_next_start_works(up):
    up.start().ready()

    up.process.kill()
    up.process.wait()

    eventually(lambda: up.left() == [], within=15)
    up.start().ready()
    up.process.terminate()
    up.ended_within(10)


def test_a_signal_while_it_starts_leaves_nothing(up):
    for mark in ("starting the embedded", "bringing the database", "accounts as before"):
        up.start()
        eventually(lambda mark=mark: mark in up.said(), within=30, log=up.log)
        up.process.send_signal(signal.SIGINT)
        up.process.send_signal(signal.SIGTERM)
        up.ended_within(10)
        assert "Traceback" not in up.said()


@pytest.mark.parametrize("moment", [1, 2, 3])
def test_a_second_signal_that_comes_while_the_first_is_taken_hides_neither(monkeypatch, moment):
    monkeypatch.setattr(signal, "signal", lambda number, handler: taken.update({number: handler}))
    taken: dict[int, Any] = {}
    with up_command._stop_signals():
        stop = taken[signal.SIGINT]
    monkeypatch.undo()
    lines = 0

    def second(frame, event, _argument):
        """Take the second before one line of what takes the first."""
        nonlocal lines
        if frame.f_code is stop.__code__ and event == "line":
            lines += 1
            if lines == moment:
                stop(signal.SIGTERM, None)
        return second

    tracing = sys.gettrace()
    sys.settrace(second)
    try:
        with pytest.raises(up_command.Stopped):
            stop(signal.SIGINT, None)
    finally:
        sys.settrace(tracing)
    assert lines >= moment


def test_a_busy_port_is_refused_before_anything_is_started(tmp_path):
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]

        said = Up(tmp_path / "var", port).refused()

    assert f"Port {port} cannot be used on 127.0.0.1: Address already in use" in said
    assert f"PORT={port + 1} make run" in said
    assert not (tmp_path / "var" / "postgres").exists()


@pytest.mark.parametrize("port", ["eighty", "0", "70000"])
def test_a_port_that_is_none_is_refused(tmp_path, port):
    assert "PORT must be a number from 1 to 65535" in Up(tmp_path / "var", 1).refused(PORT=port)


def test_a_damaged_directory_and_a_wrong_url_are_refused_in_one_line(tmp_path):
    (tmp_path / "var" / "postgres").mkdir(parents=True)
    (tmp_path / "var" / "postgres" / "keep").write_text("mine")
    up = Up(tmp_path / "var", _free_port())

    assert "holds files but no PG_VERSION" in up.refused()
    assert (tmp_path / "var" / "postgres" / "keep").read_text() == "mine"
    assert "got scheme 'mysql'" in up.refused(DATABASE_URL="mysql://a@b/c")
    assert "does not let us in" in up.refused(DATABASE_URL=f"postgresql://a@127.0.0.1:{_free_port()}/c")
