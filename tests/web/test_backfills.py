"""Backfills: the dry run, the start, the progress, and what an operator does to one."""

from __future__ import annotations

import re
from datetime import date, timedelta
from typing import Any

from django.test import Client
from django.utils import timezone

from scheduling.models import JournalEntry
from tests import factories as make
from tests.web.conftest import Desk
from tests.web.pages import HTMX, element, live_address, marks, shown, state_of, text_of
from tests.web.test_cycle_list import come, daily
from workflows import periods, services
from workflows.models import Backfill, CycleInstance, Workflow

YESTERDAY = timezone.now().date() - timedelta(days=1)


def asked(client: Client, workflow: Workflow, days: int, **fields: Any) -> Any:
    """A dry run over the data of the `days` days that end the day before yesterday."""
    until = YESTERDAY - timedelta(days=1)
    return client.post(
        f"/workflows/{workflow.pk}/backfill/", form(until - timedelta(days=days - 1), until) | fields
    )


def form(since: date, until: date) -> dict[str, Any]:
    return {
        "since": since.isoformat(),
        "until": until.isoformat(),
        "order": "oldest_first",
        "parallelism": "2",
        "waits_for_upstream": "on",
    }


def digest(page: Any) -> str:
    [found] = re.findall(r'name="planned" value="(\w+)"', text_of(page))
    return str(found)


def started(client: Client, workflow: Workflow, days: int, **fields: Any) -> Backfill:
    """A backfill that was looked at first and begun then."""
    planned = digest(asked(client, workflow, days, **fields))
    answer = asked(client, workflow, days, start="1", planned=planned, reason="new logic", **fields)
    assert answer.status_code == 302, text_of(answer)
    return Backfill.objects.get(pk=answer.headers["Location"].split("/")[-2])


def test_the_form_proposes_the_week_whose_data_is_there(desk: Desk, operator: Client) -> None:
    workflow = daily(desk)
    newest = periods.data_date(workflow.current, come(workflow)[0].cycle_time)
    said = text_of(operator.get(f"/workflows/{workflow.pk}/backfill/"))
    assert f'name="until" value="{newest}"' in said
    assert f'name="since" value="{newest - timedelta(days=6)}"' in said


def test_the_dates_are_written_as_the_browser_reads_them_in_every_language(
    desk: Desk, operator: Client
) -> None:
    workflow = daily(desk)
    operator.cookies["django_language"] = "zh-hans"
    said = text_of(operator.get(f"/workflows/{workflow.pk}/backfill/"))
    assert 'lang="zh-hans"' in said
    assert re.search(r'name="since" value="\d{4}-\d\d-\d\d"', said)


def test_cycles_that_wait_each_for_the_one_before_run_newest_first_only_without_waiting(
    desk: Desk, operator: Client
) -> None:
    make.workflow("flights", group=desk.group)
    workflow = daily(desk, "flights", depends_on=[{"workflow": "flights", "cycles": "previous"}])
    refused = asked(operator, workflow, 3, order="newest_first")
    assert (refused.status_code, "without waiting for upstream cycles" in text_of(refused)) == (409, True)
    planned = asked(operator, workflow, 3, order="newest_first", waits_for_upstream="")
    assert (planned.status_code, digest(planned) != "") == (200, True)


def test_a_dry_run_lists_what_would_run_in_its_order_and_begins_nothing(desk: Desk, operator: Client) -> None:
    workflow = daily(desk)
    said = text_of(asked(operator, workflow, 14, order="newest_first"))
    dates = re.findall(r'<th scope="row">(\d{4}-\d\d-\d\d)</th>', said)
    assert dates == sorted(dates, reverse=True)
    assert len(dates) == 14
    assert "left out, because" in said
    assert not Backfill.objects.exists()


def listed(page: Any) -> list[str]:
    """The data dates that a dry run lists."""
    return re.findall(r'<th scope="row">(\d{4}-\d\d-\d\d)</th>', text_of(page))


def test_one_hour_of_an_hourly_workflow_is_one_cycle(desk: Desk, operator: Client) -> None:
    workflow = daily(desk, cron="0 * * * *", timezone="Asia/Shanghai")
    # Before it was generated, so that no scheduled cycle is unfinished.
    day = YESTERDAY - timedelta(days=5)
    times = {"since_time": "13:00", "until_time": "14:00", "reason": "a wrong rate"}
    address = f"/workflows/{workflow.pk}/backfill/"
    shown = operator.post(address, form(day, day) | times)
    assert listed(shown) == [f"{day}"]
    started = operator.post(address, form(day, day) | times | {"start": "1", "planned": digest(shown)})
    assert started.status_code == 302, text_of(started)
    [instance] = CycleInstance.objects.filter(run_type="backfill")
    # The cycle of 14:00 works on the hour before it; Shanghai is eight hours ahead.
    assert f"{instance.cycle_time:%Y-%m-%d %H:%M}" == f"{day} 06:00"


def test_a_time_at_one_end_leaves_the_other_day_whole(desk: Desk, operator: Client) -> None:
    workflow = daily(desk, cron="0 * * * *", timezone="UTC")
    day = YESTERDAY - timedelta(days=2)
    address, following = f"/workflows/{workflow.pk}/backfill/", day + timedelta(days=1)
    late = operator.post(address, form(day, following) | {"since_time": "22:00"})
    assert listed(late) == [f"{day}"] * 2 + [f"{following}"] * 24
    early = operator.post(address, form(day, following) | {"until_time": "00:00"})
    assert listed(early) == [f"{day}"] * 24


def test_times_that_hold_no_cycle_or_run_backward_are_refused(desk: Desk, operator: Client) -> None:
    workflow = daily(desk, cron="0 * * * *", timezone="UTC")
    day = YESTERDAY - timedelta(days=1)
    address = f"/workflows/{workflow.pk}/backfill/"
    for times, said in (
        ({"since_time": "13:00", "until_time": "12:00"}, "The end is before the beginning."),
        ({"since_time": "13:00", "until_time": "13:00"}, "The end is before the beginning."),
        ({"since_time": "13:10", "until_time": "13:20"}, "no cycle for data of these dates and times"),
        ({"since_time": "25:00"}, "Enter a valid time."),
    ):
        answer = operator.post(address, form(day, day) | times)
        assert (answer.status_code, said in text_of(answer)) == (422, True), times


def test_exactly_what_was_listed_runs_as_it_was_asked(desk: Desk, operator: Client) -> None:
    workflow = daily(desk)
    found = started(operator, workflow, 14, pause_on_failure="on", name="limit", value="5", **{"as": "json"})
    instances = CycleInstance.objects.filter(backfill=found).order_by("cycle_time")
    assert {each.data_date for each in instances} <= {YESTERDAY - timedelta(days=days) for days in range(1, 15)}
    assert (found.parallelism, found.pause_on_failure, found.order) == (2, True, "oldest_first")
    assert [each.state for each in instances][:3] == ["running", "running", "not_ready"]
    assert instances[0].parameters == {"limit": 5}
    assert instances[0].waits_for_upstream
    assert JournalEntry.objects.get(action="backfilled").reason == "new logic"


def test_a_start_of_something_else_than_was_listed_shows_that_first(desk: Desk, operator: Client) -> None:
    workflow = daily(desk)
    planned = digest(asked(operator, workflow, 7))
    answer = asked(operator, workflow, 8, start="1", planned=planned, reason="new logic")
    assert answer.status_code == 409
    assert "This is not what was shown before" in text_of(answer)
    assert not Backfill.objects.exists()


def test_a_start_without_a_reason_is_refused(desk: Desk, operator: Client) -> None:
    workflow = daily(desk)
    planned = digest(asked(operator, workflow, 7))
    answer = asked(operator, workflow, 7, start="1", planned=planned)
    assert (answer.status_code, "Say why" in text_of(answer)) == (422, True)


def test_a_range_that_is_backward_or_whose_data_is_still_to_come_is_refused(
    desk: Desk, operator: Client
) -> None:
    workflow = daily(desk)
    address = f"/workflows/{workflow.pk}/backfill/"
    answer = operator.post(address, form(YESTERDAY, YESTERDAY - timedelta(days=3)))
    assert (answer.status_code, "The end is before the beginning." in text_of(answer)) == (422, True)
    answer = operator.post(address, form(date(1, 1, 1), YESTERDAY - timedelta(days=3)))
    assert (answer.status_code, "There are no cycles in 1;" in text_of(answer)) == (422, True)
    answer = operator.post(address, form(YESTERDAY, YESTERDAY + timedelta(days=3)))
    assert (answer.status_code, "the range must end there" in text_of(answer)) == (422, True)


def test_a_workflow_without_a_schedule_has_nothing_to_backfill(desk: Desk, operator: Client) -> None:
    workflow = make.workflow(group=desk.group)
    answer = operator.get(f"/workflows/{workflow.pk}/backfill/")
    assert (answer.status_code, "has no schedule" in text_of(answer)) == (409, True)


def test_who_may_not_run_the_workflow_may_not_backfill_it(desk: Desk, viewer: Client) -> None:
    assert asked(viewer, daily(desk), 7).status_code == 403


# --- one that runs ---------------------------------------------------------------------------------


def test_its_page_shows_how_far_it_is_and_follows_it(desk: Desk, operator: Client) -> None:
    found = started(operator, daily(desk), 5)
    page = operator.get(f"/backfills/{found.pk}/")
    assert state_of(page, f"backfill-{found.pk}") == "running"
    total = CycleInstance.objects.filter(backfill=found).count()
    assert f'aria-label="0 of {total} succeeded' in element(page, f"backfill-{found.pk}")
    assert len(marks(page, "cycle")) == total
    assert operator.get(live_address(page), headers=shown(page)).status_code == 204

    first = CycleInstance.objects.filter(backfill=found).earliest("cycle_time")
    make.end_node(first, "a")
    make.end_node(first, "b")
    said = text_of(operator.get(live_address(page), headers=shown(page)))
    assert f'aria-label="1 of {total} succeeded' in said
    assert f'id="cycle-{first.pk}" hx-swap-oob="true"' in said


def test_it_is_paused_resumed_and_terminated_with_what_each_does_said_first(
    desk: Desk, operator: Client
) -> None:
    found = started(operator, daily(desk), 5, parallelism="1")
    waiting = CycleInstance.objects.filter(backfill=found, state="not_ready").count()

    def done(verb: str) -> str:
        question = operator.get(f"/backfills/{found.pk}/{verb}/", headers=HTMX)
        assert operator.post(f"/backfills/{found.pk}/{verb}/", {"reason": "to look"}).status_code == 302
        found.refresh_from_db()
        return text_of(question)

    assert f"{waiting} cycles that have not had their turn wait until" in done("pause")
    assert found.state == "paused"
    assert operator.get(f"/backfills/{found.pk}/pause/").status_code == 409
    assert f"{waiting} cycles have their turn, at most 1 at once." in done("resume")
    assert found.state == "running"
    said = done("terminate")
    assert f"{waiting} cycles that have not begun are cancelled." in said
    assert "1 running cycle is stopped: 1 node that runs is told to end." in said
    assert found.state in {"terminating", "terminated"}
    page = operator.get(f"/backfills/{found.pk}/")
    assert "data-action" not in element(page, f"backfill-{found.pk}").split("<dl")[0]


def test_a_page_of_one_that_ended_comes_to_rest(desk: Desk, operator: Client) -> None:
    found = started(operator, daily(desk), 3)
    page = operator.get(f"/backfills/{found.pk}/")
    services.terminate_backfill(found, by="mei")
    for instance in CycleInstance.objects.filter(backfill=found, state="running"):
        make.end_node(instance, "a", "terminated")
    answer = operator.get(live_address(page), headers=shown(page))
    assert (answer.status_code, "terminated" in text_of(answer)) == (286, True)


def test_who_may_not_stop_cycles_may_not_pause_a_backfill(desk: Desk, operator: Client, viewer: Client) -> None:
    found = started(operator, daily(desk), 3)
    assert viewer.get(f"/backfills/{found.pk}/").status_code == 200
    assert viewer.post(f"/backfills/{found.pk}/pause/", {"reason": "x"}).status_code == 403


# --- all of them -----------------------------------------------------------------------------------


def test_the_list_takes_the_same_number_of_queries_however_many_there_are(
    desk: Desk, operator: Client, django_assert_num_queries: Any
) -> None:
    started(operator, daily(desk), 5)
    # Session, user, roles, how many there are, the page, its cycles by state.
    for _ in range(2):
        with django_assert_num_queries(6):
            operator.get("/backfills/")
        for _ in range(2):
            started(operator, daily(desk), 5)


def test_backfills_are_listed_filtered_and_live(desk: Desk, operator: Client, outsider: Client) -> None:
    one, other = started(operator, daily(desk, "flights"), 3), started(operator, daily(desk, "weather"), 3)
    page = operator.get("/backfills/")
    assert marks(page, "backfill") == [other.pk, one.pk]
    assert marks(operator.get("/backfills/?workflow=ligh"), "backfill") == [one.pk]
    assert marks(operator.get("/backfills/?state=paused"), "backfill") == []
    assert marks(outsider.get("/backfills/"), "backfill") == []
    assert operator.get(live_address(page), headers=shown(page)).status_code == 204
    services.pause_backfill(one, by="mei")
    assert marks(operator.get(live_address(page), headers=shown(page)), "backfill") == [one.pk]
    listed = marks(operator.get(f"/cycles/?backfill={one.pk}"), "cycle")
    assert set(listed) == set(CycleInstance.objects.filter(backfill=one).values_list("pk", flat=True))
