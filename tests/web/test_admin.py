import pytest
from django.contrib import admin
from django.test import Client

from scheduling.models import Batch, Execution, Instance, JournalEntry, Membership, TaskRevision, Team
from tests import factories as make
from tests.web.conftest import Desk, signed_in
from tests.web.pages import text_of

pytestmark = pytest.mark.django_db


@pytest.fixture
def administrator() -> Client:
    return signed_in(make.user(is_staff=True, is_superuser=True))


@pytest.mark.parametrize("model", [Batch, Instance, Execution, JournalEntry, TaskRevision])
def test_history_is_shown_and_cannot_be_edited(desk: Desk, administrator: Client, model: type) -> None:
    make.end_batch(make.batch(desk.task))
    base = f"/admin/scheduling/{model._meta.model_name}/"
    thing = model.objects.first()
    assert administrator.get(base).status_code == 200
    page = administrator.get(f"{base}{thing.pk}/change/")
    assert page.status_code == 200
    assert 'name="_save"' not in text_of(page)
    assert administrator.post(f"{base}{thing.pk}/change/", {}).status_code == 403
    assert administrator.post(f"{base}{thing.pk}/delete/", {"post": "yes"}).status_code == 403
    assert administrator.get(f"{base}add/").status_code == 403


@pytest.mark.parametrize("name", [model._meta.model_name for model in admin.site._registry])
def test_every_list_opens_and_can_be_searched(desk: Desk, administrator: Client, name: str) -> None:
    make.end_batch(make.batch(desk.task))
    model = next(each for each in admin.site._registry if each._meta.model_name == name)
    base = f"/admin/{model._meta.app_label}/{name}/"
    assert administrator.get(base).status_code == 200
    if admin.site._registry[model].search_fields:
        assert administrator.get(f"{base}?q=7").status_code == 200


def test_people_join_a_team_here(desk: Desk, administrator: Client) -> None:
    mei = make.user("mei")
    answer = administrator.post(
        "/admin/scheduling/membership/add/", {"team": desk.team.pk, "user": mei.pk, "role": "viewer"}
    )
    assert answer.status_code == 302
    assert Membership.objects.get(user=mei).role == "viewer"


def test_a_team_is_made_here(administrator: Client) -> None:
    management = {"memberships-TOTAL_FORMS": 0, "memberships-INITIAL_FORMS": 0}
    assert (
        administrator.post("/admin/scheduling/team/add/", {"name": "delivery", **management}).status_code == 302
    )
    assert Team.objects.filter(name="delivery").exists()


def test_an_operator_has_no_way_in(desk: Desk, operator: Client) -> None:
    assert operator.get("/admin/", follow=True).redirect_chain
    assert "Administration" not in text_of(operator.get("/batches/"))
