"""Every mistake in a file of definitions is told with file, line and field, and nothing is applied."""

from __future__ import annotations

import io
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from scheduling.models import Team
from tests import factories
from tests.engine.definitions import GOOD, mistakes_of

pytestmark = [pytest.mark.long, pytest.mark.django_db]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("tiemout: 5m", "tasks[0].tiemout: This field is not known. Did you mean “timeout”?"),
        ("comand: x", "tasks[0].comand: This field is not known. Did you mean “command”?"),
        ("workdir: tmp", "tasks[0].workdir: It must be an absolute path"),
        (
            "trigger: {cron: 61 * * * *}",
            "tasks[0].trigger.cron: “61 * * * *” is not a cron expression: bad minute.",
        ),
        ("trigger: {evry: 5s}", "tasks[0].trigger.evry: This field is not known. Did you mean “every”?"),
        ("trigger: {every: 0s}", "tasks[0].trigger.every: “0s” is too short"),
        ("trigger: {type: cron}", "tasks[0].trigger.cron: It is missing"),
        ("trigger: {cron: '* * * * *', every: 5s}", "tasks[0].trigger.type: It has both"),
        ("trigger: daily", "tasks[0].trigger: “daily” is not one of"),
        ("trigger: 5", "tasks[0].trigger: It is not a map; write e.g. {cron: 5 0 * * *}."),
        ("trigger: {timezone: Mars}", "tasks[0].trigger.timezone: “Mars” is not a time zone"),
        ("retries: 3", "tasks[0].retries: It is not a map; write e.g. {count: 2, interval: 30s}."),
        ("retries: {count: -1}", "tasks[0].retries.count: -1 is not a whole number from 0 to 1000."),
        ("retries: {interval: -1s}", "tasks[0].retries.interval: '-1s' is negative"),
        ("success_ratio: 0", "tasks[0].success_ratio: 0 is not a whole number from 1 to 100."),
        ("success_ratio: 101", "tasks[0].success_ratio: 101 is not a whole number from 1 to 100."),
        ("shards: {0: a, 2: b}", "tasks[0].shards: It has no shard 1"),
        ("shards: {0: a}", "tasks[0].shards: It belongs to the mode “sharded”"),
        ("timeout: -5s", "tasks[0].timeout: '-5s' is negative"),
        ("params: {day: '${data_dat}'}", "tasks[0].params.day: Parameter 'day': '${data_dat}' names"),
        ("params: [1]", "tasks[0].params: [1] is not a map"),
        ("params:", "tasks[0].params: It is empty; write a value, or leave the key out."),
        ("enabled: 1", "tasks[0].enabled: It is neither true nor false."),
        ("overlap: wait", "tasks[0].overlap: “wait” is not one of allow, skip, queue, replace."),
        ("grants: [b]", "tasks[0].grants: It is not a map; write e.g. {analytics: [rerun]}."),
        ("grants: {outside: rerun}", "tasks[0].grants.outside: It is no list of permissions"),
        ("grants: {outside: []}", "tasks[0].grants.outside: It is no list of permissions"),
        (
            "grants: {outside: [rerum]}",
            "tasks[0].grants.outside: “rerum” is not one of view, run, stop, rerun. Did you mean “rerun”?",
        ),
        ("grants: {outside: [{}]}", "tasks[0].grants.outside: {} is not one of"),
        ("grants: {warehouse: [run]}", "tasks[0].grants.warehouse: It owns the task"),
        ("grants: {outsid: [run]}", "tasks[0].grants.outsid: There is no team “outsid”; define it"),
        ("spec: [1]", "tasks[0].spec: It is not a map of the kind's own fields."),
        ("command: x", "tasks[0].command: The key stands twice; it is on line 7 already."),
    ],
)
def test_a_mistake_is_named_with_file_line_and_field(write: Any, line: str, said: str) -> None:
    factories.team("outside")
    name = write(
        "team: warehouse\ngroups: [{name: etl}]\ntasks:\n"
        f"  - name: extract\n    group: etl\n    kind: shell\n    command: 'true'\n    {line}\n"
    )
    [found] = mistakes_of(name)
    assert found.startswith(f"flights.yaml:8: {said}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("groups: []", "a.yaml:1: team: It is missing."),
        ("team: a b", "a.yaml:1: team: “a b” is no name"),
        ("team: a\ngrups: []", "a.yaml:2: grups: This field is not known. Did you mean “groups”?"),
        (
            "team: a\nzzz: []",
            "a.yaml:2: zzz: This field is not known; known are team, groups, tasks, workflows.",
        ),
        ("team: a\ngroups: etl", "a.yaml:2: groups: It is not a list; write - {name: etl}."),
        ("team: a\ngroups: [etl]", "a.yaml:2: groups[0]: It is not a map; write {name: etl}."),
        (
            "team: a\ngroups:\n- {name: etl, size: 5}",
            "a.yaml:3: groups[0].size: This field is not known; known are name.",
        ),
        ("team: a\ntasks:\n- x", "a.yaml:3: tasks[0]: It is not a map"),
        ("- team: a", "a.yaml:1: A document is a map with team, groups, tasks and workflows."),
        ("", "a.yaml: The file defines nothing."),
        ("team: [", "a.yaml:1: This is not YAML"),
    ],
)
def test_a_document_that_cannot_be_is_refused(write: Any, text: str, said: str) -> None:
    assert [mistake for mistake in mistakes_of(write(text, "a.yaml")) if said in mistake]


def test_an_unknown_group_is_named_with_those_there_are(write: Any) -> None:
    [said] = mistakes_of(write(GOOD.replace("tidy\n    group: etl", "tidy\n    group: elt")))
    assert said == (
        "flights.yaml:7: tasks[1].group: The team warehouse has no group “elt”; it has etl. Did you mean “etl”?"
    )


def test_a_group_of_another_team_is_refused(write: Any) -> None:
    factories.group("secret", team=factories.team("outside"))
    [said] = mistakes_of(write(GOOD.replace("tidy\n    group: etl", "tidy\n    group: secret")))
    assert "it belongs to the team outside, and a task runs on its own team's nodes" in said


def test_a_name_that_stands_twice_is_refused_with_both_places(write: Any) -> None:
    first = write(GOOD)
    second = write(
        "team: warehouse\n\ntasks:\n  - {name: tidy, group: etl, kind: shell, command: x}\n", "b.yaml"
    )
    [said] = mistakes_of(first, second)
    assert said.startswith("b.yaml:4: tasks[0].name: The task tidy of the team warehouse is defined twice;")
    assert said.endswith("first at flights.yaml:6.")


def test_all_mistakes_of_all_files_are_told_and_nothing_is_applied(write: Any, capsys: Any) -> None:
    bad = GOOD.replace("ratio: 100", "ratio: 101").replace("5 0 * * *", "61 0 * * *")
    other = write("team: b\ntasks:\n  - {name: x, group: y, kind: z}\n", "b.yaml")
    err = io.StringIO()
    with pytest.raises(CommandError, match="5 mistakes; nothing was applied") as refusal:
        call_command("apply", write(bad), other, "missing.yaml", yes=True, stderr=err, no_color=True)
    assert refusal.value.returncode == 1
    places = [line.split(": ")[:2] for line in err.getvalue().splitlines()]
    assert places == [
        ["b.yaml:3", "tasks[0].group"],
        ["b.yaml:3", "tasks[0].kind"],
        ["flights.yaml:5", "tasks[0].success_ratio"],
        ["flights.yaml:11", "tasks[1].trigger.cron"],
        ["missing.yaml", "The file cannot be read"],
    ]
    assert not Team.objects.exists()
