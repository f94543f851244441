"""Runs manage.py commands as real processes against the test's own database."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote, urlencode

from django.db import connection

ROOT = Path(__file__).resolve().parent.parent


def database_url() -> str:
    """The URL of the database that this test uses."""
    now = connection.settings_dict
    who = quote(now["USER"]) + (f":{quote(now['PASSWORD'])}" if now["PASSWORD"] else "")
    socket = now["HOST"].startswith("/")
    place = "" if socket else now["HOST"] + (f":{now['PORT']}" if now["PORT"] else "")
    query = urlencode(dict(now["OPTIONS"]) | ({"host": now["HOST"]} if socket else {}))
    return f"postgresql://{who}@{place}/{quote(now['NAME'])}" + (f"?{query}" if query else "")


@contextmanager
def manage(*arguments: str, log: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """`manage.py ARGUMENTS` in a session of its own, writing to `log`; killed with its children at the end."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "manage.py", *arguments],
            cwd=ROOT,
            env=os.environ | {"DATABASE_URL": database_url()} | environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def eventually(condition: Callable[[], object], *, within: float = 10, log: Path | None = None) -> None:
    """Return as soon as `condition()` is true; fail after `within` seconds, showing the end of `log`."""
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            said = f"\n{log.read_text(errors='replace')[-4000:]}" if log and log.exists() else ""
            raise AssertionError(f"still not so after {within} s: {condition}{said}")
        time.sleep(0.01)
