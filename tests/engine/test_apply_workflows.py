"""`apply` and `export` of workflows: mistakes with file, line and field; any order; the same bytes back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from scheduling import definitions, services
from scheduling.definitions import DefinitionsMoved
from scheduling.errors import InvalidDefinition, StillInUse
from scheduling.models import JournalEntry, Task, Team
from tests import factories
from tests.engine.definitions import WORKFLOWS, apply, export, team_of, waiting_for
from workflows import services as workflow_services
from workflows.definitions import compare
from workflows.models import CycleInstance, Workflow, WorkflowRevision
from workflows.services import clock

pytestmark = [pytest.mark.long, pytest.mark.django_db]


def edges_of(name: str) -> set[tuple[str, str, str]]:
    revision = Workflow.objects.get(name=name).current
    return {(edge.source, edge.target, edge.condition.value) for edge in _by_key(revision)}


def _by_key(revision: WorkflowRevision) -> Any:
    keys = {str(node.pk): node.key for node in revision.nodes.all()}
    graph = revision.graph
    return [type(edge)(keys[edge.source], keys[edge.target], edge.condition) for edge in graph.edges]


# --- apply -----------------------------------------------------------------------------------------


def test_workflows_are_made_with_the_tasks_and_upstreams_that_the_same_files_define(write: Any) -> None:
    said = apply(write(WORKFLOWS))
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
    first = write(team_of("one", waiting_for("a", "two/b")), "one.yaml")
    apply(first, write(team_of("two", waiting_for("b")), "two.yaml"))
    assert Workflow.objects.get(name="a").current.dependencies.get().upstream.team.name == "two"


def test_names_that_look_like_numbers_are_names(write: Any) -> None:
    text = (
        team_of("one").replace("name: a,", "name: 007,") + "- {name: 12, schedule: {cron: 0 * * * *}, nodes: ["
        "{key: 1, task: 007}, {key: 2, task: 007, after: [1]}, "
        "{key: 3, task: 007, after: [{node: 1, on: always}]}]}\n"
        "- {name: 13, nodes: [{key: 1, task: 007}], depends_on: [{workflow: 12}]}\n"
    )
    apply(write(text))
    assert edges_of("12") == {("1", "2", "success"), ("1", "3", "always")}
    assert Workflow.objects.get(name="13").current.dependencies.get().upstream.name == "12"


def test_a_change_is_shown_node_by_node_and_makes_one_revision(write: Any) -> None:
    apply(write(WORKFLOWS))
    changed = WORKFLOWS.replace("days: 2", "days: 3").replace("join: all", "join: any").replace("30d", "31d")
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
    apply(write(team_of("one", "- {name: w, nodes: [{key: a, task: a}, {key: b, task: a}]}\n")))
    said = apply(write(team_of("one", "- {name: w, nodes: [{key: b, task: a}, {key: a, task: a}]}\n")))
    assert "      nodes:\n        @@ -1,2 +1,2 @@\n        +- b\n         - a\n        -- b\n" in said


def test_what_a_file_leaves_out_of_a_workflow_is_left_as_it_is(write: Any) -> None:
    apply(write(WORKFLOWS))
    workflow_services.set_enabled(Workflow.objects.get(name="weather_hourly"), False, reason="broken today")
    silent = WORKFLOWS.replace("    starts: 2026-11-01\n", "")
    assert apply(write(silent)) == "0 new, 0 changed, 7 unchanged.\n"
    said = apply(write(silent.replace("timeout: 2h", "timeout: 2h\n    enabled: true")))
    assert "  ~ workflow weather_hourly\n      enabled: false → true\n" in said
    assert Workflow.objects.get(name="weather_hourly").enabled


def test_a_workflow_may_be_made_switched_off(write: Any) -> None:
    apply(write(WORKFLOWS.replace("mode: online", "enabled: false")))
    assert not Workflow.objects.get(name="flights_daily").enabled
    assert export().count("enabled: false") == 1


def test_workflows_that_the_files_do_not_mention_are_left_alone_and_counted(write: Any) -> None:
    apply(write(WORKFLOWS))
    factories.workflow("of-its-own", group=Task.objects.get(name="clean").group)
    said = apply("flights.yaml", dry_run=True)
    assert said.endswith(
        "; 1 more of these teams' tasks and 1 more of these teams' workflows are left alone.\n"
    )


def test_if_somebody_changed_a_workflow_since_the_changes_were_shown_nothing_is_applied(write: Any) -> None:
    apply(write(WORKFLOWS))
    wanted = definitions.read_files([write(WORKFLOWS.replace("days: 2", "days: 3"))])
    shown = definitions.plan(wanted)
    workflow_services.set_enabled(Workflow.objects.get(name="flights_daily"), False)
    definitions.apply(wanted, shown)
    wanted = definitions.read_files([write(WORKFLOWS.replace("days: 2", "days: 4"))])
    shown = definitions.plan(wanted)
    definitions.apply(definitions.read_files([write(WORKFLOWS.replace("days: 2", "days: 5"))]))
    with pytest.raises(DefinitionsMoved, match="nothing was applied"):
        definitions.apply(wanted, shown)


def test_all_or_nothing_also_when_the_last_step_is_refused(write: Any) -> None:
    wanted = definitions.read_files([write(team_of("two", waiting_for("b", "b2"), waiting_for("b2")))])
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
    apply(write(WORKFLOWS))
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
    apply(write(WORKFLOWS))
    silent = WORKFLOWS.replace("    starts: 2026-11-01\n", "").replace("America/New_York", "Asia/Tokyo")
    said = apply(write(silent))
    assert "starts" not in said
    assert Workflow.objects.get(name="flights_daily").starts_at == datetime(2026, 11, 1, 4, tzinfo=UTC)


def test_the_difference_of_two_revisions_is_told_in_the_words_of_the_file(write: Any) -> None:
    apply(write(WORKFLOWS))
    apply(write(WORKFLOWS.replace("timeout: 10m", "timeout: 20m")))
    newer, older = WorkflowRevision.objects.filter(workflow__name="flights_daily").order_by("-number")
    changed = [(line.sign, line.text.strip()) for line in compare(older, newer) if line.sign in "+-"]
    assert changed == [("-", "timeout: 10m"), ("+", "timeout: 20m")]


def test_checking_many_workflows_asks_the_database_no_more_than_checking_two(write: Any) -> None:
    def queries(count: int) -> int:
        text = team_of("one", *(waiting_for(f"w{n}", *([f"w{n - 1}"] if n else [])) for n in range(count)))
        name = write(text)
        with CaptureQueriesContext(
            connection,
        ) as captured:
            definitions.read_files([name])
        return len(captured)

    assert queries(30) - queries(2) <= 28, "one a workflow: do its tasks exist?"


# --- warnings ----------------------------------------------------------------------------------------

CHAIN = """
team: desk
groups: [{name: etl}]
tasks: [{name: a, group: etl, kind: shell, command: 'true'}]
workflows:
  - {name: chain, schedule: {cron: 0 1 * * *, timezone: America/New_York}, %(more)s
     nodes: [{key: a, task: a}], depends_on: [{workflow: chain, cycles: previous}]}
"""
NEVER = (
    "      ! No cycle begins: the first, 2026-11-21 01:00, waits for the previous, 2026-11-20 01:00, which is "
    "past and not generated. Write starts: 2026-11-21T01:00:00-05:00, or backfill 2026-11-20 01:00 without "
    "waiting for upstream cycles.\n"
)


def chain(**more: Any) -> str:
    return CHAIN % {"more": "".join(f"{name}: {value}, " for name, value in more.items())}


def test_a_workflow_that_waits_for_a_cycle_of_its_past_is_said_to_never_begin(write: Any, noon: Any) -> None:
    assert NEVER in apply(write(chain(starts="2026-11-01")))

    noon.shift(timedelta(days=3))
    clock.generate_due()
    clock.make_due()
    assert set(CycleInstance.objects.values_list("state", flat=True)) == {"not_ready"}, "it says what happens"


def test_the_start_that_the_warning_names_lets_it_begin(write: Any, noon: Any) -> None:
    assert "!" not in apply(write(chain(starts="2026-11-21T01:00:00-05:00")))

    noon.shift(timedelta(days=3))
    clock.generate_due()
    clock.make_due()
    assert CycleInstance.objects.filter(state="running").exists()


@pytest.mark.parametrize("more", [{}, {"starts": "2026-11-21"}, {"starts": "2026-11-01", "mode": "offline"}])
def test_what_begins_or_has_no_schedule_is_not_warned_about(write: Any, noon: Any, more: Any) -> None:
    assert "!" not in apply(write(chain(**more)))


def test_a_workflow_that_comes_online_is_warned_about_like_a_new_one(write: Any, noon: Any) -> None:
    apply(write(chain(starts="2026-11-01", mode="offline")))
    assert "! No cycle begins: the first, 2026-11-21 01:00," in apply(write(chain(starts="2026-11-01")))
    assert "!" not in apply(write(chain(starts="2026-11-01", parallelism=3))), "its schedule is there already"
