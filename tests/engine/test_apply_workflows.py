"""`apply` and `export` of workflows: mistakes with file, line and field; any order; the same bytes back."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from scheduling import definitions, services
from scheduling.definitions import DefinitionsMoved, InvalidDefinitions
from scheduling.errors import InvalidDefinition, StillInUse
from scheduling.models import JournalEntry, Task, Team
from tests import factories
from workflows import services as workflow_services
from workflows.definitions import compare
from workflows.models import CycleInstance, Workflow, WorkflowDependency, WorkflowRevision

pytestmark = pytest.mark.django_db

GOOD = """\
team: warehouse
groups: [{name: etl}]
tasks:
  - {name: extract, group: etl, kind: shell, command: "true"}
  - {name: clean, group: etl, kind: shell, command: "true"}
  - {name: alarm, group: etl, kind: shell, command: "true"}
workflows:
  - name: flights_daily
    schedule: {cron: "0 1 * * *", timezone: America/New_York}
    mode: online
    starts: 2026-11-01
    nodes:
      - {key: extract, task: extract, params: {region: east, days: 2}, timeout: 10m}
      - {key: clean, task: clean, after: [extract], join: all}
      - {key: alarm, task: alarm, after: [{node: clean, on: failure}], core: false}
      - {key: small, task: clean, after: [{node: extract, on: result, expected: {rows: 0}}]}
    depends_on:
      - {workflow: weather_hourly, cycles: within_period}
      - {workflow: flights_daily, cycles: previous}
  - name: weather_hourly
    schedule: {cron: "0 * * * *", timezone: America/New_York}
    starts: 2026-11-01
    parallelism: 0
    misfire: skip
    timeout: 2h
    retention: 30d
    notify: [{channel: ops, on: [late, failure], late_after: 90m}]
    nodes: [{key: load, task: extract}]
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes a file into the current directory and returns its name."""
    monkeypatch.chdir(tmp_path)

    def writing(text: str, name: str = "flights.yaml") -> str:
        Path(name).write_text(text)
        return name

    return writing


def apply(*files: str, **options: Any) -> str:
    out = io.StringIO()
    call_command("apply", *files, stdout=out, no_color=True, **({"yes": True} | options))
    return out.getvalue()


def export(**options: Any) -> str:
    out = io.StringIO()
    call_command("export", stdout=out, **options)
    return out.getvalue()


def mistakes_of(*files: str) -> list[str]:
    with pytest.raises(InvalidDefinitions) as refusal:
        definitions.read_files(files)
    return [str(mistake) for mistake in refusal.value.mistakes]


def edges_of(name: str) -> set[tuple[str, str, str]]:
    revision = Workflow.objects.get(name=name).current
    return {(edge.source, edge.target, edge.condition.value) for edge in _by_key(revision)}


def _by_key(revision: WorkflowRevision) -> Any:
    keys = {str(node.pk): node.key for node in revision.nodes.all()}
    graph = revision.graph
    return [type(edge)(keys[edge.source], keys[edge.target], edge.condition) for edge in graph.edges]


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
    ("notify: [{channel: ops, on: [ended]}]", "notify[0].on: “ended” is not one of success, failure, late."),
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
    bad = GOOD.replace("0 1 * * *", "61 1 * * *").replace("task: clean, after: [extract]", "task: claen")
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
    [said] = mistakes_of(write(GOOD), write(again, "b.yaml"))[:1]
    assert said == (
        "b.yaml:2: workflows[0].name: The workflow weather_hourly of the team warehouse is defined twice; "
        "first at flights.yaml:20."
    )


def test_a_task_with_a_mistake_of_its_own_is_not_also_missing_in_the_workflow(write: Any) -> None:
    [said] = mistakes_of(write(GOOD.replace("name: clean, group: etl", "name: clean, group: elt")))
    assert "tasks[1].group" in said


# --- circles ---------------------------------------------------------------------------------------


def _workflow(name: str, *upstreams: str) -> str:
    waits = ", ".join(f"{{workflow: {each}}}" for each in upstreams)
    rest = f"schedule: {{cron: 0 * * * *}}, nodes: [{{key: a, task: a}}], depends_on: [{waits}]"
    return f"- {{name: {name}, {rest}}}\n"


def _team(team: str, *workflows: str) -> str:
    task = "{name: a, group: etl, kind: shell, command: x}"
    return f"team: {team}\ngroups: [{{name: etl}}]\ntasks: [{task}]\nworkflows:\n{''.join(workflows)}"


def test_a_circle_within_the_files_is_named_at_each_place_where_it_could_be_cut(write: Any) -> None:
    first = write(_team("one", _workflow("a", "two/b"), _workflow("innocent", "a")), "one.yaml")
    second = write(_team("two", _workflow("b", "one/a")), "two.yaml")
    at = "5: workflows[0].depends_on[0].workflow: Workflows wait for each other in a circle"
    assert mistakes_of(first, second) == [f"one.yaml:{at}: a → two/b → a.", f"two.yaml:{at}: b → one/a → b."]


def test_a_circle_through_a_workflow_of_the_database_is_found(write: Any) -> None:
    apply(write(_team("one", _workflow("a"), _workflow("b", "a"), _workflow("c", "b"))))
    [said] = mistakes_of(write(_team("one", _workflow("a", "c"))))
    assert said.endswith("Workflows wait for each other in a circle: a → c → b → a.")


def test_files_may_turn_the_dependencies_of_the_database_around(write: Any) -> None:
    def ways() -> set[tuple[str, str]]:
        current = WorkflowDependency.objects.filter(revision__current_of__isnull=False)
        return set(current.values_list("revision__workflow__name", "upstream__name"))

    apply(write(_team("one", _workflow("x"), _workflow("y", "x"), _workflow("between", "y"))))
    apply(write(_team("one", _workflow("y", "x"), _workflow("x"))))
    assert ways() == {("y", "x"), ("between", "y")}
    # Through a workflow that the files do not mention: `x` cannot be saved before `y` let go of it.
    apply(write(_team("one", _workflow("x", "between"), _workflow("y"))))
    assert ways() == {("x", "between"), ("between", "y")}


def test_a_schedule_cannot_be_taken_away_while_another_workflow_waits_for_its_cycles(write: Any) -> None:
    apply(write(_team("one", _workflow("a"), _workflow("b", "a"))))
    bare = "- {name: a, nodes: [{key: a, task: a}]}\n"
    [said] = mistakes_of(write(_team("one", bare)))
    assert "workflows[0].schedule.cron: It is missing, and b waits for its cycles" in said
    apply(write(_team("one", bare, _workflow("b"))))
    assert Workflow.objects.get(name="a").current.cron == ""


# --- apply -----------------------------------------------------------------------------------------


def test_workflows_are_made_with_the_tasks_and_upstreams_that_the_same_files_define(write: Any) -> None:
    said = apply(write(GOOD))
    assert "  + workflow weather_hourly\n" in said
    assert "      schedule.cron: 0 1 * * *\n" in said
    assert "      nodes.clean.after: - extract\n" in said
    assert "7 new, 0 changed, 0 unchanged." in said
    flights = Workflow.objects.get(name="flights_daily")
    assert edges_of("flights_daily") == {
        ("extract", "clean", "success"),
        ("clean", "alarm", "failure"),
        ("extract", "small", "result"),
    }
    assert flights.starts_at == datetime(2026, 11, 1, 4, tzinfo=UTC), "midnight in New York"
    extract = flights.current.nodes.get(key="extract")
    assert (extract.parameters, extract.timeout) == ({"region": "east", "days": 2}, 600)
    waits = flights.current.dependencies.values_list("upstream__name", "offset")
    assert list(waits) == [("weather_hourly", "within_period"), ("flights_daily", "previous")]
    weather = Workflow.objects.get(name="weather_hourly")
    assert (weather.current.parallelism, weather.current.misfire, weather.current.timeout) == (0, "skip", 7200)
    assert weather.retention_days == 30
    assert weather.notify == [{"channel": "ops", "on": ["failure", "late"], "late_after": 5400}]
    entries = JournalEntry.objects.filter(object_type="workflow").values_list("object_name", "action", "reason")
    assert list(entries.order_by("pk")) == [
        (name, "created", "apply flights.yaml") for name in ("weather_hourly", "flights_daily")
    ]


def test_a_workflow_may_wait_for_one_of_another_team_in_a_later_file(write: Any) -> None:
    first = write(_team("one", _workflow("a", "two/b")), "one.yaml")
    apply(first, write(_team("two", _workflow("b")), "two.yaml"))
    assert Workflow.objects.get(name="a").current.dependencies.get().upstream.team.name == "two"


def test_names_that_look_like_numbers_are_names(write: Any) -> None:
    text = (
        _team("one").replace("name: a,", "name: 007,") + "- {name: 12, schedule: {cron: 0 * * * *}, nodes: ["
        "{key: 1, task: 007}, {key: 2, task: 007, after: [1]}, "
        "{key: 3, task: 007, after: [{node: 1, on: always}]}]}\n"
        "- {name: 13, nodes: [{key: 1, task: 007}], depends_on: [{workflow: 12}]}\n"
    )
    apply(write(text))
    assert edges_of("12") == {("1", "2", "success"), ("1", "3", "always")}
    assert Workflow.objects.get(name="13").current.dependencies.get().upstream.name == "12"


def test_a_change_is_shown_node_by_node_and_makes_one_revision(write: Any) -> None:
    apply(write(GOOD))
    changed = GOOD.replace("days: 2", "days: 3").replace("join: all", "join: any").replace("30d", "31d")
    said = apply(write(changed.replace("2026-11-01\n    parallelism", "2026-11-02T00:00\n    parallelism")))
    assert said == (
        "team warehouse\n"
        "  ~ workflow weather_hourly\n      starts: '2026-11-01' → '2026-11-02'\n      retention: 30d → 31d\n"
        "  ~ workflow flights_daily\n      nodes.extract.params.days: 2 → 3\n      nodes.clean.join: – → any\n"
        "0 new, 2 changed, 5 unchanged.\nApplied.\n"
    )
    assert Workflow.objects.get(name="flights_daily").current.number == 2
    assert Workflow.objects.get(name="weather_hourly").current.number == 1


def test_another_order_of_nodes_is_a_change_that_is_shown(write: Any) -> None:
    apply(write(_team("one", "- {name: w, nodes: [{key: a, task: a}, {key: b, task: a}]}\n")))
    said = apply(write(_team("one", "- {name: w, nodes: [{key: b, task: a}, {key: a, task: a}]}\n")))
    assert "      nodes:\n        @@ -1,2 +1,2 @@\n        +- b\n         - a\n        -- b\n" in said


def test_what_a_file_leaves_out_of_a_workflow_is_left_as_it_is(write: Any) -> None:
    apply(write(GOOD))
    workflow_services.set_enabled(Workflow.objects.get(name="weather_hourly"), False, reason="broken today")
    silent = GOOD.replace("    starts: 2026-11-01\n", "")
    assert apply(write(silent)) == "0 new, 0 changed, 7 unchanged.\n"
    said = apply(write(silent.replace("timeout: 2h", "timeout: 2h\n    enabled: true")))
    assert "  ~ workflow weather_hourly\n      enabled: false → true\n" in said
    assert Workflow.objects.get(name="weather_hourly").enabled


def test_a_workflow_may_be_made_switched_off(write: Any) -> None:
    apply(write(GOOD.replace("mode: online", "enabled: false")))
    assert not Workflow.objects.get(name="flights_daily").enabled
    assert export().count("enabled: false") == 1


def test_workflows_that_the_files_do_not_mention_are_left_alone_and_counted(write: Any) -> None:
    apply(write(GOOD))
    factories.workflow("of-its-own", group=Task.objects.get(name="clean").group)
    said = apply("flights.yaml", dry_run=True)
    assert said.endswith(
        "; 1 more of these teams' tasks and 1 more of these teams' workflows are left alone.\n"
    )


def test_if_somebody_changed_a_workflow_since_the_changes_were_shown_nothing_is_applied(write: Any) -> None:
    apply(write(GOOD))
    wanted = definitions.read_files([write(GOOD.replace("days: 2", "days: 3"))])
    shown = definitions.plan(wanted)
    workflow_services.set_enabled(Workflow.objects.get(name="flights_daily"), False)
    definitions.apply(wanted, shown)
    wanted = definitions.read_files([write(GOOD.replace("days: 2", "days: 4"))])
    shown = definitions.plan(wanted)
    definitions.apply(definitions.read_files([write(GOOD.replace("days: 2", "days: 5"))]))
    with pytest.raises(DefinitionsMoved, match="nothing was applied"):
        definitions.apply(wanted, shown)


def test_all_or_nothing_also_when_the_last_step_is_refused(write: Any) -> None:
    wanted = definitions.read_files([write(_team("two", _workflow("b", "b2"), _workflow("b2")))])
    wanted.sections["workflows"]["two", "b"].content["nodes"][0]["task"] = "gone"
    with pytest.raises(InvalidDefinition, match="has no task “gone”"):
        definitions.apply(wanted)
    assert not Team.objects.exists()


# --- deleting --------------------------------------------------------------------------------------


def test_a_task_of_a_workflow_is_not_deleted_and_the_workflow_is_named() -> None:
    group = factories.group(team=factories.team("one"))
    workflow = factories.workflow("w", group=group, nodes="a > b")
    task = Task.objects.get(name="b")
    with pytest.raises(StillInUse, match=r"The task b is a node of the workflow w. Take it out there first."):
        services.delete(task)
    workflow_services.save_workflow(
        team=group.team, name="w", content={"nodes": [{"key": "a", "task": "a"}]}, mode=workflow.mode
    )
    with pytest.raises(
        StillInUse, match=r"is in an earlier revision of the workflow w, which is kept. Disable"
    ):
        services.delete(task)


def test_a_team_with_workflows_is_not_deleted() -> None:
    team = factories.team("one")
    workflow = factories.workflow("w", group=factories.group(team=team))
    Task.objects.update(revision=None)
    workflow_services.delete_workflow(workflow)
    assert services.use_of(team) == "The team one still has groups, tasks. Delete them first."
    other = factories.team("two")
    Workflow.objects.create(team=other, name="x", starts_at=timezone.now())
    with pytest.raises(StillInUse, match=r"The team two still has workflows. Delete them first."):
        services.delete(other)


def test_a_workflow_that_others_wait_for_or_that_has_run_is_not_deleted() -> None:
    group = factories.group(team=factories.team("one"))
    hourly = {"cron": "0 * * * *"}
    upstream = factories.workflow("up", group=group, **hourly)
    down = factories.workflow("down", group=group, depends_on=[{"workflow": "up"}], **hourly)
    with pytest.raises(
        StillInUse, match=r"The workflow down waits for the cycles of up. Let go of it there first"
    ):
        workflow_services.delete_workflow(upstream)
    workflow_services.save_workflow(
        team=group.team, name="down", content=hourly | {"nodes": [{"key": "a", "task": "a"}]}
    )
    with pytest.raises(StillInUse, match=r"An earlier revision of the workflow down waits"):
        workflow_services.delete_workflow(upstream)
    factories.cycle(down)
    with pytest.raises(StillInUse, match=r"The workflow down has records of what ran"):
        workflow_services.delete_workflow(down)


def test_a_workflow_that_never_ran_is_deleted_with_the_cycles_that_were_to_come() -> None:
    workflow = factories.workflow(cron="0 * * * *", depends_on=[])
    assert CycleInstance.objects.count() > 20
    workflow_services.delete_workflow(workflow, by="ann", reason="a mistake")
    assert not Workflow.objects.exists()
    assert not CycleInstance.objects.exists()
    entry = JournalEntry.objects.latest("pk")
    assert (entry.action, entry.object_name, entry.reason) == ("deleted", workflow.name, "a mistake")


# --- export ----------------------------------------------------------------------------------------


def test_what_is_exported_is_the_same_bytes_again_and_changes_nothing(write: Any) -> None:
    apply(write(GOOD))
    first = export()
    assert apply(write(first, "again.yaml")) == "0 new, 0 changed, 7 unchanged.\n"
    for name in ("flights_daily", "weather_hourly"):
        workflow_services.delete_workflow(Workflow.objects.get(name=name))
    apply("again.yaml")
    assert export() == first
    assert first.partition("workflows:\n")[2] == (
        """\
  - name: flights_daily
    schedule:
      cron: 0 1 * * *
      timezone: America/New_York
    starts: '2026-11-01'
    nodes:
      - key: extract
        task: extract
        params:
          days: 2
          region: east
        timeout: 10m
      - key: clean
        task: clean
        after:
          - extract
      - key: alarm
        task: alarm
        after:
          - node: clean
            'on': failure
        core: false
      - key: small
        task: clean
        after:
          - node: extract
            'on': result
            expected:
              rows: 0
    depends_on:
      - workflow: weather_hourly
        cycles: within_period
      - workflow: flights_daily
        cycles: previous

  - name: weather_hourly
    schedule:
      cron: 0 * * * *
      timezone: America/New_York
    starts: '2026-11-01'
    parallelism: 0
    misfire: skip
    timeout: 2h
    retention: 30d
    notify:
      - channel: ops
        'on':
          - failure
          - late
        late_after: 1h30m
    nodes:
      - key: load
        task: extract
"""
    )


def test_a_beginning_that_is_no_date_comes_back_as_the_same_instant(write: Any) -> None:
    group = factories.group(team=factories.team("one"))
    made = factories.workflow("w", group=group, timezone="Asia/Kolkata")
    assert made.starts_at.microsecond == 0
    assert apply(write(export())).startswith("0 new, 0 changed")
    assert "+05:30'" in export()


def test_a_workflow_in_another_zone_keeps_the_instant_at_which_it_begins(write: Any) -> None:
    apply(write(GOOD))
    silent = GOOD.replace("    starts: 2026-11-01\n", "").replace("America/New_York", "Asia/Tokyo")
    said = apply(write(silent))
    assert "starts" not in said
    assert Workflow.objects.get(name="flights_daily").starts_at == datetime(2026, 11, 1, 4, tzinfo=UTC)


def test_the_difference_of_two_revisions_is_told_in_the_words_of_the_file(write: Any) -> None:
    apply(write(GOOD))
    apply(write(GOOD.replace("timeout: 10m", "timeout: 20m")))
    newer, older = WorkflowRevision.objects.filter(workflow__name="flights_daily").order_by("-number")
    changed = [(line.sign, line.text.strip()) for line in compare(older, newer) if line.sign in "+-"]
    assert changed == [("-", "timeout: 10m"), ("+", "timeout: 20m")]


def test_checking_many_workflows_asks_the_database_no_more_than_checking_two(write: Any) -> None:
    def queries(count: int) -> int:
        text = _team("one", *(_workflow(f"w{n}", *([f"w{n - 1}"] if n else [])) for n in range(count)))
        name = write(text)
        with CaptureQueriesContext(
            connection,
        ) as captured:
            definitions.read_files([name])
        return len(captured)

    assert queries(30) - queries(2) <= 28, "one a workflow: do its tasks exist?"
