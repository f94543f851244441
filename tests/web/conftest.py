"""What the pages' tests share: a desk of one team, its people signed in, and a batch in any state."""

from __future__ import annotations

import time
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.sessions.backends.base import VALID_KEY_CHARS
from django.contrib.sessions.backends.db import SessionStore
from django.contrib.sessions.models import Session
from django.test import Client
from django.utils.crypto import get_random_string

from scheduling.models import DeploymentGroup, Node, Task, Team
from tests import factories as make


@dataclass
class Desk:
    """A team with a group, a node and a sharded task of three shards."""

    team: Team
    group: DeploymentGroup
    node: Node
    task: Task

    def sign_in(self, role: str = "operator", **fields: Any) -> Client:
        """A browser of somebody of the team, in `role`; `client.user` is who."""
        return signed_in(make.user(team=self.team, role=role, **fields))


def signed_in(user: Any) -> Client:
    """A browser of `user`: what `force_login` comes to, with one statement in place of its seventeen."""
    client, now, key = Client(), int(time.time()), get_random_string(32, VALID_KEY_CHARS)
    kept = {
        SESSION_KEY: str(user.pk),
        BACKEND_SESSION_KEY: "config.accounts.AccountBackend",
        HASH_SESSION_KEY: user.get_session_auth_hash(),
        "began": now,
        "seen": now,
    }
    Session.objects.create(
        session_key=key, session_data=SessionStore().encode(kept), expire_date=SessionStore().get_expiry_date()
    )
    client.cookies[settings.SESSION_COOKIE_NAME] = key
    client.user = user  # type: ignore[attr-defined]
    return client


@pytest.fixture(autouse=True)
def no_listing_of_static_files(settings: Any) -> None:
    """Each test client starts all middleware anew, and whitenoise would list every file there is each time."""
    settings.WHITENOISE_AUTOREFRESH = True


@pytest.fixture(scope="module")
def lasting_desk(lasting: None) -> Desk:
    team = make.team("warehouse")
    group = make.group("etl", team=team)
    return Desk(
        team,
        group,
        make.node("node-a", group=group),
        make.task("extract", group=group, shards=["AA", "UA", "DL"]),
    )


@pytest.fixture
def desk(lasting_desk: Desk, db: None) -> Desk:
    """A desk of the test's own: the rows stand for all tests of a module, and come back after each."""
    return deepcopy(lasting_desk)


@pytest.fixture
def operator(desk: Desk) -> Client:
    return desk.sign_in("operator")


@pytest.fixture
def viewer(desk: Desk) -> Client:
    return desk.sign_in("viewer")


@pytest.fixture
def outsider(desk: Desk) -> Client:
    return signed_in(make.user(team=make.team(), role="owner"))
