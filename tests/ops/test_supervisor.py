"""The supervisor with small programs, as a real process of its own that is signalled and killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.processes import ROOT, eventually

# argv: a directory, then shell commands to keep running; each writes its pid to a file of its number.
_MAIN = """
import signal, sys
from config.supervisor import Pauses, Program, Supervisor
# Whoever started the tests may ignore hang-ups, which a child inherits and the supervisor respects.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
where, *commands = sys.argv[1:]
programs = [
    Program(str(n), ["sh", "-c", f"echo $$ >> {where}/{n}; {command}"]) for n, command in enumerate(commands)
]
pauses = Pauses(first=0.05, longest=0.2)
Supervisor(programs, say=lambda line: print(line, flush=True), grace=1, pauses=pauses).run()
print("over", flush=True)
"""


class Running:
    """A supervisor over `commands`, marked in the environment so that every process of it can be found."""

    def __init__(self, directory: Path, *commands: str) -> None:
        self.directory = directory
        self.log = directory / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _MAIN, str(directory), *commands],
                cwd=ROOT,
                env=os.environ | {"SUPERVISED_IN": str(directory)},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def pids(self, program: int) -> list[int]:
        """The process ids that the program has had so far."""
        with suppress(FileNotFoundError):
            return [int(line) for line in (self.directory / str(program)).read_text().split()]
        return []

    def said(self) -> str:
        return self.log.read_text()

    def left(self) -> list[psutil.Process]:
        """Every living process that came from this supervisor, whoever is its parent now."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get("SUPERVISED_IN") == str(self.directory):
                    found.append(process)
        return [process for process in found if process.status() != psutil.STATUS_ZOMBIE]

    def started(self, programs: int = 1) -> None:
        eventually(lambda: all(self.pids(n) for n in range(programs)), log=self.log)

    def ended_within(self, seconds: float) -> None:
        self.process.wait(seconds)
        assert self.left() == []


@pytest.fixture
def supervise(tmp_path: Path) -> Iterator[type[Running]]:
    made: list[Running] = []

    def start(*commands: str) -> Running:
        made.append(Running(tmp_path, *commands))
        return made[-1]

    yield start  # type: ignore[misc]
    for one in made:
        for process in one.left():
            process.kill()
        one.process.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_every_program(supervise, number):
    running = supervise("exec sleep 600", "exec sleep 600")
    running.started(2)

    running.process.send_signal(number)

    running.ended_within(10)
    assert running.process.returncode == 0
    assert running.said().splitlines() == [f"{number.name}: stopping", "over"]


def test_a_killed_program_comes_back_and_the_others_do_not_notice(supervise):
    running = supervise("exec sleep 600", "exec sleep 600")
    running.started(2)

    os.kill(running.pids(0)[0], signal.SIGKILL)

    eventually(lambda: len(running.pids(0)) == 2, log=running.log)
    assert len(running.pids(1)) == 1
    assert "0 was killed by SIGKILL; starting it again in 0.05 s" in running.said()


def test_a_program_that_keeps_ending_is_started_less_and_less_often(supervise):
    running = supervise("exit 3")

    eventually(lambda: running.said().count("again in 0.2 s") == 2, log=running.log)

    assert [line.split(" in ")[1] for line in running.said().splitlines()[:4]] == [
        "0.05 s",
        "0.1 s",
        "0.2 s",
        "0.2 s",
    ]
    assert "0 ended with code 3" in running.said()


def test_what_a_killed_program_leaves_in_its_group_is_ended_before_it_starts_again(supervise):
    running = supervise("sleep 600 & sleep 601")
    running.started()
    eventually(lambda: len(_named(running, "sleep")) == 2, log=running.log)
    before = {process.pid for process in _named(running, "sleep")}

    os.kill(running.pids(0)[0], signal.SIGKILL)

    eventually(lambda: len(running.pids(0)) == 2 and len(_named(running, "sleep")) == 2, log=running.log)
    assert not before & {process.pid for process in _named(running, "sleep")}


def test_a_program_that_ignores_the_request_to_end_is_killed_with_all_its_processes(supervise):
    running = supervise("trap '' TERM; setsid sleep 600 & while true; do sleep 0.1; done")
    running.started()
    eventually(lambda: [p for p in _named(running, "sleep") if "600" in p.cmdline()], log=running.log)

    running.process.terminate()

    running.ended_within(5)
    assert "0 did not end within 1 s and is killed" in running.said()


def test_asking_twice_does_not_leave_anything_behind(supervise):
    running = supervise("trap 'sleep 0.5; exit' TERM; while true; do sleep 0.1; done")
    running.started()

    running.process.send_signal(signal.SIGINT)
    eventually(lambda: "stopping" in running.said(), log=running.log)
    running.process.send_signal(signal.SIGINT)
    running.process.send_signal(signal.SIGTERM)

    running.ended_within(5)
    assert running.said().endswith("over\n")


def test_signals_at_any_moment_of_the_start_leave_nothing(supervise, tmp_path):
    for delay in (0.05, 0.1, 0.15, 0.2, 0.25, 0.3):
        running = supervise(*["exec sleep 600"] * 5)
        time.sleep(delay)  # not a wait for anything: the moment of the signal is what varies
        running.process.terminate()
        running.process.wait(5)
        assert running.left() == []


def test_programs_end_when_the_supervisor_is_killed(supervise):
    running = supervise("exec sleep 600", "exec sleep 600")
    running.started(2)

    running.process.kill()

    running.process.wait(5)
    eventually(lambda: running.left() == [], within=3)


def test_an_orphan_comes_to_the_supervisor_which_collects_it_when_it_ends(supervise):
    running = supervise("sh -c 'setsid sleep 1 &'; exec sleep 600")
    running.started()

    def children(status: str | None = None) -> list[psutil.Process]:
        found = psutil.Process(running.process.pid).children()
        return [child for child in found if status is None or child.status() == status]

    eventually(lambda: len(children()) == 2, log=running.log)
    eventually(lambda: len(children()) == 1, log=running.log)
    assert children(psutil.STATUS_ZOMBIE) == []
    assert len(running.pids(0)) == 1


def test_an_orphan_that_does_not_end_by_itself_ends_with_the_rest(supervise):
    running = supervise("setsid sleep 600 & exec sleep 601")
    running.started()
    eventually(lambda: len(_named(running, "sleep")) == 2, log=running.log)
    os.kill(running.pids(0)[0], signal.SIGKILL)
    eventually(lambda: len(running.pids(0)) == 2, log=running.log)

    running.process.terminate()

    running.ended_within(5)


def _named(running: Running, name: str) -> list[psutil.Process]:
    found = []
    for process in running.left():
        with suppress(psutil.Error):
            if process.name() == name:
                found.append(process)
    return found
