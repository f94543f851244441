"""The administration: each team's own tasks, groups, members and grants, and nothing of anybody else's."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import pytest
from django.test import Client

from scheduling import services
from scheduling.admin import site
from scheduling.models import (
    Batch,
    DeploymentGroup,
    Execution,
    Instance,
    JournalEntry,
    Membership,
    Task,
    TaskGrant,
    TaskRevision,
    Team,
)
from tests import factories as make
from tests.web.conftest import Desk, signed_in
from tests.web.pages import text_of

pytestmark = pytest.mark.django_db


@pytest.fixture
def administrator() -> Client:
    return signed_in(make.user(is_superuser=True))


@pytest.fixture
def developer(desk: Desk) -> Client:
    return desk.sign_in("developer")


@pytest.fixture
def owner(desk: Desk) -> Client:
    return desk.sign_in("owner")


def url(thing: Any, what: str = "change") -> str:
    return f"/admin/scheduling/{thing._meta.model_name}/{thing.pk}/{what}/"


def fields_of(page: Any) -> dict[str, str]:
    """What a browser would send of the form on a page, as it stands."""
    form = page.context["adminform"].form
    return {
        name: str(value)
        for name, field in form.fields.items()
        if (value := form[name].value()) not in (None, False)
    }


def sent(page: Any) -> dict[str, str]:
    """What the confirm step carries along."""
    return dict(page.context["sent"]) | {"seen": page.context["seen"]}


def changes_of(page: Any) -> dict[str, tuple[Any, Any]]:
    return {change.field: (change.before, change.after) for change in page.context["step"].changes}


@pytest.mark.parametrize(("language", "label"), [("en", "Time-out"), ("zh-hans", "超时")])
def test_a_label_says_no_unit_where_one_may_be_written(
    desk: Desk, developer: Client, language: str, label: str
) -> None:
    developer.cookies["django_language"] = language
    fields = developer.get(url(desk.task)).context["adminform"].form.fields
    assert fields["timeout"].label == label
    assert not any(re.search(r"[(（]", fields[name].label) for name in ("interval", "retry_interval"))


@pytest.mark.parametrize("theme", ["light", "dark", "", "pink"])
def test_the_theme_is_the_readers_preference(developer: Client, theme: str) -> None:
    developer.cookies["theme"] = theme
    page = text_of(developer.get("/admin/"))
    chosen = theme in {"light", "dark"}
    assert (f'class="theme-{theme} ' in page or f'class="theme-{theme}"' in page) == chosen
    assert ("theme-" in page) == chosen
    assert "theme.js" not in page


# --- who comes in ----------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["viewer", "operator"])
def test_who_may_not_edit_tasks_is_told_what_it_takes(desk: Desk, role: str) -> None:
    answer = desk.sign_in(role).get("/admin/")
    assert answer.status_code == 403
    assert "Edit tasks and groups (scheduling.edit_task)" in text_of(answer)


def test_a_mark_of_staff_alone_opens_nothing(desk: Desk) -> None:
    assert desk.sign_in("operator", is_staff=True).get("/admin/").status_code == 403


def test_the_administration_signs_people_in_where_everybody_does() -> None:
    answer = Client().get("/admin/login/?next=/admin/scheduling/task/")
    assert answer["Location"] == "/accounts/login/?next=/admin/scheduling/task/"


@pytest.mark.parametrize(
    ("role", "shown"),
    [
        ("developer", {"task", "deploymentgroup", "workflow"}),
        ("owner", {"task", "deploymentgroup", "workflow", "team", "membership", "taskgrant"}),
    ],
)
def test_each_role_is_shown_its_own_part(desk: Desk, role: str, shown: set[str]) -> None:
    page = text_of(desk.sign_in(role).get("/admin/"))
    assert set(re.findall(r'href="/admin/\w+/(\w+)/"', page)) == shown


def test_nothing_of_another_team_is_shown_or_can_be_chosen(desk: Desk, owner: Client) -> None:
    secret = make.team("secret-team")
    group = make.group("secret-group", team=secret)
    task = make.task("secret-task", group=group)
    make.grant(task, to=make.team("secret-guests"))
    make.user("secret-person", team=secret)
    make.grant(desk.task, "view", to=make.team("guests"))
    for name in ("task", "deploymentgroup", "team", "membership", "taskgrant"):
        for page in ("", "add/", "?q=secret", f"?team__id__exact={secret.pk}"):
            answer = owner.get(f"/admin/scheduling/{name}/{page}")
            assert answer.status_code in {200, 302, 403}
            assert "secret-" not in text_of(answer).replace('value="secret"', "")
    assert "secret-" not in text_of(owner.get(url(desk.task)))
    for thing in (task, group, secret, secret.memberships.get(), task.grants.get()):
        for what in ("change", "history", "delete"):
            # That an owner deletes no team at all is known before any is looked up.
            nobody = (thing, what) == (secret, "delete")
            assert owner.get(url(thing, what)).status_code == (403 if nobody else 404)
    answer = owner.get("/admin/autocomplete/?app_label=scheduling&model_name=membership&field_name=user&term=s")
    assert answer.status_code == 403


def test_a_list_shows_times_by_a_clock_of_24_hours(desk: Desk, developer: Client) -> None:
    due = datetime(2026, 11, 22, 19, 4, 5, tzinfo=UTC)
    Task.objects.filter(pk=desk.task.pk).update(next_due_at=due)
    assert "2026-11-22 19:04:05" in text_of(developer.get("/admin/scheduling/task/"))


def test_what_was_sent_for_another_team_is_refused(desk: Desk, owner: Client) -> None:
    foreign = make.task(group=make.group(team=make.team("other")))
    page = owner.get(url(desk.task))
    answer = owner.post(url(desk.task), fields_of(page) | {"group": foreign.group_id})
    assert "group" in answer.context["adminform"].form.errors
    data = {"task": foreign.pk, "to": desk.team.name, "permissions": "view"}
    assert "task" in owner.post("/admin/scheduling/taskgrant/add/", data).context["adminform"].form.errors
    data = {"team": foreign.team_id, "person": owner.user.username, "role": "owner"}
    assert "team" in owner.post("/admin/scheduling/membership/add/", data).context["adminform"].form.errors
    assert not TaskGrant.objects.exists()


# --- tasks -----------------------------------------------------------------------------------------


def test_a_change_is_shown_against_the_last_revision_and_saved_with_a_reason(
    desk: Desk, developer: Client
) -> None:
    data = fields_of(developer.get(url(desk.task))) | {"timeout": "7m", "spec": "command: |\n  one\n  two\n"}
    confirm = developer.post(url(desk.task), data)
    assert confirm.status_code == 200
    assert changes_of(confirm) == {"command": ("true", "one\ntwo\n"), "timeout": (None, "7m")}
    assert TaskRevision.objects.filter(task=desk.task).count() == 1
    unreasoned = developer.post(url(desk.task), sent(confirm) | {"_confirmed": "1", "reason": " "})
    assert unreasoned.status_code == 422
    assert "Say why" in text_of(unreasoned)
    answer = developer.post(url(desk.task), sent(confirm) | {"_confirmed": "1", "reason": "it is longer"})
    assert answer.status_code == 302
    desk.task.refresh_from_db()
    assert desk.task.revision is not None
    assert (desk.task.revision.number, desk.task.revision.timeout) == (2, 420)
    assert desk.task.revision.spec == {"command": "one\ntwo\n"}
    assert desk.task.revision.created_by == developer.user
    entry = JournalEntry.objects.filter(object_type="task", action="edited").get()
    assert (entry.user, entry.reason, entry.via) == (developer.user, "it is longer", "web")
    assert "it is longer" in text_of(developer.get(url(desk.task, "history")))


@pytest.mark.parametrize(
    "content",
    [
        {"shards": ["007", "NO", "a,b"], "shard_concurrency": 2},
        {"cron": "5 0 * * *", "timezone": "Asia/Shanghai", "misfire": "skip"},
        {"interval": 90, "timeout": 5400, "retry_count": 2, "retry_interval": 30, "priority": -3},
        {"kind": "sql", "spec": {"connection": "warehouse", "sql": "SELECT 1;\n\nSELECT '${day}'\n"}},
        {"parameters": {"day": "${data_date}", "deep": {"a": [1, None, "1"]}}, "mode": "broadcast"},
    ],
)
def test_saving_what_stands_in_the_form_changes_nothing(
    desk: Desk, developer: Client, content: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAILRACE_SQL_WAREHOUSE", "postgresql:///x")
    task = make.task(group=desk.group, **content)
    answer = developer.post(url(task), fields_of(developer.get(url(task))), follow=True)
    assert "Nothing changed, so nothing was saved." in text_of(answer)
    assert task.revisions.count() == 1


@pytest.mark.parametrize(
    ("changed", "field", "said"),
    [
        ({"cron": "61 * * * *", "trigger": "cron"}, "cron", "is not a cron expression: bad minute"),
        ({"trigger": "cron"}, "cron", "It is missing; the trigger “cron” needs it"),
        ({"timeout": "soon"}, "timeout", "is no duration"),
        ({"success_ratio": "101"}, "success_ratio", "101 is not a whole number from 1 to 100."),
        ({"spec": "comand: x"}, "spec", "command: This field is required."),
        ({"spec": "command: [\n"}, "spec", "Line 2: This is not YAML"),
        ({"spec": "command: a\ncommand: b"}, "spec", "Line 2: command: The key stands twice"),
        ({"spec": "command: a\n---\ncommand: b"}, "spec", "not several documents"),
        ({"parameters": "batch_id: 5"}, "parameters", "batch_id: "),
        ({"parameters": "[1]"}, "parameters", "is not a map of names to values"),
        ({"shards": "{0: a, 2: b}"}, "shards", "It has no shard 1"),
        ({"timezone": "Mars"}, "timezone", "is not a time zone"),
        ({"kind": "magic"}, "kind", "magic"),
    ],
)
def test_a_mistake_stands_at_its_field_and_nothing_is_saved(
    desk: Desk, developer: Client, changed: dict[str, str], field: str, said: str
) -> None:
    answer = developer.post(url(desk.task), fields_of(developer.get(url(desk.task))) | changed)
    assert any(said in error for error in answer.context["adminform"].form.errors[field])
    assert desk.task.revisions.count() == 1


def test_somebody_elses_edit_meanwhile_is_not_overwritten(desk: Desk, developer: Client) -> None:
    data = fields_of(developer.get(url(desk.task))) | {"priority": "5"}
    confirm = developer.post(url(desk.task), data)
    revision = desk.task.revision
    assert revision is not None
    services.save_task(
        team=desk.team, group=desk.group, name="extract", content=revision.content | {"timeout": 60}
    )
    for late in (
        developer.post(url(desk.task), data),
        developer.post(url(desk.task), sent(confirm) | {"_confirmed": "1", "reason": "faster"}),
    ):
        assert late.status_code == 409
        assert "Somebody changed this while you edited it" in text_of(late)
        assert changes_of(late) == {"priority": (None, 5), "timeout": ("1m", None)}
        assert desk.task.revisions.count() == 2
    again = developer.post(url(desk.task), sent(late) | {"_save": "1"})
    assert again.status_code == 200
    developer.post(url(desk.task), sent(again) | {"_confirmed": "1", "reason": "mine is right"})
    assert desk.task.revisions.order_by("number").last().priority == 5


def test_switching_a_task_off_meanwhile_is_an_edit_too(desk: Desk, developer: Client) -> None:
    data = fields_of(developer.get(url(desk.task))) | {"priority": "5"}
    services.set_enabled(desk.task, False, reason="it fails")
    assert developer.post(url(desk.task), data).status_code == 409


def test_editing_further_loses_nothing(desk: Desk, developer: Client) -> None:
    confirm = developer.post(url(desk.task), fields_of(developer.get(url(desk.task))) | {"priority": "5"})
    form = developer.post(url(desk.task), sent(confirm) | {"_edit": "1"})
    assert "Nothing is saved yet" in text_of(form)
    assert fields_of(form)["priority"] == "5"


def test_a_task_is_created_in_the_team_of_its_group(desk: Desk, developer: Client) -> None:
    page = developer.get("/admin/scheduling/task/add/")
    data = fields_of(page) | {
        "name": "tidy",
        "group": str(desk.group.pk),
        "enabled": "on",
        "kind": "shell",
        "spec": "command: 'true'",
        "trigger": "cron",
        "cron": "5 0 * * *",
    }
    confirm = developer.post("/admin/scheduling/task/add/", data)
    assert changes_of(confirm)["trigger.cron"] == (None, "5 0 * * *")
    assert not Task.objects.filter(name="tidy").exists()
    developer.post("/admin/scheduling/task/add/", sent(confirm) | {"_confirmed": "1", "reason": "new job"})
    made = Task.objects.get(name="tidy")
    assert (made.team, made.enabled, made.next_due_at is None) == (desk.team, True, False)
    assert JournalEntry.objects.get(object_type="task", object_id=made.pk, action="created").reason == "new job"
    twice = developer.post("/admin/scheduling/task/add/", data)
    assert "has a task of this name" in text_of(twice)


def test_editing_a_task_leaves_its_grants_alone(desk: Desk, developer: Client) -> None:
    make.grant(desk.task, to=make.team())
    confirm = developer.post(url(desk.task), fields_of(developer.get(url(desk.task))) | {"priority": "5"})
    assert list(changes_of(confirm)) == ["priority"]
    developer.post(url(desk.task), sent(confirm) | {"_confirmed": "1", "reason": "x"})
    assert TaskGrant.objects.count() == 1


def test_a_task_with_records_is_not_deleted_and_one_without_is(desk: Desk, developer: Client) -> None:
    make.batch(desk.task)
    assert "Disable it instead" in text_of(developer.get(url(desk.task, "delete")))
    assert developer.post(url(desk.task, "delete"), {"reason": "x"}).status_code == 409
    unused = make.task("Unused-ETL", group=desk.group)
    assert developer.post(url(unused, "delete"), {"reason": ""}).status_code == 200
    gone = developer.post(url(unused, "delete"), {"reason": "never ran"}, follow=True)
    assert "Task Unused-ETL was deleted." in text_of(gone)
    assert set(Task.objects.values_list("name", flat=True)) == {"extract"}
    assert JournalEntry.objects.get(action="deleted").reason == "never ran"


def test_no_list_offers_to_act_on_many(desk: Desk, administrator: Client) -> None:
    for model in (Task, DeploymentGroup, Membership, TaskGrant, Team):
        base = f"/admin/scheduling/{model._meta.model_name}/"
        assert 'name="action"' not in text_of(administrator.get(base))
        data = {"action": "delete_selected", "_selected_action": [1], "post": "yes"}
        before = model.objects.count()
        administrator.post(base, data)
        assert model.objects.count() == before


# --- groups, members, grants, teams ----------------------------------------------------------------


def test_developers_make_groups_and_delete_unused_ones(desk: Desk, developer: Client) -> None:
    developer.post("/admin/scheduling/deploymentgroup/add/", {"team": desk.team.pk, "name": "gpu"})
    made = DeploymentGroup.objects.get(team=desk.team, name="gpu")
    assert JournalEntry.objects.get(object_type="deploymentgroup", object_id=made.pk).user == developer.user
    assert "still has tasks, nodes" in text_of(developer.get(url(desk.group, "delete")))
    assert developer.post(url(made, "delete"), {"reason": "a typo"}).status_code == 302


def test_an_owner_lets_people_in_by_their_exact_name(desk: Desk, owner: Client) -> None:
    mei = make.user("mei")
    add = "/admin/scheduling/membership/add/"
    data = {"team": desk.team.pk, "person": "mei", "role": "developer", "reason": "joins us"}
    unknown = owner.post(add, data | {"person": "Mei"})
    assert "There is no account Mei that is switched on" in text_of(unknown)
    assert owner.post(add, data).status_code == 302
    assert signed_in(mei).get("/admin/").status_code == 200
    assert "They are a member already" in text_of(owner.post(add, data))
    entry = JournalEntry.objects.get(object_type="team", action="joined")
    assert (entry.reason, entry.details) == ("joins us", {"user": "mei", "role": "developer"})
    owner.post(url(mei.memberships.get()), {"role": "viewer"})
    assert mei.memberships.get().role == "viewer"
    owner.post(url(mei.memberships.get(), "delete"), {"reason": "left us"})
    assert not mei.memberships.exists()


def test_the_last_owner_can_neither_leave_nor_step_down(desk: Desk, owner: Client) -> None:
    membership = owner.user.memberships.get()
    for answer in (
        owner.post(url(membership), {"role": "viewer"}),
        owner.post(url(membership, "delete"), {"reason": "bye"}),
    ):
        assert answer.status_code == 409
        assert "is the last owner of the team warehouse" in text_of(answer)
    assert owner.user.memberships.get().role == "owner"


def test_an_owner_grants_and_takes_back(desk: Desk, owner: Client) -> None:
    make.team("guests")
    add = "/admin/scheduling/taskgrant/add/"
    data = {
        "task": desk.task.pk,
        "to": "guests",
        "permissions": ["stop_task", "rerun_task"],
        "reason": "shared",
    }
    assert "There is no team nobody" in text_of(owner.post(add, data | {"to": "nobody"}))
    assert "It owns the task" in text_of(owner.post(add, data | {"to": "warehouse"}))
    assert owner.post(add, data).status_code == 302
    assert services.granted_on([desk.task]) == {desk.task.pk: {"guests": ["stop_task", "rerun_task"]}}
    given = TaskGrant.objects.get(permission="stop_task")
    assert given.granted_by == owner.user.username
    assert owner.post(url(given, "delete"), {"reason": "no more"}).status_code == 302
    assert services.granted_on([desk.task]) == {desk.task.pk: {"guests": ["rerun_task"]}}


def test_administrators_make_teams_with_a_first_owner(administrator: Client) -> None:
    mei = make.user("mei")
    administrator.post("/admin/scheduling/team/add/", {"name": "delivery", "owner": "mei"})
    assert Membership.objects.get(user=mei).role == "owner"
    made = Team.objects.get(name="delivery")
    assert administrator.post(url(made, "delete"), {"reason": "a mistake"}).status_code == 302


# --- accounts and records --------------------------------------------------------------------------


def test_administrators_make_accounts_and_switch_them_off(administrator: Client) -> None:
    data = {
        "username": "noor",
        "usable_password": "true",
        "password1": "warm-otter-91",
        "password2": "warm-otter-91",
    }
    assert administrator.post("/admin/auth/user/add/", data).status_code == 302
    noor = type(administrator.user).objects.get(username="noor")
    assert not noor.is_staff
    edited = administrator.post(
        f"/admin/auth/user/{noor.pk}/change/", {"username": "noor", "is_superuser": "on"}
    )
    assert edited.status_code == 302
    noor.refresh_from_db()
    assert (noor.is_active, noor.is_superuser, noor.is_staff) == (False, True, True)
    actions = JournalEntry.objects.filter(object_type="user").values_list("action", flat=True)
    assert sorted(actions) == ["created", "edited"]
    assert administrator.post(f"/admin/auth/user/{noor.pk}/delete/", {"post": "yes"}).status_code == 403


def test_administrators_cannot_shut_themselves_out(administrator: Client) -> None:
    mine = administrator.user
    answer = administrator.post(f"/admin/auth/user/{mine.pk}/change/", {"username": mine.username})
    assert "ask another administrator" in text_of(answer)
    mine.refresh_from_db()
    assert mine.is_active
    assert mine.is_superuser


@pytest.mark.parametrize("model", [Batch, Instance, Execution, JournalEntry, TaskRevision])
def test_history_is_shown_to_administrators_and_edited_by_nobody(
    desk: Desk, administrator: Client, owner: Client, model: type
) -> None:
    make.end_batch(make.batch(desk.task))
    base = f"/admin/scheduling/{model._meta.model_name}/"
    thing = model.objects.first()
    assert administrator.get(base).status_code == 200
    page = administrator.get(url(thing))
    assert page.status_code == 200
    assert 'name="_save"' not in text_of(page)
    assert administrator.post(url(thing), {}).status_code == 403
    assert administrator.post(url(thing, "delete"), {"post": "yes"}).status_code == 403
    assert administrator.get(f"{base}add/").status_code == 403
    assert owner.get(base).status_code == 403


@pytest.mark.parametrize("name", [model._meta.model_name for model in site._registry])
def test_every_list_opens_and_can_be_searched(desk: Desk, administrator: Client, name: str) -> None:
    make.end_batch(make.batch(desk.task))
    make.grant(desk.task, to=make.team())
    model = next(each for each in site._registry if each._meta.model_name == name)
    base = f"/admin/{model._meta.app_label}/{name}/"
    assert administrator.get(base).status_code == 200
    if site._registry[model].search_fields:
        assert administrator.get(f"{base}?q=7").status_code == 200
