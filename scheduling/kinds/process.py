"""Runs a command as a job, so that no process of it outlives the job, its worker or its keeper.

    worker (subreaper) → reaper.py (subreaper) → the command, in a session of its own → whatever it starts

| dies | who ends the rest |
| --- | --- |
| the command | the reaper, after a short grace |
| the worker, even by SIGKILL | the reaper: the kernel tells it |
| the reaper, even by SIGKILL | the worker, to which the orphans fall |
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from types import FrameType
from typing import Any

from scheduling import reasons
from scheduling.jobs import JobFailed, JobStopped, Log
from scheduling.kinds import reaper
from scheduling.reasons import said

_PIPE_BYTES = 1024 * 1024
_POLL = 0.05
_SHORT_POLL = 0.002


def become_subreaper() -> None:
    """Make this process the parent of every orphan among its descendants. Call it once in a worker."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    if prctl(reaper.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "cannot become the subreaper of this worker's jobs")


def end_descendants(grace: float, *, spare: Collection[int] = ()) -> int:
    """End every process below this one, except those with a pid in `spare` and what is below them.

    SIGTERM, `grace` seconds, SIGKILL; returns how many there were at first, once none is left. In a worker
    (see `become_subreaper`) this also finds what daemonised itself or lost its reaper.
    """
    deadline = time.monotonic() + grace
    with _alarm_held():
        left = reaper.descendants(spare)
        living = [pid for pid, group in left.items() if group is not None]
        # Once: what appears later is the tidying up of those that were asked.
        for pid in living:
            reaper.send(os.kill, pid, signal.SIGTERM)
            # A stopped process hears SIGTERM only once it goes on.
            reaper.send(os.kill, pid, signal.SIGCONT)
        pause = _SHORT_POLL
        while left:
            if time.monotonic() >= deadline:
                reaper.kill(left)
            if not _bury(left):
                time.sleep(pause)
                pause = min(2 * pause, _POLL)
            left = reaper.descendants(spare)
    return len(living)


@contextlib.contextmanager
def no_descendant_left(grace: float) -> Iterator[None]:
    """End, when the block ends in whatever way, every process below this one that began during it."""
    spare = reaper.descendants() if reaper.has_children() else {}
    try:
        yield
    finally:
        if reaper.has_children():
            end_descendants(grace, spare=spare)


def run_command(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    log: Log,
    stop: threading.Event,
    grace: float,
    cwd: str | None = None,
    stdin: int | None = None,
    pass_fds: Sequence[int] = (),
) -> int:
    """Run `argv` to its end, its output going to `log`, and return its exit status (-N for signal N).

    It runs in `cwd`, by default in a fresh directory that is removed afterwards and whose path it has
    as WORKDIR. When it ends, so does all that it started: `grace` is the seconds between SIGTERM and SIGKILL.

    Raises JobStopped soon after `stop` is set, and JobFailed when the command cannot be started or its
    reaper was killed. Whatever is raised, by django-q2's alarm too, everything has ended by then.
    Call it from the thread in which the process was born or any that outlives the command.
    """
    process: subprocess.Popen[bytes] | None = None
    scratch = ""
    with no_descendant_left(grace), _report() as (report, written):
        try:
            with _alarm_held():
                scratch = tempfile.mkdtemp(prefix="tailrace-")
                process = _start(
                    argv,
                    env=env,
                    cwd=cwd,
                    scratch=scratch,
                    grace=grace,
                    stdin=stdin,
                    report=written,
                    pass_fds=pass_fds,
                )
            status = _follow(process, log, stop)
            killed_by = int(_read(report) or 0)
        except BaseException:
            with _alarm_held():
                _end(process, log)
            raise
        finally:
            if process is not None and process.stdout is not None:
                process.stdout.close()
            reaper.remove(scratch)
    if status < 0:
        raise JobFailed(said(reasons.KEEPER_DIED, why=describe_status(status)))
    return -killed_by if killed_by else status


def describe_status(status: int) -> str:
    """An exit status of `run_command` in words: `exit code 3`, `killed by SIGKILL`.

    A shell whose child was killed by signal N exits with 128 + N, so such a code names the signal as a guess.
    """
    if status < 0:
        return said(reasons.KILLED_BY, signal=_signal(-status) or f"SIG{-status}")
    name = _signal(status - 128)
    if name == "SIGKILL":
        return said(reasons.EXIT_CODE_KILLED, code=status)
    if name:
        return said(reasons.EXIT_CODE_SIGNAL, code=status, signal=name)
    return said(reasons.EXIT_CODE, code=status)


def exit_code(status: int) -> int:
    """The exit code that a shell shows for an exit status of `run_command`: 128 + N for signal N."""
    return status if status >= 0 else 128 - status


def _signal(number: int) -> str:
    """The name of a signal, or an empty text for a number that is none."""
    with contextlib.suppress(ValueError):
        return signal.Signals(number).name
    return ""


@contextlib.contextmanager
def _report() -> Iterator[tuple[int, int]]:
    """A pipe on which the reaper reports a signal: the end to read, never blocking, and the end to write."""
    ends = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        yield ends
    finally:
        for end in ends:
            os.close(end)


def _start(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: str | None,
    scratch: str,
    grace: float,
    stdin: int | None,
    report: int,
    pass_fds: Sequence[int],
) -> subprocess.Popen[bytes]:
    # The reaper ignores SIGTERM from its first moment; it may come from a service manager that stops the node.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    keeper = [sys.executable, "-I", "-S", reaper.__file__, str(os.getpid()), str(grace), scratch, str(report)]
    try:
        process = subprocess.Popen(
            [*keeper, *argv],
            env={**env, "WORKDIR": scratch},
            cwd=cwd or scratch,
            stdin=subprocess.DEVNULL if stdin is None else stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            # A session of its own, so that Ctrl-C at a terminal is the worker's alone to judge.
            start_new_session=True,
            pass_fds=(report, *pass_fds),
            bufsize=0,
        )
    except OSError as error:
        if error.filename == cwd:
            raise JobFailed(said(reasons.NO_DIRECTORY, directory=repr(cwd), error=error.strerror)) from error
        if error.errno == errno.E2BIG:
            raise JobFailed(said(reasons.COMMAND_TOO_LONG)) from error
        raise JobFailed(said(reasons.NO_PROCESS, error=error.strerror)) from error
    except ValueError as error:
        raise JobFailed(said(reasons.NO_COMMAND, error=error)) from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return process


def _follow(process: subprocess.Popen[bytes], log: Log, stop: threading.Event) -> int:
    """Copy the output to the log until the reaper ends; its exit status. Raises JobStopped."""
    with _watching(process) as (selector, output):
        while not _step(selector, output, log):
            if stop.is_set():
                raise JobStopped
        _drain(output, log)
    return process.wait()


def _end(process: subprocess.Popen[bytes] | None, log: Log) -> None:
    """Have the reaper end everything, reading on meanwhile so that nobody blocks on a full pipe."""
    if process is None or process.poll() is not None:
        return
    process.send_signal(reaper.END)
    # A job can stop its reaper, which would then not hear.
    process.send_signal(signal.SIGCONT)
    with contextlib.suppress(ProcessLookupError), _watching(process) as (selector, output):
        while not _step(selector, output, log):
            pass
        _drain(output, log)
    process.wait()


@contextlib.contextmanager
def _watching(process: subprocess.Popen[bytes]) -> Iterator[tuple[selectors.BaseSelector, int]]:
    """A selector on the reaper's output and its end."""
    assert process.stdout is not None  # noqa: S101 - we asked for a pipe
    output = process.stdout.fileno()
    os.set_blocking(output, False)
    with contextlib.suppress(OSError):
        # A full pipe makes the job wait; the kernel may refuse more than its 64 KiB to an ordinary user.
        fcntl.fcntl(output, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    ended = os.pidfd_open(process.pid)
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(output, selectors.EVENT_READ)
            selector.register(ended, selectors.EVENT_READ, "ended")
            yield selector, output
    finally:
        os.close(ended)


def _step(selector: selectors.BaseSelector, output: int, log: Log) -> bool:
    """Wait a moment for output and copy it; whether the reaper has ended."""
    ended = False
    for key, _events in selector.select(_POLL):
        if key.data == "ended":
            ended = True
        elif data := _read(output):
            log.write_bytes(data)
        elif data is not None:
            selector.unregister(output)
    return ended


def _drain(output: int, log: Log) -> None:
    """Copy what is left in the pipe; no more than it holds, for an orphan may still be filling it."""
    left = _PIPE_BYTES
    while left > 0 and (data := _read(output)):
        log.write_bytes(data)
        left -= len(data)


def _read(output: int) -> bytes | None:
    """What the pipe holds; b"" at its end and None when it holds nothing for now."""
    try:
        return os.read(output, _PIPE_BYTES)
    except BlockingIOError:
        return None


def _bury(found: Collection[int]) -> bool:
    """Collect those children among `found` that have ended; whether there was one."""
    buried = False
    for pid in found:
        with contextlib.suppress(ChildProcessError):
            buried |= os.waitpid(pid, os.WNOHANG)[0] == pid
    return buried


@contextlib.contextmanager
def _alarm_held() -> Iterator[None]:
    """Let django-q2's time-out wait until the block has ended: half-started is what cannot be ended."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    rang: list[FrameType | None] = []
    handler: Any = signal.signal(signal.SIGALRM, lambda _number, frame: rang.append(frame))
    try:
        yield
    finally:
        signal.signal(signal.SIGALRM, handler)
        if rang and callable(handler):
            handler(signal.SIGALRM, rang[0])
