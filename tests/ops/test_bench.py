"""An interrupted `make bench` leaves no process behind: neither ours nor the peer's."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.processes import ROOT, eventually


class Bench:
    """A running `python -m tests.bench throughput`, in a process group of its own as under a terminal."""

    def __init__(self, folder: Path) -> None:
        self._mark = uuid.uuid4().hex
        # Short: a socket has its place below it.
        self.folder = Path(tempfile.mkdtemp(prefix="b-"))
        self.log = folder / "log"
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.bench", "throughput"],
                cwd=ROOT,
                env=os.environ
                | {"BENCH_TEST": self._mark, "TMPDIR": str(self.folder), "BENCH_INSTANCES": "20000"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def living(self, word: str = "") -> list[psutil.Process]:
        """Every process of this bench, wherever it went, with `word` in its command."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                marked = process.environ().get("BENCH_TEST") == self._mark
                if marked and process.status() != psutil.STATUS_ZOMBIE and word in " ".join(process.cmdline()):
                    found.append(process)
        return found


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    running = Bench(tmp_path)
    try:
        yield running
    finally:
        for process in running.living():
            with suppress(psutil.Error):
                process.kill()
        running.process.wait()
        shutil.rmtree(running.folder, ignore_errors=True)


@pytest.mark.parametrize("processes", [1, 6], ids=["starting", "working"])
@pytest.mark.parametrize("times", [1, 3], ids=["once", "again"])
def test_ctrl_c_ends_the_peer_too(bench: Bench, processes: int, times: int) -> None:
    # Six: its main process, sentinel, pusher, monitor and two workers.
    eventually(lambda: len(bench.living("qcluster")) >= processes, within=90, log=bench.log)
    for _time in range(times):
        os.killpg(bench.process.pid, signal.SIGINT)
    bench.process.wait(30)
    assert [process.cmdline() for process in bench.living()] == []
    assert bench.process.returncode == 130
    assert "Traceback" not in bench.log.read_text()
    assert list(bench.folder.iterdir()) == []
