"""Python jobs: what a function gets, and what becomes of its output, result, failure and stop."""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django_q.exceptions import TimeoutException
from django_q.timeout import TimeoutHandler

from scheduling import jobs
from scheduling.jobs import JobContext, JobFailed, JobStopped, job
from scheduling.kinds import kind
from tests.unit.support import call, make_context, run, stop_when

pytestmark = pytest.mark.usefixtures("job_modules")


def test_a_python_job_gets_its_context_and_its_output_is_the_log() -> None:
    context = make_context(parameters={"limit": 3}, shard_index=1, shard_count=4)

    assert call("describes_itself", context) == {"shard": [1, 4], "day": "2026-03-01"}
    lines = context.log.whole.splitlines()
    assert lines[:3] == ["printed", "complained", "raw \ufffd"]
    time_, level, message = lines[3].split(" ", 2)
    assert (level, message) == ("WARNING", "logged {'limit': 3}")
    assert time_.endswith("Z")


def test_standard_output_is_the_workers_again_afterwards() -> None:
    before = sys.stdout, sys.stderr
    call("describes_itself")
    assert (sys.stdout, sys.stderr) == before


def test_a_failing_python_job_leaves_its_traceback_in_the_log_and_its_headline_in_the_failure() -> None:
    context = make_context()
    context.log.redact("2026-03")
    with pytest.raises(JobFailed, match=r"^ValueError: no flights for \*\*\*-01$"):
        call("raises", context)
    assert "in raises" in context.log.whole
    assert "scheduling/kinds" not in context.log.whole


def test_a_python_job_that_gives_up_says_why_without_a_traceback() -> None:
    context = make_context()
    with pytest.raises(JobFailed, match="the source is empty") as failure:
        call("gives_up", context)
    assert (failure.value.exit_code, failure.value.result) == (7, {"rows": 0})
    assert context.log.whole == ""


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("object", "not JSON: Object of type object"),
        ("nan", "not JSON: Out of range float"),
        ("large", "is 70,002 bytes as JSON, and at most 65,536 are kept"),
        ("nul", "holds a NUL character"),
        ("half a character", "not JSON"),
    ],
)
def test_a_result_that_cannot_be_kept_fails_the_job_and_says_so(what: str, said: str) -> None:
    with pytest.raises(JobFailed) as failure:
        call("returns", make_context(parameters={"what": what}))
    assert said in failure.value.message


@pytest.mark.parametrize(("code", "exit_code"), [(3, 3), ("no source", 1)])
def test_a_job_that_calls_sys_exit_fails_with_its_code(code: object, exit_code: int) -> None:
    with pytest.raises(JobFailed, match=r"the job called sys\.exit") as failure:
        call("leaves", make_context(parameters={"code": code}))
    assert failure.value.exit_code == exit_code


def test_a_job_that_calls_sys_exit_with_nothing_succeeds() -> None:
    assert call("leaves", make_context(parameters={"code": None})) is None


def test_a_stop_wakes_a_job_that_sleeps() -> None:
    context = make_context()
    threading.Timer(0.1, context.stop.set).start()
    with pytest.raises(JobStopped):
        call("waits", context)
    assert context.stop_requested
    with pytest.raises(JobStopped):
        context.check_stop()


def test_a_time_out_passes_through_a_python_job() -> None:
    with pytest.raises(TimeoutException), TimeoutHandler(1):
        call("waits")


def test_a_process_that_a_python_job_left_behind_is_ended() -> None:
    assert not Path(f"/proc/{call('leaves_a_child')}").exists()


def test_a_job_that_this_node_does_not_know_fails_in_words() -> None:
    with pytest.raises(JobFailed, match="no job is registered as 'gone' on this node"):
        kind("python").run({"call": "gone"}, make_context())


def test_an_isolated_job_runs_in_a_process_of_its_own_with_all_its_output() -> None:
    context = make_context()
    result = call("isolated", context)

    assert result == {"cycle": "2026-03-02 01:00:00+00:00", "zone": "UTC", "task": "extract"}
    lines = context.log.whole.splitlines()
    assert lines[:2] == ["printed in a process of its own", "from a program"]
    assert lines[2].endswith("INFO logged")


def test_an_isolated_job_fails_like_any_other() -> None:
    context = make_context()
    with pytest.raises(JobFailed, match=r"^KeyError: 'carrier'$"):
        call("isolated_raises", context)
    assert "in isolated_raises" in context.log.whole


def test_an_isolated_job_that_dies_says_how() -> None:
    with pytest.raises(JobFailed, match=r"ended without a result: exit code 9") as failure:
        call("isolated_dies")
    assert failure.value.exit_code == 9


def test_an_isolated_job_that_computes_is_stopped_and_may_tidy_up() -> None:
    context = make_context(stop_grace=10.0)
    stop_when(context, "blocking")
    with pytest.raises(JobStopped):
        call("isolated_blocks", context)
    assert context.log.whole.endswith("tidied up\n")


def test_a_job_may_have_a_name_of_its_own() -> None:
    assert run("python", call="tests.renamed") == "renamed"


def test_the_zone_of_a_cycle_survives_the_way_to_another_process() -> None:
    import datetime as dt
    from zoneinfo import ZoneInfo

    there = dt.datetime(2026, 3, 7, 12, tzinfo=ZoneInfo("America/New_York"))
    context = make_context(cycle_time=there, parameters={"a": [1]})
    copy = JobContext.from_message(
        json.loads(json.dumps(context.to_message())), log=context.log, stop=context.stop
    )

    assert (copy.cycle_time, str(copy.cycle_time.tzinfo)) == (there, "America/New_York")
    assert copy.to_message() == context.to_message()


# Registration


def test_only_a_plain_module_level_function_can_be_a_job() -> None:
    async def coroutine(context: JobContext) -> None: ...

    with pytest.raises(TypeError, match="needs a module-level function"):
        job(lambda context: None)
    with pytest.raises(TypeError, match="needs a module-level function"):
        job(coroutine)
    with pytest.raises(TypeError, match="needs a module-level function"):
        job(42)  # type: ignore[call-overload]


def test_two_functions_cannot_share_a_name() -> None:
    with pytest.raises(
        ValueError, match=r"the name 'tests\.renamed' belongs to tests\.unit\.jobs_for_tests\.named"
    ):
        job(name="tests.renamed")(make_context)


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("no.such.module", "names 'no.such.module', and there is no module 'no'"),
        ("tests.unit.no_jobs", "there is no module 'tests.unit.no_jobs'"),
    ],
)
def test_a_missing_job_module_is_named_with_the_setting(settings: Any, module: str, said: str) -> None:
    settings.TAILRACE = {**settings.TAILRACE, "JOB_MODULES": [module]}
    with pytest.raises(ImproperlyConfigured) as refusal:
        jobs.load_job_modules()
    assert said in str(refusal.value)
    assert "JOB_MODULES" in str(refusal.value)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import no_such_library", "needs 'no_such_library', which is not installed"),
        ("1/0", "does not import: ZeroDivisionError"),
    ],
)
def test_a_broken_job_module_is_named_with_its_error(
    settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, said: str
) -> None:
    (tmp_path / "broken_jobs.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    settings.TAILRACE = {**settings.TAILRACE, "JOB_MODULES": ["broken_jobs"]}
    with pytest.raises(ImproperlyConfigured) as refusal:
        jobs.load_job_modules()
    assert said in str(refusal.value)


def test_a_context_is_made_in_microseconds() -> None:
    fields = {name: getattr(make_context(), name) for name in JobContext.__slots__ if name != "_logger"}
    began = time.perf_counter()
    for _ in range(10_000):
        JobContext(**fields)
    assert time.perf_counter() - began < 0.5
