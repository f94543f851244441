"""Python jobs: a callable that `@job` registered, in the worker or, if isolated, in a process of its own."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import tempfile
import traceback
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, ClassVar, cast

from django.utils.translation import gettext as _

from scheduling import jobs, reasons
from scheduling.jobs import Job, JobContext, JobFailed, Log
from scheduling.kinds.base import Kind, SpecReader, checked_result
from scheduling.kinds.process import describe_status, exit_code, no_descendant_left, run_command
from scheduling.reasons import said

_ROOT = Path(__file__).resolve().parent.parent.parent
_REPLY_BYTES = 1024 * 1024


class PythonKind(Kind):
    """Calls the job registered as `call` with its context."""

    name: ClassVar[str] = "python"
    fields: ClassVar[Mapping[str, bool]] = {"call": True}

    def clean(self, spec: Mapping[str, Any]) -> dict[str, Any]:
        """See `Kind.clean`. `call` must be registered on the machine that saves the task."""
        reader = SpecReader(self, spec)
        call = reader.text("call")
        jobs.load_job_modules()
        if call is not None and jobs.find(call) is None:
            reader.errors["call"] = _not_registered(call)
        return reader.finish(call=call)

    def run(self, spec: Mapping[str, Any], context: JobContext) -> Any:
        """See `Kind.run`. Processes that the callable started and left are ended with it."""
        job = jobs.find(spec["call"])
        if job is None:
            jobs.load_job_modules()
            job = jobs.find(spec["call"])
        if job is None:
            raise JobFailed(said(reasons.JOB_UNKNOWN, call=repr(spec["call"])))
        if job.isolated:
            return _run_isolated(job, context)
        with no_descendant_left(context.stop_grace), _output_to(context.log):
            return call(job, context)


def call(job: Job, context: JobContext) -> Any:
    """Call `job` in this process and return its checked result.

    Raises JobFailed for whatever the callable raises, its traceback being in the log; JobStopped and
    SystemExit's subclasses (django-q2's time-out is one) pass through, `sys.exit()` itself ends the job.
    """
    try:
        result = job.function(context)
    except JobFailed as failure:
        failure.result = checked_result(failure.result)
        failure.message = context.log.redacted(failure.message)
        raise
    except Exception as error:
        context.log.write("".join(traceback.format_exception(_without_us(error))))
        raise JobFailed(context.log.redacted(_headline(error))) from error
    except SystemExit as leaving:
        if type(leaving) is not SystemExit:
            raise
        if leaving.code in {None, 0}:
            return None
        code = leaving.code if isinstance(leaving.code, int) else 1
        raise JobFailed(
            context.log.redacted(said(reasons.JOB_EXITED, argument=repr(leaving.code))), exit_code=code
        ) from leaving
    return checked_result(result)


def _run_isolated(job: Job, context: JobContext) -> Any:
    """Run `job` by `scheduling.kinds.isolated`: context in and reply out through files that have no name."""
    message = json.dumps({"job": job.name, "context": context.to_message()})
    with tempfile.TemporaryFile() as request, tempfile.TemporaryFile() as reply:
        request.write(message.encode())
        request.seek(0)
        status = run_command(
            [sys.executable, "-m", "scheduling.kinds.isolated", str(reply.fileno())],
            env=os.environ,
            cwd=str(_ROOT),
            stdin=request.fileno(),
            pass_fds=[reply.fileno()],
            log=context.log,
            stop=context.stop,
            grace=context.stop_grace,
        )
        reply.seek(0)
        answer = reply.read(_REPLY_BYTES)
    try:
        told = json.loads(answer)
    except ValueError:
        # It ended before it could answer: by os._exit, a signal, or the lack of memory.
        raise JobFailed(
            said(reasons.JOB_WITHOUT_RESULT, why=describe_status(status)), exit_code=exit_code(status)
        ) from None
    if "failed" in told:
        raise JobFailed(
            context.log.redacted(told["failed"]), exit_code=told["exit_code"], result=told["result"]
        )
    return told["result"]


def _not_registered(call: str) -> str:
    known = jobs.registered()
    close = get_close_matches(call, known, n=1)
    hint = _(" Did you mean “%(close)s”?") % {"close": close[0]} if close else ""
    return (
        _(
            "No job is registered as “%(call)s”: mark the function with @job"
            " and start this process, too, with its module in TAILRACE_JOB_MODULES."
        )
        % {"call": call}
        + hint
    )


def _headline(error: BaseException) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text[:2000]}" if text else type(error).__name__


def _without_us(error: BaseException) -> BaseException:
    """`error` with a traceback that begins in the job's own code."""
    ours = error.__traceback__
    return error.with_traceback(ours.tb_next) if ours is not None else error


@contextlib.contextmanager
def _output_to(log: Log) -> Iterator[None]:
    """Let `print` and whatever writes to sys.stdout or sys.stderr go to the log."""
    stream = io.TextIOWrapper(
        cast("io.BytesIO", _LogFile(log)), encoding="utf-8", errors="backslashreplace", write_through=True
    )
    try:
        with contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):
            yield
    finally:
        stream.detach()


class _LogFile(io.RawIOBase):
    """The log as a binary file, so that `sys.stdout.buffer` works too."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        piece = bytes(data)
        self._log.write_bytes(piece)
        return len(piece)
