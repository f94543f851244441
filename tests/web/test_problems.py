import logging
import re
import sys
from pathlib import Path

import pytest
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.test import Client, RequestFactory
from django.utils.module_loading import import_string

from config import http
from scheduling.errors import InvalidDefinition, NotAvailable, TransitionRefused
from tests.web.conftest import Desk
from tests.web.pages import HTMX, text_of

TEMPLATES = sorted((settings.BASE_DIR / "templates").rglob("*.html"))


@pytest.mark.parametrize(
    ("refusal", "status"),
    [
        (TransitionRefused("it has ended"), 409),
        (NotAvailable("no node is online"), 409),
        (InvalidDefinition({"cron": "five fields are needed"}), 422),
        (ValueError("a fault of ours"), None),
    ],
)
def test_every_refusal_has_its_status_and_a_fault_has_none(refusal: Exception, status: int | None) -> None:
    assert http.status_of(refusal) == status


def test_the_named_refusals_exist() -> None:
    for name in http._STATUS:
        assert issubclass(import_string(name), Exception)


@pytest.mark.django_db
@pytest.mark.parametrize("headers", [{}, HTMX])
def test_a_refusal_that_no_view_answers_becomes_a_page_or_a_notice(rf: RequestFactory, headers: dict) -> None:
    request: HttpRequest = rf.get("/", headers=headers)
    request.htmx = bool(headers)  # type: ignore[attr-defined]
    middleware = http.RefusalMiddleware(lambda request: HttpResponse())
    answer = middleware.process_exception(request, TransitionRefused("Batch 7 has <ended>."))
    assert answer is not None
    assert answer.status_code == 409
    assert "Batch 7 has &lt;ended&gt;." in text_of(answer)
    assert ("HX-Retarget" in answer) == bool(headers)


@pytest.mark.parametrize("headers", [{}, HTMX])
def test_a_form_without_its_token_is_refused_where_one_can_read_it(
    desk: Desk, operator: Client, headers: dict
) -> None:
    operator.handler.enforce_csrf_checks = True
    answer = operator.post(f"/tasks/{desk.task.pk}/run/", {"reason": "x"}, headers=headers)
    assert answer.status_code == 403
    assert "Not sent" in text_of(answer)
    assert answer.get("HX-Retarget", "") == ("#notices" if headers else "")


@pytest.mark.parametrize("headers", [{}, HTMX])
def test_an_address_that_only_takes_what_a_button_sends_says_so(
    desk: Desk, operator: Client, headers: dict
) -> None:
    answer = operator.get("/accounts/logout/", headers=headers)
    assert (answer.status_code, answer["Allow"]) == (405, "POST, OPTIONS")
    assert "This address does not answer to GET, only to POST, OPTIONS." in text_of(answer)
    assert ("Overview" in text_of(answer)) == (not headers)


def test_a_fault_is_in_the_server_s_log(
    desk: Desk, operator: Client, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fault(*_args: object) -> None:
        raise ZeroDivisionError("a fault of ours")

    monkeypatch.setattr("scheduling.views.find.FINDERS", [fault])
    operator.raise_request_exception = False
    name = settings.LOGGING["loggers"]["django.request"]["handlers"][0]
    handler = logging.getHandlerByName(name)
    assert isinstance(handler, logging.StreamHandler)
    monkeypatch.setattr(handler, "stream", sys.stderr)
    assert operator.get("/find/").status_code == 500
    assert "ZeroDivisionError: a fault of ours" in capsys.readouterr().err


@pytest.mark.parametrize("address", ["/suggest/tasks/?task=%00", "/suggest/people/?by=%00"])
def test_a_box_that_suggests_takes_any_character(desk: Desk, operator: Client, address: str) -> None:
    assert operator.get(address).status_code == 200


def test_an_unknown_address_is_not_found(desk: Desk, operator: Client) -> None:
    answer = operator.get("/nonesuch/")
    assert answer.status_code == 404
    assert "There is no such page" in text_of(answer)


@pytest.mark.parametrize("address", ["/batches/", "/accounts/login/", "/nonesuch/"])
def test_every_page_carries_a_policy_without_inline_anything(
    desk: Desk, operator: Client, address: str
) -> None:
    policy = operator.get(address, follow=True)["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_no_template_has_inline_style_or_script(template: Path) -> None:
    text = re.sub(r"\{%.*?%\}", "", template.read_text(), flags=re.DOTALL)
    assert not re.search(r"\sstyle=|<style|\son[a-z]+=|hx-on|javascript:|hx-vals=.js", text)
    assert not re.search(r"<script(?![^>]*\ssrc=)", text)
