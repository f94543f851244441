from __future__ import annotations

import html
import re
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from reruns import affected
from scheduling.models import Batch, Execution, LogChunk
from tests import factories as make
from tests.web.conftest import Desk
from tests.web.pages import HTMX, element, live_address, shown, state_of, text_of, words_of
from workflows import detail_queries, services
from workflows.models import CycleInstance, NodeRun, Workflow
from workflows.services import generation

TWO_DAYS_AGO = timezone.now() - timedelta(days=2)
NODES = "a > b, b > c, b > d!"


def instance_of(desk: Desk, nodes: str = NODES, name: str = "flights") -> CycleInstance:
    return make.cycle(make.workflow(name, group=desk.group, nodes=nodes))


def whole_day_of_hours(desk: Desk) -> tuple[Workflow, CycleInstance]:
    """An hourly workflow, and the last instance of a daily one, which waits for 24 of its hours."""
    content = {"group": desk.group, "timezone": "UTC", "starts_at": TWO_DAYS_AGO}
    hourly = make.workflow("weather", cron="0 * * * *", **content)
    depends_on = [{"workflow": "weather", "cycles": "within_period"}]
    daily = make.workflow("flights", cron="0 1 * * *", depends_on=depends_on, **content)
    # Made before the others, it is the last of them all the same.
    midnight = timezone.now().replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    generation.make_cycles(hourly, [midnight])
    for workflow in (hourly, daily):
        Workflow.objects.filter(pk=workflow.pk).update(generated_until=TWO_DAYS_AGO)
        services.generate(workflow.pk)
    return hourly, CycleInstance.objects.filter(workflow=daily).latest("cycle_time")


def box(page: Any, title: str) -> str:
    """The state of the box of a node in the flow."""
    found = re.search(rf'data-state="(\w+)" data-title="{title}"', text_of(page))
    assert found, f"no box {title}"
    return found[1]


def test_it_shows_the_facts_and_every_node_with_its_state(desk: Desk, operator: Client) -> None:
    instance = make.end_node(instance_of(desk), "a")
    page = operator.get(f"/cycles/{instance.pk}/")
    # Who goes back to it sees it as it is then.
    assert "no-store" in page["Cache-Control"]
    assert state_of(page, f"cycle-{instance.pk}") == "running"
    assert [box(page, key) for key in "abcd"] == ["success", "running", "waiting", "waiting"]
    assert "run 1" in element(page, f"cycle-{instance.pk}")


def test_one_that_has_not_begun_shows_what_it_will_run_and_why_it_waits(desk: Desk, operator: Client) -> None:
    workflow = make.workflow("daily", group=desk.group, nodes="a > b", cron="0 1 * * *", timezone="UTC")
    services.generate(workflow.pk)
    instance = CycleInstance.objects.earliest("cycle_time")
    page = operator.get(f"/cycles/{instance.pk}/?node=b")
    assert [box(page, key) for key in "ab"] == ["waiting", "waiting"]
    assert "Its time comes at" in element(page, "why")
    assert "Its cycle instance has not begun." in text_of(page)


def test_the_chosen_node_is_part_of_the_address(desk: Desk, operator: Client) -> None:
    instance = make.end_node(instance_of(desk), "a", "failed")
    node = operator.get(f"/cycles/{instance.pk}/node/?node=a", headers=HTMX)
    assert node["HX-Replace-Url"] == f"/cycles/{instance.pk}/?node=a"
    assert 'id="panel"' in text_of(node)
    assert f"/cycles/{instance.pk}/changes/?node=a" in text_of(node)
    page = text_of(operator.get(f"/cycles/{instance.pk}/?node=a"))
    assert "0 of 1 succeeded" in page
    assert 'aria-current="true"><title>a' in page
    assert operator.get(f"/cycles/{instance.pk}/node/?node=a")["Location"] == f"/cycles/{instance.pk}/?node=a"
    for none in ("gone", "%00", "%00a"):
        page = text_of(operator.get(f"/cycles/{instance.pk}/node/?node={none}", headers=HTMX))
        assert ("<h2>" in page) == (none == "%00a")


def test_the_panel_has_the_end_of_the_log_the_parameters_and_earlier_runs(desk: Desk, operator: Client) -> None:
    workflow = make.workflow("flights", group=desk.group, nodes=[{"key": "a", "parameters": {"day": "<mon>"}}])
    earlier = make.end_node(make.cycle(workflow), "a")
    instance = make.cycle(workflow)
    [ran] = make.start_batch(instance.node_runs.get().batch)
    lines = "".join(f"line {number}\n" for number in range(1, 31))
    LogChunk.objects.create(execution=ran.executions.get(), sequence=0, text=lines, written_at=timezone.now())
    page = text_of(operator.get(f"/cycles/{instance.pk}/?node=a"))
    assert "line 30" in page
    assert "line 18<" not in page
    assert f'href="/instances/{ran.pk}/?execution=1#log-card"' in page
    assert "&lt;mon&gt;" in page
    assert f"/cycles/{earlier.pk}/?node=a" in page


def test_buttons_follow_the_state_and_a_viewer_has_none(desk: Desk, operator: Client, viewer: Client) -> None:
    instance = instance_of(desk, "a")
    address = f"/cycles/{instance.pk}/?node=a"

    def actions(client: Client) -> set[str]:
        return set(re.findall(r'data-action="([\w-]+)"', text_of(client.get(address))))

    assert actions(operator) == {"stop"}
    make.end_node(instance, "a", "failed")
    assert actions(operator) == {"rerun", "mark-success"}
    assert actions(viewer) == set()


def test_the_upstream_cycles_are_shown_one_by_one(desk: Desk, operator: Client) -> None:
    hourly, instance = whole_day_of_hours(desk)
    [address] = re.findall(
        r'<a href="([^"]*)">0 of 24 succeeded', text_of(operator.get(f"/cycles/{instance.pk}/"))
    )
    assert address == f"?view=related&amp;open={hourly.pk}&amp;levels=1"
    page = text_of(operator.get(f"/cycles/{instance.pk}/?view=related&open={hourly.pk}&levels=1"))
    hours = re.findall(r'data-title="weather".*?(\d\d-\d\d \d\d:00)', page, re.DOTALL)
    midnight = instance.cycle_time.replace(hour=0)
    assert hours == [f"{midnight - timedelta(hours=23 - number):%m-%d %H:00}" for number in range(24)]


# --- live --------------------------------------------------------------------------------------------


def test_only_what_differs_is_sent(desk: Desk, operator: Client) -> None:
    instance = instance_of(desk)
    page = operator.get(f"/cycles/{instance.pk}/?node=b")
    headers, address = shown(page), live_address(page)
    assert operator.get(address, headers=headers).status_code == 204

    make.end_node(instance, "a")
    changes = operator.get(address, headers=headers)

    assert changes.status_code == 200
    titles = re.findall(r'data-title="(\w)"', text_of(changes))
    # c waits for b still, so its box is as it was.
    assert sorted(titles) == ["a", "b"]
    assert f'id="cycle-{instance.pk}"' not in text_of(changes)
    assert 'id="panel"' in text_of(changes)
    assert operator.get(address, headers=shown(changes)).status_code == 204


def test_the_end_is_told_and_ends_the_polling(desk: Desk, operator: Client) -> None:
    instance = instance_of(desk, "a")
    page = operator.get(f"/cycles/{instance.pk}/")
    make.end_node(instance, "a")
    changes = operator.get(live_address(page), headers=shown(page))
    assert changes.status_code == 286
    assert state_of(changes, f"cycle-{instance.pk}") == "success"
    assert box(changes, "a") == "success"
    assert "every 2s" not in text_of(changes)


@pytest.mark.parametrize("view", ["timeline", "related"])
def test_the_other_views_are_live_too(desk: Desk, operator: Client, view: str) -> None:
    instance = instance_of(desk, "a > b")
    page = operator.get(f"/cycles/{instance.pk}/?view={view}")
    make.end_node(instance, "a", "failed")
    changes = text_of(operator.get(live_address(page), headers=shown(page)))
    assert f'hx-swap-oob="outerHTML:#{view}"' in changes or 'data-title="flights"' in changes


# --- around it ---------------------------------------------------------------------------------------


def test_many_cycles_of_one_workflow_are_one_box_until_it_is_unfolded(desk: Desk, operator: Client) -> None:
    hourly, instance = whole_day_of_hours(desk)
    address = f"/cycles/{instance.pk}/?view=related"
    page = text_of(operator.get(address))
    assert 'data-title="24 × weather"' in page
    assert 'data-title="weather"' not in page
    unfolded = text_of(operator.get(f"{address}&open={hourly.pk}"))
    assert unfolded.count('data-title="weather"') == 24


def test_cycles_of_another_team_are_named_and_lead_nowhere(desk: Desk, operator: Client) -> None:
    there = make.workflow("weather", group=make.group(team=make.team("sky")), cron="0 1 * * *", timezone="UTC")
    here = make.workflow(
        "flights", group=desk.group, cron="0 1 * * *", timezone="UTC", depends_on=[{"workflow": "sky/weather"}]
    )
    for each in (there, here):
        services.generate(each.pk)
    upstream = CycleInstance.objects.filter(workflow=there).earliest("cycle_time")
    instance = CycleInstance.objects.filter(workflow=here).earliest("cycle_time")
    page = text_of(operator.get(f"/cycles/{instance.pk}/?view=related"))
    assert 'data-title="sky/weather"' in page
    assert f"/cycles/{upstream.pk}/" not in page
    assert operator.get(f"/cycles/{upstream.pk}/").status_code == 404


def test_workflows_that_wait_for_each_others_cycles_in_turn_can_be_drawn(desk: Desk, operator: Client) -> None:
    daily = {"cron": "0 * * * *", "timezone": "UTC", "group": desk.group}
    make.workflow("a", **daily)
    chain = make.workflow("b", **daily, depends_on=[{"workflow": "b", "cycles": "previous"}])
    services.generate(chain.pk)
    instance = CycleInstance.objects.filter(workflow=chain).order_by("cycle_time")[7]
    page = operator.get(f"/cycles/{instance.pk}/?view=related&levels=6")
    assert page.status_code == 200
    assert text_of(page).count('class="node') >= 3


# --- what it costs -----------------------------------------------------------------------------------


@pytest.mark.long
def test_what_the_page_asks_does_not_grow_with_nodes(
    desk: Desk, operator: Client, django_assert_max_num_queries: Any
) -> None:
    wide = ", ".join(f"a > n{number}" for number in range(60))
    for instance in (instance_of(desk, "a > b"), instance_of(desk, wide, "wide")):
        make.end_node(instance, "a")
        address = f"/cycles/{instance.pk}/"
        page = operator.get(address)
        with django_assert_max_num_queries(32):
            assert operator.get(f"{address}?node=a").status_code == 200
        with django_assert_max_num_queries(22):
            assert operator.get(live_address(page), headers=shown(page)).status_code == 204
        with django_assert_max_num_queries(20):
            operator.get(f"{address}?view=related")


def test_the_panel_shows_the_execution_its_result_and_what_the_node_was_given(
    desk: Desk, operator: Client
) -> None:
    make.task("a", group=desk.group, parameters={"days": [1, None], "day": "${data_date}"})
    instance = make.cycle(make.workflow(group=desk.group))
    make.end_node(instance, "a", result={"rows": 3})
    run = instance.node_runs.select_related("batch").get()
    execution = Execution.objects.get(instance__batch=run.batch)
    page = html.unescape(text_of(operator.get(f"/cycles/{instance.pk}/?node=a")))
    assert f'execution <span class="id">{execution.pk}</span>' in page
    for text in ("[1, null]", f"PARAM_DAY={instance.data_date}", '{"rows": 3}'):
        assert text in page


def test_a_nodes_wait_in_the_queue_is_shown_apart_from_its_run(desk: Desk, operator: Client) -> None:
    workflow = make.workflow(group=desk.group)
    source = make.end_node(make.cycle(workflow), "a")
    run = source.node_runs.select_related("batch").get()
    queued = timezone.now() - timedelta(minutes=5)
    NodeRun.objects.filter(pk=run.pk).update(started_at=queued, ended_at=queued + timedelta(seconds=30))
    Batch.objects.filter(pk=run.batch.pk).update(
        started_at=queued + timedelta(seconds=20), ended_at=queued + timedelta(seconds=30)
    )
    assert detail_queries.typical(workflow.pk, ["a"]) == {"a": timedelta(seconds=10)}
    assert affected.typical_node_seconds([workflow.pk]) == {workflow.pk: {"a": 10.0}}
    page = operator.get(f"/cycles/{source.pk}/?node=a")
    assert "10 s · queued 20 s" in text_of(page)
    panel = words_of(page, "panel")
    assert "for 20 s Started" in panel
    assert "Took 10 s usually 10 s" in panel

    waiting = make.cycle(workflow)
    page = operator.get(f"/cycles/{waiting.pk}/?node=a")
    assert "a: Running · queued" in text_of(page)
    assert "Started – Took –" in words_of(page, "panel")
