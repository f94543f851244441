"""The process of an isolated Python job: `python -m scheduling.kinds.isolated REPLY_FD`, started by python.py.

Reads `{"job": name, "context": …}` from standard input and writes `{"result": …}` or `{"failed": message,
"exit_code": …, "result": …}` to the file descriptor. Everything it prints is the job's log.
SIGTERM raises JobStopped in the job, which may tidy up before SIGKILL follows.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from types import FrameType
from typing import Any

import django

from scheduling import jobs, reasons
from scheduling.jobs import JobContext, JobFailed, JobStopped
from scheduling.reasons import said


class _StandardOutput:
    """The log of a job whose output is collected at the other end of a pipe, where secrets are masked too."""

    def write(self, text: str) -> None:
        self.write_bytes(text.encode("utf-8", "backslashreplace"))

    def write_bytes(self, data: bytes) -> None:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()

    def redact(self, *secrets: str) -> None:
        """Nothing to do here."""

    def redacted(self, text: str) -> str:
        return text


def main(reply: int) -> int:
    """Run the job that standard input describes; return the exit status."""
    os.set_inheritable(reply, False)
    request = json.load(sys.stdin)
    stop = threading.Event()

    def on_terminate(_number: int, _frame: FrameType | None) -> None:
        if not stop.is_set():
            stop.set()
            raise JobStopped

    try:
        signal.signal(signal.SIGTERM, on_terminate)
        answer, status = _run(request, stop)
    except JobStopped:
        answer, status = (
            {"failed": said(reasons.JOB_TERMINATED), "exit_code": 143, "result": None},
            143,
        )
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with open(reply, "w") as out:
        json.dump(answer, out)
    return status


def _run(request: dict[str, Any], stop: threading.Event) -> tuple[dict[str, Any], int]:
    django.setup()
    # Only now: kinds use Django's translations.
    from scheduling.kinds.python import call

    jobs.load_job_modules()
    job = jobs.find(request["job"])
    context = JobContext.from_message(request["context"], log=_StandardOutput(), stop=stop)
    try:
        if job is None:
            raise JobFailed(said(reasons.JOB_UNKNOWN_ISOLATED, call=repr(request["job"])))
        return {"result": call(job, context)}, 0
    except JobFailed as failure:
        return {"failed": failure.message, "exit_code": failure.exit_code, "result": failure.result}, 1


if __name__ == "__main__":
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]
    sys.exit(main(int(sys.argv[1])))
