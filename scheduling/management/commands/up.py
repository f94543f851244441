"""`manage.py up`: everything on one machine, in one command.

Database, migrations, the demo workspace on first start, then web, scheduler and the demo's nodes, which are
kept running until a signal ends them all.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from types import FrameType
from typing import Any

from django.conf import settings
from django.core.management import CommandError, call_command
from django.core.management.base import BaseCommand
from django.db import connections
from django.utils.module_loading import import_string

from config import database
from config.supervisor import STOP_SIGNALS, Program, Supervisor

HOST = "127.0.0.1"
# Named by its path: the demo stands on top of all apps, and this command at the bottom.
DEMO = "config.demo"


# A node that stops needs its jobs' grace and a few seconds of its own; the whole must end within ten.
JOB_GRACE = 2.0
STOP_GRACE = 7.5
# For how long the nodes let the web start alone.
WEB_FIRST = 10.0


_FORGOTTEN = "accounts as before; a new password: .venv/bin/python manage.py changepassword owner"


class Stopped(BaseException):
    """A stop signal arrived while starting."""


class Command(BaseCommand):
    help = "Run everything on this machine: database, web, scheduler and the demo's nodes (Ctrl-C ends it)."
    requires_system_checks = ()

    def handle(self, *args: Any, **options: Any) -> None:
        with contextlib.suppress(Stopped), _stop_signals():
            port = _port()
            with _alone(settings.VAR / "up.lock", port), _listening(port) as listener:
                self._serve(listener)
        self._say("stopped")

    def _serve(self, listener: socket.socket) -> None:
        with _database(self._say) as keep_database:
            url = os.environ["DATABASE_URL"]
            os.environ.setdefault("TAILRACE_SQL_WAREHOUSE", import_string(f"{DEMO}.warehouse_url")(url))
            connections["default"].settings_dict.update(database.settings_from_url(url))
            self._say("bringing the database up to date")
            call_command("migrate", verbosity=0, interactive=False)
            self._say(import_string(f"{DEMO}.install")(port=listener.getsockname()[1]) or _FORGOTTEN)
            programs = _programs(listener)
            connections.close_all()
            # From here on signals wait until the supervisor takes them.
            signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
            answers = Answers(listener.getsockname()[1], programs, self._say)
            Supervisor(
                programs,
                say=self._say,
                spare=keep_database.pids,
                on_tick=[answers, keep_database],
                grace=STOP_GRACE,
            ).run()

    def _say(self, line: str) -> None:
        # The reader may be gone (a closed pipe, a lost terminal); stopping must not fail for that.
        with contextlib.suppress(OSError):
            self.stdout.write("\n".join(f"tailrace: {one}" for one in line.splitlines()))
            self.stdout.flush()


@contextlib.contextmanager
def _stop_signals() -> Iterator[None]:
    """Raise Stopped at the first stop signal in the block, so that all it opened is closed; ignore more."""
    stopped = False

    def stop(_number: int, _frame: FrameType | None) -> None:
        nonlocal stopped
        # Another signal may come within any call made here, and each would take the other for the first.
        if not stopped:
            stopped = True
            raise Stopped

    for number in STOP_SIGNALS:
        signal.signal(number, stop)
    yield


def _port() -> int:
    given = os.environ.get("PORT") or "8000"
    if not given.isdecimal() or not 0 < int(given) < 65536:
        raise CommandError(
            f"PORT must be a number from 1 to 65535 (got {given!r}), as in `PORT=8001 make run`."
        )
    return int(given)


@contextlib.contextmanager
def _alone(path: Path, port: int) -> Iterator[None]:
    """Refuse when another `up` uses the same files; the kernel frees the lock however that one ends."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.open("a+")
    except OSError as error:
        raise CommandError(
            f"{path.parent} cannot be written: {error}. Make it yours, or set TAILRACE_VAR to one that is."
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise CommandError(
                f"Tailrace runs already from {path.parent} ({lock.read().strip() or 'starting'}). Stop that "
                "one first, or set TAILRACE_VAR and PORT to run a second one beside it."
            ) from None
        lock.truncate(0)
        lock.write(f"process {os.getpid()}, http://{HOST}:{port}/")
        lock.flush()
        yield


@contextlib.contextmanager
def _listening(port: int) -> Iterator[socket.socket]:
    """The web's socket. It belongs to this process, so that the port is ours before anything is started and
    while the web is being restarted."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
            listener.listen(1024)
        except OSError as error:
            raise CommandError(
                f"Port {port} cannot be used on {HOST}: {error.strerror}. Choose another one: "
                f"`PORT={port + 1 if port < 65535 else 8001} make run`."
            ) from error
        yield listener


class KeepDatabase:
    """Starts the embedded server anew when it died; nothing to do for a server of one's own."""

    def __init__(self, server: database.EmbeddedServer | None, say: Callable[[str], None]) -> None:
        self._server = server
        self._say = say
        self._look_at = 0.0

    def pids(self) -> set[int]:
        return self._server.pids() if self._server else set()

    def __call__(self) -> None:
        if self._server is None or time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + 1
        if not self._server.is_running():
            self._say("the embedded PostgreSQL is gone; starting it again")
            try:
                self._server.start()
            except database.DatabaseUnavailable as refusal:
                self._say(str(refusal))
                self._look_at = time.monotonic() + 10


@contextlib.contextmanager
def _database(say: Callable[[str], None]) -> Iterator[KeepDatabase]:
    """The server that DATABASE_URL names, or the embedded one; sets DATABASE_URL for the programs."""
    if given := os.environ.get("DATABASE_URL"):
        database.check_server(given)
        yield KeepDatabase(None, say)
        return
    server = database.EmbeddedServer(database.embedded_data())
    say("starting the embedded PostgreSQL")
    try:
        os.environ["DATABASE_URL"] = server.start()
        yield KeepDatabase(server, say)
    finally:
        server.stop()


def _programs(listener: socket.socket) -> list[Program]:
    web = [
        *(sys.executable, "-m", "gunicorn", "--config", "python:config.gunicorn", "config.wsgi", "--preload"),
        *("--bind", f"fd://{listener.fileno()}", "--workers", "2"),
        *("--graceful-timeout", "3", "--log-level", "warning"),
    ]
    manage = [sys.executable, str(settings.BASE_DIR / "manage.py")]
    nodes = [
        [
            *(*manage, "node", f"demo-{number}", "--group", group),
            *("--workers", str(workers), "--grace", f"{JOB_GRACE:g}"),
        ]
        for number, (group, workers) in enumerate(import_string(f"{DEMO}.NODES"), start=1)
    ]
    # All of them at once would take the processors from the web, for which somebody waits.
    later = time.monotonic() + WEB_FIRST
    return [
        Program("web", web, keep_open=[listener.fileno()]),
        Program("scheduler", [*manage, "scheduler"]),
        *(Program(f"node {command[len(manage) + 1]}", command, start_at=later) for command in nodes),
    ]


class Answers:
    """Says once where the web is, as soon as it answers, and lets the programs that wait for that begin."""

    def __init__(self, port: int, programs: Sequence[Program], say: Callable[[str], None]) -> None:
        self._port = port
        self._programs = programs
        self._say = say
        self._answered = False

    def __call__(self) -> None:
        if not self._answered and self._answers():
            self._answered = True
            for program in self._programs:
                program.start_at = 0
            self._say(f"Tailrace is at http://{HOST}:{self._port}/ (Ctrl-C ends it)")

    def _answers(self) -> bool:
        connection = HTTPConnection(HOST, self._port, timeout=0.5)
        try:
            connection.request("GET", "/livez", headers={"Host": self._host()})
            return connection.getresponse().status == 200
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()

    def _host(self) -> str:
        names = [name for name in settings.ALLOWED_HOSTS if name != "*" and not name.startswith(".")]
        return names[0] if names else HOST
