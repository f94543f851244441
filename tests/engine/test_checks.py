"""`manage.py check --deploy` compares the connections that may be opened with PostgreSQL's limit."""

from __future__ import annotations

from io import StringIO

import pytest
from django.core.management import call_command
from django.db import connection

from scheduling.checks import enough_connections
from tests import factories as make

pytestmark = pytest.mark.django_db


def test_the_formula_is_shown_with_the_nodes_that_are_online() -> None:
    make.node(slots=8, state="online")
    make.node(slots=4, state="draining")
    make.node(slots=100, state="offline")

    [info] = enough_connections()

    assert info.id == "scheduling.I001"
    assert info.msg.startswith("Tailrace opens up to 51 connections: 3 × 2 nodes + 2 × 12 workers + 5 ")


def test_too_few_connections_are_a_warning_with_the_number_to_set() -> None:
    for _node in range(3):
        make.node(slots=16, state="online")
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('max_connections')::int")
        [allowed] = cursor.fetchone()

    [warning] = enough_connections()

    # 3 × 3 + 2 × 48 + 5 + 16
    assert (warning.id, "up to 126 connections" in warning.msg, allowed) == ("scheduling.W002", True, 100)
    assert warning.hint == "Set max_connections to 146 or more, or start fewer workers."


def test_check_deploy_shows_it_and_check_alone_needs_no_database() -> None:
    for arguments, shown in (["check", "--deploy"], True), (["check"], False):
        output = StringIO()
        call_command(*arguments, stderr=output, stdout=output)
        assert ("Tailrace opens up to" in output.getvalue()) is shown
