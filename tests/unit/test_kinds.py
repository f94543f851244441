"""The kinds of jobs: those there are, and what each says of a specification."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from scheduling import kinds, parameters
from scheduling.engine import execution, logs
from scheduling.kinds import Kind, SpecErrors, UnknownKind, kind
from tests.unit.support import JOBS

pytestmark = pytest.mark.usefixtures("job_modules")


class CountsKind(Kind):
    name = "counts"
    fields = {"to": True}


class TwinKind(Kind):
    name = "shell"
    fields = {}


class NamelessKind(Kind):
    fields = {}


def test_the_four_kinds_are_there_and_an_installation_adds_its_own(settings: Any) -> None:
    assert list(kinds.kinds()) == ["python", "shell", "sql", "http"]

    settings.TAILRACE = {**settings.TAILRACE, "KINDS": ["tests.unit.test_kinds.CountsKind"]}
    assert type(kind("counts")).__name__ == "CountsKind"


def test_an_unknown_kind_is_refused_with_those_there_are() -> None:
    with pytest.raises(
        UnknownKind, match=r"no job kind 'shel'; there are python, shell, sql, http\. Did you mean 'shell'"
    ):
        kind("shel")


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("no.such.Kind", "'no.such.Kind', which does not import"),
        ("tests.unit.test_kinds.TwinKind", "is called 'shell', as is ShellKind"),
        ("tests.unit.test_kinds.NamelessKind", "needs a `name`"),
        ("tests.unit.support.run", "is no subclass of scheduling.kinds.Kind"),
    ],
)
def test_a_mistake_in_the_setting_is_named(settings: Any, path: str, said: str) -> None:
    settings.TAILRACE = {**settings.TAILRACE, "KINDS": [path]}
    with pytest.raises(ImproperlyConfigured) as refusal:
        kinds.kinds()
    assert said in str(refusal.value)


# Specs


@pytest.mark.parametrize(
    ("name", "spec", "field", "said"),
    [
        ("shell", {"comand": "ls"}, "comand", "Did you mean “command”?"),
        ("shell", {"comand": "ls"}, "command", "This field is required."),
        ("shell", {"command": "ls", "zz": 1}, "zz", "no such field; it has command, workdir, env, secrets."),
        ("shell", {"command": "  "}, "command", "It is empty."),
        ("shell", {"command": 3}, "command", "It must be a text, or a list"),
        ("shell", {"command": []}, "command", "A list must hold texts"),
        ("shell", {"command": ["ls", 1]}, "command", "A list must hold texts"),
        ("shell", {"command": "a\0b"}, "command", "NUL"),
        ("shell", {"command": "ls", "workdir": "data"}, "workdir", "absolute path"),
        ("shell", {"command": "ls", "env": ["A"]}, "env", "It must be a map"),
        ("shell", {"command": "ls", "env": {"A": [1]}}, "env", "The value of A must be a text."),
        ("shell", {"command": "ls", "env": {"A-B": "x"}}, "env", "'A-B' cannot be set"),
        ("shell", {"command": "ls", "env": {"WORKDIR": "x"}}, "env", "'WORKDIR' cannot be set"),
        ("shell", {"command": "ls", "secrets": "KEY"}, "secrets", "It must be a list of names."),
        ("shell", {"command": "ls", "secrets": ["K=1"]}, "secrets", "'K=1' is no name of a secret"),
        ("python", {}, "call", "This field is required."),
        ("python", {"call": "os.system"}, "call", "No job is registered as “os.system”"),
        ("python", {"call": f"{JOBS}.nothin"}, "call", f"Did you mean “{JOBS}.nothing”?"),
        ("http", {"url": "ftp://x/y"}, "url", "It must begin with http://"),
        ("http", {"url": "http:///y"}, "url", "name a host"),
        ("http", {"url": "http://u:p@x/"}, "url", "holds a password for everyone to read"),
        ("http", {"url": "http://x/${nope"}, "url", "is never closed"),
        ("http", {"url": "http://x/${secret:a b}"}, "url", "'a b' is no name of a secret"),
        ("http", {"url": "http://x", "method": "FETCH"}, "method", "It must be one of GET, HEAD"),
        ("http", {"url": "http://x", "headers": {"a b": "c"}}, "headers", "'a b' is no header"),
        ("http", {"url": "http://x", "headers": {"a": "b\nc"}}, "headers", "'a' is no header"),
        ("http", {"url": "http://x", "expect": 99}, "expect", "from 100 to 599"),
        ("http", {"url": "http://x", "expect": []}, "expect", "from 100 to 599"),
        ("http", {"url": "http://x", "expect": True}, "expect", "It must be a status"),
        ("http", {"url": "http://x", "body": {"a": float("nan")}}, "body", "cannot be written as JSON"),
        ("http", {"url": "http://x", "body": ["${a"]}, "body", "is never closed"),
        ("http", {"url": "http://x", "connect_timeout": 0}, "connect_timeout", "more than 0"),
    ],
)
def test_a_mistake_in_a_spec_is_named_by_its_field(
    name: str, spec: dict[str, Any], field: str, said: str
) -> None:
    with pytest.raises(SpecErrors) as refusal:
        kind(name).clean(spec)
    assert said in refusal.value.errors[field]


def test_every_mistake_is_told_at_once() -> None:
    with pytest.raises(SpecErrors) as refusal:
        kind("http").clean({"url": "x", "method": "y", "expect": 1, "header": {}})
    assert set(refusal.value.errors) == {"url", "method", "expect", "header"}


@pytest.mark.parametrize("name", ["python", "shell", "sql", "http"])
def test_a_spec_that_is_no_map_is_refused(name: str) -> None:
    with pytest.raises(SpecErrors, match="A job is a map of fields"):
        kind(name).clean(["ls"])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "spec", "cleaned"),
    [
        ("shell", {"command": "ls"}, {"command": "ls"}),
        ("shell", {"command": ("ls", "-l"), "env": {"N": 3}}, {"command": ["ls", "-l"], "env": {"N": "3"}}),
        ("shell", {"command": "ls", "secrets": ["A", "A"]}, {"command": "ls", "secrets": ["A"]}),
        ("python", {"call": f"{JOBS}.nothing"}, {"call": f"{JOBS}.nothing"}),
        (
            "http",
            {"url": "http://x", "method": "post", "expect": 201},
            {"url": "http://x", "method": "POST", "expect": [201]},
        ),
        ("http", {"url": "http://x", "connect_timeout": 3}, {"url": "http://x", "connect_timeout": 3.0}),
    ],
)
def test_a_cleaned_spec_has_one_way_to_write_each_thing_and_stays_as_it_is(
    name: str, spec: Any, cleaned: Any
) -> None:
    assert kind(name).clean(spec) == cleaned
    assert kind(name).clean(cleaned) == cleaned
    json.dumps(cleaned)


# --- what a run was given ----------------------------------------------------------------------------

BUILTINS = parameters.builtins(
    cycle_time=datetime(2026, 3, 2, 1, tzinfo=UTC), data_date=date(2026, 3, 1), batch_id=815, shard_param="a'b"
)


@pytest.mark.parametrize(
    ("kind", "spec", "expected"),
    [
        (
            "shell",
            {"command": "load $PARAM_TABLE", "env": {"MODE": "fast now"}, "secrets": ["TOKEN"]},
            [
                "PARAM_TABLE='it'\"'\"'s 100%'",
                "DATA_DATE=2026-03-01",
                "MODE='fast now'",
                "TOKEN=***",
                "load $PARAM_TABLE",
            ],
        ),
        ("shell", {"command": ["echo", "a b"]}, ["echo 'a b'"]),
        (
            "sql",
            {"connection": "w", "sql": "SELECT %(table)s, 5 % 2; DELETE FROM t WHERE d = %(data_date)s"},
            ["SELECT 'it''s 100%', 5 % 2;", "DELETE FROM t WHERE d = '2026-03-01'::date"],
        ),
        (
            "http",
            {
                "url": "http://x/${table}?key=${secret:KEY}",
                "method": "POST",
                "headers": {"Authorization": "Bearer ${secret:KEY}"},
                "body": {"day": "${data_date}"},
            },
            ["POST http://x/it%27s%20100%25?key=***", "Authorization: Bearer ***", '  "day": "2026-03-01"'],
        ),
    ],
)
def test_a_run_is_shown_with_its_parameters_and_without_its_secrets(
    kind: str, spec: dict[str, Any], expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAILRACE_SECRET_TOKEN", "hunter2")
    monkeypatch.setenv("TAILRACE_SECRET_KEY", "hunter2")
    lines = kinds.kind(kind).rendered(spec, {"table": "it's 100%"}, BUILTINS).splitlines()
    assert [line for line in expected if line not in lines] == []
    assert "hunter2" not in "\n".join(lines)


def test_a_result_is_kept_with_its_secrets_masked() -> None:
    sink = logs.LogSink(lambda *_chunk: None, head_bytes=100, tail_bytes=100, redact=["hunter2"])
    result = {"url": "http://x/?key=hunter2", "hunter2": [1, None, "hunter2"], "n": 2.5}
    assert execution._redacted(result, sink) == {
        "url": "http://x/?key=***",
        "***": [1, None, "***"],
        "n": 2.5,
    }
