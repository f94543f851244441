"""Why a cycle instance, or a node of it, is not running: one cause after the other."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from django.utils import timezone
from django.utils.html import strip_tags

from tests import factories as make
from workflows import detail_queries as ask
from workflows import services, why
from workflows.models import CycleInstance, Workflow
from workflows.services import clock, generation

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
DAILY = {"cron": "0 1 * * *", "timezone": "UTC", "starts_at": NOON}


def generated(workflow: Workflow, until: datetime = NOON) -> Workflow:
    workflow.generated_until = NOON
    workflow.save()
    services.generate(workflow.pk, until)
    return workflow


def first(workflow: Workflow) -> CycleInstance:
    return CycleInstance.objects.filter(workflow=workflow).order_by("cycle_time")[0]


def due(*workflows: Workflow) -> CycleInstance:
    """The first instance of the last of these, all made and due."""
    for each in workflows:
        generated(each)
    CycleInstance.objects.filter(cycle_time__day=21).update(due_at=NOON)
    clock.make_due(NOON + timedelta(days=1))
    return first(workflows[-1])


def pair(nodes: str = "a") -> tuple[Workflow, Workflow]:
    group = make.group(team=make.team("desk"))
    up = make.workflow("up", group=group, nodes=nodes, **DAILY)
    return up, make.workflow("down", group=group, depends_on=[{"workflow": "up"}], **DAILY)


def upstream_failed() -> CycleInstance:
    up, down = pair()
    waiting = due(up, down)
    make.end_node(first(up), "a", "failed", error="exit code 3")
    return waiting


def upstream_runs() -> CycleInstance:
    return due(*pair())


def upstream_is_frozen() -> CycleInstance:
    up, down = pair()
    generated(up)
    services.freeze(first(up), by="ann", reason="hold")
    generated(down)
    clock.make_due(NOON + timedelta(days=1))
    return first(down)


def upstream_is_stopped() -> CycleInstance:
    up, down = pair()
    waiting = due(up, down)
    services.stop(first(up), by="ann", reason="wrong file")
    make.end_batch(first(up).node_runs.get().batch, "terminated")
    return waiting


def upstream_waits() -> CycleInstance:
    up, down = pair()
    generated(up)
    return first(generated(down))


def upstream_is_switched_off() -> CycleInstance:
    up, down = pair()
    generated(up)
    services.set_enabled(up, False, by="ann")
    return first(generated(down))


def upstream_was_never_generated() -> CycleInstance:
    _up, down = pair()
    return first(generated(down))


def upstream_is_offline() -> CycleInstance:
    up, down = pair()
    Workflow.objects.filter(pk=up.pk).update(mode="offline")
    return first(generated(down))


def its_time_has_not_come() -> CycleInstance:
    workflow = make.workflow(**{**DAILY, "starts_at": timezone.now()})
    services.generate(workflow.pk)
    return first(workflow)


def it_is_frozen() -> CycleInstance:
    instance = first(generated(make.workflow(**DAILY)))
    CycleInstance.objects.filter(pk=instance.pk).update(due=True)
    services.freeze(instance, by="ann", reason="wait for the <fix>")
    return instance


def a_rerun_froze_it() -> CycleInstance:
    instance = first(generated(make.workflow(**DAILY)))
    CycleInstance.objects.filter(pk=instance.pk).update(due=True)
    services.freeze(instance, by="ann", reason="rerun of flights", holder="rerun:12")
    return instance


def its_workflow_is_switched_off() -> CycleInstance:
    workflow = make.workflow(**DAILY)
    services.set_enabled(workflow, False, by="ann")
    instance = generation.make_online(Workflow.objects.get(pk=workflow.pk), [NOON])[0]
    CycleInstance.objects.filter(pk=instance.pk).update(due=True)
    return instance


def another_cycle_takes_the_room() -> CycleInstance:
    workflow = generated(make.workflow("flights", parallelism=1, **DAILY), NOON + timedelta(days=1))
    clock.make_due(NOON + timedelta(days=2))
    return CycleInstance.objects.get(workflow=workflow, state="ready")


def it_waits_for_its_turn() -> CycleInstance:
    workflow = make.workflow(**{**DAILY, "starts_at": NOON - timedelta(days=9)})
    made = services.backfill(workflow, since=NOON - timedelta(days=3), until=NOON, parallelism=2, by="ann")
    return made.instances.filter(due=False)[0]


def its_backfill_is_paused() -> CycleInstance:
    instance = it_waits_for_its_turn()
    services.pause_backfill(instance.backfill, by="ann", reason="look first")
    return instance


def a_batch_has_not_confirmed_its_stop() -> CycleInstance:
    instance = make.cycle(make.workflow(nodes="a > b"))
    make.start_batch(instance.node_runs.get(node__key="a").batch)
    return services.stop(instance, by="ann", reason="wrong file")


def no_node_is_online() -> CycleInstance:
    return make.cycle(make.workflow(nodes="a"))


def it_failed() -> CycleInstance:
    return make.end_node(make.cycle(make.workflow(nodes="a")), "a", "failed")


CAUSES: dict[Callable[[], CycleInstance], tuple[str, str]] = {
    # What is so → the kind of the cause, and what it says.
    upstream_failed: (
        "upstream",
        "Blocked by up 2026-11-21 01:00 UTC: failed at .*: Node a did not succeed: exit code 3",
    ),
    upstream_runs: ("upstream", "Blocked by up 2026-11-21 01:00 UTC: running since"),
    upstream_is_frozen: ("upstream", "Blocked by up 2026-11-21 01:00 UTC: frozen by ann"),
    upstream_is_stopped: ("upstream", ": terminated at .*stopped by ann: wrong file"),
    upstream_waits: ("upstream", "Blocked by up 2026-11-21 01:00 UTC: its time comes at"),
    upstream_is_switched_off: ("upstream", "Blocked by up 2026-11-21 01:00 UTC: its workflow is switched off"),
    upstream_was_never_generated: ("upstream", "Blocked by up 2026-11-21 01:00 UTC: never ran"),
    upstream_is_offline: ("upstream", ": not generated, its workflow is offline"),
    its_time_has_not_come: ("time", "Its time comes at .* in .* by the schedule of"),
    it_is_frozen: ("frozen", "Frozen by ann at .*: wait for the &lt;fix&gt;"),
    a_rerun_froze_it: ("frozen", "for rerun 12, which alone can unfreeze it: rerun of flights"),
    its_workflow_is_switched_off: ("switched_off", "is switched off, since"),
    another_cycle_takes_the_room: ("room", "runs 1 cycle at once, and 2026-11-21 01:00 UTC takes the room"),
    it_waits_for_its_turn: ("turn", "its turn in backfill .*, which runs 2 cycles at once"),
    its_backfill_is_paused: ("turn", "its turn in backfill .*, which is paused"),
    a_batch_has_not_confirmed_its_stop: ("stopping", "1 batch has not confirmed that yet: a"),
    no_node_is_online: ("batch", "a: No node of the group .* is online"),
    it_failed: ("node", "a did not succeed"),
}


@pytest.mark.parametrize("so", CAUSES, ids=lambda so: so.__name__)
def test_a_cycle_instance_says_why(so: Callable[[], CycleInstance]) -> None:
    kind, said = CAUSES[so]
    instance = ask.instances().get(pk=so().pk)
    user = make.user(team=instance.team)

    causes = [cause for cause in why.of_cycle(instance, user) if cause.kind == kind]

    assert len(causes) == 1, [strip_tags(cause.text) for cause in why.of_cycle(instance, user)]
    text = strip_tags(causes[0].text)
    assert re.search(said, text, re.DOTALL), text
    assert "<a href" in causes[0].text


def test_a_disabled_workflow_is_the_cause_and_not_the_time_of_its_cycle() -> None:
    instance = its_time_has_not_come()
    services.set_enabled(instance.workflow, False, by="ann")

    assert said_of(instance, "time") == []
    [said] = said_of(instance, "switched_off")
    assert said.startswith(f"Workflow {instance.workflow.name} is switched off, since ")


def test_an_upstream_cycle_of_another_team_is_named_and_not_linked() -> None:
    there = make.workflow("weather", group=make.group(team=make.team("sky")), **DAILY)
    here = make.workflow("flights", group=make.group(), depends_on=[{"workflow": "sky/weather"}], **DAILY)
    instance = ask.instances().get(pk=due(there, here).pk)

    def text_for(user: Any) -> str:
        return why.of_cycle(instance, user)[0].text

    assert "<b>sky/weather 2026-11-21 01:00 UTC</b>" in text_for(make.user(team=instance.team))
    assert f'<a href="/cycles/{first(there).pk}/">' in text_for(make.user(is_superuser=True))


def test_of_many_upstream_cycles_the_first_are_named_and_the_others_counted() -> None:
    group = make.group()
    hourly = make.workflow("weather", group=group, cron="0 * * * *", timezone="UTC", starts_at=NOON)
    daily = make.workflow(
        "flights", group=group, depends_on=[{"workflow": "weather", "cycles": "within_period"}], **DAILY
    )
    generated(hourly)
    instance = ask.instances().get(pk=first(generated(daily)).pk)

    causes = why.of_cycle(instance, make.user(team=group.team))

    upstream = [strip_tags(cause.text) for cause in causes if cause.kind == "upstream"]
    assert len(upstream) == 6
    assert "more upstream cycles that have not succeeded" in upstream[-1]


def chain(*names: str, **first: Any) -> list[Workflow]:
    """Daily workflows of one team, each waiting for the one before it."""
    group = make.group(team=make.team("desk"))
    made = [make.workflow(names[0], group=group, **DAILY | first)]
    for above, name in pairwise(names):
        made.append(make.workflow(name, group=group, depends_on=[{"workflow": above}], **DAILY))
    return made


def said_of(instance: CycleInstance, kind: str, user: Any = None) -> list[str]:
    instance = ask.instances().get(pk=instance.pk)
    causes = why.of_cycle(instance, user or make.user(team=instance.team))
    return [strip_tags(cause.text) for cause in causes if cause.kind == kind]


def test_a_chain_of_waiting_cycles_names_its_root_cause_with_a_link() -> None:
    workflows = chain("raw", "clean", "load", "report")
    waiting = due(*workflows)
    make.end_node(first(workflows[0]), "a", "failed", error="exit code 3")

    assert said_of(waiting, "upstream") == [
        "Blocked by load 2026-11-21 01:00 UTC: not ready, blocked by its own upstream"
    ]
    [root] = said_of(waiting, "root")
    assert re.fullmatch(
        r"Root cause: raw 2026-11-21 01:00 UTC, failed at .*: Node a did not succeed: exit code 3", root
    )
    causes = why.of_cycle(ask.instances().get(pk=waiting.pk), make.user(team=waiting.team))
    assert f'href="/cycles/{first(workflows[0]).pk}/"' in causes[-1].text


def test_the_root_cause_is_where_the_chain_is_frozen_or_not_due() -> None:
    raw, clean, load, report = chain("raw", "clean", "load", "report")
    waiting = due(raw, clean, load, report)
    services.freeze(first(clean), by="ann", reason="hold")
    assert said_of(waiting, "root") == ["Root cause: clean 2026-11-21 01:00 UTC, frozen by ann"]

    CycleInstance.objects.filter(pk=first(load).pk).update(due=False)
    assert said_of(waiting, "root") == [], "the direct upstream is the root, and named as such"


def test_a_root_cause_that_the_reader_may_not_see_is_not_named() -> None:
    raw = make.workflow("raw", group=make.group(team=make.team("sky")), **DAILY)
    group = make.group(team=make.team("desk"))
    clean = make.workflow("clean", group=group, depends_on=[{"workflow": "sky/raw"}], **DAILY)
    load = make.workflow("load", group=group, depends_on=[{"workflow": "clean"}], **DAILY)
    waiting = due(raw, clean, load)
    make.end_node(first(raw), "a", "failed")

    assert said_of(waiting, "root") == [
        "The root cause is further upstream, in a workflow that you cannot see."
    ]
    [root] = said_of(waiting, "root", make.user(is_superuser=True))
    assert root.startswith("Root cause: raw 2026-11-21 01:00 UTC, failed at")


def test_a_long_chain_costs_two_queries(django_assert_num_queries: Any) -> None:
    workflows = chain(*(f"w{number}" for number in range(30)))
    waiting = due(*workflows)
    with django_assert_num_queries(2):
        roots = ask.root_causes([waiting.cycle_id])
    assert [cycle.workflow.name for cycle in roots[waiting.cycle_id]] == ["w0"]


# --- nodes -------------------------------------------------------------------------------------------


def causes_of(instance: CycleInstance, key: str, **typical: timedelta) -> list[str]:
    instance = ask.instances().get(pk=instance.pk)
    runs = ask.runs_of(instance)
    [run] = [each for each in runs if each.node.key == key]
    return [strip_tags(cause.text) for cause in why.of_node(run, runs, instance, typical)]


def test_a_waiting_node_names_what_it_waits_for_and_how_long_that_usually_takes() -> None:
    instance = make.cycle(make.workflow(nodes="a > c, b > c, c > d"))
    make.end_node(instance, "a")

    assert causes_of(instance, "c")[0].startswith("Blocked by b, queued since ")

    make.start_batch(instance.node_runs.get(node__key="b").batch)
    [said] = causes_of(instance, "c", b=timedelta(seconds=50))

    assert said.startswith("Blocked by b, running since ")
    assert said.endswith("(usually for 50 s).")
    assert causes_of(instance, "d") == ["Blocked by c, which waits for b."]


def test_a_node_of_a_rerun_is_held_back_by_its_limit() -> None:
    source = make.cycle(make.workflow(nodes="a, b"))
    make.end_node(source, "a", "failed")
    source = make.end_node(source, "b", "failed")
    again = services.rerun(source, node_parallelism=1, by="ann")

    assert causes_of(again, "b") == ["This rerun runs 1 node at once, and this runs: a"]


def test_a_node_that_has_begun_says_what_its_batch_says_and_one_that_was_passed_over_its_branch() -> None:
    instance = make.cycle(make.workflow(nodes="a > b, a > c!"))
    assert "No node of the group" in causes_of(instance, "a")[0]

    make.end_node(instance, "a")

    assert causes_of(instance, "c") == ["Its branch was not taken: a (failure)"]
    assert causes_of(instance, "a") == []


def test_a_node_of_an_instance_that_has_not_begun_says_so() -> None:
    instance = first(generated(make.workflow(**DAILY)))

    assert causes_of(instance, "a") == ["Its cycle instance has not begun."]
