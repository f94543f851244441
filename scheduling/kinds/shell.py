"""Shell jobs: a command for /bin/sh, or a list of program and arguments, in an environment of its own.

| in the environment | what it is |
| --- | --- |
| `PARAM_<NAME>` | a parameter of the task; lists and maps as JSON, true and false as words, nothing as empty |
| `CYCLE_TIME`, `DATA_DATE` | as ISO 8601 |
| `SHARD_INDEX`, `SHARD_COUNT`, `SHARD_PARAM` | which shard this is |
| `TAILRACE_TASK`, `…_BATCH_ID`, `…_INSTANCE_ID`, `…_EXECUTION_ID`, `…_ATTEMPT` | whose execution this is |
| `TAILRACE_NODE` | the name of the node that runs it |
| `TAILRACE_NODE_MARK` | the mark by which a restarted node finds and ends processes of its earlier life |
| `WORKDIR` | a fresh directory, where the command starts; removed when the job ends |
| what `env` says | as it is |
| each name in `secrets` | the node's TAILRACE_SECRET_<NAME>; the log shows it as *** |
| PATH, HOME, LANG, LC_ALL, TZ, USER, LOGNAME, TMPDIR | as the node has them |
| each name in the node's TAILRACE_JOB_ENV | as the node has it |

Nothing else is passed on: the installation's own DATABASE_URL and secrets are not there. Parameters
are never spliced into the command, so their content is never executed: write `"$PARAM_TABLE"`.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Mapping
from typing import Any, ClassVar

from django.utils.translation import gettext as _

from scheduling import reasons
from scheduling.jobs import JobContext, JobFailed
from scheduling.kinds.base import MASK, SECRET_NAME, Kind, SpecReader, secret
from scheduling.kinds.process import describe_status, exit_code, run_command
from scheduling.reasons import said

_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "USER", "LOGNAME", "TMPDIR")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class ShellKind(Kind):
    """Runs `command` and judges it by its exit code: 0 is success."""

    name: ClassVar[str] = "shell"
    fields: ClassVar[Mapping[str, bool]] = {"command": True, "workdir": False, "env": False, "secrets": False}
    uses_connection: ClassVar[bool] = False

    def clean(self, spec: Mapping[str, Any]) -> dict[str, Any]:
        """See `Kind.clean`. `command` is a text or a list of texts."""
        reader = SpecReader(self, spec)
        return reader.finish(
            command=_command(reader),
            workdir=_workdir(reader),
            env=_environment(reader),
            secrets=_secrets(reader),
        )

    def run(self, spec: Mapping[str, Any], context: JobContext) -> None:
        """See `Kind.run`."""
        command = spec["command"]
        status = run_command(
            ["/bin/sh", "-c", command] if isinstance(command, str) else command,
            env=job_environment(context)
            | spec.get("env", {})
            | {name: secret(name, context) for name in spec.get("secrets", ())},
            cwd=spec.get("workdir"),
            log=context.log,
            stop=context.stop,
            grace=context.stop_grace,
        )
        if status:
            raise JobFailed(describe_status(status), exit_code=exit_code(status))

    def rendered(
        self, spec: Mapping[str, Any], parameters: Mapping[str, Any], builtins: Mapping[str, Any]
    ) -> str:
        """See `Kind.rendered`: the variables of this run, then the command."""
        given = given_environment(parameters, builtins) | spec.get("env", {})
        lines = [
            f"{name}={shlex.quote(value)}"
            for name, value in given.items()
            if name not in spec.get("secrets", ())
        ]
        lines += [f"{name}={MASK}" for name in spec.get("secrets", ())]
        command = spec["command"]
        return "\n".join([*lines, "", command if isinstance(command, str) else shlex.join(command)])


def given_environment(parameters: Mapping[str, Any], builtins: Mapping[str, Any]) -> dict[str, str]:
    """The variables that hold the parameters, the times and the shard of a run.

    Raises JobFailed for a parameter that no environment can hold.
    """
    return {
        **{f"PARAM_{name.upper()}": _as_text(name, value) for name, value in parameters.items()},
        "CYCLE_TIME": builtins["cycle_time"].isoformat(),
        "DATA_DATE": builtins["data_date"].isoformat(),
        "SHARD_INDEX": str(builtins["shard_index"]),
        "SHARD_COUNT": str(builtins["shard_count"]),
        "SHARD_PARAM": builtins["shard_param"],
    }


def job_environment(context: JobContext) -> dict[str, str]:
    """The environment of a command: a little of the node's, the execution's figures and its parameters.

    Raises JobFailed for a parameter that no environment can hold.
    """
    allowed = (*_PASSED_ON, *os.environ.get("TAILRACE_JOB_ENV", "").replace(",", " ").split())
    return {
        "PATH": _DEFAULT_PATH,
        **{name: os.environ[name] for name in allowed if name in os.environ},
        **given_environment(context.parameters, context.builtins),
        "TAILRACE_BATCH_ID": str(context.batch_id),
        "TAILRACE_INSTANCE_ID": str(context.instance_id),
        "TAILRACE_EXECUTION_ID": str(context.execution_id),
        "TAILRACE_ATTEMPT": str(context.attempt),
        "TAILRACE_TASK": context.task,
        "TAILRACE_NODE": os.environ.get("TAILRACE_NODE", ""),
        # A restarted node finds the processes of its earlier life by this mark (engine/node.py).
        "TAILRACE_NODE_MARK": os.environ.get("TAILRACE_NODE_MARK", ""),
    }


def _as_text(name: str, value: Any) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if "\0" in text:
        raise JobFailed(said(reasons.NUL_IN_PARAMETER, name=repr(name)))
    return text


def _command(reader: SpecReader) -> str | list[str] | None:
    value = reader.take("command", str, list, tuple, article=_("a text, or a list of program and arguments"))
    if value is None or isinstance(value, str):
        return reader.text("command")
    if not value or not all(isinstance(word, str) and "\0" not in word for word in value) or not value[0]:
        reader.errors["command"] = _("A list must hold texts: the program, then its arguments.")
        return None
    return list(value)


def _workdir(reader: SpecReader) -> str | None:
    value = reader.text("workdir")
    if value is not None and not value.startswith("/"):
        reader.errors["workdir"] = _(
            "It must be an absolute path; without it the job runs in a fresh directory."
        )
        return None
    return value


def _environment(reader: SpecReader) -> dict[str, str] | None:
    value = reader.texts("env")
    for name in value or ():
        if not _VARIABLE.fullmatch(name) or name == "WORKDIR":
            reader.errors["env"] = _(
                "%(name)s cannot be set: it is no name of a variable, or not the job's to set."
            ) % {"name": repr(name)}
            return None
    return value


def _secrets(reader: SpecReader) -> list[str] | None:
    value = reader.take("secrets", list, tuple, article=_("a list of names"))
    for name in value or ():
        if not isinstance(name, str) or not SECRET_NAME.fullmatch(name) or name == "WORKDIR":
            reader.errors["secrets"] = _(
                "%(name)s is no name of a secret: letters, digits and underscores."
            ) % {"name": repr(name)}
            return None
    return list(dict.fromkeys(value)) if value is not None else None
