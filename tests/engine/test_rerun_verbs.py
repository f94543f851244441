"""Row B10: pause, resume, terminate and taking out, and whatever of it is refused."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.exceptions import PermissionDenied

from reruns import services
from reruns.errors import RerunRefused
from reruns.models import Rerun, RerunEdge, RerunItem
from reruns.services import advancing
from scheduling.models import JournalEntry
from tests import factories as make
from tests.engine.cycle_support import Picture, commit
from tests.engine.rerun_world import World, fresh, settle
from workflows import services as workflow_services

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("noon")]


def journalled(rerun: Rerun) -> list[tuple[str, str, str]]:
    entries = JournalEntry.objects.filter(object_type="rerun", object_id=rerun.pk).order_by("at", "pk")
    return list(entries.values_list("action", "actor", "reason"))


def refused(act: Any, says: str) -> None:
    """`act` is refused with these words, and changes nothing."""

    def everything() -> Any:
        tables = (Rerun, RerunItem, RerunEdge)
        return [list(table.objects.order_by("pk").values()) for table in tables], JournalEntry.objects.count()

    before = everything()
    with pytest.raises(RerunRefused, match=says):
        act()
    assert everything() == before


# --- pause and resume --------------------------------------------------------------------------------


def test_paused_it_generates_nothing_and_concludes_nothing_and_resumed_it_goes_on(noon: Any) -> None:
    world = World("a > b", noon)
    rerun = world.rerun("a", "b")
    services.pause(rerun, by="ann", reason="look first")
    world.end("a")
    while advancing.carry_on():
        pass
    assert (fresh(rerun).state, world.states(rerun)) == ("paused", {"a": "success", "b": "waiting"})

    services.resume(rerun, by="ann")
    settle()
    assert world.running() == ["b"]
    services.pause(rerun)
    world.end("b")
    assert (fresh(rerun).state, world.states(rerun)["b"]) == ("paused", "success")
    services.resume(rerun)
    settle()
    assert fresh(rerun).state == "success"
    assert [each[:2] for each in journalled(rerun)][:3] == [
        ("submitted", rerun.actor),
        ("paused", "ann"),
        ("resumed", "ann"),
    ]


def test_paused_before_anything_was_stopped_it_stops_nothing(noon: Any) -> None:
    world = World("a > b", noon, running="b")
    rerun = services.submit(world.draft("a", "b", freeze_mode=True))
    services.pause(rerun)
    settle()
    assert (world.at("b").state, world.running()) == ("running", ["b"])


def test_resuming_what_was_paused_reruns_what_failed_meanwhile(noon: Any) -> None:
    world = World("a > b, a > c", noon)
    rerun = world.rerun("a", "b", "c")
    world.end("a")
    services.pause(rerun)
    world.end("b", outcome="failed")
    services.resume(rerun)
    settle()
    assert world.states(rerun) == {"a": "success", "b": "running", "c": "running"}


# --- terminate ---------------------------------------------------------------------------------------


def test_terminated_it_stops_what_runs_cancels_what_waits_and_frees_what_is_frozen(noon: Any) -> None:
    world = World("a > b > c, a > d", noon, waiting="d")
    rerun = world.rerun("a", "b", "c", "d", freeze_mode=True)
    world.end("a")
    assert world.states(rerun) == {"a": "success", "b": "running", "c": "waiting", "d": "frozen"}

    ended = services.terminate(rerun, by="ann", reason="wrong day")

    assert ended.state == "terminated"
    assert world.states(rerun) == {"a": "success", "b": "terminated", "c": "cancelled", "d": "unfrozen"}
    assert world.at("b").reason == "The cycle instance was stopped by ann: wrong day"
    assert (world.at("d").is_frozen, world.at("d").holder, world.cycle("c").holder) == (False, "", "")
    assert world.cycle("c").succeeded, "what it held counts again"
    assert journalled(rerun)[-2:] == [("terminated", "ann", "wrong day"), ("ended", "engine", "")]
    Picture().check()


def test_what_the_scheduler_stops_first_is_stopped_by_who_terminated_it(
    noon: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World("a > b", noon)
    rerun = world.rerun("a", "b")
    monkeypatch.setattr(advancing, "advance", lambda rerun_id: 0)
    services.terminate(rerun, by="ann", reason="wrong day")
    monkeypatch.undo()
    assert world.states(rerun)["a"] == "running"

    settle()

    assert world.states(rerun)["a"] == "terminated"
    assert world.at("a").reason == "The cycle instance was stopped by ann: wrong day"


def test_it_ends_when_a_stop_that_takes_time_is_confirmed(noon: Any) -> None:
    world = World("a > b", noon)
    rerun = world.rerun("a", "b")
    run = world.at("a").node_runs.select_related("batch").get()
    make.start_batch(run.batch)
    rerun = services.terminate(rerun, by="ann")
    assert (rerun.state, world.states(rerun)) == ("terminating", {"a": "running", "b": "cancelled"})
    refused(lambda: services.terminate(rerun), "has state Terminating, from which it cannot be terminated")
    refused(lambda: services.take_out(rerun, rerun.items.all()), "has state Terminating; nothing can be taken")
    commit()
    make.end_batch(run.batch, "terminated")
    settle()
    assert (fresh(rerun).state, world.states(rerun)["a"]) == ("terminated", "terminated")


@pytest.mark.parametrize("state", ["paused", "failed"])
def test_what_is_paused_or_failed_can_be_terminated(noon: Any, state: str) -> None:
    world = World("a > b", noon)
    rerun = world.rerun("a", "b")
    if state == "paused":
        services.pause(rerun)
    else:
        world.end("a", outcome="failed")
    assert fresh(rerun).state == state
    assert services.terminate(rerun).state == "terminated"


def test_a_crash_after_terminating_was_asked_is_made_good(noon: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World("a > b, a > c", noon, waiting="c")
    rerun = world.rerun("a", "b", "c", freeze_mode=True)

    def killed(*_args: Any, **_options: Any) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(advancing, "advance", killed)
    with pytest.raises(KeyboardInterrupt):
        services.terminate(rerun, by="ann")
    monkeypatch.undo()
    assert (fresh(rerun).state, world.at("a").state) == ("terminating", "running")
    settle()
    assert (fresh(rerun).state, world.at("a").state) == ("terminated", "terminated")


# --- take out ----------------------------------------------------------------------------------------


def test_what_is_taken_out_is_not_rerun_and_what_waits_for_it_waits_for_what_it_waited_for(noon: Any) -> None:
    world = World("a > b > c > d", noon)
    rerun = world.rerun("a", "b", "c", "d")
    kept = world.at("b").pk, world.at("c").pk
    items = [world.item(rerun, name) for name in ("b", "c")]
    services.take_out(rerun, items, by="ann", reason="not poisoned")
    settle()
    assert world.states(rerun) == {"a": "running", "b": "cancelled", "c": "cancelled", "d": "waiting"}
    assert world.item(rerun, "b").reason == "Taken out by ann: not poisoned"
    assert (world.cycle("b").succeeded, world.cycle("b").holder) == (True, "")
    world.end("a")
    assert world.states(rerun)["d"] == "running"
    world.end("d")
    assert (fresh(rerun).state, (world.at("b").pk, world.at("c").pk)) == ("success", kept)
    Picture().check()


@pytest.mark.parametrize("order", [("b", "c"), ("c", "b")])
def test_taken_out_one_after_the_other_the_rest_still_waits_for_what_is_left(
    noon: Any, order: tuple[str, str]
) -> None:
    world = World("a > b > c > d", noon)
    rerun = world.rerun("a", "b", "c", "d")
    for name in order:
        services.take_out(rerun, [world.item(rerun, name).pk])
    settle()
    assert world.states(rerun)["d"] == "waiting"
    world.end("a")
    assert world.states(rerun)["d"] == "running"


def test_what_is_frozen_and_taken_out_goes_on_as_planned(noon: Any) -> None:
    world = World("a > b, a > c", noon, waiting="c")
    rerun = world.rerun("a", "b", "c", freeze_mode=True)
    services.take_out(rerun, [world.item(rerun, "c")], by="ann")
    assert (world.states(rerun)["c"], world.at("c").is_frozen) == ("unfrozen", False)
    assert not world.item(rerun, "c").owned
    world.end("a")
    world.end("b")
    assert fresh(rerun).state == "success"


def test_the_last_one_taken_out_ends_it(noon: Any) -> None:
    world = World("a > b", noon)
    rerun = world.rerun("a", "b")
    world.end("a", outcome="failed")
    workflow_services.mark_success(world.at("a"), by="ann", reason="fine")
    services.take_out(rerun, [world.item(rerun, "b")])
    settle()
    assert (fresh(rerun).state, world.states(rerun)) == ("success", {"a": "success", "b": "cancelled"})


# --- refusals ----------------------------------------------------------------------------------------

VERBS = {
    "pause": (services.pause, "paused"),
    "resume": (services.resume, "resumed"),
    "terminate": (services.terminate, "terminated"),
}


@pytest.mark.parametrize(
    ("state", "verb"),
    [
        ("draft", "pause"),
        ("draft", "resume"),
        ("draft", "terminate"),
        ("running", "resume"),
        ("paused", "pause"),
        ("failed", "pause"),
        ("success", "pause"),
        ("success", "resume"),
        ("success", "terminate"),
        ("terminated", "pause"),
        ("terminated", "resume"),
        ("terminated", "terminate"),
    ],
)
def test_what_its_state_does_not_allow_is_refused_by_name(noon: Any, state: str, verb: str) -> None:
    world = World("a > b", noon)
    rerun = in_state(world, state)
    act, done = VERBS[verb]
    refused(lambda: act(rerun), rf"^{rerun} has state {state.capitalize()}, from which it cannot be {done}\.$")


def in_state(world: World, state: str) -> Rerun:
    """A rerun of `a` and `b` that came to `state` by the verbs."""
    if state == "draft":
        return world.draft("a", "b")
    rerun = world.rerun("a", "b")
    match state:
        case "paused":
            services.pause(rerun)
        case "failed":
            world.end("a", outcome="failed")
        case "success":
            world.end("a")
            world.end("b")
        case "terminated":
            services.terminate(rerun)
    rerun = fresh(rerun)
    assert rerun.state == state
    return rerun


@pytest.mark.parametrize("state", ["draft", "success", "terminated"])
def test_nothing_is_taken_out_of_what_has_not_begun_or_is_over(noon: Any, state: str) -> None:
    world = World("a > b", noon)
    rerun = in_state(world, state)
    refused(lambda: services.take_out(rerun, rerun.items.all()), "nothing can be taken out of it any more")


def test_what_has_begun_is_not_taken_out_nor_what_belongs_to_another_rerun(noon: Any) -> None:
    world, elsewhere = World("a > b", noon), World("c", noon)
    rerun, other = world.rerun("a", "b"), elsewhere.rerun("c")
    ids = [world.item(rerun, "b"), world.item(rerun, "a")]
    refused(
        lambda: services.take_out(rerun, ids), "has state Running; only what has not begun can be taken out"
    )
    refused(lambda: services.take_out(rerun, other.items.all()), "are not all instances of")


def test_nothing_is_nothing_to_take_out_and_what_is_gone_is_told(noon: Any) -> None:
    world = World("a > b", noon)
    rerun, draft = world.rerun("a"), world.draft("b")
    refused(lambda: services.take_out(rerun, []), "Nothing is chosen")
    services.discard(draft)
    refused(lambda: services.terminate(draft), f"{draft} is gone; somebody discarded it")


def test_who_may_not_operate_it_is_refused(noon: Any) -> None:
    world = World("a > b", noon)
    rerun = world.rerun("a", "b")
    stranger = make.user(team=world.group.team, role="viewer")
    for act in (services.pause, services.resume, services.terminate):
        with pytest.raises(PermissionDenied):
            act(rerun, by=stranger)
    with pytest.raises(PermissionDenied):
        services.take_out(rerun, rerun.items.all(), by=stranger)
    assert services.pause(rerun, by=make.user(team=world.group.team, role="operator")).state == "paused"
