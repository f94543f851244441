"""What the tests of jobs share: a log to read, a context, waiting on conditions, finding processes."""

import datetime as dt
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import psutil

from scheduling.engine.logs import LogSink
from scheduling.jobs import JobContext
from scheduling.kinds import kind

JOBS = "tests.unit.jobs_for_tests"


def until(condition: Callable[[], Any], *, seconds: float = 20.0) -> Any:
    """What `condition` gives once it is true; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.01)
    return found


class Log(LogSink):
    """A sink that can be read while it is written."""

    def __init__(self, *, head_bytes: int = 1024 * 1024, tail_bytes: int = 64 * 1024) -> None:
        self._pieces: list[str] = []
        super().__init__(
            lambda _sequence, text, dropped: self._pieces.append(f"<gap {dropped}>" if dropped else text),
            head_bytes=head_bytes,
            tail_bytes=tail_bytes,
        )

    @property
    def text(self) -> str:
        """Everything written so far."""
        self.flush()
        return "".join(self._pieces)

    @property
    def whole(self) -> str:
        """Everything, when nothing more will be written."""
        self.flush(final=True)
        return "".join(self._pieces)


def make_context(**fields: Any) -> JobContext:
    """A context of an execution that does not exist, with a `Log`."""
    return JobContext(
        **{
            "execution_id": 4711,
            "instance_id": 471,
            "batch_id": 47,
            "task": "extract",
            "cycle_time": dt.datetime(2026, 3, 2, 1, tzinfo=dt.UTC),
            "data_date": dt.date(2026, 3, 1),
            "log": Log(),
            "stop": threading.Event(),
            "stop_grace": 2.0,
        }
        | fields
    )


def marked(mark: str) -> list[int]:
    """The pids of living processes that have TEST_MARK=`mark` in their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get("TEST_MARK") == mark:
                found.append(process.pid)
        except psutil.Error:
            continue
    return [pid for pid in found if pid != os.getpid()]


def run(name: str, context: JobContext | None = None, **spec: Any) -> Any:
    """Run a job of the kind called `name`, whose specification is `spec`."""
    chosen = kind(name)
    return chosen.run(chosen.clean(spec), context or make_context())


def call(name: str, context: JobContext | None = None) -> Any:
    """Run the python job called `name` of `jobs_for_tests`."""
    return run("python", context, call=f"{JOBS}.{name}")


def stop_when(context: JobContext, text: str) -> None:
    """Ask for a stop once the log says `text`."""
    threading.Thread(target=lambda: (until(lambda: text in context.log.text), context.stop.set())).start()
