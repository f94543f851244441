"""The embedded PostgreSQL with real servers: shared, killed, and with a damaged data directory."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import psycopg
import pytest

from config import embedded
from config.embedded import DatabaseUnavailable, EmbeddedServer
from tests.processes import ROOT, eventually

# Joins the server and waits; the line that it prints tells that it has joined.
_USER = """
import sys
from pathlib import Path
from config.embedded import EmbeddedServer
server = EmbeddedServer(Path(sys.argv[1]))
print(server.start(), flush=True)
sys.stdin.read()
server.stop()
"""


@pytest.fixture(scope="module")
def made() -> Iterator[Path]:
    """A data directory as a first start leaves it, to be copied: making one takes a second or more."""
    with tempfile.TemporaryDirectory(prefix="tailrace-made-") as directory:
        server = EmbeddedServer(Path(directory) / "postgres")
        server.start()
        server.stop()
        yield server.data


@pytest.fixture
def data(made: Path) -> Iterator[Path]:
    """A stopped server's data directory, on a path short enough for its socket and with a space in it."""
    with tempfile.TemporaryDirectory(prefix="tailrace ") as directory:
        copy = Path(directory) / "postgres"
        subprocess.run(["cp", "-a", made, copy], check=True)
        yield copy
        for process in _processes(copy):
            with suppress(psutil.NoSuchProcess):
                process.kill()


def _processes(data: Path) -> list[psutil.Process]:
    """The server and its guard."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            command = process.cmdline()
            if str(data) in command and "-c" not in command[1:2] and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def _user(data: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _USER, str(data)],
        cwd=ROOT,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


def _leave(user: subprocess.Popen[str]) -> None:
    user.communicate(timeout=10)
    assert user.returncode == 0


def test_a_first_start_makes_the_database_and_leaves_nothing_half_made(made):
    assert sorted(path.name for path in made.parent.iterdir()) == [
        "postgres",
        "postgres.guard",
        "postgres.lock",
        "postgres.log",
        "postgres.users",
    ]
    assert made.stat().st_mode & 0o777 == 0o700


def test_the_server_ends_with_the_last_of_those_who_use_it(data):
    first, second = EmbeddedServer(data), _user(data)
    assert second.stdout.readline().strip() == first.start()

    first.stop()
    assert first.is_running()
    with psycopg.connect(first.url) as connection:
        assert connection.execute("SELECT current_database()").fetchone() == ("tailrace",)

    _leave(second)
    eventually(lambda: _processes(data) == [])


def test_users_that_start_at_once_share_one_server(data):
    users = [_user(data) for _ in range(4)]

    assert len({user.stdout.readline() for user in users}) == 1
    assert len(_processes(data)) == 2
    for user in users:
        _leave(user)
    eventually(lambda: _processes(data) == [])


def test_the_server_ends_when_its_last_user_was_killed(data):
    user = _user(data)
    assert user.stdout.readline()

    user.kill()
    user.communicate()

    eventually(lambda: _processes(data) == [])


def test_a_killed_user_does_not_keep_the_server_from_ending_with_the_last(data):
    killed, last = _user(data), EmbeddedServer(data)
    assert killed.stdout.readline()
    last.start()
    killed.kill()
    killed.communicate()

    last.stop()

    assert not last.is_running()


def test_a_killed_server_is_started_anew_by_the_next_user(data):
    server = EmbeddedServer(data)
    server.start()
    for process in _processes(data):
        process.kill()
    eventually(lambda: not server.is_running())

    server.start()

    with psycopg.connect(server.url):
        server.stop()
    eventually(lambda: _processes(data) == [])


def test_a_process_number_that_another_process_has_by_now_is_not_taken_for_the_server(data):
    owner = data.stat()
    identity = {"user": owner.st_uid, "group": owner.st_gid} if os.geteuid() == 0 else {}
    with subprocess.Popen(["sleep", "600"], **identity) as other:
        (data / "postmaster.pid").write_text(f"{other.pid}\n{data}\n1700000000\n5432\n{data}\n\n  1 1\nready\n")
        server = EmbeddedServer(data)
        try:
            server.start()
            assert server.is_running()
            server.stop()
            assert other.poll() is None
        finally:
            other.kill()


def _lose_version(data: Path) -> None:
    (data / "PG_VERSION").unlink()


def _age(data: Path) -> None:
    (data / "PG_VERSION").write_text("16\n")


def _spoil_settings(data: Path) -> None:
    (data / "postgresql.conf").write_text("garbage without end\n")


def _lose_control_file(data: Path) -> None:
    (data / "global" / "pg_control").unlink()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_lose_version, "no PG_VERSION"),
        (_age, "made by PostgreSQL 16, and the embedded one is 18"),
        (_spoil_settings, "syntax error in file"),
        (_lose_control_file, "pg_control"),
    ],
)
def test_a_damaged_directory_is_refused_with_the_reason_and_left_as_it_is(
    data: Path, damage: Callable[[Path], None], said: str
):
    damage(data)
    before = _contents(data)

    with pytest.raises(DatabaseUnavailable, match=said) as refusal:
        EmbeddedServer(data).start()

    assert "Nothing was changed" in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert _contents(data) == before
    eventually(lambda: _processes(data) == [])


def _contents(data: Path) -> dict[str, bytes]:
    return {str(path.relative_to(data)): path.read_bytes() for path in data.rglob("*") if path.is_file()}


def test_a_path_that_is_too_long_for_a_socket_is_refused_before_anything_is_made(tmp_path):
    deep = tmp_path / ("x" * 100) / "postgres"

    with pytest.raises(DatabaseUnavailable, match=r"\d+ bytes too long .* set TAILRACE_VAR"):
        EmbeddedServer(deep).start()

    assert not deep.parent.exists()


def test_a_place_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "var").write_text("a file")

    with pytest.raises(DatabaseUnavailable, match="set TAILRACE_VAR"):
        EmbeddedServer(tmp_path / "var" / "postgres").start()


def test_a_start_that_is_interrupted_leaves_no_server(data):
    for moment in (0.2, 0.4, 0.6):
        user = _user(data)
        with suppress(subprocess.TimeoutExpired):
            user.wait(moment)
        user.send_signal(signal.SIGINT)
        user.communicate()
        eventually(lambda: _processes(data) == [])


def test_a_start_that_is_interrupted_while_its_guard_begins_waits_until_that_has_ended(data, monkeypatch):
    guards, popen = [], subprocess.Popen

    def interrupted(*arguments, **options):
        guards.append(popen(*arguments, **options))
        raise KeyboardInterrupt

    monkeypatch.setattr(embedded.subprocess, "Popen", interrupted)

    with pytest.raises(KeyboardInterrupt):
        EmbeddedServer(data).start()

    assert _processes(data) == []
    assert [guard.wait(0) for guard in guards] == [0]


def test_a_server_whose_directory_was_removed_ends(data):
    user = _user(data)
    assert user.stdout.readline()

    shutil.rmtree(data.parent)

    eventually(lambda: _processes(data) == [])
    data.parent.mkdir()
    user.kill()
    user.communicate()


def test_a_directory_of_another_user_is_refused(data, monkeypatch):
    nobody = pwd.getpwnam("nobody")
    monkeypatch.setattr(embedded, "_identity", lambda: {"user": nobody.pw_uid, "group": nobody.pw_gid})

    with pytest.raises(DatabaseUnavailable, match=r"belongs to .*, and here PostgreSQL runs as nobody"):
        EmbeddedServer(data).start()
