import pytest
from django.test import Client

from tests import factories as make
from tests.web.conftest import Desk
from tests.web.pages import text_of

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("address", ["/", "/batches/", "/batches/1/", "/instances/1/", "/batches/1/stop/"])
def test_a_page_sends_a_stranger_to_sign_in_and_back(address: str) -> None:
    response = Client().get(address)
    assert response.status_code == 302
    assert response["Location"] == f"/accounts/login/?next={address}"


def test_signing_in_leads_to_the_page_that_was_asked() -> None:
    make.user("mei")
    page = Client().get("/accounts/login/?next=/batches/%3Ftab%3Dworkflow")
    assert 'name="next" value="/batches/?tab=workflow"' in text_of(page)
    assert '<label for="id_username">' in text_of(page)
    answer = Client().post(
        "/accounts/login/", {"username": "mei", "password": "secret", "next": "/batches/?tab=workflow"}
    )
    assert answer["Location"] == "/batches/?tab=workflow"


def test_signing_in_never_leads_to_another_site() -> None:
    make.user("mei")
    answer = Client().post(
        "/accounts/login/", {"username": "mei", "password": "secret", "next": "https://elsewhere.example/"}
    )
    assert answer["Location"] == "/"


def test_a_wrong_password_is_said_on_the_form() -> None:
    make.user("mei")
    answer = Client().post("/accounts/login/", {"username": "mei", "password": "wrong"})
    assert 'role="alert"' in text_of(answer)


def test_signing_out_needs_a_post(desk: Desk) -> None:
    browser = desk.sign_in()
    assert browser.get("/accounts/logout/").status_code == 405
    assert browser.post("/accounts/logout/")["Location"] == "/accounts/login/"
    assert browser.get("/batches/").status_code == 302


def test_a_lost_session_sends_htmx_to_sign_in_instead_of_into_the_table() -> None:
    answer = Client().get(
        "/batches/changes/",
        headers={"HX-Request": "true", "HX-Current-URL": "http://testserver/batches/?state=failed"},
    )
    assert answer["HX-Redirect"] == "/accounts/login/?next=/batches/%3Fstate%3Dfailed"
