"""Rows B6 to B9: what is chosen of a draft is stored with every tick, and survives the browser."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.core.exceptions import PermissionDenied
from django.db import connection
from django.test.utils import CaptureQueriesContext

from reruns import choices, services
from reruns.errors import RerunRefused
from reruns.models import Rerun, RerunItem
from reruns.plans import plan_of
from scheduling.errors import InvalidDefinition
from scheduling.models import JournalEntry
from tests import factories as make
from tests.engine.rerun_support import at, chain, cycle
from tests.engine.rerun_world import NOON
from workflows import services as workflow_services
from workflows.models import CycleDependency, CycleInstance, Workflow
from workflows.services import generation

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("noon")]


def stored(rerun: Rerun) -> dict[str, tuple[Any, ...]]:
    """What is stored of each chosen cycle, by the name of its workflow."""
    items = RerunItem.objects.filter(rerun=rerun).order_by("wave", "pk")
    return {
        item.name.split()[0]: (item.action, item.nodes, item.wave, item.starts_at, item.ends_at)
        for item in items
    }


def chosen(rerun: Rerun) -> set[str]:
    return set(stored(rerun))


# --- a new draft ---------------------------------------------------------------------------------------


def test_a_draft_holds_what_is_chosen_as_it_was_seen() -> None:
    mei = make.user("mei", is_superuser=True)
    a, b, c = chain("a", "b", "c")

    rerun = services.plan(a, downstream=[c], by=mei)

    assert (rerun.state, rerun.name, rerun.actor, rerun.requested_by_id) == ("draft", a.name, "mei", mei.pk)
    assert (rerun.source_id, rerun.team_id, rerun.created_at) == (a.pk, a.team_id, NOON)
    assert stored(rerun) == {"a": ("rerun", [], 1, 0, 60), "c": ("rerun", [], 2, 60, 120)}
    item = RerunItem.objects.get(rerun=rerun, cycle=c.cycle_id)
    assert (item.original_id, item.workflow_id, item.team_id) == (c.pk, c.workflow_id, c.team_id)
    assert (item.seen_state, item.state, item.node_total) == ("success", "planned", 1)
    assert (item.is_source, item.owned, item.cycle_time) == (False, False, c.cycle_time)
    assert RerunItem.objects.get(rerun=rerun, is_source=True).cycle_id == a.cycle_id
    assert not JournalEntry.objects.filter(object_type="rerun").exists()
    assert b.cycle_id not in {each.cycle_id for each in plan_of(rerun).chosen}


def test_without_a_word_nothing_downstream_is_chosen() -> None:
    a, _b = chain("a", "b")

    assert chosen(services.plan(a)) == {"a"}


def test_all_is_what_can_be_chosen() -> None:
    a, b = chain("a", "b")
    cycle(make.workflow("c"), state="not_ready", after=[b])
    cycle(make.workflow("d"), run_type="backfill", after=[b])

    assert chosen(services.plan(a, downstream="all")) == {"a", "b"}
    assert chosen(services.plan(a, downstream="all", freeze_mode=True)) == {"a", "b", "c"}


def test_naming_the_source_among_the_downstream_leaves_its_nodes_as_they_were_chosen() -> None:
    a = cycle(make.workflow("a", nodes="x > y"))

    assert stored(services.plan(a, nodes=["y"], downstream=[a]))["a"][1] == ["y"]


def test_any_other_word_for_downstream_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="not 'everything'"):
        services.plan(cycle(make.workflow("a")), downstream="everything")


def test_an_instance_that_cannot_be_chosen_is_refused_by_name_and_no_draft_is_left() -> None:
    a, b = chain("a", "b")
    c = cycle(make.workflow("c"), state="not_ready", after=[b])

    with pytest.raises(RerunRefused, match=r"^c 2026-11-19 00:00 UTC: It is not ready. Switch on freeze mode"):
        services.plan(a, downstream=[b, c])
    assert not Rerun.objects.exists()


# --- the source's nodes (B6) ---------------------------------------------------------------------------


def test_proposed_is_what_failed_was_cancelled_or_terminated_and_what_follows_it() -> None:
    """
    fetch (success) ──► load (failed) ──► send (cancelled)        stop (terminated)
    """
    a = cycle(
        make.workflow("a", nodes="fetch > load > send, stop"),
        state="failed",
        nodes={"fetch": "success", "load": "failed", "send": "cancelled", "stop": "terminated"},
    )

    assert [(each.key, each.state, each.proposed) for each in choices.source_nodes(a)] == [
        ("fetch", "success", False),
        ("load", "failed", True),
        ("send", "cancelled", True),
        ("stop", "terminated", True),
    ]
    assert stored(services.plan(a))["a"][1] == ["load", "send", "stop"]


def test_of_a_success_nothing_is_proposed_and_the_shell_takes_all() -> None:
    a = cycle(make.workflow("a", nodes="x > y"))

    assert [each.chosen for each in choices.source_nodes(a)] == [False, False]
    assert stored(services.plan(a))["a"][1] == []


def test_downstream_all_nodes_are_chosen_as_is_shown_before_the_tick() -> None:
    a, b = chain("a", "b", nodes={"a": "success"})
    rerun = services.plan(a)
    candidate = plan_of(rerun).candidate(b.cycle_id)
    assert candidate is not None
    assert [(each.key, each.task, each.state, each.chosen) for each in choices.nodes_of(candidate)] == [
        ("a", "a", "success", True)
    ]


@pytest.mark.parametrize(
    ("nodes", "says"),
    [([], "No node of a 2026-11-19 00:00 UTC is chosen"), (["x", "nix"], "a has no node nix")],
)
def test_nodes_that_are_none_are_refused(nodes: list[str], says: str) -> None:
    a = cycle(make.workflow("a", nodes="x > y"))

    with pytest.raises(RerunRefused, match=says):
        services.plan(a, nodes=nodes)
    assert not Rerun.objects.exists()


def test_nodes_are_kept_in_the_order_of_the_definition_and_all_of_them_as_none() -> None:
    a = cycle(make.workflow("a", nodes="x > y > z"))
    rerun = services.plan(a, nodes=["z", "x"])
    assert stored(rerun)["a"][1] == ["x", "z"]

    services.choose_nodes(rerun, a.cycle_id, ["y", "z", "x"])

    assert stored(rerun)["a"][1] == []


# --- choosing (B7) -------------------------------------------------------------------------------------


def test_every_tick_reckons_order_and_times_of_everything_anew() -> None:
    a, b, c = chain("a", "b", "c")
    rerun = services.plan(a, downstream=[c])

    services.choose(rerun, [b.cycle_id])
    assert stored(rerun)["c"] == ("rerun", [], 3, 120, 180)
    services.choose(rerun, [b.cycle_id, c.cycle_id], chosen=False)
    assert stored(rerun) == {"a": ("rerun", [], 1, 0, 60)}


def test_ticking_again_changes_nothing_of_what_was_chosen() -> None:
    a = cycle(make.workflow("a"))
    b = cycle(make.workflow("b", nodes="x > y"), after=[a])
    rerun = services.plan(a)
    services.choose_nodes(rerun, b.cycle_id, ["y"])

    services.choose(rerun, [a.cycle_id, b.cycle_id])

    assert stored(rerun)["b"][1] == ["y"]


def test_the_source_cannot_be_left_out() -> None:
    a, b = chain("a", "b")
    rerun = services.plan(a, downstream="all")

    with pytest.raises(RerunRefused, match="The source cannot be left out"):
        services.choose(rerun, [a.cycle_id, b.cycle_id], chosen=False)
    assert chosen(rerun) == {"a", "b"}
    services.choose(rerun, [a.cycle_id, b.cycle_id], chosen=False, skip_refused=True)
    assert chosen(rerun) == {"a"}


def test_what_cannot_be_chosen_is_refused_by_name_or_skipped_if_so_asked() -> None:
    a, b = chain("a", "b")
    frozen = [cycle(make.workflow(f"f{n}"), state="not_ready", after=[a]) for n in range(5)]
    rerun = services.plan(a)
    wanted = [b.cycle_id, *(each.cycle_id for each in frozen), 987654]

    with pytest.raises(RerunRefused) as refused:
        services.choose(rerun, wanted)
    lines = str(refused.value).splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["f0", "f1", "f2"]
    assert lines[3] == "f3 2026-11-19 00:00 UTC, f4 2026-11-19 00:00 UTC, #987654"
    assert chosen(rerun) == {"a"}

    services.choose(rerun, wanted, skip_refused=True)
    assert chosen(rerun) == {"a", "b"}


def test_what_is_frozen_is_frozen_whole() -> None:
    a = cycle(make.workflow("a"))
    b = cycle(make.workflow("b", nodes="x > y"), state="not_ready", after=[a])
    rerun = services.plan(a, freeze_mode=True)

    with pytest.raises(RerunRefused, match="is frozen as a whole; choose all of its nodes"):
        services.choose_nodes(rerun, b.cycle_id, ["x"])
    services.choose_nodes(rerun, b.cycle_id, ["x", "y"])
    assert stored(rerun)["b"][:2] == ("freeze", [])


def test_nodes_that_one_may_not_rerun_cannot_be_chosen() -> None:
    mine, theirs = make.team("mine"), make.team("theirs")
    mei, group = make.user("mei", team=mine), make.group(team=theirs)
    a = cycle(make.workflow("a", group=make.group(team=mine)))
    b = cycle(make.workflow("b", group=group, nodes="x > y"), after=[a])
    make.grant(group.tasks.get(name="x"), to=mine)
    rerun = services.plan(a, by=mei)

    with pytest.raises(
        RerunRefused, match=r"You have no permission to rerun its nodes y\. Ask an owner of theirs"
    ):
        services.choose_nodes(rerun, b.cycle_id, ["x", "y"], by=mei)
    services.choose(rerun, [b.cycle_id], by=mei)
    assert stored(rerun)["b"][1] == ["x"]


# --- freeze mode (B8) ----------------------------------------------------------------------------------


def test_freeze_mode_switched_off_drops_what_only_it_admitted_and_says_which() -> None:
    a, b = chain("a", "b")
    c = cycle(make.workflow("c"), state="not_ready", after=[b])
    d = cycle(make.workflow("d"), state="running", after=[b])
    rerun = services.plan(a, downstream="all", freeze_mode=True)
    assert chosen(rerun) == {"a", "b", "c", "d"}

    _plan, dropped = services.set_freeze_mode(rerun, False)

    assert sorted(dropped) == [c.name, d.name]
    assert (chosen(rerun), Rerun.objects.get().freeze_mode) == ({"a", "b"}, False)
    assert services.set_freeze_mode(rerun, True)[1] == []
    assert (chosen(rerun), Rerun.objects.get().freeze_mode) == ({"a", "b"}, True)


def test_freeze_mode_stays_on_as_long_as_the_source_needs_it() -> None:
    a = cycle(make.workflow("a"), state="running")
    rerun = services.plan(a, freeze_mode=True)

    with pytest.raises(RerunRefused, match=r"^a 2026-11-19 00:00 UTC: It has not ended \(Running\)"):
        services.set_freeze_mode(rerun, False)
    assert Rerun.objects.get().freeze_mode


# --- settings (B9) -------------------------------------------------------------------------------------


def test_settings_are_saved_one_by_one() -> None:
    a, _b = chain("a", "b")
    rerun = services.plan(a, downstream="all", parallelism=2)
    rules = [{"channel": "ops", "on": ["success", "terminated", "instance_failed"]}]

    services.save_settings(rerun, parameters={"limit": 10}, on_failure="stop", notify=rules)
    rerun = services.save_settings(rerun, node_parallelism=3, as_it_ran=False)

    rerun.refresh_from_db()
    assert (rerun.parallelism, rerun.node_parallelism, rerun.on_failure) == (2, 3, "stop")
    assert (rerun.parameters, rerun.as_it_ran, len(rerun.notify)) == ({"limit": 10}, False, 1)


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"parallelism": -1}, RerunRefused),
        ({"parallelism": 10_001}, RerunRefused),
        ({"parallelism": "many"}, RerunRefused),
        ({"on_failure": "explode"}, RerunRefused),
        ({"parameters": {"a b": 1}}, InvalidDefinition),
        ({"notify": [{"channel": "ops", "on": ["late"]}]}, InvalidDefinition),
        ({"colour": "red"}, TypeError),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: Any, error: type[Exception]) -> None:
    a, _b = chain("a", "b")
    rerun = services.plan(a)
    before = Rerun.objects.values().get()

    with pytest.raises(error):
        services.save_settings(rerun, **settings)
    assert Rerun.objects.values().get() == before


def test_chosen_nodes_that_todays_content_does_not_have_are_refused() -> None:
    flow = make.workflow("a", nodes="x > y")
    a = cycle(flow)
    rerun = services.plan(a, nodes=["y"])
    workflow_services.save_workflow(
        team=flow.team, name="a", content={"nodes": [{"key": "x", "task": "x", "after": []}]}, by="tests"
    )

    with pytest.raises(RerunRefused, match="a 2026-11-19 00:00 UTC has no node y"):
        services.save_settings(rerun, as_it_ran=False)
    services.choose_nodes(rerun, a.cycle_id, ["x"])
    rerun = services.save_settings(rerun, as_it_ran=False)
    assert plan_of(rerun).source.node_total == 1


# --- whose it is, and how long it lasts ------------------------------------------------------------------


def test_a_draft_survives_and_is_gone_on_with_days_later(noon: Any) -> None:
    mei = make.user("mei", is_superuser=True)
    a, b, c = chain("a", "b", "c")
    kept = services.plan(a, downstream=[b], by=mei, parallelism=3).pk
    noon.shift(timedelta(hours=10))

    [rerun] = Rerun.objects.drafts_of(mei)
    services.choose(rerun, [c.cycle_id], by=mei)

    assert (rerun.pk, chosen(rerun), rerun.parallelism) == (kept, {"a", "b", "c"}, 3)
    rerun.refresh_from_db()
    assert (rerun.created_at, rerun.changed_at) == (NOON, NOON + timedelta(hours=10))


EDITS: dict[str, Any] = {
    "choose": lambda rerun, by: services.choose(rerun, [], by=by),
    "choose_nodes": lambda rerun, by: services.choose_nodes(
        rerun, plan_of(rerun).source.cycle_id, ["a"], by=by
    ),
    "set_freeze_mode": lambda rerun, by: services.set_freeze_mode(rerun, True, by=by),
    "save_settings": lambda rerun, by: services.save_settings(rerun, parallelism=1, by=by),
    "discard": lambda rerun, by: services.discard(rerun, by=by),
}


@pytest.mark.parametrize("edit", EDITS)
def test_only_its_author_an_administrator_and_the_shell_change_a_draft(edit: str) -> None:
    team = make.team()
    author, other = make.user("mei", team=team), make.user("lee", team=team, role="owner")
    a = cycle(make.workflow("a", group=make.group(team=team)))
    rerun = services.plan(a, by=author)

    with pytest.raises(PermissionDenied, match="This draft is mei's"):
        EDITS[edit](rerun, other)
    for by in (author, make.user(is_superuser=True), None):
        EDITS[edit](services.plan(a, by=author), by)
    EDITS[edit](rerun, author)


@pytest.mark.parametrize("edit", EDITS)
def test_what_was_submitted_or_discarded_is_not_changed(edit: str) -> None:
    a, b = chain("a", "b")
    submitted = services.submit(services.plan(a))
    before = list(RerunItem.objects.values())

    with pytest.raises(RerunRefused, match="was submitted; its plan does not change any more"):
        EDITS[edit](submitted, None)
    assert list(RerunItem.objects.values()) == before

    gone = services.plan(b)
    Rerun.objects.filter(pk=gone.pk).delete()
    if edit != "choose_nodes":
        with pytest.raises(RerunRefused, match="somebody discarded it"):
            EDITS[edit](gone, None)


def test_what_is_discarded_leaves_nothing() -> None:
    a, _b = chain("a", "b")
    kept, rerun = services.plan(a), services.plan(a, downstream="all")

    services.discard(rerun)

    assert (list(Rerun.objects.all()), RerunItem.objects.get().rerun_id) == ([kept], kept.pk)


# --- how much it asks of the database --------------------------------------------------------------------


def many(flow: Workflow, count: int, after: CycleInstance) -> list[int]:
    """The ids of `count` cycles of a workflow that ran, all waiting for that of `after`."""
    slots = generation.make_cycles(flow, [at() - timedelta(minutes=n) for n in range(1, count + 1)])
    generation.new_instances(
        flow, slots, run_type="online", online=True, state="success", started_at=NOON, ended_at=NOON
    )
    CycleDependency.objects.bulk_create(
        CycleDependency(cycle=slot, upstream_id=after.cycle_id) for slot in slots
    )
    return [slot.pk for slot in slots]


def test_two_thousand_are_ticked_in_the_same_few_statements_as_two() -> None:
    a = cycle(make.workflow("a"))
    few = many(make.workflow("few"), 2, a)
    lots = many(make.workflow("lots"), 2000, a)
    rerun = services.plan(a)

    with CaptureQueriesContext(connection) as for_two:
        services.choose(rerun, few)
    with CaptureQueriesContext(connection) as for_many:
        services.choose(rerun, lots)

    assert len(for_many) == len(for_two) <= 20
    assert RerunItem.objects.filter(rerun=rerun).count() == 2003
    services.choose(rerun, [*few, *lots], chosen=False)
    assert RerunItem.objects.filter(rerun=rerun).count() == 1
