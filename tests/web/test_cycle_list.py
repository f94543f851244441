"""The list of cycle instances: what it shows and narrows, its live rows, and what is done to many."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import pytest
from django.test import Client
from django.utils import timezone

from scheduling.models import JournalEntry
from scheduling.queries import newest_first
from tests import factories as make
from tests.web.conftest import Desk
from tests.web.pages import HTMX, element, live_address, marks, shown, state_of, text_of
from workflows import services
from workflows.filters import CycleFilter
from workflows.models import CycleInstance, Workflow
from workflows.services import clock, generation
from workflows.views.rows import CycleRow

DAILY = {"cron": "0 0 * * *", "timezone": "UTC", "parallelism": 0}


def daily(desk: Desk, name: str = "", **content: Any) -> Workflow:
    """A workflow whose cycles begin three days ago."""
    made = make.workflow(
        name or None,
        group=desk.group,
        nodes="a > b",
        starts_at=timezone.now() - timedelta(days=3),
        **(DAILY | content),
    )
    Workflow.objects.filter(pk=made.pk).update(generated_until=timezone.now() - timedelta(days=3))
    generation.generate(made.pk)
    return made


def actions(page: Any, instance: CycleInstance) -> set[str]:
    """What the menu of an instance's row offers."""
    return set(re.findall(r'data-action="([\w-]+)"', element(page, f"cycle-{instance.pk}")))


def come(workflow: Workflow) -> list[CycleInstance]:
    """The instances whose time has come, the newest cycle first."""
    of = CycleInstance.objects.filter(workflow=workflow, cycle_time__lte=timezone.now())
    return list(of.order_by("-cycle_time"))


def pks(instances: Any) -> list[int]:
    return [each.pk for each in instances]


# --- the rows --------------------------------------------------------------------------------------


def test_cycles_that_have_come_are_listed_the_newest_first_with_their_state_and_counters(
    desk: Desk, operator: Client
) -> None:
    workflow = daily(desk)
    clock.make_due()
    instances = come(workflow)
    make.end_node(instances[0], "a", "failed")
    page = operator.get("/cycles/")

    assert marks(page, "cycle") == pks(instances)
    assert state_of(page, f"cycle-{instances[0].pk}") == "failed"
    assert 'aria-label="0 of 2 succeeded, 1 failed, 1 not run"' in element(page, f"cycle-{instances[0].pk}")
    assert state_of(page, f"cycle-{instances[1].pk}") == "running"


def test_what_a_stop_ended_is_not_said_to_have_failed(desk: Desk, operator: Client) -> None:
    workflow = daily(desk)
    clock.make_due()
    stopped = services.stop(come(workflow)[0], by="mei", reason="the file was late")
    said = element(operator.get("/cycles/"), f"cycle-{stopped.pk}")
    assert 'aria-label="0 of 2 succeeded, 1 unsuccessful, 1 not run"' in said


def test_cycles_still_to_come_are_a_window_of_their_own(desk: Desk, operator: Client) -> None:
    workflow = daily(desk)
    ahead = CycleInstance.objects.filter(workflow=workflow, cycle_time__gt=timezone.now())
    assert marks(operator.get("/cycles/?window=ahead"), "cycle") == pks(ahead.order_by("-cycle_time"))


def test_cycles_of_other_teams_are_not_listed(desk: Desk, outsider: Client) -> None:
    daily(desk)
    page = outsider.get("/cycles/")
    assert (marks(page, "cycle"), "There is no cycle instance yet" in text_of(page)) == ([], True)


def test_a_frozen_cycle_says_who_froze_it_and_why(desk: Desk, operator: Client) -> None:
    [instance, *_] = come(daily(desk))
    services.freeze(instance, by="mei", reason="the source is being repaired")
    row = element(operator.get("/cycles/"), f"cycle-{instance.pk}")
    assert "Frozen by mei: the source is being repaired" in row


def test_who_asks_for_what_is_frozen_sees_what_is_still_to_come_too(desk: Desk, operator: Client) -> None:
    come(daily(desk))
    ahead = CycleInstance.objects.filter(cycle_time__gt=timezone.now()).first()
    assert ahead is not None
    services.freeze(ahead, by="mei", reason="the source is being repaired")
    assert marks(operator.get("/cycles/?frozen=yes"), "cycle") == [ahead.pk]
    assert marks(operator.get("/cycles/?frozen=yes&window=7d"), "cycle") == [ahead.pk]
    assert ahead.pk not in marks(operator.get("/cycles/?frozen=no"), "cycle")


def test_the_menu_offers_what_the_state_and_the_role_allow(
    desk: Desk, operator: Client, viewer: Client
) -> None:
    workflow = daily(desk)
    waiting, running, ended = come(workflow)
    CycleInstance.objects.filter(pk=waiting.pk).update(due_at=None)
    clock.make_due()
    make.end_node(ended, "a", "failed")
    page = operator.get("/cycles/")

    assert actions(page, waiting) == {"freeze", "stop"}
    assert actions(page, running) == {"stop", "rerun-downstream"}
    assert actions(page, ended) == {"rerun", "mark-success", "rerun-downstream"}
    services.freeze(waiting, by="mei")
    assert actions(operator.get("/cycles/"), waiting) == {"unfreeze", "stop"}
    assert actions(viewer.get("/cycles/"), ended) == set()


def test_who_asks_for_what_is_not_ready_sees_what_is_still_to_come_too(desk: Desk, operator: Client) -> None:
    daily(desk)
    ahead = CycleInstance.objects.filter(cycle_time__gt=timezone.now())
    assert ahead.exists()
    for query in ("state=not_ready", "state=not_ready&state=running", "state=not_ready&window=30d"):
        shown = marks(operator.get(f"/cycles/?{query}"), "cycle")
        assert set(pks(ahead)) <= set(shown), query
    assert not set(pks(ahead)) & set(marks(operator.get("/cycles/?state=running&state=success"), "cycle"))


def test_what_a_rerun_froze_is_not_unfrozen_by_hand(desk: Desk, operator: Client) -> None:
    [instance, *_] = come(daily(desk))
    services.freeze(instance, by="mei", holder="rerun:1")
    assert actions(operator.get("/cycles/"), instance) == {"stop"}


def test_the_list_takes_the_same_number_of_queries_however_long_it_is(
    desk: Desk, operator: Client, django_assert_num_queries: Any
) -> None:
    daily(desk)
    clock.make_due()
    # Session, user, roles, the form's teams, the page's ids, its rows, running nodes, saved filters.
    for _ in range(2):
        with django_assert_num_queries(8):
            operator.get("/cycles/?window=7d")
        for _ in range(3):
            daily(desk)
        clock.make_due()


def test_what_was_ready_before_its_cycles_time_is_found_by_when_it_was(desk: Desk, operator: Client) -> None:
    workflow, now = daily(desk), timezone.now()
    test = services.run_test(workflow, cycle_time=now - timedelta(hours=1), by="mei")
    CycleInstance.objects.filter(pk=test.pk).update(ready_at=now - timedelta(hours=2))
    asked = f"ready_until={quote((now - timedelta(minutes=90)).isoformat())}"
    assert marks(operator.get(f"/cycles/?window=7d&{asked}"), "cycle") == [test.pk]
    assert marks(operator.get(f"/cycles/?window=7d&{asked}&run_type=online"), "cycle") == []
    assert marks(operator.get("/cycles/?window=7d&run_type=test&state=running"), "cycle") == [test.pk]
    assert marks(operator.get("/cycles/?window=7d&run_type=test&state=failed"), "cycle") == []


def test_a_row_has_one_digest_in_whatever_order_its_permissions_come(desk: Desk) -> None:
    [instance, *_] = come(daily(desk))
    # Every process tells a set of texts in an order of its own, and any of them may answer a page.
    one, other = (CycleRow(instance, 0, may) for may in (["stop", "rerun"], ["rerun", "stop"]))
    assert one.digest == other.digest


def test_pages_follow_each_other_by_cycle_time(desk: Desk, operator: Client, monkeypatch: Any) -> None:
    monkeypatch.setattr("scheduling.views.lists.PAGE_SIZE", 2)
    first, second, third = come(daily(desk))
    page = operator.get("/cycles/?window=7d")
    assert marks(page, "cycle") == [first.pk, second.pk]
    [older] = re.findall(r'rel="next" href="\?([^"]*)"', text_of(page))
    page = operator.get(f"/cycles/?{older.replace('&amp;', '&')}")
    assert marks(page, "cycle") == [third.pk]
    [newer] = re.findall(r'rel="prev" href="\?([^"]*)"', text_of(page))
    assert marks(operator.get(f"/cycles/?{newer.replace('&amp;', '&')}"), "cycle") == [first.pk, second.pk]


# --- the filter ------------------------------------------------------------------------------------


def test_cycles_are_filtered_by_workflow_state_run_type_team_and_freeze(desk: Desk, operator: Client) -> None:
    one, other = daily(desk, "one"), daily(desk, "other")
    ones, others = come(one), come(other)
    services.freeze(ones[0], by="mei")
    test = make.cycle(one)

    def listed(query: str) -> list[int]:
        return marks(operator.get(f"/cycles/?{query}"), "cycle")

    assert set(listed("workflow=one")) == {test.pk, *pks(ones)}
    assert set(listed(f"workflow=one,{other.pk}&run_type=online")) == {*pks(ones), *pks(others)}
    assert listed("run_type=test") == [test.pk]
    assert listed("state=running") == [test.pk]
    assert listed("frozen=yes") == [ones[0].pk]
    assert ones[0].pk not in listed("frozen=no")
    assert listed(f"cycle={others[2].pk},{ones[1].pk}") == [ones[1].pk, others[2].pk]
    assert set(listed("team=warehouse")) == {test.pk, *pks(ones), *pks(others)}


def test_cycles_are_filtered_by_cycle_time_and_ready_time(desk: Desk, operator: Client) -> None:
    workflow = daily(desk)
    instances = come(workflow)
    at = instances[1].cycle_time + timedelta(minutes=90)
    CycleInstance.objects.filter(pk=instances[1].pk).update(ready_at=at)
    since, until = instances[1].cycle_time, instances[0].cycle_time
    ranged = f"since={quote(since.isoformat())}&until={quote(until.isoformat())}"
    assert marks(operator.get(f"/cycles/?{ranged}"), "cycle") == [instances[1].pk]
    hour = timedelta(hours=1)
    ready = f"ready_since={quote((at - hour).isoformat())}&ready_until={quote((at + hour).isoformat())}"
    assert marks(operator.get(f"/cycles/?{ready}"), "cycle") == [instances[1].pk]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("workflow=nothing", "There is no workflow nothing to see."),
        ("cycle=x", "Not an ID: x"),
        ("state=odd", "odd is not one of the available choices"),
        ("window=range", "Say from when or until when."),
        ("ready_since=2026-03-02T00:00Z&ready_until=2026-03-01T00:00Z", "The end is not after the beginning."),
    ],
)
def test_a_filter_that_makes_no_sense_shows_its_mistake_and_no_rows(
    desk: Desk, operator: Client, query: str, said: str
) -> None:
    daily(desk)
    page = operator.get(f"/cycles/?{query}")
    assert (page.status_code, marks(page, "cycle")) == (422, [])
    assert said in text_of(page)


@pytest.mark.parametrize(
    "query", ["", "state=not_ready", "frozen=yes", "run_type=test", "team=warehouse", "window=ahead"]
)
def test_ranges_of_the_index_hold_exactly_what_the_filter_says(
    desk: Desk, operator: Client, query: str
) -> None:
    from django.http import QueryDict

    workflow = daily(desk)
    services.freeze(come(workflow)[0], by="mei")
    make.cycle(workflow)
    daily(Desk(make.team(), make.group(), desk.node, desk.task))
    filters = CycleFilter(QueryDict(query), user=operator.user)  # type: ignore[attr-defined]
    wanted = list(filters.rows_of().order_by("-cycle_time", "-pk"))
    assert filters.within is not None
    page = newest_first(CycleInstance.objects.all(), size=100, within=filters.within, time="cycle_time")
    assert page.rows == wanted
    assert filters.within.count(100) == len(wanted) > 0


def test_a_filter_is_saved_for_this_list_alone_and_may_be_its_default(desk: Desk, operator: Client) -> None:
    operator.post(
        "/saved-filters/", {"page": "cycles", "name": "failed", "query": "state=failed"}, headers=HTMX
    )
    assert "failed" in text_of(operator.get("/cycles/?window=7d"))
    assert "None yet" in text_of(operator.get("/batches/?tab=basic"))
    saved = operator.user.saved_filters.get()  # type: ignore[attr-defined]
    operator.post(f"/saved-filters/{saved.pk}/default/", {"page": "cycles", "query": ""})
    assert operator.get("/cycles/").headers["Location"] == "/cycles/?state=failed"


def test_workflows_are_suggested_by_a_piece_of_their_name(
    desk: Desk, operator: Client, outsider: Client
) -> None:
    make.workflow("flights_daily", group=desk.group)
    assert 'data-value="flights_daily"' in text_of(operator.get("/suggest/workflows/?workflow=ghts"))
    assert "flights" not in text_of(outsider.get("/suggest/workflows/?workflow=ghts"))


# --- live ------------------------------------------------------------------------------------------


def test_the_live_view_tells_what_changed_what_came_and_nothing_else(desk: Desk, operator: Client) -> None:
    workflow = daily(desk)
    clock.make_due()
    page = operator.get("/cycles/")
    address, headers = live_address(page), shown(page)
    assert operator.get(address, headers=headers).status_code == 204

    first = come(workflow)[0]
    make.end_node(first, "a")
    services.run_test(workflow, by="tests", cycle_time=first.cycle_time)
    said = text_of(operator.get(address, headers=headers))
    assert said.count("<tr id=") == 2
    assert f'id="cycle-{first.pk}" hx-swap-oob="true"' in said
    assert 'hx-swap-oob="afterbegin:#cycles"' in said


# --- many ------------------------------------------------------------------------------------------


def asked(client: Client, verb: str, *instances: CycleInstance) -> Any:
    """The confirm step for ticked instances."""
    ticks = "&".join(f"cycle={each.pk}" for each in instances)
    return client.get(f"/cycles/{verb}/?query=&{ticks}", headers=HTMX)


def answered(
    client: Client, verb: str, question: Any, reason: str = "the feed was corrected", **more: str
) -> Any:
    """What follows when the confirm step `question` is answered, with `more` fields."""
    fields = r'<input type="hidden" name="(bound|others|query|all)" value="([^"]*)"'
    hidden = {name: value.replace("&amp;", "&") for name, value in re.findall(fields, text_of(question))}
    return client.post(f"/cycles/{verb}/", {**hidden, "reason": reason, **more}, headers=HTMX)


def test_many_are_frozen_after_it_was_said_how_many_and_why_others_are_not(
    desk: Desk, operator: Client
) -> None:
    workflow = daily(desk)
    first, second, third = come(workflow)
    services.freeze(third, by="mei")
    question = asked(operator, "freeze", first, second, third)
    assert "Freeze 2 of 3 cycles" in text_of(question)
    assert "It is frozen." in text_of(question)

    answer = answered(operator, "freeze", question)
    assert "2 cycles are frozen" in text_of(answer)
    frozen = CycleInstance.objects.filter(frozen_by=operator.user.get_username())  # type: ignore[attr-defined]
    assert set(pks(frozen)) == {first.pk, second.pk}
    entry = JournalEntry.objects.filter(action="frozen").latest("pk")
    assert (entry.reason, entry.via) == ("the feed was corrected", "web")


def test_all_that_match_are_stopped_the_waiting_before_the_running(desk: Desk, operator: Client) -> None:
    workflow = daily(desk, parallelism=1)
    clock.make_due()
    newest, middle, oldest = come(workflow)
    assert (oldest.state, middle.state, newest.state) == ("running", "ready", "ready")
    question = operator.get(f"/cycles/stop/?all=1&query={quote('workflow=' + workflow.name)}", headers=HTMX)
    said = text_of(question)
    assert "Stop 3 of 3 cycles" in said
    assert "1 running cycle is told to end, with the 1 node that runs" in said
    assert "2 cycles that have not begun never will." in said

    answered(operator, "stop", question)
    assert [make.fresh(each).state for each in (newest, middle, oldest)] == ["terminated"] * 3
    assert not middle.node_runs.exists()


def test_what_one_is_refused_never_drops_the_others(desk: Desk, operator: Client) -> None:
    first, second, third = come(daily(desk))
    question = asked(operator, "freeze", first, second, third)
    services.freeze(second, by="mei")
    said = text_of(answered(operator, "freeze", question))
    assert "2 cycles are frozen" in said
    assert "1 was refused" in said
    assert "it was frozen by mei already" in said


def test_many_are_rerun_marked_and_unfrozen(desk: Desk, operator: Client) -> None:
    workflow = daily(desk)
    clock.make_due()
    one, other, third = come(workflow)
    for each in (one, other):
        make.end_node(each, "a", "failed")
    said = text_of(answered(operator, "rerun", asked(operator, "rerun", one, third)))
    again = CycleInstance.objects.get(rerun_of=one)
    assert f'href="/cycles/?cycle={again.pk}"' in said
    answered(operator, "mark-success", asked(operator, "mark-success", other))
    assert make.fresh(other).state == "success"
    ahead = CycleInstance.objects.filter(workflow=workflow, state="not_ready").earliest("cycle_time")
    services.freeze(ahead, by="mei")
    answered(operator, "unfreeze", asked(operator, "unfreeze", ahead))
    assert not make.fresh(ahead).is_frozen


def test_what_a_later_run_replaced_says_so_in_the_list_and_before_it_is_rerun(
    desk: Desk, operator: Client
) -> None:
    workflow = daily(desk)
    clock.make_due()
    one, other, _third = come(workflow)
    for each in (one, other):
        make.end_node(each, "a", "failed")

    def digest() -> str:
        [shown] = CycleRow.of(CycleInstance.objects.for_rows().filter(pk=one.pk), operator.user)  # type: ignore[attr-defined]
        return shown.digest

    before = digest()
    again = services.rerun(one, by="mei", reason="repaired")
    page = operator.get("/cycles/")
    replaced = {each.pk: "replaced" in element(page, f"cycle-{each.pk}") for each in (one, other, again)}
    assert replaced == {one.pk: True, other.pk: False, again.pk: False}
    assert digest() != before
    for verb in ("rerun", "mark-success"):
        said = text_of(asked(operator, verb, one, other))
        assert "1 of them was replaced: another run of its cycle is effective." in said
    services.stop(again, by="mei", reason="by hand")
    alone = text_of(operator.get(f"/cycles/{one.pk}/rerun/", headers=HTMX))
    assert "Another run of the cycle is the effective one; its result is replaced too." in alone


def test_more_than_one_action_takes_are_refused_with_the_count(
    desk: Desk, operator: Client, monkeypatch: Any
) -> None:
    monkeypatch.setattr("scheduling.views.many.MOST_AT_ONCE", 2)
    daily(desk)
    page = operator.get("/cycles/freeze/?all=1&query=", headers=HTMX)
    assert page.status_code == 422
    assert "3 cycle instances match, and one action takes at most 2" in text_of(page)


def test_who_may_only_look_is_refused(desk: Desk, viewer: Client) -> None:
    instances = come(daily(desk))
    assert asked(viewer, "freeze", *instances).status_code == 403
    answer = viewer.post("/cycles/freeze/", {"bound": str(instances[0].pk), "reason": "x"}, headers=HTMX)
    assert answer.status_code == 403
    assert not CycleInstance.objects.filter(frozen_at__isnull=False).exists()


def test_the_shell_does_the_same_to_many(desk: Desk) -> None:
    instances = come(daily(desk))
    result = services.freeze_all(CycleInstance.objects.filter(pk__in=pks(instances)), by="mei", reason="x")
    assert (len(result.done), result.refused) == (3, [])
    result = services.freeze_all(instances, by="mei")
    assert (len(result.done), len(result.refused)) == (0, 3)
    assert repr(services.unfreeze_all(instances, by="mei")) == "3 done, 0 refused"
