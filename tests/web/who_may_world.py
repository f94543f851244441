"""The world in which the table of who may do what is tried: people, and two teams with one of everything."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from copy import copy
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.contrib.contenttypes.models import ContentType
from django.core.handlers.base import BaseHandler
from django.db import transaction
from django.test import Client, RequestFactory
from django.utils import timezone

from reruns import services as rerun_services
from reruns.models import Rerun
from scheduling import notifications, services
from scheduling.models import JournalEntry, Membership, Notification, Team
from scheduling.standing import standing_of
from tests import factories as make
from tests.engine.rerun_support import cycle as finished_cycle
from tests.web.who_may_rows import ROLES
from workflows import services as workflow_services
from workflows.models import Backfill, CycleInstance, Workflow

# --- what there is ---------------------------------------------------------------------------------


def things_of(team: Team) -> dict[str, Any]:
    """One of everything that a path may name, of `team`."""
    group = make.group(team=team)
    node = make.node(group=group)
    task = make.task(group=group, shards=["a", "b"])
    running, ended = make.batch(task), make.end_batch(make.batch(task))
    make.start_batch(running)
    drained = services.drain(make.node(group=group), by="tests")
    disabled = make.task(group=group, enabled=False)
    owners = [make.user(team=team, role="owner") for _ in range(2)]
    first = running.instances.select_related("batch").first()
    assert first is not None
    waiting, frozen = cycles_to_come(group)
    backfill, paused = (backfill_of(make.workflow(group=group, cron="0 * * * *", timezone="UTC")) for _ in "ab")
    source = finished_cycle(make.workflow(group=group))
    disabled_workflow = workflow_services.set_enabled(make.workflow(group=group), False, by="tests")
    return {
        "cycle": make.cycle(make.workflow(group=group)),
        "failed_cycle": make.end_node(make.cycle(make.workflow(group=group)), "a", "failed"),
        "waiting_cycle": waiting,
        "workflow": waiting.workflow,
        "workflowrevision": waiting.workflow.current,
        "disabled_workflow": disabled_workflow,
        "source_cycle": source,
        "draft": rerun_services.plan(source, by="tests"),
        "backfill": backfill,
        "paused_backfill": workflow_services.pause_backfill(paused, by="tests"),
        "rerun": rerun_in(group),
        "paused_rerun": rerun_services.pause(rerun_in(group), by="tests"),
        "frozen_cycle": workflow_services.freeze(frozen, by="tests", reason="to see who may"),
        "team": team,
        "group": group,
        "node": node,
        "drained_node": drained,
        "disabled_task": disabled,
        "task": task,
        "taskrevision": task.revision,
        "batch": running,
        "running_batch": running,
        "ended_batch": ended,
        "instance": first,
        "running_instance": first,
        "ended_instance": ended.instances.first(),
        "execution": first.executions.get(),
        "notification": given_up(team),
        "journalentry": JournalEntry.objects.filter(task=task).first(),
        "membership": Membership.objects.get(user=owners[0]),
        "user": owners[0],
        "grant": make.grant(task, "rerun_task", to=Team.objects.get(name="guests")),
        "shortcut": f"/admin/r/{ContentType.objects.get_for_model(task).pk}/{task.pk}/",
    }


def backfill_of(workflow: Workflow) -> Backfill:
    """A backfill of the last hours, which runs."""
    now = timezone.now()
    since, until = now - timedelta(hours=4), now - timedelta(hours=1)
    return workflow_services.backfill(workflow, since=since, until=until, by="tests")


def rerun_in(group: Any) -> Rerun:
    """A rerun of one instance, which runs."""
    draft = rerun_services.plan(finished_cycle(make.workflow(group=group)), by="tests")
    return rerun_services.submit(draft, by="tests", reason="to see who may")


def cycles_to_come(group: Any) -> list[CycleInstance]:
    """Two cycle instances that have not begun."""
    workflow = make.workflow(group=group, cron="0 * * * *", timezone="UTC")
    workflow_services.generate(workflow.pk)
    return list(CycleInstance.objects.filter(workflow=workflow).order_by("cycle_time")[:2])


def given_up(team: Team) -> Notification:
    """A notification that was given up."""
    notifications.post(
        make.unique("event"),
        event="failure",
        channels=["ops"],
        team_id=team.pk,
        subject="failed",
        text="failed",
    )
    Notification.objects.filter(team=team).update(state="given_up")
    return Notification.objects.get(team=team)


# --- who asks --------------------------------------------------------------------------------------


@dataclass
class World:
    """Two teams with one of everything, and each person with their session; nobody is of the second."""

    things: dict[str, dict[str, Any]]
    people: dict[str, Any]
    sessions: dict[str, str]
    handler: BaseHandler = field(default_factory=BaseHandler)

    def __post_init__(self) -> None:
        self.handler.load_middleware()

    def ask(self, who: str | None, method: str, address: str, data: dict[str, Any]) -> int:
        """What `who` is answered (None: a stranger); whatever a POST does is undone."""
        requests = RequestFactory()
        request = requests.post(address, data) if method == "POST" else requests.generic(method, address)
        if who is not None:
            request.COOKIES[settings.SESSION_COOKIE_NAME] = self.sessions[who]
            # What Django would read anew for each request: the user, and where they stand.
            request._cached_user = copy(self.people[who])  # type: ignore[attr-defined]
        # As the test client does; it also keeps every context of every template, which takes most of its time.
        request._dont_enforce_csrf_checks = True  # type: ignore[attr-defined]
        with undone() if method == "POST" else nullcontext():
            status: int = self.handler.get_response(request).status_code
        return status


@contextmanager
def undone() -> Iterator[None]:
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


def a_world() -> World:
    ours, home, guests = make.team("ours"), make.team("home"), make.team("guests")
    people = {role: make.user(team=ours, role=role) for role in ROLES}
    people["outsider"] = make.user(team=home, role="owner")
    people["guest who views"] = make.user(team=guests, role="viewer")
    people["guest who operates"] = make.user(team=guests, role="operator")
    people["administrator"] = make.user(is_superuser=True)
    things = {"ours": things_of(ours), "theirs": things_of(make.team("theirs"))}
    # They grant as well, but to nobody of the table.
    things["theirs"]["grant"] = _regrant(things["theirs"]["task"])
    for user in people.values():
        standing_of(user)
    return World(things, people, {name: session_of(user) for name, user in people.items()})


def session_of(user: Any) -> str:
    client = Client()
    client.force_login(user)
    return str(client.cookies[settings.SESSION_COOKIE_NAME].value)


def _regrant(task: Any) -> Any:
    task.grants.all().delete()
    return make.grant(task, to=make.team())
