"""The list of workflows, the page of one, and what is done there: a test run, the schedule on and off."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any
from zoneinfo import ZoneInfo

from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from scheduling.models import Batch, JournalEntry
from tests import factories as make
from tests.web.conftest import Desk
from tests.web.pages import HTMX, asked_for, element, live_address, marks, shown, text_of, words_of
from tests.web.test_cycle_list import DAILY, come, daily
from workflows import services
from workflows.models import CycleInstance, Workflow
from workflows.services import clock


def test_workflows_are_listed_with_schedule_state_recent_cycles_and_what_they_depend_on(
    desk: Desk, operator: Client
) -> None:
    foreign = make.workflow("weather", cron="0 * * * *", timezone="UTC")
    workflow = daily(
        desk, "flights", depends_on=[{"workflow": f"{foreign.team.name}/weather", "cycles": "same"}]
    )
    alone = daily(desk, "alone")
    clock.make_due()
    make.end_node(come(alone)[0], "a", "failed")
    page = operator.get("/workflows/")

    assert marks(page, "workflow") == [alone.pk, workflow.pk]
    row = element(page, f"workflow-{workflow.pk}")
    assert "every day at 00:00 UTC" in row
    # Named, but no link: it is another team's.
    assert f'weather <span class="muted">({foreign.team.name})</span>' in row
    assert "The last 3 cycles: 0 % succeeded" in element(page, f"workflow-{alone.pk}")


def test_the_list_takes_the_same_number_of_queries_however_many_workflows_there_are(
    desk: Desk, operator: Client, django_assert_num_queries: Any
) -> None:
    upstream = daily(desk)
    daily(desk, depends_on=[{"workflow": upstream.name, "cycles": "same"}])
    # Session, user, roles, the form's teams, how many there are, the page, its cycles, its dependencies.
    for _ in range(2):
        with django_assert_num_queries(8):
            operator.get("/workflows/")
        for _ in range(3):
            daily(desk, depends_on=[{"workflow": upstream.name, "cycles": "same"}])


def test_workflows_are_filtered_by_name_mode_schedule_and_last_cycle(desk: Desk, operator: Client) -> None:
    failed, never = daily(desk, "flights"), make.workflow("by_hand", group=desk.group, mode="offline")
    clock.make_due()
    make.end_node(come(failed)[0], "a", "failed")
    off = daily(desk, "off")
    services.set_enabled(off, False, by="mei")
    for query, wanted in [
        ("name=ight", [failed.pk]),
        ("mode=offline", [never.pk]),
        ("enabled=no", [off.pk]),
        ("last=failed", [failed.pk]),
        ("last=never", [never.pk]),
        ("team=warehouse&name=o", [off.pk]),
    ]:
        assert marks(operator.get(f"/workflows/?{query}"), "workflow") == wanted, query


def test_the_live_list_tells_which_rows_differ(desk: Desk, operator: Client) -> None:
    one, _other = daily(desk), daily(desk)
    page = operator.get("/workflows/")
    assert operator.get(live_address(page), headers=shown(page)).status_code == 204
    services.set_enabled(one, False, by="mei")
    said = text_of(operator.get(live_address(page), headers=shown(page)))
    assert re.findall(r'<tr id="(workflow-\d+)"', said) == [f"workflow-{one.pk}"]


# --- one -------------------------------------------------------------------------------------------


def test_the_page_shows_content_cycles_and_what_depends_on_it_also_of_other_teams(
    desk: Desk, operator: Client
) -> None:
    workflow = make.workflow(
        "flights",
        group=desk.group,
        nodes=[
            {"key": "load"},
            {"key": "report", "after": ["load"], "parameters": {"day": "${data_date}"}},
            {"key": "alarm", "after": [{"node": "load", "on": "failure"}], "core": False, "timeout": 90},
        ],
        cron="0 1 * * *",
        timezone="Asia/Shanghai",
        parallelism=3,
    )
    other = make.workflow(
        "elsewhere", cron="0 2 * * *", depends_on=[{"workflow": "warehouse/flights", "cycles": "same"}]
    )
    page = operator.get(f"/workflows/{workflow.pk}/")
    said = text_of(page)

    assert "every day at 01:00 Asia/Shanghai" in said
    assert "load (on failure)" in said
    assert "At most 3 cycles run at a time." in said
    assert f'<b>elsewhere</b> <span class="muted">{other.team.name}</span>' in said
    assert f"/workflows/{other.pk}/" not in said
    assert said.count('class="node') == 3
    assert len(re.findall(r"Asia/Shanghai|CST", element(page, "next"))) >= 5


def test_the_page_shows_how_its_cycles_went(desk: Desk, operator: Client) -> None:
    workflow = daily(desk)
    clock.make_due()
    newest, older, _oldest = come(workflow)
    make.end_node(newest, "a", "failed")
    make.end_node(older, "a")
    make.end_node(older, "b")
    said = text_of(operator.get(f"/workflows/{workflow.pk}/"))
    assert "How long the last 3 cycles took" in said
    assert "50 %" in element(operator.get(f"/workflows/{workflow.pk}/"), f"workflow-{workflow.pk}")
    assert re.search(rf'href="/cycles/{newest.pk}/" tabindex="-1"><title>Cycle .*: Failed, took', said)
    days = asked_for(operator, f"/workflows/{workflow.pk}/", "days")
    assert "1 succeeded, 0 failed, 0 other" in text_of(days)
    assert "0 succeeded, 1 failed, 0 other" in text_of(days)


def test_cycle_times_are_the_same_instant_in_every_readers_zone(desk: Desk, operator: Client) -> None:
    [newest, *_] = come(daily(desk))
    operator.cookies["tz"] = "America/New_York"
    said = text_of(operator.get("/workflows/"))
    local = newest.cycle_time.astimezone(ZoneInfo("America/New_York"))
    assert f'id="last-workflow-{newest.workflow_id}"' in said
    assert f'<time datetime="{local.isoformat()}"' in said


def test_the_page_takes_the_same_number_of_queries_whatever_happened(
    desk: Desk, operator: Client, django_assert_max_num_queries: Any
) -> None:
    workflow = daily(desk, depends_on=[{"workflow": daily(desk).name, "cycles": "same"}])
    clock.make_due()
    make.cycle(workflow)
    with django_assert_max_num_queries(24) as before:
        operator.get(f"/workflows/{workflow.pk}/")
    for instance in CycleInstance.objects.filter(workflow=workflow, cycle_time__lte=timezone.now()):
        services.stop(instance, by="mei", reason="x")
        services.rerun(make.fresh(instance), by="mei")
    daily(desk, depends_on=[{"workflow": workflow.name, "cycles": "same"}])
    with django_assert_max_num_queries(len(before)):
        operator.get(f"/workflows/{workflow.pk}/")


def test_the_page_compares_two_revisions(desk: Desk, operator: Client) -> None:
    workflow = daily(desk, "flights")
    make.workflow("flights", group=desk.group, nodes="a > b, a > alarm!", **DAILY)
    said = text_of(operator.get(f"/workflows/{workflow.pk}/"))
    assert "From revision 1 to 2" in said
    assert re.search(r'<span data-sign="\+">\+ .*alarm', said)
    said = text_of(operator.get(f"/workflows/{workflow.pk}/?from=2&to=2"))
    assert "They say the same." in said


def test_the_live_page_sends_only_the_parts_that_differ(desk: Desk, operator: Client) -> None:
    workflow = daily(desk)
    page = operator.get(f"/workflows/{workflow.pk}/")
    assert operator.get(live_address(page), headers=shown(page)).status_code == 204
    clock.make_due()
    said = text_of(operator.get(live_address(page), headers=shown(page)))
    assert 'id="cycles-of-workflow"' in said
    assert 'id="journal"' not in said


def test_a_workflow_of_another_team_is_not_there(desk: Desk, outsider: Client) -> None:
    assert outsider.get(f"/workflows/{daily(desk).pk}/").status_code == 404


# --- what is done to it ----------------------------------------------------------------------------


def test_a_test_runs_for_the_cycle_and_with_the_parameters_that_were_asked(
    desk: Desk, operator: Client
) -> None:
    workflow = daily(desk)
    question = operator.get(f"/workflows/{workflow.pk}/run/", headers=HTMX)
    assert "It replaces no result of the cycle" in text_of(question)
    at = come(workflow)[1].cycle_time
    answer = operator.post(
        f"/workflows/{workflow.pk}/run/",
        {"cycle_time": at.isoformat(), "name": "limit", "value": "5", "as": "json", "reason": "to try it"},
    )
    instance = CycleInstance.objects.get(run_type="test")
    assert answer.headers["Location"] == f"/cycles/{instance.pk}/"
    assert (instance.cycle_time, instance.parameters, instance.state) == (at, {"limit": 5}, "running")
    assert JournalEntry.objects.about(instance).get(action="triggered").reason == "to try it"


def test_a_test_without_a_reason_or_a_time_is_not_run(desk: Desk, operator: Client) -> None:
    workflow = daily(desk)
    answer = operator.post(f"/workflows/{workflow.pk}/run/", {"cycle_time": "", "reason": ""}, headers=HTMX)
    assert answer.status_code == 422
    assert "Say for which cycle it runs." in text_of(answer)
    for far_off in ("0001-01-01T00:00:00", "9999-12-31T23:59:59"):
        given = {"cycle_time": far_off, "reason": "to try it"}
        answer = operator.post(f"/workflows/{workflow.pk}/run/", given, headers=HTMX)
        assert (answer.status_code, "There are no cycles in" in text_of(answer)) == (422, True)
    assert not CycleInstance.objects.filter(run_type="test").exists()


def test_the_schedule_is_switched_off_and_on_with_what_that_means_said_first(desk: Desk) -> None:
    developer = desk.sign_in("developer")
    workflow = daily(desk)
    clock.make_due()
    said = text_of(developer.get(f"/workflows/{workflow.pk}/disable/", headers=HTMX))
    assert "3 running cycles go on to their end." in said
    developer.post(f"/workflows/{workflow.pk}/disable/", {"reason": "the source moves"})
    assert not Workflow.objects.get(pk=workflow.pk).enabled

    Workflow.objects.filter(pk=workflow.pk).update(paused_at=timezone.now() - timedelta(days=2))
    said = text_of(developer.get(f"/workflows/{workflow.pk}/enable/", headers=HTMX))
    assert "2 cycles were missed. Its misfire policy is to run them all." in said
    developer.post(f"/workflows/{workflow.pk}/enable/", {"reason": "it has moved"})
    assert Workflow.objects.get(pk=workflow.pk).enabled
    assert developer.get(f"/workflows/{workflow.pk}/enable/").status_code == 409


def test_conditions_on_results_are_written_as_definitions_write_them(desk: Desk, operator: Client) -> None:
    book = {"key": "book", "after": [{"node": "costs", "on": "result", "expected": {"over_budget": True}}]}
    workflow = make.workflow(group=desk.group, nodes=[{"key": "costs"}, book])
    page, cycle = (
        operator.get(f"/workflows/{workflow.pk}/"),
        operator.get(f"/cycles/{make.cycle(workflow).pk}/"),
    )
    assert "costs (over_budget = true)" in text_of(page)
    assert ">over_budget = true</text>" in text_of(page)
    assert ">over_budget = true</text>" in text_of(cycle)


# --- where else workflows show ---------------------------------------------------------------------


def test_the_overview_leads_to_the_cycle_that_failed_and_says_why_others_are_late(
    desk: Desk, operator: Client
) -> None:
    upstream = daily(desk, "weather")
    waiting = daily(desk, "flights", depends_on=[{"workflow": "weather", "cycles": "same"}])
    clock.make_due()
    make.end_node(come(upstream)[0], "a", "failed")
    page = element(operator.get("/"), "attention")
    assert f'href="/cycles/{come(upstream)[0].pk}/"' in page
    assert f'href="/cycles/?workflow={upstream.pk}&amp;state=failed"' in page
    assert f'id="late-cycle-{come(waiting)[0].pk}"' in page
    assert "Blocked by weather" in page


def test_the_overview_leads_from_a_late_cycle_to_the_root_cause(desk: Desk, operator: Client) -> None:
    raw = daily(desk, "raw")
    clean = daily(desk, "clean", depends_on=[{"workflow": "raw", "cycles": "same"}])
    report = daily(desk, "report", depends_on=[{"workflow": "clean", "cycles": "same"}])
    clock.make_due()
    failed = make.end_node(come(raw)[0], "a", "failed")

    page = element(operator.get("/"), "attention")

    assert "Blocked by clean" in page
    root = f'<a id="root-of-{come(report)[0].pk}" href="/cycles/{failed.pk}/">raw '
    assert root in page
    assert f'id="root-of-{come(clean)[0].pk}"' not in page, "its upstream is the root, and named already"


def test_the_overview_says_what_the_node_failed_of(desk: Desk, operator: Client) -> None:
    instance = failed_of(daily(desk), "no file for <Monday>")
    assert "a: no file for &lt;Monday&gt;" in element(operator.get("/"), "attention")
    said = element(operator.get(f"/cycles/{instance.pk}/"), "why")
    assert f'<a href="/cycles/{instance.pk}/?node=a">a</a> did not succeed: no file for &lt;Monday&gt;' in said


def test_the_overview_counts_as_late_what_its_lists_do_and_leads_to_them(desk: Desk, operator: Client) -> None:
    def figure() -> list[tuple[str, str]]:
        [tile] = re.findall(r"<dt>Late</dt><dd>(.*?)</dd>", text_of(operator.get("/")))
        return re.findall(r'href="#([\w-]+)">([^<]*)<', tile)

    weather = daily(desk, "weather")
    waiting = [daily(desk, depends_on=[{"workflow": "weather", "cycles": "same"}]) for _ in range(2)]
    clock.make_due()
    make.end_node(come(weather)[0], "a", "failed")
    late = operator.get("/")
    assert 'id="late-cycles"' in element(late, "attention")
    in_list = element(late, "attention").count('id="late-cycle-')
    assert in_list
    assert figure() == [("late-cycles", str(in_list))]

    make.batch(desk.task)
    Batch.objects.filter(task=desk.task).update(created_at=timezone.now() - timedelta(minutes=5))
    both = [("late-cycles", str(in_list + 1)), ("late-cycles", f"{in_list} cycles"), ("late", "1 batch")]
    assert figure() == both
    CycleInstance.objects.filter(workflow__in=waiting).delete()
    assert figure() == [("late", "1")]


def test_a_failed_run_says_that_a_later_run_of_its_cycle_succeeded(desk: Desk, operator: Client) -> None:
    workflow = daily(desk)
    clock.make_due()
    bad = make.end_node(come(workflow)[0], "a", "failed")
    again = services.rerun(bad, by="mei")
    assert "replaced" in words_of(operator.get("/cycles/"), f"cycle-{bad.pk}")
    make.end_node(make.end_node(again, "a"), "b")
    page = operator.get("/cycles/")
    assert "Failed recovered" in words_of(page, f"cycle-{bad.pk}")
    assert "recovered" not in words_of(page, f"cycle-{again.pk}")


def failed_of(workflow: Workflow, error: str) -> CycleInstance:
    """A cycle of `workflow` whose first node failed of `error`."""
    clock.make_due()
    instance = come(workflow)[0]
    [ran] = make.start_batch(instance.node_runs.get(node__key="a").batch)
    make.end(ran, "failed", error=error, may_retry=False)
    return make.fresh(instance)


def test_a_cycle_that_was_repaired_needs_no_attention(desk: Desk, operator: Client) -> None:
    workflow = daily(desk)
    clock.make_due()
    marked, rerun, _running = come(workflow)
    make.end_node(marked, "a", "failed")
    make.end_node(rerun, "a", "failed")
    assert element(operator.get("/"), "attention").count('id="failed-cycle-') == 1
    services.mark_success(marked, by="mei")
    services.rerun(make.fresh(rerun), by="mei")
    assert "failed-cycle-" not in element(operator.get("/"), "attention")


def test_the_overview_takes_the_same_number_of_queries_however_many_cycles_want_a_look(
    desk: Desk, operator: Client, django_assert_num_queries: Any
) -> None:
    def more() -> None:
        upstream = daily(desk)
        daily(desk, depends_on=[{"workflow": upstream.name, "cycles": "same"}])
        clock.make_due()
        make.end_node(come(upstream)[0], "a", "failed")

    for _ in range(3):
        more()
    headers = shown(operator.get("/"))
    with CaptureQueriesContext(connection) as before:
        operator.get("/changes/", headers=headers)
    more()
    with django_assert_num_queries(len(before)):
        operator.get("/changes/", headers=headers)


def test_the_find_box_finds_workflows_by_name_and_instances_by_id(desk: Desk, operator: Client) -> None:
    workflow = daily(desk, "flights")
    instance = come(workflow)[0]
    assert operator.get("/find/?q=flight").headers["Location"] == f"/workflows/{workflow.pk}/"
    assert operator.get(f"/find/?q=%23{instance.pk}").headers["Location"] == f"/cycles/{instance.pk}/"


def test_the_journal_leads_to_cycles_and_speaks_of_them_in_words(desk: Desk, operator: Client) -> None:
    workflow = daily(desk)
    clock.make_due()
    failed = come(workflow)[0]
    make.end_node(failed, "a", "failed")
    again = services.rerun(make.fresh(failed), by="mei")
    services.stop(again, by="mei")
    said = text_of(operator.get(f"/journal/?object={failed.pk},{again.pk}&type=cycleinstance"))
    assert f'href="/cycles/{again.pk}/"' in said
    assert f'href="/cycles/{failed.pk}/"' in said
    assert f"/batches/{failed.pk}/" not in said
    assert "Became ready" in said
    assert 'data-state="terminated"' in said


def test_the_page_of_a_batch_leads_to_its_cycle(desk: Desk, operator: Client) -> None:
    instance = make.cycle(daily(desk, "flights"))
    run = instance.node_runs.get(node__key="a")
    said = text_of(operator.get(f"/batches/{run.batch_id}/"))
    assert f'href="/cycles/{instance.pk}/?node=a"' in said
