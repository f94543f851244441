"""People of a team who act at once, over real second connections."""

from __future__ import annotations

import threading

import pytest
from django.db import connection

from scheduling import services
from scheduling.errors import LastOwner
from scheduling.models import Membership
from tests import factories as make


@pytest.mark.django_db(transaction=True)
def test_of_two_owners_who_leave_at_once_one_stays() -> None:
    team = make.team()
    members = [make.user(team=team, role="owner").memberships.get() for _ in range(2)]
    start = threading.Barrier(2)
    refused: list[str] = []

    def leave(membership: Membership) -> None:
        try:
            start.wait(10)
            services.remove_member(membership, by="tests")
        except LastOwner as refusal:
            refused.append(str(refusal))
        finally:
            connection.close()

    threads = [threading.Thread(target=leave, args=[member]) for member in members]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(refused) == 1
    assert Membership.objects.filter(team=team, role="owner").count() == 1
