"""Shell jobs: their environment, secrets, exit codes and stops."""

from __future__ import annotations

from pathlib import Path

import pytest
from django_q.exceptions import TimeoutException
from django_q.timeout import TimeoutHandler

from scheduling.jobs import JobFailed, JobStopped
from scheduling.kinds.shell import job_environment
from tests.unit.support import make_context, run, stop_when

pytestmark = pytest.mark.usefixtures("job_modules")


def test_a_shell_job_gets_its_parameters_as_environment_and_nothing_else_of_the_node(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://u:secret@h/db")
    monkeypatch.setenv("TAILRACE_SECRET_KEY", "very secret")
    monkeypatch.setenv("KRB5CCNAME", "/tmp/ticket")  # noqa: S108
    monkeypatch.setenv("TAILRACE_JOB_ENV", "KRB5CCNAME, NOT_SET")
    monkeypatch.setenv("TAILRACE_NODE", "etl-1")
    monkeypatch.setenv("TAILRACE_NODE_MARK", "etl-1@h/db")
    context = make_context(
        parameters={"table": "a; rm -rf /", "days": [1, "é"], "full": True, "none": None, "n": 3},
        shard_index=1,
        shard_count=2,
        shard_parameter="AA",
        attempt=2,
    )
    run("shell", context, command="env -0 | tr '\\0' '\\n'", env={"EXTRA": "more"})
    found = dict(line.split("=", 1) for line in context.log.whole.splitlines())

    for name in (
        "PATH",
        "HOME",
        "LANG",
        "LC_ALL",
        "TZ",
        "USER",
        "LOGNAME",
        "TMPDIR",
        "PWD",
        "SHLVL",
        "_",
        "OLDPWD",
    ):
        found.pop(name, None)
    assert Path(found.pop("WORKDIR")).name.startswith("tailrace-")
    assert found == {
        "PARAM_TABLE": "a; rm -rf /",
        "PARAM_DAYS": '[1, "é"]',
        "PARAM_FULL": "true",
        "PARAM_NONE": "",
        "PARAM_N": "3",
        "CYCLE_TIME": "2026-03-02T01:00:00+00:00",
        "DATA_DATE": "2026-03-01",
        "SHARD_INDEX": "1",
        "TAILRACE_NODE": "etl-1",
        "TAILRACE_NODE_MARK": "etl-1@h/db",
        "SHARD_COUNT": "2",
        "SHARD_PARAM": "AA",
        "TAILRACE_TASK": "extract",
        "TAILRACE_BATCH_ID": "47",
        "TAILRACE_INSTANCE_ID": "471",
        "TAILRACE_EXECUTION_ID": "4711",
        "TAILRACE_ATTEMPT": "2",
        "EXTRA": "more",
        "KRB5CCNAME": "/tmp/ticket",  # noqa: S108
    }


def test_the_content_of_a_parameter_is_never_executed() -> None:
    context = make_context(parameters={"name": "$(echo pwned); echo `id`"})
    run("shell", context, command='printf %s "$PARAM_NAME"')
    assert context.log.whole == "$(echo pwned); echo `id`"


def test_a_command_as_a_list_goes_through_no_shell() -> None:
    context = make_context()
    run("shell", context, command=["printf", "%s|", "$HOME", "a b"])
    assert context.log.whole == "$HOME|a b|"


def test_a_shell_job_runs_in_its_directory(tmp_path: Path) -> None:
    context = make_context()
    run("shell", context, command="pwd", workdir=str(tmp_path))
    assert context.log.whole == f"{tmp_path}\n"


def test_a_shell_job_fails_by_its_exit_code() -> None:
    with pytest.raises(JobFailed, match=r"^exit code 3$") as failure:
        run("shell", command="exit 3")
    assert failure.value.exit_code == 3
    with pytest.raises(JobFailed, match=r"^killed by SIGKILL$") as failure:
        run("shell", command="kill -9 $$")
    assert failure.value.exit_code == 137


def test_a_secret_reaches_the_job_and_not_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAILRACE_SECRET_API_KEY", "hunter2")
    context = make_context()
    run("shell", context, command='test "$api_key" = hunter2 && echo "key: $api_key"', secrets=["api_key"])
    assert context.log.whole == "key: ***\n"


def test_a_missing_secret_fails_the_job_and_is_named() -> None:
    with pytest.raises(
        JobFailed, match="the secret 'NOPE' is not set on this node: start it with TAILRACE_SECRET_NOPE"
    ):
        run("shell", command="true", secrets=["NOPE"])


def test_a_parameter_that_no_environment_holds_fails_the_job() -> None:
    with pytest.raises(JobFailed, match="the parameter 'p' holds a NUL character"):
        job_environment(make_context(parameters={"p": "a\0b"}))


def test_a_shell_job_is_stopped_and_timed_out() -> None:
    context = make_context()
    stop_when(context, "started")
    with pytest.raises(JobStopped):
        run("shell", context, command="echo started; sleep 300")
    with pytest.raises(TimeoutException), TimeoutHandler(1):
        run("shell", command="sleep 300")
