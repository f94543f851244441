"""Workflows in the administration: one text with the rules of `apply`, compared before it is saved."""

from __future__ import annotations

import html
from typing import Any

import pytest
from django.test import Client

from scheduling.models import JournalEntry
from tests import factories as make
from tests.web.conftest import Desk
from tests.web.pages import text_of
from workflows import services
from workflows.models import Workflow

pytestmark = pytest.mark.django_db

PAGES = "/admin/workflows/workflow/"


@pytest.fixture
def developer(desk: Desk) -> Client:
    return desk.sign_in("developer")


@pytest.fixture
def workflow(desk: Desk) -> Workflow:
    return make.workflow("flights", group=desk.group, nodes="load > report", cron="0 1 * * *")


def fields_of(page: Any) -> dict[str, str]:
    """What a browser would send of the form on a page, as it stands."""
    form = page.context["adminform"].form
    readonly = page.context["adminform"].readonly_fields
    return {name: str(form[name].value() or "") for name in form.fields if name not in readonly}


def sent(client: Client, workflow: Workflow, **changed: str) -> Any:
    url = f"{PAGES}{workflow.pk}/change/"
    return client.post(url, fields_of(client.get(url)) | changed)


def with_timeout(workflow: Workflow, client: Client) -> str:
    text = fields_of(client.get(f"{PAGES}{workflow.pk}/change/"))["definition"]
    return text.replace("key: load\n", "key: load\n    timeout: 5m\n")


def test_a_change_is_shown_against_the_last_revision_and_saved_with_a_reason(
    workflow: Workflow, developer: Client
) -> None:
    text = with_timeout(workflow, developer)
    page = sent(developer, workflow, definition=text)
    assert "Change the workflow flights?" in text_of(page)
    assert [(each.field, each.before, each.after) for each in page.context["step"].changes] == [
        ("nodes.load.timeout", None, "5m")
    ]
    confirmed = dict(page.context["sent"]) | {"seen": page.context["seen"], "_confirmed": "1"}
    url = f"{PAGES}{workflow.pk}/change/"
    assert developer.post(url, confirmed | {"reason": ""}).status_code == 422
    assert developer.post(url, confirmed | {"reason": "it hangs"}).status_code == 302
    workflow.refresh_from_db()
    assert workflow.current.number == 2
    entry = JournalEntry.objects.filter(object_type="workflow").latest("pk")
    assert (entry.action, entry.reason, entry.via) == ("edited", "it hangs", "web")


def test_what_stands_in_the_text_is_what_is_saved_also_that_it_is_on(
    workflow: Workflow, developer: Client
) -> None:
    assert sent(developer, workflow).status_code == 302, "nothing changed"
    assert workflow.revisions.count() == 1
    services.set_enabled(workflow, False)
    text = fields_of(developer.get(f"{PAGES}{workflow.pk}/change/"))["definition"]
    assert "enabled: false\n" in text
    page = sent(developer, workflow, definition=text.replace("enabled: false\n", ""))
    assert [(each.field, each.after) for each in page.context["step"].changes] == [("enabled", True)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nodes:\n- {key: a, task: lod}\n", "Line 2: nodes[0].task: The team"),
        ("cron: x\nnodes: [{key: a, task: load}]", "Line 1: cron: This field is not known"),
        ("name: other\nnodes: [{key: a, task: load}]", "Line 1: name: It is another name than the workflow's"),
        ("nodes: [", "This is not YAML"),
        ("- a", "It is one map, with the workflow's nodes under the key “nodes”."),
        ("a: 1\n---\nb: 1", "It is one map"),
    ],
)
def test_a_mistake_is_told_with_its_line_and_nothing_is_saved(
    workflow: Workflow, developer: Client, text: str, said: str
) -> None:
    page = sent(developer, workflow, definition=text)
    assert said in html.unescape(text_of(page))
    assert workflow.revisions.count() == 1


def test_somebody_elses_edit_meanwhile_is_not_overwritten(workflow: Workflow, developer: Client) -> None:
    page = sent(developer, workflow, definition=with_timeout(workflow, developer))
    confirmed = dict(page.context["sent"]) | {"seen": page.context["seen"], "_confirmed": "1", "reason": "x"}
    services.set_enabled(workflow, False, by="ann")
    moved = developer.post(f"{PAGES}{workflow.pk}/change/", confirmed)
    assert moved.status_code == 409
    assert "Somebody changed this while you edited it" in text_of(moved)
    assert workflow.revisions.count() == 1


def test_a_workflow_is_created_in_a_team_of_ones_own_and_deleted_with_a_reason(
    desk: Desk, developer: Client
) -> None:
    make.task("extract", group=desk.group)
    new = fields_of(developer.get(f"{PAGES}add/")) | {"name": "mine"}
    new["definition"] = "nodes: [{key: extract, task: extract}]\n"
    assert developer.post(f"{PAGES}add/", new | {"team": make.team().pk}).context["adminform"].form.errors
    new["team"] = str(desk.group.team_id)
    page = developer.post(f"{PAGES}add/", new)
    assert "Create the workflow mine?" in text_of(page)
    confirmed = dict(page.context["sent"]) | {"seen": "", "_confirmed": "1", "reason": "we need it"}
    assert developer.post(f"{PAGES}add/", confirmed).status_code == 302
    made = Workflow.objects.get(name="mine")
    assert "has a workflow of this name" in text_of(developer.post(f"{PAGES}add/", new))
    assert developer.post(f"{PAGES}{made.pk}/delete/", {"reason": "no, we do not"}).status_code == 302
    assert not Workflow.objects.filter(name="mine").exists()


def test_a_workflow_that_ran_is_not_deleted_and_the_page_says_why(
    workflow: Workflow, developer: Client
) -> None:
    make.cycle(workflow)
    assert "has records of what ran" in text_of(developer.get(f"{PAGES}{workflow.pk}/delete/"))
    assert developer.post(f"{PAGES}{workflow.pk}/delete/", {"reason": "x"}).status_code == 409


def test_workflows_of_other_teams_do_not_exist_here(developer: Client) -> None:
    other = make.workflow("theirs")
    assert developer.get(f"{PAGES}{other.pk}/change/").status_code == 404
    assert "theirs" not in text_of(developer.get(PAGES))
