"""What every page owes everybody: good HTML, no barrier, no sliding sideways, every action by keyboard.

A page that is not in `PAGES` fails `test_every_page_is_looked_at`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import html5lib
import pytest
from axe_playwright_python.sync_playwright import Axe
from django.contrib.auth import get_user_model
from django.urls import URLPattern, URLResolver, get_resolver
from django.utils import timezone
from playwright.sync_api import Page

from reruns import services as rerun_services
from reruns.models import Rerun, RerunItem
from scheduling import notifications, services
from scheduling.models import Batch, JournalEntry, Node, Notification, Task
from tests import factories as make
from tests.engine.rerun_support import cycle
from tests.flows.pages import sign_in
from workflows import services as workflow_services
from workflows.models import Backfill, CycleInstance, Workflow

pytestmark = pytest.mark.django_db(transaction=True)

# Name of the address → the address, given a batch that has run and one that runs.
PAGES: dict[str, Callable[[Batch, Batch], str]] = {
    "home": lambda ended, running: "/",
    "batch-list": lambda ended, running: "/batches/?state=failed&state=running",
    "batches-stop": lambda ended, running: f"/batches/stop/?batch={ended.pk}&batch={running.pk}",
    "batches-rerun": lambda ended, running: f"/batches/rerun/?batch={ended.pk}&batch={running.pk}",
    "batch-detail": lambda ended, running: f"/batches/{ended.pk}/",
    "batch-stop": lambda ended, running: f"/batches/{running.pk}/stop/",
    "batch-rerun": lambda ended, running: f"/batches/{ended.pk}/rerun/",
    "instance-detail": lambda ended, running: f"/instances/{ended.instances.earliest('pk').pk}/",
    "instance-stop": lambda ended, running: f"/instances/{running.instances.earliest('pk').pk}/stop/",
    "instance-rerun": lambda ended, running: f"/instances/{ended.instances.earliest('pk').pk}/rerun/",
    "instances-stop": lambda ended, running: (
        f"/batches/{running.pk}/instances/stop/?instance={_first(running)}"
    ),
    "instances-rerun": lambda ended, running: f"/batches/{ended.pk}/instances/rerun/?instance={_first(ended)}",
    "task-list": lambda ended, running: "/tasks/?enabled=yes",
    "task-detail": lambda ended, running: f"/tasks/{ended.task_id}/",
    "task-run": lambda ended, running: f"/tasks/{ended.task_id}/run/",
    "task-enable": lambda ended, running: f"/tasks/{Task.objects.get(enabled=False).pk}/enable/",
    "task-disable": lambda ended, running: f"/tasks/{ended.task_id}/disable/",
    "node-list": lambda ended, running: "/nodes/",
    "node-drain": lambda ended, running: f"/nodes/{Node.objects.get(name='node-a').pk}/drain/",
    "node-undrain": lambda ended, running: f"/nodes/{Node.objects.get(name='node-b').pk}/undrain/",
    "journal": lambda ended, running: "/journal/?via=shell&window=30d",
    "journal-entry": lambda ended, running: f"/journal/{JournalEntry.objects.earliest('pk').pk}/",
    "notification-list": lambda ended, running: "/notifications/?state=given_up&state=waiting",
    "preferences": lambda ended, running: "/preferences/",
    "password-change": lambda ended, running: "/accounts/password/",
    "password-changed": lambda ended, running: "/accounts/password/changed/",
    "find": lambda ended, running: "/find/?q=extract_fl",
    "backfill-list": lambda ended, running: "/backfills/",
    "backfill-detail": lambda ended, running: f"/backfills/{_backfill('running')}/",
    "backfill-pause": lambda ended, running: f"/backfills/{_backfill('running')}/pause/",
    "backfill-resume": lambda ended, running: f"/backfills/{_backfill('paused')}/resume/",
    "backfill-terminate": lambda ended, running: f"/backfills/{_backfill('running')}/terminate/",
    "rerun-list": lambda ended, running: "/reruns/?state=running&state=failed&window=30d",
    "rerun-detail": lambda ended, running: f"/reruns/{_rerun('failed')}/",
    "rerun-discard": lambda ended, running: f"/reruns/{_rerun('draft')}/discard/",
    "rerun-pause": lambda ended, running: f"/reruns/{_rerun('running')}/pause/",
    "rerun-resume": lambda ended, running: f"/reruns/{_rerun('failed')}/resume/",
    "rerun-take-out": lambda ended, running: f"/reruns/{_rerun('failed')}/take-out/?item={_waiting_item()}",
    "rerun-take-content": lambda ended, running: f"/reruns/{_edited_rerun()}/take-content/",
    "rerun-terminate": lambda ended, running: f"/reruns/{_rerun('failed')}/terminate/",
    "rerun-new": lambda ended, running: f"/reruns/new/?cycle={_source_of('draft')}",
    "draft-source": lambda ended, running: f"/reruns/{_rerun('draft')}/source/",
    "draft-downstream": lambda ended, running: f"/reruns/{_rerun('draft')}/downstream/",
    "draft-nodes": lambda ended, running: f"/reruns/{_rerun('draft')}/nodes/{_downstream_of('draft')}/",
    "draft-settings": lambda ended, running: f"/reruns/{_rerun('draft')}/settings/",
    "draft-plan": lambda ended, running: f"/reruns/{_rerun('draft')}/plan/",
    "cycle-list": lambda ended, running: "/cycles/?state=failed&state=running&state=not_ready&window=30d",
    "cycles-stop": lambda ended, running: f"/cycles/stop/?cycle={_cycle('running')}",
    "cycles-freeze": lambda ended, running: f"/cycles/freeze/?cycle={_cycle('not_ready')}",
    "cycles-unfreeze": lambda ended, running: f"/cycles/unfreeze/?cycle={_frozen()}",
    "cycles-mark-success": lambda ended, running: f"/cycles/mark-success/?cycle={_cycle('failed')}",
    "cycles-rerun": lambda ended, running: f"/cycles/rerun/?cycle={_cycle('failed')}",
    "workflow-list": lambda ended, running: "/workflows/?mode=online",
    "workflow-detail": lambda ended, running: f"/workflows/{_workflow()}/",
    "workflow-run": lambda ended, running: f"/workflows/{_workflow()}/run/",
    "workflow-backfill": lambda ended, running: f"/workflows/{_workflow()}/backfill/",
    "workflow-enable": lambda ended, running: f"/workflows/{_workflow(enabled=False)}/enable/",
    "workflow-disable": lambda ended, running: f"/workflows/{_workflow()}/disable/",
    "cycle-detail": lambda ended, running: f"/cycles/{_cycle('failed')}/?node=a",
    "cycle-rerun": lambda ended, running: f"/cycles/{_cycle('failed')}/rerun/",
    "cycle-mark-success": lambda ended, running: f"/cycles/{_cycle('failed')}/mark-success/",
    "cycle-stop": lambda ended, running: f"/cycles/{_cycle('running')}/stop/",
    "cycle-freeze": lambda ended, running: f"/cycles/{_cycle('not_ready')}/freeze/",
    "cycle-unfreeze": lambda ended, running: f"/cycles/{_frozen()}/unfreeze/",
}
# Other views of these.
PAGES_TOO = {
    "draft-downstream in a list": lambda ended, running: (
        f"/reruns/{_rerun('draft')}/downstream/?view=list&offline=1"
    ),
    "draft-downstream narrowed": lambda ended, running: (
        f"/reruns/{_rerun('draft')}/downstream/?state=not_ready&q=dr"
    ),
}
# The administration's, whose frame is Django's: there only what is serious counts.
ADMINISTRATION = [
    "/admin/",
    "/admin/scheduling/task/",
    "/admin/scheduling/task/add/",
    "/admin/scheduling/team/",
    "/admin/scheduling/deploymentgroup/add/",
    "/admin/auth/user/",
]
# What is no page of its own: fragments, redirects, files, and what only takes a POST.
NO_PAGES = {
    "batch-changes",
    "batch-list-changes",
    "batch-list-count",
    "backfill-changes",
    "backfill-list-changes",
    "cycle-changes",
    "cycle-list-changes",
    "cycle-list-count",
    "cycle-node",
    "instance-changes",
    "instance-log",
    "instance-log-download",
    "journal-changes",
    "login",
    "logout",
    "node-list-changes",
    "notification-again",
    "notification-list-changes",
    "notifications-again",
    "overview-changes",
    "overview-timeline",
    "rerun-changes",
    "rerun-list-changes",
    "saved-filter-add",
    "saved-filter-default",
    "saved-filter-delete",
    "saved-filter-rename",
    "set_language",
    "suggest-people",
    "suggest-tasks",
    "suggest-workflows",
    "task-changes",
    "task-list-changes",
    "workflow-changes",
    "workflow-days",
    "workflow-list-changes",
}


def _first(batch: Batch) -> int:
    return batch.instances.earliest("pk").pk


def _cycle(state: str) -> int:
    return CycleInstance.objects.filter(state=state, frozen_at=None).earliest("pk").pk


def _backfill(state: str) -> int:
    return Backfill.objects.get(state=state).pk


def _workflow(enabled: bool = True) -> int:
    return Workflow.objects.filter(enabled=enabled).earliest("pk").pk


def _frozen() -> int:
    return CycleInstance.objects.get(frozen_at__isnull=False, holder="").pk


def _rerun(state: str) -> int:
    return Rerun.objects.get(state=state).pk


def _edited_rerun() -> int:
    """The failed rerun, as if its workflows had been edited since its submit."""
    Rerun.objects.filter(state="failed").update(as_it_ran=False, pinned={"workflows": {}, "tasks": {}})
    return _rerun("failed")


def _source_of(state: str) -> int:
    return Rerun.objects.get(state=state).source_id


def _downstream_of(state: str) -> int:
    return RerunItem.objects.filter(rerun__state=state, is_source=False).earliest("pk").cycle_id


def _waiting_item() -> int:
    return RerunItem.objects.get(rerun__state="failed", state="waiting").pk


_AXE = {"resultTypes": ["violations"], "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]}
_WIDTHS = (1280, 390)


def test_every_page_is_looked_at() -> None:
    named = {pattern.name for pattern in _patterns(get_resolver()) if pattern.name}

    assert named - set(PAGES) - NO_PAGES == set(), (
        "say in PAGES how to reach it, or in NO_PAGES that it is none"
    )
    assert (set(PAGES) | NO_PAGES) - named == set(), "there is no such address any more"


def _patterns(resolver: URLResolver) -> list[URLPattern]:
    found: list[URLPattern] = []
    for each in resolver.url_patterns:
        if isinstance(each, URLPattern):
            found.append(each)
        elif each.namespace is None:
            found += _patterns(each)
    return found


def test_a_name_that_cannot_be_broken_stays_inside_the_page(page: Page) -> None:
    group = make.group()
    make.user("mei", team=group.team, role="operator")
    cycle_of_it = make.end_node(make.cycle(make.workflow("flights_" * 12, group=group)), "a", "failed")
    page.set_viewport_size({"width": 390, "height": 800})
    sign_in(page, "/")
    for address in (
        f"/workflows/{cycle_of_it.workflow_id}/",
        f"/workflows/{cycle_of_it.workflow_id}/backfill/",
        f"/cycles/{cycle_of_it.pk}/",
        f"/cycles/{cycle_of_it.pk}/mark-success/",
    ):
        page.goto(address)
        title = page.locator("h1").bounding_box()
        assert title is not None, address
        assert title["x"] + title["width"] <= 390, address
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, address


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_has_a_barrier_bad_html_or_slides_sideways(page: Page, scheme: Any) -> None:
    ended, running = records()
    page.emulate_media(color_scheme=scheme)
    sign_in(page, "/batches/")
    # Whoever runs the installation sees every page there is.
    problems = [
        f"{name} ({scheme}): {problem}"
        for name, build in (PAGES | PAGES_TOO).items()
        for problem in look_at(page, build(ended, running))
    ]
    problems += [
        f"{address} ({scheme}): {problem}"
        for address in ADMINISTRATION
        for problem in look_at(page, address, grave={"serious", "critical"})
    ]

    assert not problems, "\n".join(problems)


def look_at(page: Page, address: str, grave: set[str] | None = None) -> list[str]:
    """Everything that is wrong with the page at `address`, in words; of barriers only those so `grave`."""
    problems: list[str] = []
    answer = page.goto(address)
    if answer is None or answer.status >= 400:
        return [f"answers {answer and answer.status}"]
    problems += html_problems(answer.text())
    deaf = page.evaluate("[...document.querySelectorAll('[data-action]')].filter(e => e.tabIndex < 0).length")
    if deaf:
        problems.append(f"{deaf} actions cannot be reached by the keyboard")
    for width in _WIDTHS:
        page.set_viewport_size({"width": width, "height": 800})
        wide = page.evaluate("document.documentElement.scrollWidth")
        if wide > width:
            problems.append(f"slides sideways at {width} px: it is {wide} px wide")
        found = Axe().run(page, options=_AXE).response["violations"]
        problems += [
            f"at {width} px, {each['id']} ({each['impact']}): {each['help']}: "
            + "; ".join(node["html"][:150] for node in each["nodes"][:3])
            for each in found
            if grave is None or each["impact"] in grave
        ]
    return problems


def html_problems(text: str) -> list[str]:
    """What the HTML standard's parser complains of, and ids that are used twice."""
    parser = html5lib.HTMLParser(namespaceHTMLElements=False)
    tree = parser.parse(text)
    problems = [f"HTML, line {position[0]}: {code} {details}" for position, code, details in parser.errors]
    ids = Counter(element.get("id") for element in tree.iter() if element.get("id"))
    problems += [f"HTML: the id {each} is used {count} times" for each, count in ids.items() if count > 1]
    labels = {element.get("for") for element in tree.iter("label")} - {None}
    return problems + [f"HTML: a label is for {each}, which is not there" for each in labels - set(ids)]


def notified(ended: Batch) -> None:
    """One notification that waits after an attempt, and one that was given up."""
    place = {"team_id": ended.team_id, "event": "failure", "path": f"/batches/{ended.pk}/"}
    said = {"subject": "[warehouse] extract_flights failed", "text": "Batch 1 failed.\nexit code 3"}
    notifications.post("batch:1:failure", channels=["ops", "chat"], **place, **said)
    for channel, state in (("ops", "waiting"), ("chat", "given_up")):
        Notification.objects.filter(channel=channel).update(
            state=state, attempts=2, last_error="The channel did not take it: error=503"
        )


def records() -> tuple[Batch, Batch]:
    """A batch that ended with a failure and has a history, and one that runs."""
    team = make.team("warehouse")
    make.user("mei", team=team, role="owner", is_superuser=True, is_staff=True)
    group = make.group("etl", team=team)
    node = make.node("node-a", group=group)
    edited = make.task("extract_flights", group=group, shards=["AA", "UA"])
    services.save_task(
        team=team,
        group=group,
        name=edited.name,
        content={"kind": "shell", "spec": {"command": "true"}, "mode": "sharded", "shards": ["AA", "UA", "DL"]},
        by="mei",
    )
    ended = make.batch(edited)
    for number, instance in enumerate(make.start_batch(ended)):
        make.end(instance, "failed" if number else "success", may_retry=False)
    services.rerun(ended, by="mei", reason="the feed was corrected")
    make.task("extract_flights_again", group=group, interval=3600, enabled=False)
    running = make.batch(make.task("load", group=group, shards=["a", "b"]))
    make.start_batch(running)
    make.node("node-b", group=make.group("ml", team=team), state="draining", drained=True)
    notified(ended)
    assert node.pk
    cycles(group)
    reruns(group)
    return ended, running


def reruns(group: Any) -> None:
    """A draft, a rerun that runs, and one of which an instance failed, one waits and one is frozen."""
    for name in ("draft", "running", "failed"):
        before: list[CycleInstance] = []
        for number, state in enumerate(("success", "success", "not_ready")):
            workflow = make.workflow(f"{name}_{number}", group=group)
            before = [*before, cycle(workflow, state=state, after=before[-1:])]
        mei = get_user_model().objects.get(username="mei")
        found = rerun_services.plan(before[0], downstream="all", freeze_mode=True, by=mei)
        if name == "draft":
            continue
        rerun_services.submit(found, by=mei, reason="the sensor was wrong")
        rerun_services.advance(found.pk)
        if name == "failed":
            source = found.items.select_related("instance").get(is_source=True)
            make.end_node(source.instance, "a", "failed")  # type: ignore[arg-type]
            rerun_services.advance(found.pk)


def cycles(group: Any) -> None:
    """Cycle instances: one that failed, one that runs, and of those to come one that is frozen."""
    workflow = make.workflow(
        "flights_daily", group=group, nodes="a > b, a > c!", cron="0 * * * *", timezone="UTC"
    )
    failed = make.cycle(workflow)
    for key in ("a", "c"):
        make.end_node(failed, key, "failed")
    make.cycle(workflow)
    workflow_services.generate(workflow.pk)
    to_come = CycleInstance.objects.filter(state="not_ready").latest("pk")
    workflow_services.freeze(to_come, by="mei", reason="until the feed is mended")
    now = timezone.now()
    for state in ("running", "paused"):
        other = make.workflow(group=group, nodes="a > b", cron="0 * * * *", timezone="UTC")
        begun = workflow_services.backfill(other, since=now - timedelta(hours=4), until=now, by="mei")
        if state == "paused":
            workflow_services.pause_backfill(begun, by="mei", reason="to look")
    workflow_services.set_enabled(make.workflow(group=group), False, by="mei", reason="the source moves")
