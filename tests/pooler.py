"""A real PgBouncer in front of the tests' database."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from django.db import connection

from config import embedded
from tests.processes import eventually


@contextmanager
def pgbouncer(mode: str, **settings: object) -> Iterator[str]:
    """PgBouncer pools in `mode` during the block, on a port of its own; gives the database's URL through it.

    As root, PgBouncer runs as the user of the embedded server; otherwise as oneself.
    """
    # Debian keeps it where ordinary users do not look.
    program = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
    assert program, "these tests need PgBouncer: install the package pgbouncer"
    now = connection.settings_dict
    # It refuses to run as root, and the server's directory lets only the server's user in.
    identity = embedded._identity()
    directory = Path(tempfile.mkdtemp(prefix="tailrace-pooler-"))
    if identity:
        os.chown(directory, identity["user"], identity["group"])
    server = f"host={now['HOST']} port={now['PORT'] or 5432}"
    secret = f" password={now['PASSWORD']}" if now["PASSWORD"] else ""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    lines = {
        "listen_addr": "127.0.0.1",
        "listen_port": port,
        "unix_socket_dir": "",
        "auth_type": "any",
        "pool_mode": mode,
        "default_pool_size": 60,
        "max_client_conn": 200,
        **settings,
    }
    written = "\n".join(f"{name} = {value}" for name, value in lines.items())
    place = directory / "pgbouncer.ini"
    place.write_text(f"[databases]\n* = {server} user={now['USER']}{secret}\n[pgbouncer]\n{written}\n")
    place.chmod(0o644)
    log = directory / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [program, str(place)], stdout=output, stderr=subprocess.STDOUT, cwd=directory, **identity
        )
    try:
        eventually(lambda: _listens(port), log=log)
        yield f"postgresql://{now['USER']}@127.0.0.1:{port}/{now['NAME']}"
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(5)
        process.kill()
        process.wait()
        shutil.rmtree(directory)


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
