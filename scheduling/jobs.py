"""For authors of Python jobs: register a callable with `@job`, and it is called with a `JobContext`.

    from scheduling.jobs import JobContext, job

    @job
    def count_flights(context: JobContext) -> dict[str, int]:
        context.logger.info("counting %s", context.data_date)
        for page in pages(context.shard_parameter):
            context.check_stop()
            ...
        return {"flights": total}

A python task names it by its dotted path (`call: mypackage.jobs.count_flights`). Only registered
callables can be named: nothing is ever imported because a task says so. What is registered is found in
the `jobs` module of every installed app and in the modules that the setting `TAILRACE["JOB_MODULES"]` lists.

The return value (anything JSON can hold, up to 64 KiB) is the result. To fail, raise: `JobFailed` for a
message without a traceback, anything else for one with it. `print` goes to the log like the logger.
A job that computes for long without touching `context.check_stop()` can only be stopped or timed out
promptly if it is isolated: `@job(isolated=True)` gives it a process of its own, which can be killed.
"""

from __future__ import annotations

import datetime as dt
import importlib
import inspect
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, overload

from scheduling import parameters as job_parameters

type JobFunction = Callable[[JobContext], Any]


class JobFailed(Exception):
    """The job did not succeed: `message` for the operator, and the exit code and result when there are any."""

    def __init__(self, message: str, exit_code: int | None = None, result: Any = None) -> None:
        super().__init__(message)
        # Jobs are anybody's code, and nothing has checked what they raise.
        self.message = str(message)
        self.exit_code = exit_code
        self.result = result


class JobStopped(BaseException):
    """The job ended because a stop was asked. No Exception, so that a job's `except Exception` lets it pass."""


class Log(Protocol):
    """What a job writes to; `scheduling.engine.logs.LogSink` is the one of real executions."""

    def write(self, text: str) -> None: ...
    def write_bytes(self, data: bytes) -> None: ...
    def redact(self, *secrets: str) -> None: ...
    def redacted(self, text: str) -> str: ...


class JobContext:
    """What a job knows about its execution, and how it hears of a stop.

    `cycle_time` is aware, `data_date` a date; `attempt` counts from 1. `parameters` are the task's with the
    batch's overrides, already expanded. `stop` is set by whoever runs the job; `stop_grace` is how many seconds
    processes get between SIGTERM and SIGKILL.
    """

    __slots__ = (
        "_logger",
        "attempt",
        "batch_id",
        "cycle_time",
        "data_date",
        "execution_id",
        "instance_id",
        "log",
        "parameters",
        "shard_count",
        "shard_index",
        "shard_parameter",
        "stop",
        "stop_grace",
        "task",
    )

    def __init__(
        self,
        *,
        execution_id: int,
        instance_id: int,
        batch_id: int,
        task: str,
        cycle_time: dt.datetime,
        data_date: dt.date,
        log: Log,
        stop: threading.Event,
        attempt: int = 1,
        shard_index: int = 0,
        shard_count: int = 1,
        shard_parameter: str = "",
        parameters: dict[str, Any] | None = None,
        stop_grace: float = 5.0,
    ) -> None:
        self.execution_id = execution_id
        self.instance_id = instance_id
        self.batch_id = batch_id
        self.task = task
        self.cycle_time = cycle_time
        self.data_date = data_date
        self.log = log
        self.stop = stop
        self.attempt = attempt
        self.shard_index = shard_index
        self.shard_count = shard_count
        self.shard_parameter = shard_parameter
        self.parameters = parameters if parameters is not None else {}
        self.stop_grace = stop_grace
        # Made at first use: a context costs a microsecond, a logger twenty.
        self._logger: logging.Logger | None = None

    @property
    def logger(self) -> logging.Logger:
        """A logger of this execution alone; its lines carry the time (UTC) and the level."""
        if self._logger is None:
            self._logger = _logger_to(self.log, self.task)
        return self._logger

    @property
    def stop_requested(self) -> bool:
        """Whether the job was asked to end."""
        return self.stop.is_set()

    def check_stop(self) -> None:
        """Raise JobStopped when a stop was asked. Call it between steps."""
        if self.stop.is_set():
            raise JobStopped

    def sleep(self, seconds: float) -> None:
        """Wait, but raise JobStopped as soon as a stop is asked."""
        if self.stop.wait(seconds):
            raise JobStopped

    @property
    def builtins(self) -> dict[str, Any]:
        """The built-in parameters (`scheduling.parameters.BUILTINS`) with this execution's values."""
        return job_parameters.builtins(
            cycle_time=self.cycle_time,
            data_date=self.data_date,
            batch_id=self.batch_id,
            shard_index=self.shard_index,
            shard_count=self.shard_count,
            shard_param=self.shard_parameter,
        )

    def to_message(self) -> dict[str, Any]:
        """All but the log and the stop as JSON can hold it; `from_message` reads it in another process."""
        plain = {name: getattr(self, name) for name in self.__slots__ if name not in {"_logger", "log", "stop"}}
        zone = getattr(self.cycle_time.tzinfo, "key", None)
        return {
            **plain,
            "cycle_time": self.cycle_time.isoformat(),
            "zone": zone,
            "data_date": self.data_date.isoformat(),
        }

    @classmethod
    def from_message(cls, message: dict[str, Any], *, log: Log, stop: threading.Event) -> JobContext:
        """The context that `to_message` described."""
        from zoneinfo import ZoneInfo

        fields = dict(message)
        cycle_time = dt.datetime.fromisoformat(fields.pop("cycle_time"))
        zone = fields.pop("zone")
        return cls(
            cycle_time=cycle_time.astimezone(ZoneInfo(zone)) if zone else cycle_time,
            data_date=dt.date.fromisoformat(fields.pop("data_date")),
            log=log,
            stop=stop,
            **fields,
        )


@dataclass(frozen=True, slots=True)
class Job:
    """A registered callable: the name tasks call it by, and whether it runs in a process of its own."""

    name: str
    function: JobFunction
    isolated: bool = False


_registry: dict[str, Job] = {}


@overload
def job[F: JobFunction](function: F, /) -> F: ...
@overload
def job[F: JobFunction](*, isolated: bool = False, name: str | None = None) -> Callable[[F], F]: ...
def job(function: Any = None, /, *, isolated: bool = False, name: str | None = None) -> Any:
    """Register a module-level function as a job under its dotted path, or under `name`.

    `isolated` runs it in a process of its own, which a stop or a time-out can kill at any point and
    whose every output, also that of programs it starts, is in the log; it takes a second or so to start.
    Raises TypeError for what cannot be called by name, ValueError when the name belongs to another function.
    """

    def registered_as_job(function: Any) -> Any:
        path = name or _path(function)
        known = _registry.get(path)
        if known is not None and _path(known.function) != _path(function):
            raise ValueError(
                f"@job: the name {path!r} belongs to {_path(known.function)} already; choose another"
            )
        _registry[path] = Job(path, function, isolated)
        return function

    return registered_as_job if function is None else registered_as_job(function)


def registered() -> dict[str, Job]:
    """The jobs known so far, by name; `load_job_modules` makes them all known."""
    return dict(_registry)


def find(name: str) -> Job | None:
    """The job registered as `name`, or None."""
    return _registry.get(name)


def load_job_modules() -> None:
    """Import every module that registers jobs; cheap when done before.

    Raises ImproperlyConfigured when one that `TAILRACE["JOB_MODULES"]` names does not exist or does not import.
    """
    from django.conf import settings
    from django.utils.module_loading import autodiscover_modules

    configured: dict[str, Any] = settings.TAILRACE
    wanted = tuple(configured.get("JOB_MODULES", ()))
    if wanted in _loaded:
        return
    autodiscover_modules("jobs")
    for module in wanted:
        _import(module)
    _loaded.add(wanted)


_loaded: set[tuple[str, ...]] = set()


def _import(module: str) -> None:
    from django.core.exceptions import ImproperlyConfigured

    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and (module == error.name or module.startswith(f"{error.name}.")):
            raise ImproperlyConfigured(
                f'TAILRACE["JOB_MODULES"] names {module!r}, and there is no module {error.name!r}. '
                "Correct the setting (environment: TAILRACE_JOB_MODULES) or install what provides it."
            ) from error
        raise ImproperlyConfigured(
            f'{module}, named in TAILRACE["JOB_MODULES"], needs {error.name!r}, which is not installed.'
        ) from error
    except Exception as error:
        raise ImproperlyConfigured(
            f'{module}, named in TAILRACE["JOB_MODULES"], does not import: {type(error).__name__}: {error}'
        ) from error


def _path(function: Any) -> str:
    """The dotted path of a module-level function; raises TypeError for anything else."""
    path = f"{getattr(function, '__module__', None)}.{getattr(function, '__qualname__', None)}"
    if not inspect.isroutine(function) or "<" in path:
        raise TypeError(f"@job needs a module-level function, and got {function!r}")
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        raise TypeError(
            f"@job needs a plain function; {path} is a coroutine or a generator, which nobody would run"
        )
    return path


class _LogHandler(logging.Handler):
    """Hands log records to an execution's log."""

    def __init__(self, log: Log) -> None:
        super().__init__()
        self.formatter = _FORMATTER
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._log.write(self.format(record) + "\n")
        except Exception:  # noqa: BLE001 - logging's own rule: a bad log call never ends the job
            self.handleError(record)


_FORMATTER = logging.Formatter("%(asctime)s.%(msecs)03dZ %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S")
_FORMATTER.converter = time.gmtime


def _logger_to(log: Log, name: str) -> logging.Logger:
    # Of nobody else: loggers from getLogger() are kept for ever, and there are as many as executions.
    logger = logging.Logger(name, logging.DEBUG)  # noqa: LOG001
    logger.propagate = False
    logger.addHandler(_LogHandler(log))
    return logger
