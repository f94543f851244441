"""Who may do what: every address × every kind of person × what is theirs and what is not.

ROWS in who_may_rows.py has a row for every address of the product; a new one fails
`test_every_address_has_a_row` until it has. Everything else follows: a stranger is sent to sign in (302), what
one may not see is not there (404), what one sees but may not do is refused (403), and a method that the address
does not know is not allowed (405).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from django.http import HttpRequest, HttpResponse
from django.test import override_settings
from django.urls import URLPattern, URLResolver, get_resolver, reverse

from config import http
from scheduling.models import Membership
from tests.web import who_may_rows
from tests.web.who_may_rows import ADMINISTER, PEOPLE, ROLES, ROWS, Row
from tests.web.who_may_world import World, a_world

# --- the table is whole ----------------------------------------------------------------------------


def addresses(patterns: Any = None, route: str = "", space: str = "") -> Iterator[tuple[str, str]]:
    """Every address: its name with its namespace (or else its route), and its route."""
    for pattern in get_resolver().url_patterns if patterns is None else patterns:
        here = route + str(pattern.pattern).removeprefix("^").removesuffix("$")
        if isinstance(pattern, URLResolver):
            inner = f"{space}{pattern.namespace}:" if pattern.namespace else space
            yield from addresses(pattern.url_patterns, here, inner)
        elif isinstance(pattern, URLPattern):
            yield (f"{space}{pattern.name}" if pattern.name else here), here


def test_every_address_has_a_row() -> None:
    known = dict(addresses())
    missing = "\n".join(
        f'    "{name}": page(…) or action(…),   # {route}' for name, route in known.items() if name not in ROWS
    )
    assert not missing, (
        f"Say who may: add to ROWS in {who_may_rows.__name__}, whose docstring says how,\n{missing}"
    )
    gone = sorted(ROWS.keys() - known.keys())
    assert not gone, f"These rows of ROWS have no address any more; take them out: {gone}"


# --- the table holds -------------------------------------------------------------------------------


def expected(row: Row, who: str | None, team: str, method: str) -> int:
    """What `who` must be answered; see the docstring of the module."""
    answer = row.get if method == "GET" else row.post
    if row.public:
        return (row.stranger if who is None else None) or answer or 405
    if who is None:
        return 302
    person = PEOPLE[who]
    if row.door is not None and row.door not in person.at_home:
        return 403
    if answer is None:
        return 405
    if row.thing is None:
        return answer if row.needs in person.at_home else 403
    if not person.may("view" if not row.hidden else row.needs, row.thing, team):
        return 404
    return answer if person.may(row.needs, row.thing, team) else 403


SESSIONS = "django.contrib.sessions.backends.signed_cookies"


@pytest.fixture(scope="module")
def world(lasting: None) -> World:
    """One world for all, as making it takes longer than asking."""
    with override_settings(SESSION_ENGINE=SESSIONS):
        return a_world()


@pytest.fixture
def curt(monkeypatch: pytest.MonkeyPatch, settings: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Refusals of a status alone and sessions without a table: of many answers only the status is looked at."""

    def status_alone(request: HttpRequest, *, status: int, **_words: str) -> HttpResponse:
        return HttpResponse(status=status)

    monkeypatch.setattr(http, "answer", status_alone)
    settings.SESSION_ENGINE = SESSIONS
    caplog.set_level(logging.CRITICAL, logger="django.request")


@pytest.mark.long
@pytest.mark.django_db
@pytest.mark.usefixtures("curt")
@pytest.mark.parametrize("name", ROWS)
def test_everybody_is_answered_as_the_table_says(world: World, name: str) -> None:
    row, wrong = ROWS[name], []
    # Whom an administrator's door keeps out, it keeps out of everything.
    both = row.thing and row.door != ADMINISTER
    for team in ("ours", "theirs") if both else ("ours",):
        address = address_of(name, row, world.things[team])
        for who in (*PEOPLE, None):
            for method in row.methods:
                status = world.ask(who, method, address, row.data)
                wanted = expected(row, who, team, method)
                if status != wanted and not (wanted == 200 and status == row.nothing):
                    wrong.append(f"{name}: {method} {address} ({team}) by {who}: {status}, not {wanted}")
    assert not wrong, "\n".join(wrong)


def address_of(name: str, row: Row, things: dict[str, Any]) -> str:
    if row.address is not None:
        return row.address(things)
    return reverse(name, args=[things[row.thing].pk] if row.thing else []) + row.query


def test_the_roles_of_the_table_are_those_of_the_product() -> None:
    assert set(ROLES) == set(dict(Membership._meta.get_field("role").choices))
