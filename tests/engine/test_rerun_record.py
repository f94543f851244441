"""Rows B9, B11 and B14: what a rerun tells, and the record that it leaves."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import ProgrammingError, connection, transaction

from reruns import services
from reruns.models import Rerun, RerunItem
from scheduling.models import Notification
from tests.engine.rerun_world import NOON, World, fresh, settle
from tests.engine.states import duplicate
from workflows import services as workflow_services
from workflows.models import CycleInstance
from workflows.services import clock

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("noon")]

TELL = [{"channel": "ops", "on": ["success", "terminated", "instance_failed"]}]


def told() -> list[tuple[str, str]]:
    return list(
        Notification.objects.filter(key__startswith="rerun:").order_by("pk").values_list("key", "event")
    )


# --- notifications -----------------------------------------------------------------------------------


def test_a_success_is_told_once_and_nothing_else_is(noon: Any) -> None:
    world = World("a > b", noon)
    rerun = world.rerun("a", "b", notify=TELL)
    world.end("a")
    assert told() == []
    world.end("b")
    assert told() == [(f"rerun:{rerun.pk}:success:ops", "success")]
    [notification] = Notification.objects.filter(event="success")
    assert notification.subject == (
        f"[{world.group.team.name}] Rerun {rerun} downstream of a 2026-11-20 13:00 UTC succeeded"
    )
    assert (notification.path, notification.team) == (f"/reruns/{rerun.pk}/", world.group.team)
    assert notification.text == "Success: 2\nIt took 0 s.\nReason for the rerun: bad weather"


def test_that_it_was_terminated_is_told_once(noon: Any) -> None:
    world = World("a > b", noon)
    rerun = world.rerun("a", "b", notify=TELL)
    services.terminate(rerun, by="ann", reason="wrong hour")
    settle()
    assert told() == [(f"rerun:{rerun.pk}:terminated:ops", "terminated")]
    lines = Notification.objects.get(event="terminated").text.splitlines()
    assert lines[0] == "Terminated by ann: wrong hour"
    assert lines[-1] == "Reason for the rerun: bad weather"


def test_each_run_of_an_instance_that_failed_is_told_of_once(noon: Any) -> None:
    world = World("a > b, a > c", noon)
    rerun = world.rerun("a", "b", "c", notify=[{"channel": "ops", "on": ["instance_failed"]}])
    world.end("a")
    world.end("b", outcome="failed")
    world.end("c", outcome="failed")
    first = [world.at("b").pk, world.at("c").pk]
    keys = [f"rerun:{rerun.pk}:instance_failed:{pk}:ops" for pk in first]
    assert told() == [(key, "instance_failed") for key in keys]
    [one, _other] = Notification.objects.filter(event="instance_failed").order_by("pk")
    assert one.subject.endswith(f"An instance of rerun {rerun} failed: b 2026-11-20 13:00 UTC")
    assert one.text.splitlines() == ["Cycle: b 2026-11-20 13:00 UTC", "Did not succeed: n"]

    services.resume(fresh(rerun))
    settle()
    world.end("b", outcome="failed")
    world.end("c")
    assert [key for key, _event in told()][2:] == [f"rerun:{rerun.pk}:instance_failed:{world.at('b').pk}:ops"]


def test_a_stopped_instance_is_an_event_of_its_own(noon: Any) -> None:
    world = World("a > b", noon)
    rules = [{"channel": "ops", "on": ["instance_failed"]}, {"channel": "desk", "on": ["instance_stopped"]}]
    rerun = world.rerun("a", "b", notify=rules)
    workflow_services.stop(world.at("a"), by="ann", reason="enough")
    settle()
    key = f"rerun:{rerun.pk}:instance_stopped:{world.at('a').pk}:desk"
    assert told() == [(key, "instance_stopped")]
    assert Notification.objects.get().subject.endswith("was stopped: a 2026-11-20 13:00 UTC")


def test_nothing_is_told_unless_it_is_asked_for(noon: Any) -> None:
    world = World("a > b", noon)
    world.rerun("a", "b")
    world.end("a", outcome="failed")
    assert told() == []


# --- the record --------------------------------------------------------------------------------------


def test_it_keeps_the_states_of_then_even_if_the_instances_change(noon: Any) -> None:
    world = World("a > b > c", noon, waiting="c")
    rerun = world.rerun("a", "b", "c", freeze_mode=True)
    world.end("a")
    world.end("b")
    shown = {name: world.item(rerun, name).shown_state for name in "abc"}
    assert shown == {"a": "success", "b": "success", "c": "not_ready"}
    record = Rerun.objects.filter(pk=rerun.pk).values().get(), list(rerun.items.order_by("pk").values())

    CycleInstance.objects.filter(workflow=world.workflows["c"]).update(due_at=NOON)
    clock.make_due()
    world.end("c")
    workflow_services.rerun(world.at("a"))
    world.end("a", outcome="failed")
    while services.advance(rerun.pk):
        pass
    assert (
        Rerun.objects.filter(pk=rerun.pk).values().get(),
        list(rerun.items.order_by("pk").values()),
    ) == record


def test_a_terminated_one_keeps_the_states_of_then_too(noon: Any) -> None:
    world = World("a > b > c, a > d", noon, waiting="d")
    rerun = world.rerun("a", "b", "c", "d", freeze_mode=True)
    world.end("a")
    services.terminate(rerun)
    assert {name: world.item(rerun, name).shown_state for name in "abcd"} == {
        "a": "success",
        "b": "terminated",
        "c": "success",
        "d": "not_ready",
    }


def ended(world: World) -> Rerun:
    rerun = world.rerun("a", "b")
    world.end("a")
    world.end("b")
    return fresh(rerun)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE reruns_rerunitem SET shown_state = 'failed'",
        "UPDATE reruns_rerunitem SET reason = 'never happened'",
        "UPDATE reruns_rerunitem SET owned = true",
        "UPDATE reruns_rerun SET reason = 'never happened'",
        "UPDATE reruns_rerun SET name = 'another'",
        "UPDATE reruns_rerun SET actor = 'bob'",
        "UPDATE reruns_rerun SET ended_at = now()",
    ],
)
def test_the_database_lets_nobody_change_what_has_ended(noon: Any, change: str) -> None:
    ended(World("a > b", noon))
    with pytest.raises(ProgrammingError, match="has ended; its record does not change"):
        sql(change)


def sql(statement: str) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute(statement)


def test_nothing_is_added_to_what_has_ended(noon: Any) -> None:
    rerun = ended(World("a > b", noon))
    item = rerun.items.order_by("pk")[0]
    with pytest.raises(ProgrammingError, match="has ended; its record does not change"):
        duplicate("reruns_rerunitem", item.pk, cycle_id=0)


def test_it_outlives_who_asked_for_it(noon: Any) -> None:
    from tests import factories as make

    world = World("a > b", noon)
    mei = make.user("mei", team=world.group.team)
    rerun = world.rerun("a", "b", by=mei)
    world.end("a")
    world.end("b")
    mei.delete()
    rerun = fresh(rerun)
    assert (rerun.state, rerun.actor, rerun.requested_by, rerun.responsible) == ("success", "mei", None, None)
    assert RerunItem.objects.filter(rerun=rerun).count() == 2
