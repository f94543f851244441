"""Mistakes in the workflows of files, and circles among them: each named with file, line and field."""

from __future__ import annotations

import io
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from scheduling.models import Team
from tests import factories
from tests.engine.definitions import WORKFLOWS, apply, mistakes_of, team_of, waiting_for
from workflows.models import Workflow, WorkflowDependency

pytestmark = [pytest.mark.long, pytest.mark.django_db]


# --- mistakes --------------------------------------------------------------------------------------

AT_THE_WORKFLOW = [
    ("tiemout: 5m", "tiemout: This field is not known. Did you mean “timeout”?"),
    ("schedule: daily", "schedule: It is not a map; write e.g. {cron: 0 1 * * *, timezone: America/New_York}."),
    ("schedule: {cron: 61 * * * *}", "schedule.cron: “61 * * * *” is not a cron expression: bad minute."),
    ("schedule: {crn: 0 1 * * *}", "schedule.crn: This field is not known. Did you mean “cron”?"),
    ("schedule: {timezone: Mars}", "schedule.timezone: “Mars” is not a time zone"),
    ("cron: 0 1 * * *", "cron: This field is not known; known are name, schedule,"),
    ("mode: live", "mode: “live” is not one of online, offline."),
    ("starts: tomorrow", "starts: “tomorrow” is neither a date nor an instant; write e.g. 2026-03-01 or"),
    ("starts: 2026-02-30", "starts: “2026-02-30” is neither a date nor an instant"),
    ("starts: 5", "starts: 5 is neither a date nor an instant"),
    ("enabled: 1", "enabled: It is neither true nor false."),
    ("parallelism: -1", "parallelism: -1 is not a whole number from 0 to 1000."),
    ("timeout: 0s", "timeout: “0s” is too short; the least is 1s."),
    ("misfire: run", "misfire: “run” is not one of skip, run_once, run_all."),
    ("notify: ops", "notify: It is not a list; write - {channel: ops, on: [failure]}."),
    (
        "notify: [{channel: ops, on: [ended]}]",
        "notify[0].on: “ended” is not one of success, failure, stopped, late.",
    ),
    ("retention: 30", "retention: 30 is not whole days; write e.g. 30d."),
    ("depends_on: weather", "depends_on: It is not a list, e.g. [{workflow: weather_hourly, cycles: same}]."),
    ("depends_on: [weather]", "depends_on[0]: “weather” is not a map such as {workflow: weather_hourly"),
    ("depends_on: [{workflow: up, on: x}]", "depends_on[0].on: This field is not known; known are workflow,"),
    ("depends_on: [{workflow: nowhere}]", "depends_on[0].workflow: There is no workflow “nowhere”; define it"),
    ("depends_on: [{workflow: far/up}]", "depends_on[0].workflow: There is no workflow “far/up”; define it"),
    ("depends_on: [{workflow: by_hand}]", "depends_on[0].workflow: It has no schedule, so it has no cycles"),
    ("depends_on: [{workflow: up, cycles: all}]", "depends_on[0].cycles: “all” is not one of same, previous,"),
    ("depends_on: [{workflow: up, count: 2}]", "depends_on[0].count: It belongs to “last”: {cycles: last, "),
    (
        "depends_on: [{workflow: up, cycles: last, count: 0}]",
        "depends_on[0].count: 0 is not a whole number from 1 to 1000.",
    ),
    ("depends_on: [{workflow: wf}]", "depends_on[0].cycles: A workflow waits for its own cycles only as “prev"),
    ("depends_on: [{workflow: up}, {workflow: etl/up}]", "depends_on[1]: This dependency stands here already."),
]


@pytest.mark.parametrize(("line", "said"), AT_THE_WORKFLOW)
def test_a_mistake_in_a_workflow_is_named_with_file_line_and_field(write: Any, line: str, said: str) -> None:
    group = factories.group(team=factories.team("etl"))
    factories.workflow("up", group=group, cron="0 * * * *", mode="offline")
    factories.workflow("by_hand", group=group)
    text = f"team: etl\n\nworkflows:\n  - name: wf\n    nodes: [{{key: a, task: a}}]\n    {line}\n"
    [found] = mistakes_of(write(text))
    assert found.startswith(f"flights.yaml:6: workflows[0].{said}")


@pytest.mark.parametrize(
    ("node", "said"),
    [
        ("b", "nodes[1]: “b” is not a map such as {key: clean, task: clean, after: [extract]}."),
        ("{key: b, task: a, pramas: {}}", "nodes[1].pramas: This field is not known."),
        ("{task: a}", "nodes[1].key: None is no name: letters, digits, - and _, at most 100 of them."),
        ("{key: a b, task: a}", "nodes[1].key: “a b” is no name"),
        ("{key: a, task: a}", "nodes[1].key: Another node has the key “a” already."),
        ("{key: b}", "nodes[1].task: It is missing; name a task of the team."),
        ("{key: b, task: z}", "nodes[1].task: The team etl has no task “z”; define it first."),
        ("{key: b, task: far}", "nodes[1].task: The team etl has no task “far”; define it first."),
        ("{key: b, task: a, join: some}", "nodes[1].join: “some” is not one of all, any."),
        ("{key: b, task: a, core: 1}", "nodes[1].core: It is neither true nor false."),
        ("{key: b, task: a, timeout: soon}", "nodes[1].timeout: "),
        ("{key: b, task: a, params: [1]}", "nodes[1].params: [1] is not a map of names to values."),
        ("{key: b, task: a, params: {day: '${dat}'}}", "nodes[1].params.day: Parameter 'day': '${dat}' names"),
        ("{key: b, task: a, after: a}", "nodes[1].after: It is not a list of keys, e.g. [extract]."),
        ("{key: b, task: a, after: [x]}", "nodes[1].after[0]: “x” is not one of a, b."),
        ("{key: b, task: a, after: [{node: x}]}", "nodes[1].after[0].node: “x” is not one of a, b."),
        ("{key: b, task: a, after: [[a]]}", "nodes[1].after[0]: ['a'] is neither a key nor a map such as"),
        ("{key: b, task: a, after: [a, {node: a}]}", "nodes[1].after[1]: It waits for “a” already."),
        ("{key: b, task: a, after: [{node: a, on: fail}]}", "nodes[1].after[0].on: “fail” is not one of"),
        ("{key: b, task: a, after: [{node: a, one: 1}]}", "nodes[1].after[0].one: This field is not known."),
        (
            "{key: b, task: a, after: [{node: a, on: result}]}",
            "nodes[1].after[0].expected: It is missing; say which result lets the node run.",
        ),
        (
            "{key: b, task: a, after: [{node: a, expected: 1}]}",
            "nodes[1].after[0].expected: It belongs to the condition “result”.",
        ),
    ],
)
def test_a_mistake_in_a_node_is_named_with_file_line_and_field(write: Any, node: str, said: str) -> None:
    group = factories.group(team=factories.team("etl"))
    factories.task("a", group=group)
    factories.task("far")
    text = (
        "team: etl\nworkflows:\n  - name: wf\n    nodes:\n"
        f"    - {{key: a, task: a}}\n\n    - {node}\n    schedule: {{}}\n"
    )
    [found] = mistakes_of(write(text))
    assert found.startswith(f"flights.yaml:7: workflows[0].{said}")


@pytest.mark.parametrize(
    ("workflows", "said"),
    [
        ("workflows: flights", "workflows: It is not a list; write - {name: flights_daily, schedule:"),
        ("workflows: [flights]", "workflows[0]: It is not a map; write {name: flights_daily"),
        ("workflows: [{nodes: [{key: a, task: a}]}]", "workflows[0].name: It is missing."),
        ("workflows: [{name: a b, nodes: [{key: a, task: a}]}]", "workflows[0].name: “a b” is no name"),
        ("workflows: [{name: wf}]", "workflows[0].nodes: It is missing; a workflow has at least one node"),
        ("workflows: [{name: wf, nodes: []}]", "workflows[0].nodes: It is missing"),
        (
            "workflows: [{name: wf, nodes: [{key: a, task: a, after: [b]}, {key: b, task: a, after: [a]}]}]",
            "workflows[0].nodes: The nodes wait for each other in a circle: ",
        ),
    ],
)
def test_a_list_of_workflows_that_cannot_be_is_refused(write: Any, workflows: str, said: str) -> None:
    factories.task("a", group=factories.group(team=factories.team("etl")))
    [found] = mistakes_of(write(f"team: etl\n{workflows}\n"))
    assert found.startswith(f"flights.yaml:2: {said}")


def test_every_mistake_is_told_at_once_and_nothing_is_applied(write: Any) -> None:
    bad = WORKFLOWS.replace("0 1 * * *", "61 1 * * *").replace("task: clean, after: [extract]", "task: claen")
    err = io.StringIO()
    with pytest.raises(CommandError, match="3 mistakes; nothing was applied"):
        call_command("apply", write(bad + "    moed: online\n"), yes=True, stderr=err, no_color=True)
    assert [line.split(": ")[:2] for line in err.getvalue().splitlines()] == [
        ["flights.yaml:9", "workflows[0].schedule.cron"],
        ["flights.yaml:14", "workflows[0].nodes[1].task"],
        ["flights.yaml:29", "workflows[1].moed"],
    ]
    assert not Team.objects.exists()


def test_a_name_that_stands_twice_is_refused_with_both_places(write: Any) -> None:
    again = "team: warehouse\nworkflows: [{name: weather_hourly, nodes: [{key: a, task: clean}]}]\n"
    [said] = mistakes_of(write(WORKFLOWS), write(again, "b.yaml"))[:1]
    assert said == (
        "b.yaml:2: workflows[0].name: The workflow weather_hourly of the team warehouse is defined twice; "
        "first at flights.yaml:20."
    )


def test_a_task_with_a_mistake_of_its_own_is_not_also_missing_in_the_workflow(write: Any) -> None:
    [said] = mistakes_of(write(WORKFLOWS.replace("name: clean, group: etl", "name: clean, group: elt")))
    assert "tasks[1].group" in said


# --- circles ---------------------------------------------------------------------------------------


def test_a_circle_within_the_files_is_named_at_each_place_where_it_could_be_cut(write: Any) -> None:
    first = write(team_of("one", waiting_for("a", "two/b"), waiting_for("innocent", "a")), "one.yaml")
    second = write(team_of("two", waiting_for("b", "one/a")), "two.yaml")
    at = "5: workflows[0].depends_on[0].workflow: Workflows wait for each other in a circle"
    assert mistakes_of(first, second) == [f"one.yaml:{at}: a → two/b → a.", f"two.yaml:{at}: b → one/a → b."]


def test_a_circle_through_a_workflow_of_the_database_is_found(write: Any) -> None:
    apply(write(team_of("one", waiting_for("a"), waiting_for("b", "a"), waiting_for("c", "b"))))
    [said] = mistakes_of(write(team_of("one", waiting_for("a", "c"))))
    assert said.endswith("Workflows wait for each other in a circle: a → c → b → a.")


def test_files_may_turn_the_dependencies_of_the_database_around(write: Any) -> None:
    def ways() -> set[tuple[str, str]]:
        current = WorkflowDependency.objects.filter(revision__current_of__isnull=False)
        return set(current.values_list("revision__workflow__name", "upstream__name"))

    apply(write(team_of("one", waiting_for("x"), waiting_for("y", "x"), waiting_for("between", "y"))))
    apply(write(team_of("one", waiting_for("y", "x"), waiting_for("x"))))
    assert ways() == {("y", "x"), ("between", "y")}
    # Through a workflow that the files do not mention: `x` cannot be saved before `y` let go of it.
    apply(write(team_of("one", waiting_for("x", "between"), waiting_for("y"))))
    assert ways() == {("x", "between"), ("between", "y")}


def test_a_schedule_cannot_be_taken_away_while_another_workflow_waits_for_its_cycles(write: Any) -> None:
    apply(write(team_of("one", waiting_for("a"), waiting_for("b", "a"))))
    bare = "- {name: a, nodes: [{key: a, task: a}]}\n"
    [said] = mistakes_of(write(team_of("one", bare)))
    assert "workflows[0].schedule.cron: It is missing, and b waits for its cycles" in said
    apply(write(team_of("one", bare, waiting_for("b"))))
    assert Workflow.objects.get(name="a").current.cron == ""
