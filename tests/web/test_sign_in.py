import io
import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from django.core.management import CommandError, call_command
from django.test import Client, RequestFactory

from config import accounts
from tests import factories as make
from tests.web.conftest import Desk, signed_in
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


def sign_in(browser: Client, password: str = "secret", name: str = "mei", **extra: Any) -> Any:
    return browser.post("/accounts/login/", {"username": name, "password": password}, **extra)


# --- who may not -----------------------------------------------------------------------------------


def test_an_account_that_is_switched_off_is_told_so_only_with_its_password() -> None:
    make.user("mei", is_active=False)
    assert "This account is switched off. Ask an administrator" in text_of(sign_in(Client()))
    assert "switched off" not in text_of(sign_in(Client(), "wrong"))


def test_switching_an_account_off_ends_its_sessions(desk: Desk) -> None:
    browser = desk.sign_in()
    type(browser.user).objects.filter(pk=browser.user.pk).update(is_active=False)
    assert browser.get("/batches/")["Location"] == "/accounts/login/?next=/batches/"


@pytest.mark.parametrize("address", ["/batches/", "/admin/", "/batches/changes/"])
def test_who_is_in_no_team_is_told_what_to_do(address: str) -> None:
    answer = signed_in(make.user("mei")).get(address)
    assert answer.status_code == 403
    assert "Ask an owner of your team to add mei" in text_of(answer)


def test_who_is_in_no_team_may_change_the_password_and_leave() -> None:
    browser = signed_in(make.user())
    assert browser.get("/accounts/password/").status_code == 200
    assert browser.post("/accounts/logout/").status_code == 302


# --- throttling ------------------------------------------------------------------------------------


@pytest.fixture
def clock() -> Iterator[time_machine.Traveller]:
    with time_machine.travel(datetime(2026, 3, 4, 9, tzinfo=UTC), tick=False) as traveller:
        yield traveller


@pytest.mark.parametrize("exists", [True, False])
def test_after_too_many_failures_nobody_is_let_in_until_the_cool_off_has_passed(
    clock: time_machine.Traveller, settings: Any, exists: bool
) -> None:
    settings.AXES_FAILURE_LIMIT, settings.AXES_COOLOFF_TIME = 3, timedelta(minutes=10)
    make.user("mei" if exists else "somebody")
    answers = [sign_in(Client(), "wrong") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    clock.shift(timedelta(minutes=4))
    refused = sign_in(Client())
    assert refused.status_code == 429
    assert "Wait 6 minutes, then try again." in text_of(refused)
    assert refused["Retry-After"] == "360"
    assert "Content-Security-Policy" in refused
    clock.shift(timedelta(minutes=6, seconds=1))
    assert sign_in(Client()).status_code == (302 if exists else 200)


def test_a_lock_is_written_into_the_log(
    settings: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.AXES_FAILURE_LIMIT = 1
    monkeypatch.setattr(logging.getLogger("axes"), "propagate", True)
    sign_in(Client(), "wrong")
    assert "Locking out" in caplog.text
    assert "wrong" not in caplog.text


def test_a_lock_is_for_one_name_from_one_address(settings: Any) -> None:
    settings.AXES_FAILURE_LIMIT = 2
    make.user("mei")
    make.user("noor")
    for _ in range(2):
        sign_in(Client(), "wrong")
    assert sign_in(Client()).status_code == 429
    assert sign_in(Client(), name="noor").status_code == 302
    assert sign_in(Client(), REMOTE_ADDR="10.0.0.7").status_code == 302


def test_signing_in_forgets_earlier_failures(settings: Any) -> None:
    settings.AXES_FAILURE_LIMIT = 2
    make.user("mei")
    codes = [sign_in(Client(), password).status_code for password in ("wrong", "secret", "wrong", "secret")]
    assert codes == [200, 302, 200, 302]


@pytest.mark.parametrize(
    ("proxies", "forwarded", "address"),
    [
        (0, "6.6.6.6", "10.0.0.1"),
        (1, "6.6.6.6, 1.2.3.4", "1.2.3.4"),
        (2, "6.6.6.6, 1.2.3.4, 10.0.0.2", "1.2.3.4"),
        (2, "1.2.3.4", "10.0.0.1"),
        (1, "", "10.0.0.1"),
    ],
)
def test_only_our_own_proxies_are_believed(
    rf: RequestFactory, settings: Any, proxies: int, forwarded: str, address: str
) -> None:
    settings.TRUSTED_PROXIES = proxies
    request = rf.get("/", REMOTE_ADDR="10.0.0.1", headers={"X-Forwarded-For": forwarded})
    assert accounts.client_address(request) == address


# --- sessions --------------------------------------------------------------------------------------


def test_a_session_ends_when_nothing_was_done_for_a_while(clock: time_machine.Traveller, desk: Desk) -> None:
    browser = desk.sign_in()
    for _ in range(3):
        clock.shift(timedelta(minutes=110))
        assert browser.get("/batches/").status_code == 200
    clock.shift(timedelta(hours=2))
    assert browser.get("/batches/").status_code == 302
    page = text_of(browser.get("/accounts/login/"))
    assert "signed out because nothing was done for a while" in page
    assert "signed out" not in text_of(browser.get("/accounts/login/"))


def test_a_page_that_only_asks_what_changed_keeps_no_session_alive(
    clock: time_machine.Traveller, desk: Desk
) -> None:
    browser = desk.sign_in()
    codes = []
    for _ in range(5):
        clock.shift(timedelta(minutes=30))
        codes.append(browser.get("/batches/changes/", headers={"HX-Request": "true"}).status_code)
    assert codes[:3] == [204, 204, 204]
    last = browser.get("/batches/changes/", headers={"HX-Request": "true"})
    assert last["HX-Redirect"].startswith("/accounts/login/")


def test_a_session_ends_after_its_full_time_however_busy(clock: time_machine.Traveller, desk: Desk) -> None:
    browser = desk.sign_in()
    for _ in range(11):
        clock.shift(timedelta(hours=1))
        assert browser.get("/batches/").status_code == 200
    clock.shift(timedelta(hours=1))
    assert browser.get("/batches/").status_code == 302
    assert "had lasted its full time" in text_of(browser.get("/accounts/login/"))


def test_using_a_page_does_not_write_at_every_request(
    clock: time_machine.Traveller, desk: Desk, django_assert_num_queries: Any
) -> None:
    browser = desk.sign_in()
    browser.get("/accounts/password/")
    with django_assert_num_queries(2):  # the session and the user
        browser.get("/accounts/password/")
    clock.shift(timedelta(minutes=2))
    browser.get("/accounts/password/")
    assert browser.session["seen"] == int(datetime(2026, 3, 4, 9, 2, tzinfo=UTC).timestamp())


# --- passwords -------------------------------------------------------------------------------------


def change(browser: Client, new: str, old: str = "secret") -> Any:
    return browser.post(
        "/accounts/password/", {"old_password": old, "new_password1": new, "new_password2": new}
    )


def test_a_password_is_changed_and_other_sessions_end(desk: Desk) -> None:
    browser = desk.sign_in(username="mei")
    other = signed_in(browser.user)
    assert change(browser, "warm-otter-91")["Location"] == "/accounts/password/changed/"
    assert "Your password was changed" in text_of(browser.get("/accounts/password/changed/"))
    assert other.get("/batches/").status_code == 302
    assert sign_in(Client(), "warm-otter-91").status_code == 302


@pytest.mark.parametrize(
    ("new", "said"),
    [
        ("short1", "too short"),
        ("password", "too common"),
        ("73912046", "entirely numeric"),
        ("mei-jade", "similar"),
    ],
)
def test_a_weak_password_is_refused_everywhere(
    desk: Desk, new: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = desk.sign_in(username="mei-jade")
    page = text_of(change(browser, new))
    assert said in page
    assert "at least 8 characters" in page
    administrator = signed_in(make.user(is_superuser=True))
    form = {"username": "mei-jade2", "usable_password": "true", "password1": new, "password2": new}
    assert said in text_of(administrator.post("/admin/auth/user/add/", form))
    monkeypatch.setattr("getpass.getpass", once(new, new))
    monkeypatch.setattr("builtins.input", once("n"))
    err = io.StringIO()
    with pytest.raises(CommandError, match="asked again"):
        call_command("createsuperuser", username="mei-jade3", email="", stdin=Terminal(), stderr=err)
    assert said in err.getvalue()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def once(*answers: str) -> Any:
    """A prompt that gives each of `answers`, and then fails."""
    left = list(answers)

    def prompt(*_: object) -> str:
        if not left:
            raise CommandError("asked again")
        return left.pop(0)

    return prompt
