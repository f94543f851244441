"""What the pages' tests share: a desk of one team, its people signed in, and a batch in any state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from django.test import Client

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
    client = Client()
    client.force_login(user)
    client.user = user  # type: ignore[attr-defined]
    return client


@pytest.fixture(autouse=True)
def no_listing_of_static_files(settings: Any) -> None:
    """Each test client starts all middleware anew, and whitenoise would list every file there is each time."""
    settings.WHITENOISE_AUTOREFRESH = True


@pytest.fixture
def desk(db: None) -> Desk:
    team = make.team("warehouse")
    group = make.group("etl", team=team)
    return Desk(
        team,
        group,
        make.node("node-a", group=group),
        make.task("extract", group=group, shards=["AA", "UA", "DL"]),
    )


@pytest.fixture
def operator(desk: Desk) -> Client:
    return desk.sign_in("operator")


@pytest.fixture
def viewer(desk: Desk) -> Client:
    return desk.sign_in("viewer")


@pytest.fixture
def outsider(desk: Desk) -> Client:
    return signed_in(make.user(team=make.team(), role="owner"))
