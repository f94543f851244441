"""Stands between a worker and a job's command, and leaves nothing of the job behind.

Run by path, with the standard library only, so that it starts in a few milliseconds:
`python -I -S reaper.py PARENT GRACE SCRATCH REPORT COMMAND…`. It is the subreaper of everything the command
starts: a process that daemonises itself away becomes its child. When the command ends, when the worker asks
(END) or when the worker dies (the kernel then sends END), it ends every descendant: SIGTERM, GRACE seconds,
SIGKILL. It ignores SIGTERM itself, which a service manager may send to every process of a node. Then it
removes the directory SCRATCH and exits as the command did. When signal N killed the command, it exits with
128 + N, as a command may by itself, and writes N to the file descriptor REPORT.
Its own remarks go to the command's standard output. Linux only.
"""

# pathlib would double the time that this takes to start:
# ruff: noqa: PTH101, PTH106, PTH110, PTH123, PTH208

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Collection

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
LEFTOVER_GRACE = 1.0
POLL = 0.05

# What ends a job.
END = signal.SIGUSR1
HEARD = {END, signal.SIGCHLD}
# A Ctrl-C, a hang-up or a request to stop the node is for the node to judge.
BLOCKED = HEARD | {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE}

# Whether the kernel lists the children of a thread (CONFIG_PROC_CHILDREN; Linux 3.5 and newer).
_LISTED = os.path.exists("/proc/thread-self/children")

_prctl = ctypes.CDLL(None, use_errno=True).prctl


def main(parent: int, grace: float, scratch: str, report: int, command: list[str]) -> int:
    """Run `command` to its end and the end of all it started; return the exit status."""
    os.set_inheritable(report, False)
    signal.pthread_sigmask(signal.SIG_BLOCK, BLOCKED)
    _prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    _prctl(PR_SET_PDEATHSIG, END, 0, 0, 0)
    status: int | None = None
    try:
        # The worker may have died before the kernel was asked to tell.
        if os.getppid() == parent:
            status = watch(start(command), grace)
    finally:
        remove(scratch)
    if status is None:
        return 128 + signal.SIGTERM
    if status < 0:
        os.write(report, str(-status).encode())
        return 128 - status
    return status


def start(command: list[str]) -> int:
    """Start `command` in a session of its own and return its pid."""
    reaper = os.getpid()
    child = os.fork()
    if child:
        return child
    problem, code = "cannot start", 126
    try:
        os.setsid()
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != reaper:
            os._exit(code)
        # Python ignores SIGPIPE, a worker SIGINT, and whoever started it perhaps more; a job begins anew.
        for number in signal.valid_signals():
            if signal.getsignal(number) is signal.SIG_IGN:
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.execvp(command[0], command)  # noqa: S606 - the command is what the task says
    except FileNotFoundError:
        problem, code = "there is no program", 127
    except OSError as error:
        problem = f"{error.strerror}: cannot start"
    finally:
        remark(f"{problem} {command[0]!r}")
        os._exit(code)


def watch(command: int, grace: float) -> int | None:
    """Wait for the command or for END, end the rest, and return the command's status if it has one."""
    ended = reap()
    while command not in ended:
        if signal.sigwait(HEARD) == END:
            ended |= end_descendants(grace)
            return ended.get(command)
        ended |= reap()
    status = ended[command]
    left = sum(group is not None for group in descendants().values())
    if left:
        remark(f"the command ended and left behind {left} of its processes, which are ended now")
    end_descendants(min(grace, LEFTOVER_GRACE))
    return status


def reap() -> dict[int, int]:
    """Collect every child that ended: {pid: status}, signal N as -N."""
    ended: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if not pid:
            return ended
        ended[pid] = os.waitstatus_to_exitcode(status)


def end_descendants(grace: float) -> dict[int, int]:
    """End every descendant, however it hides; return what ended as `reap` does."""
    ended = reap()
    deadline = time.monotonic() + grace
    # Once: what appears later is the tidying up of those that were asked.
    for pid in descendants():
        send(os.kill, pid, signal.SIGTERM)
        # A stopped process hears SIGTERM only once it goes on.
        send(os.kill, pid, signal.SIGCONT)
    while has_children():
        if time.monotonic() >= deadline:
            kill(descendants())
        signal.sigtimedwait({signal.SIGCHLD}, POLL)
        ended |= reap()
    return ended


def kill(found: dict[int, int | None]) -> None:
    """Send SIGKILL to every process of `found`, as `descendants` gives it, and to the group of each."""
    for pid in found:
        send(os.kill, pid, signal.SIGKILL)
    # A group is killed at once: a process that forks faster than we look cannot slip through.
    for group in {group for group in found.values() if group is not None} - {os.getpgrp()}:
        send(os.killpg, group, signal.SIGKILL)


def has_children() -> bool:
    """Whether anything is left: as the subreaper, we are the parent of every orphan."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def descendants(spare: Collection[int] = ()) -> dict[int, int | None]:
    """Every process below this one, except those in `spare` and what is below them: {pid: process group}.

    The group of a dead one that nobody has buried yet is None. It counts: while we looked, its child may
    have become ours. Only once nothing is found, for a subreaper, is nothing left.

    Reads the tree alone, so the cost does not grow with the other processes of the host. Our own children are
    always complete. One further down may be missed while the tree changes; the next look finds it, because
    its parent lives, or because it has become our child.
    """
    children = _children if _LISTED else _children_on_host()
    found: dict[int, int | None] = {}
    level = [os.getpid()]
    while level:
        # One that moved up while we looked is there already.
        below = {pid for parent in level for pid in children(parent)} - found.keys() - set(spare)
        groups = {pid: _group(pid) for pid in below}
        found |= groups
        level = list(groups)
    return found


def _children(parent: int) -> set[int]:
    """The children of one process, as the kernel lists them for each of its threads.

    The kernel may leave one out when another is buried during the read: our own are buried by us alone, and not
    now. When a thread ends, its children move to another thread, so the lists are read again.
    """
    found: set[int] = set()
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        ended = {""}
        while ended:
            threads = set(os.listdir(f"/proc/{parent}/task"))
            for thread in threads:
                with (
                    contextlib.suppress(FileNotFoundError, ProcessLookupError),
                    open(f"/proc/{parent}/task/{thread}/children", "rb") as children,
                ):
                    found.update(map(int, children.read().split()))
            ended = threads - set(os.listdir(f"/proc/{parent}/task"))
    return found


def _children_on_host() -> Callable[[int], set[int]]:
    """What `_children` gives, from all processes of the host: for a kernel without CONFIG_PROC_CHILDREN."""
    found: dict[int, set[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (stat := _stat(int(entry))):
            found.setdefault(int(stat[1]), set()).add(int(entry))
    return lambda parent: found.get(parent, set())


def _group(pid: int) -> int | None:
    """The process group of a process; None when it is dead."""
    stat = _stat(pid)
    return int(stat[2]) if stat and stat[0] not in {b"Z", b"X"} else None


def _stat(pid: int) -> list[bytes]:
    """State, parent and process group of a process; nothing when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            # The name, in parentheses, may hold anything, also spaces and parentheses.
            return stat.read().rpartition(b")")[2].split()[:3]
    except OSError:
        return []


def send(how: Callable[[int, int], None], target: int, number: int) -> None:
    """Send a signal to what may be gone already, or may have become someone else's."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        how(target, number)


def remark(text: str) -> None:
    """Say something in the job's output; nobody may be reading any more."""
    with contextlib.suppress(OSError):
        os.write(1, f"tailrace: {text}\n".encode("utf-8", "backslashreplace"))


def remove(scratch: str) -> None:
    """Remove the scratch directory with all that is in it."""
    if not scratch:
        return
    try:
        os.rmdir(scratch)
    except FileNotFoundError:
        return
    except OSError:
        # Imported only here: most jobs leave nothing, and it costs as much as all the rest.
        import shutil

        shutil.rmtree(scratch, ignore_errors=True)
        if os.path.exists(scratch):
            for folder, _, _ in os.walk(scratch):
                with contextlib.suppress(OSError):
                    os.chmod(folder, 0o700)
            shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3], int(sys.argv[4]), sys.argv[5:]))
