"""Keeps a few programs running side by side, and ends all of them together.

A program that ends by itself is started again with a growing pause. A signal ends every program, and the
processes that any of them left behind. When this process is killed, the kernel tells its programs to end.
See docs/decisions/0002-own-supervisor.md for why honcho is not used. Linux only.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import psutil

# A lost terminal ends us too, unless we were started to outlive it (nohup).
_HANGUP = {signal.SIGHUP} if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN else set()
STOP_SIGNALS = frozenset({signal.SIGINT, signal.SIGTERM, *_HANGUP})
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Pauses:
    """Seconds between the end of a program and its next start: doubled each time, from first to longest.

    A program that ran for `healthy` seconds begins anew with `first`.
    """

    first: float = 0.5
    longest: float = 30.0
    healthy: float = 30.0


@dataclass
class Program:
    """One command to keep running; `keep_open` are file descriptors that it inherits.

    It starts when the monotonic clock is at `start_at`.
    """

    name: str
    command: Sequence[str]
    keep_open: Sequence[int] = ()
    start_at: float = 0.0
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    started: float = field(default=0.0, init=False)
    pause: float = field(default=0.0, init=False)


class Supervisor:
    """Runs `programs` until a stop signal arrives.

    `say` takes one line for the operator. `spare` gives process ids that belong to somebody else, although
    they are children of this process. Each of `on_tick` is called several times a second.
    """

    def __init__(
        self,
        programs: Sequence[Program],
        *,
        say: Callable[[str], None],
        spare: Callable[[], set[int]] = set,
        on_tick: Sequence[Callable[[], None]] = (),
        pauses: Pauses | None = None,
        grace: float = 5.0,
    ) -> None:
        self.programs = list(programs)
        self._say = say
        self._spare = spare
        self._on_tick = on_tick
        self._pauses = pauses or Pauses()
        self._grace = grace

    def run(self) -> None:
        """Start every program, keep them running, and return when all have ended after a stop signal.

        Signals are taken one at a time where nothing is half done, so they cannot arrive between the
        start of a process and its bookkeeping; whoever calls this has blocked `STOP_SIGNALS` already, or
        they are blocked here.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS | {signal.SIGCHLD})
        _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        try:
            self._say(f"{self._keep_running().name}: stopping")
        finally:
            self._end_all()

    def _keep_running(self) -> signal.Signals:
        while True:
            self._start_due()
            for call in self._on_tick:
                call()
            arrived = signal.sigtimedwait(STOP_SIGNALS | {signal.SIGCHLD}, 0.2)
            if arrived and arrived.si_signo in STOP_SIGNALS:
                return signal.Signals(arrived.si_signo)
            if arrived:
                self._reap()

    def _start_due(self) -> None:
        now = time.monotonic()
        for program in self.programs:
            if program.process is None and program.start_at <= now:
                program.started = now
                program.process = subprocess.Popen(
                    program.command,
                    stdin=subprocess.DEVNULL,
                    pass_fds=program.keep_open,
                    # Ctrl-C reaches this process only, which then ends the programs in its own way.
                    start_new_session=True,
                    preexec_fn=_follow(os.getpid()),
                )

    def _reap(self) -> None:
        """Collect every ended child: programs, to start them again, and orphans that came to us."""
        for program in self.programs:
            if program.process is not None and (code := program.process.poll()) is not None:
                self._plan_restart(program, program.process.pid, code)
        ours = {program.process.pid for program in self.programs if program.process} | self._spare()
        for child in psutil.Process().children():
            if child.pid not in ours and _status(child) == psutil.STATUS_ZOMBIE:
                os.waitpid(child.pid, os.WNOHANG)

    def _plan_restart(self, program: Program, pid: int, code: int) -> None:
        # What it leaves in its process group would only stand in the way of its successor.
        _signal_group(pid, signal.SIGKILL)
        now = time.monotonic()
        if now - program.started >= self._pauses.healthy or not program.pause:
            program.pause = self._pauses.first
        else:
            program.pause = min(program.pause * 2, self._pauses.longest)
        program.process, program.start_at = None, now + program.pause
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        self._say(f"{program.name} {how}; starting it again in {program.pause:g} s")

    def _end_all(self) -> None:
        """Ask every program to end, wait for `grace` seconds, then kill whatever is left of any of them."""
        running = {program.name: program.process for program in self.programs if program.process}
        for process in running.values():
            process.terminate()
        deadline = time.monotonic() + self._grace
        while time.monotonic() < deadline and any(process.poll() is None for process in running.values()):
            signal.sigtimedwait({signal.SIGCHLD}, 0.1)
        for name, process in running.items():
            if process.poll() is None:
                self._say(f"{name} did not end within {self._grace:g} s and is killed")
        # The kernel hands the children of the killed to us, so look again until there are none.
        while left := self._descendants():
            for orphan in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    orphan.kill()
            psutil.wait_procs(left, timeout=1)
        for process in running.values():
            process.wait()

    def _descendants(self) -> list[psutil.Process]:
        spare, found = self._spare(), []
        for child in psutil.Process().children():
            if child.pid in spare or _status(child) == psutil.STATUS_ZOMBIE:
                continue
            found.append(child)
            with contextlib.suppress(psutil.NoSuchProcess):
                found.extend(child.children(recursive=True))
        return found


def _status(process: psutil.Process) -> str:
    try:
        return str(process.status())
    except psutil.NoSuchProcess:
        return str(psutil.STATUS_ZOMBIE)


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


def _follow(parent: int) -> Callable[[], None]:
    """What a new program does before it begins: end with its parent, and take signals again."""

    def prepare() -> None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    return prepare
