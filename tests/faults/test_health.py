"""The web in front of a database that does not answer: it starts, and its health is told in time."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from tests.processes import ROOT, eventually


def test_a_web_whose_database_drops_all_packets_starts_and_answers_in_time(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with socket.create_server(("127.0.0.1", 0)) as silent, socket.create_server(("127.0.0.1", 0)) as own:
        own.set_inheritable(True)
        port = silent.getsockname()[1]
        with log.open("ab") as output:
            web = subprocess.Popen(
                [
                    *(sys.executable, "-m", "gunicorn", "--config", "python:config.gunicorn", "config.wsgi"),
                    *("--bind", f"fd://{own.fileno()}", "--workers", "1", "--graceful-timeout", "1"),
                ],
                cwd=ROOT,
                env=os.environ | {"DATABASE_URL": f"postgresql://nobody@127.0.0.1:{port}/nothing"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=[own.fileno()],
                start_new_session=True,
            )
        try:
            address = f"http://127.0.0.1:{own.getsockname()[1]}"
            eventually(lambda: "The web starts without its database" in log.read_text(), within=20, log=log)
            with urlopen(f"{address}/livez", timeout=20) as answer:  # noqa: S310
                assert json.load(answer) == {"status": "ok"}
            for _again in range(3):
                began = time.monotonic()
                with pytest.raises(HTTPError) as refused:
                    urlopen(f"{address}/healthz", timeout=20)  # noqa: S310
                assert time.monotonic() - began < 3
                assert refused.value.code == 503
                assert json.load(refused.value)["status"] == "database unavailable"
        finally:
            os.killpg(web.pid, signal.SIGKILL)
            web.wait()
