"""No process of a job outlives the job, whoever dies first: real processes, real signals."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from django_q.exceptions import TimeoutException
from django_q.timeout import TimeoutHandler

from scheduling.jobs import JobFailed, JobStopped
from scheduling.kinds import reaper
from scheduling.kinds.process import (
    describe_status,
    end_descendants,
    exit_code,
    no_descendant_left,
    run_command,
)
from tests.unit.support import Log, marked, until

ROOT = Path(__file__).resolve().parents[2]

TRAPS = "trap '' TERM; echo started; while :; do sleep 0.1; done"
TREES = {
    "a pipeline": "sleep 300 | sleep 300",
    "grandchildren that ignore SIGTERM": f'sh -c "{TRAPS}" & sh -c "{TRAPS}"',
    "a daemon in a session of its own": "setsid sleep 300 & echo started; sleep 300",
    "a daemon by a double fork": "(setsid sh -c 'sleep 300 & sleep 300 &' &); echo started; sleep 300",
    "a daemon that ignores SIGTERM": f'(setsid sh -c "{TRAPS}" >/dev/null &); echo started; sleep 300',
    "a stopped process": "sleep 300 & kill -STOP $!; echo started; sleep 300",
    "a process that closed its output": "exec >&- 2>&-; sleep 300",
}


@pytest.fixture
def mark() -> Iterator[str]:
    mark = uuid.uuid4().hex
    yield mark
    for pid in marked(mark):
        os.kill(pid, signal.SIGKILL)


def environment(mark: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "TEST_MARK": mark}


def run(
    command: str, mark: str, *, log: Log | None = None, stop: threading.Event | None = None, grace: float = 0.5
) -> int:
    return run_command(
        ["/bin/sh", "-c", command],
        env=environment(mark),
        log=log or Log(),
        stop=stop or threading.Event(),
        grace=grace,
    )


@contextmanager
def stop_when(condition: object) -> Iterator[threading.Event]:
    """An event that is set once `condition()` is true."""
    stop = threading.Event()
    thread = threading.Thread(target=lambda: (until(condition), stop.set()))
    thread.start()
    try:
        yield stop
    finally:
        thread.join()


@contextmanager
def worker(command: str, mark: str) -> Iterator[subprocess.Popen[bytes]]:
    """A stand-in for a worker process that runs `command` as a job."""
    code = (
        "import sys, threading\n"
        "from tests.unit.support import Log\n"
        "from scheduling.jobs import JobFailed\n"
        "from scheduling.kinds.process import become_subreaper, run_command\n"
        "become_subreaper()\n"
        "try:\n"
        "    run_command(['/bin/sh', '-c', sys.argv[1]], env={'PATH': sys.argv[2], 'TEST_MARK': sys.argv[3]},\n"
        "                log=Log(), stop=threading.Event(), grace=0.3)\n"
        "except JobFailed as failure:\n"
        "    print(failure)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, command, os.environ["PATH"], mark], cwd=ROOT, stdout=subprocess.PIPE
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def reaper_of(process: subprocess.Popen[bytes]) -> psutil.Process:
    return until(lambda: psutil.Process(process.pid).children())[0]


def started(mark: str, count: int = 3) -> bool:
    """Whether the reaper, the shell and something below it live."""
    return len(marked(mark)) >= count


def test_a_command_gives_its_output_and_its_exit_status(mark: str) -> None:
    log = Log()

    assert run("echo out; echo err >&2; exit 3", mark, log=log) == 3
    assert log.whole == "out\nerr\n"


def test_a_command_that_a_signal_killed_says_which(mark: str) -> None:
    assert describe_status(run("kill -KILL $$", mark)) == "killed by SIGKILL"
    assert describe_status(run("kill -SEGV $$", mark)) == "killed by SIGSEGV"


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("exit 3", "exit code 3"),
        ("exit 250", "exit code 250"),
        ("exit 128", "exit code 128"),
        ("exit 137", "exit code 137 (often SIGKILL: out of memory?)"),
        ("exit 143", "exit code 143 (often SIGTERM)"),
        ("sh -c 'kill -KILL $$'; exit $?", "exit code 137 (often SIGKILL: out of memory?)"),
    ],
)
def test_an_exit_code_is_not_taken_for_a_signal(command: str, says: str, mark: str) -> None:
    status = run(command, mark)
    assert describe_status(status) == says
    assert exit_code(status) == status


def test_the_exit_code_of_a_killed_command_is_the_one_a_shell_shows(mark: str) -> None:
    assert exit_code(run("kill -KILL $$", mark)) == 137


def test_a_program_that_does_not_exist_is_127_and_named_in_the_log(mark: str) -> None:
    log = Log()
    status = run_command(["no-such-program"], env=environment(mark), log=log, stop=threading.Event(), grace=1)

    assert (status, log.whole) == (127, "tailrace: there is no program 'no-such-program'\n")


def test_a_program_that_may_not_be_executed_is_126_and_named_in_the_log(mark: str) -> None:
    log = Log()
    status = run_command(["/etc/passwd"], env=environment(mark), log=log, stop=threading.Event(), grace=1)

    assert (status, log.whole) == (126, "tailrace: Permission denied: cannot start '/etc/passwd'\n")


def test_a_missing_directory_and_too_long_an_environment_are_refused_in_words(mark: str) -> None:
    with pytest.raises(JobFailed, match="cannot run in the directory '/no/such': No such file"):
        run_command(["true"], env={}, log=Log(), stop=threading.Event(), grace=1, cwd="/no/such")
    with pytest.raises(JobFailed, match="too long for a process; pass large values in a file"):
        run_command(["true"], env={"PARAM_X": "x" * 200_000}, log=Log(), stop=threading.Event(), grace=1)


def test_a_job_starts_with_default_signals_and_no_input(mark: str) -> None:
    log = Log()
    run("cat; grep -E 'Sig(Blk|Ign)' /proc/self/status", mark, log=log)

    _, blocked, _, ignored = log.whole.split()
    # 32 and 33 are the C library's own, which no program can set.
    assert [int(mask, 16) & ~(0b11 << 31) for mask in (blocked, ignored)] == [0, 0]


def test_the_scratch_directory_is_fresh_and_gone_afterwards_whatever_is_in_it(mark: str) -> None:
    log = Log()
    run("pwd; echo $WORKDIR; ls -A; mkdir -p a/b; touch a/b/c; chmod 500 a/b a", mark, log=log)
    where, workdir = log.whole.split()

    assert where == workdir
    assert not Path(workdir).exists()


@pytest.mark.parametrize("tree", TREES.values(), ids=TREES)
def test_a_stop_ends_the_whole_tree(tree: str, mark: str) -> None:
    with stop_when(lambda: started(mark)) as stop, pytest.raises(JobStopped):
        run(tree, mark, stop=stop)

    assert marked(mark) == []


def test_a_stop_gives_the_job_its_grace_to_tidy_up(mark: str) -> None:
    log = Log()
    with stop_when(lambda: "started" in log.text) as stop, pytest.raises(JobStopped):
        run(
            "trap 'sleep 0.5 && echo tidied; exit' TERM; echo started; while :; do sleep 0.05; done",
            mark,
            log=log,
            stop=stop,
            grace=10,
        )

    assert log.whole.endswith("tidied\n")


def test_a_stop_is_heard_while_output_pours(mark: str) -> None:
    log = Log()
    with stop_when(lambda: "y" in log.text) as stop, pytest.raises(JobStopped):
        run("yes", mark, log=log, stop=stop)

    assert marked(mark) == []


def test_a_job_that_pours_into_its_pipe_while_it_is_ended_does_not_block(mark: str) -> None:
    log = Log()
    with stop_when(lambda: "started" in log.text) as stop, pytest.raises(JobStopped):
        run(
            "trap 'yes | head -c 5000000; echo tidied; exit' TERM; echo started; while :; do sleep 0.05; done",
            mark,
            log=log,
            stop=stop,
            grace=20,
        )

    assert log.whole.endswith("tidied\n")


@pytest.mark.parametrize("tree", TREES.values(), ids=TREES)
def test_a_time_out_ends_the_whole_tree_before_it_is_raised(tree: str, mark: str) -> None:
    with pytest.raises(TimeoutException), TimeoutHandler(1):
        run(tree, mark)

    assert marked(mark) == []


# The alarm may ring while psutil has a file open, which Python then remarks on.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_time_out_at_any_moment_of_the_start_leaves_nothing(
    mark: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def ring(*_: object) -> None:
        raise TimeoutException("now")

    handler = signal.signal(signal.SIGALRM, ring)
    try:
        for step in range(60):
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.0002 + step * 0.0005)
                run("setsid sleep 300 & sleep 300", mark, grace=0.1)
            except TimeoutException:
                pass
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            assert marked(mark) == []
    finally:
        signal.signal(signal.SIGALRM, handler)
    assert list(tmp_path.iterdir()) == []


def test_what_the_command_leaves_in_the_background_is_ended_with_it_and_the_log_says_so(mark: str) -> None:
    log = Log()

    assert run("sleep 300 & (setsid sleep 300 >/dev/null 2>&1 &) ; exit 4", mark, log=log) == 4
    assert marked(mark) == []
    assert "the command ended and left behind 2 of its processes, which are ended now" in log.whole


@pytest.mark.parametrize("tree", TREES.values(), ids=TREES)
def test_a_killed_worker_leaves_no_orphan_and_no_directory(tree: str, mark: str) -> None:
    with worker(tree, mark) as process:
        until(lambda: started(mark))
        workdir = psutil.Process(reaper_of(process).pid).environ()["WORKDIR"]
        process.kill()
        until(lambda: not marked(mark))
        until(lambda: not Path(workdir).exists())


@pytest.mark.parametrize("tree", TREES.values(), ids=TREES)
def test_a_killed_reaper_leaves_no_orphan_and_the_job_fails_with_that_reason(tree: str, mark: str) -> None:
    with worker(tree, mark) as process:
        until(lambda: started(mark))
        keeper = reaper_of(process)
        workdir = keeper.environ()["WORKDIR"]
        keeper.kill()
        said, _ = process.communicate(timeout=20)

        assert b"the process that watched over the job was killed by SIGKILL" in said
        assert marked(mark) == []
        assert not Path(workdir).exists()


def test_a_job_that_stops_its_reaper_is_not_saved_by_that(mark: str) -> None:
    log = Log()
    with stop_when(lambda: "started" in log.text) as stop, pytest.raises(JobStopped):
        run("kill -STOP $PPID; echo started; sleep 300", mark, log=log, stop=stop, grace=0.1)

    assert marked(mark) == []


def test_a_relay_of_short_lived_processes_is_caught(mark: str) -> None:
    # It ends by itself too: should this test be killed, nobody is left to catch it.
    # The command goes on until it is stopped, or its end, which ends the relay as well, could come first.
    relay = """
import os, time
if os.fork():
    time.sleep(60)
    os._exit(0)
os.write(1, b"started")
end = time.monotonic() + 60
while time.monotonic() < end:
    if os.fork():
        os._exit(0)
"""
    log = Log()
    with stop_when(lambda: "started" in log.text) as stop, pytest.raises(JobStopped):
        run_command([sys.executable, "-S", "-c", relay], env=environment(mark), log=log, stop=stop, grace=0.2)

    assert marked(mark) == []


def test_a_dead_child_that_nobody_buried_counts_for_its_own_child_may_just_have_become_ours() -> None:
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)

    assert reaper.descendants()[child] is None
    spared = [pid for pid in reaper.descendants() if pid != child]
    assert end_descendants(0.5, spare=spared) == 0
    assert child not in reaper.descendants()


def test_children_that_were_there_before_are_spared() -> None:
    earlier = subprocess.Popen(["sleep", "300"])
    try:
        with no_descendant_left(0.5):
            during = subprocess.Popen(["sleep", "300"])

        assert not psutil.pid_exists(during.pid)
        assert during.wait() is not None
        assert earlier.poll() is None
        assert end_descendants(0.5) >= 1
        assert earlier.wait() is not None
    finally:
        earlier.kill()
        earlier.wait()


def test_descendants_that_ignore_sigterm_are_killed_after_the_grace() -> None:
    with no_descendant_left(0.3):
        child = subprocess.Popen(
            ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done"], stdout=subprocess.PIPE
        )
        assert child.stdout is not None
        child.stdout.readline()
    child.stdout.close()

    assert child.wait() in {-signal.SIGKILL, 0}
    assert not psutil.pid_exists(child.pid)


def test_output_of_any_size_passes_in_flat_memory(mark: str) -> None:
    log = Log()
    peak = psutil.Process().memory_info().rss
    began = time.monotonic()
    run("yes | head -c 200000000", mark, log=log)
    took = time.monotonic() - began

    assert psutil.Process().memory_info().rss - peak < 20_000_000
    assert took < 20
    head, _, rest = log.whole.partition("<gap ")
    dropped, _, tail = rest.partition(">")
    assert len(head) + int(dropped) + len(tail) == 200_000_000


def test_a_line_of_a_megabyte_and_bytes_that_are_no_text_pass(mark: str) -> None:
    log = Log(head_bytes=2_000_000)

    assert run("head -c 1000000 /dev/zero | tr '\\0' x; printf '\\377\\n'", mark, log=log) == 0
    assert log.whole == "x" * 1_000_000 + "\ufffd\n"
