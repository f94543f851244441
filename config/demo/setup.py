"""Puts the demo workspace into an empty installation."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

import psycopg
from django.contrib.auth import get_user_model
from django.contrib.auth.hashers import make_password
from django.db import connection, transaction

from config import database
from config.demo import flights

WAREHOUSE = "warehouse"
TEAM, OTHER_TEAM = "warehouse", "outside"
HEALTH_TASK = "console-health"
# The group of each node that `manage.py up` runs.
NODE_GROUPS = ("warehouse/etl", "warehouse/etl")
ACCOUNTS = {
    "owner": (TEAM, "owner"),
    "operator": (TEAM, "operator"),
    "developer": (TEAM, "developer"),
    "viewer": (TEAM, "viewer"),
    "outsider": (OTHER_TEAM, "owner"),
}
DEFINITIONS = Path(__file__).with_name("definitions.yaml")
_HEALTH_URL = re.compile(r"http://127\.0\.0\.1:\d+/healthz")
_INSTALL_LOCK = 7_421_002


def warehouse_url(database_url: str) -> str:
    """The demo's second database on the server of `database_url`; the SQL connection `warehouse`."""
    return database.url_with_database(database_url, WAREHOUSE)


def install(*, port: int | None = None) -> str:
    """Install the demo into an installation without teams and users, and return what to tell the person.

    Needs TAILRACE_SQL_WAREHOUSE in the environment. The accounts get DEMO_PASSWORD, or one made here and told
    only now. Anywhere else nothing is touched, except that an untouched health check follows `port` (by default
    PORT, or 8000), and the answer is empty.
    """
    port = port or int(os.environ.get("PORT") or 8000)
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_INSTALL_LOCK])
        if not _is_empty():
            _follow_port(port)
            return ""
        _apply_definitions(port)
        password = os.environ.get("DEMO_PASSWORD") or secrets.token_urlsafe(9)
        _make_accounts(password)
    notes = [*_make_warehouse(), *_look_for_data()]
    members = ", ".join(name for name, (team, _role) in ACCOUNTS.items() if team == TEAM)
    return "\n".join(
        [
            f"Demo workspace: sign in as {members} (team {TEAM}) or outsider (team {OTHER_TEAM}).",
            f"The password of all of them is {password}",
            "(told only this once; `python manage.py changepassword NAME` sets another).",
            *notes,
        ]
    )


def _is_empty() -> bool:
    from scheduling.models import Team

    return not Team.objects.exists() and not get_user_model().objects.exists()


def _apply_definitions(port: int) -> None:
    # Not at the top: every worker imports this package for its jobs, and needs none of this.
    from scheduling import definitions

    wanted = definitions.read_files([str(DEFINITIONS)])
    wanted.tasks[TEAM, HEALTH_TASK].content["spec"] = _health_spec(port)
    definitions.apply(wanted, by="demo")


def _health_spec(port: int) -> dict[str, str]:
    return {"url": f"http://127.0.0.1:{port}/healthz"}


def _follow_port(port: int) -> None:
    """Point the health check at the port of this start, unless somebody made it another check."""
    from scheduling import definitions, services
    from scheduling.models import Task

    task = (
        Task.objects.filter(team__name=TEAM, name=HEALTH_TASK)
        .select_related("team", "group", "revision")
        .first()
    )
    if task is None or task.revision is None or task.revision.spec == _health_spec(port):
        return
    shipped = definitions.read_files([str(DEFINITIONS)]).tasks[TEAM, HEALTH_TASK].content
    ours = _HEALTH_URL.fullmatch(task.revision.spec.get("url", ""))
    if not ours or task.revision.content != shipped | {"spec": {"url": ours[0]}}:
        return
    services.save_task(
        team=task.team,
        group=task.group,
        name=task.name,
        content=shipped | {"spec": _health_spec(port)},
        enabled=task.enabled,
        by="demo",
        reason=f"the console is on port {port} now",
    )


def _make_accounts(password: str) -> None:
    from scheduling import services
    from scheduling.models import Team

    # They share one password, and hashing it is meant to be slow.
    hashed = make_password(password)
    for name, (team, role) in ACCOUNTS.items():
        user = get_user_model().objects.create(username=name, password=hashed)
        # Developers and owners may thereby enter the administration.
        services.set_member(team=Team.objects.get(name=team), user=user, role=role, by="demo")


def _make_warehouse() -> list[str]:
    """Make the second database and its table; what to say when that is not possible."""
    from config.demo.jobs import FLIGHTS_TABLE

    url = os.environ["TAILRACE_SQL_WAREHOUSE"]
    try:
        database.create_database(url)
        with psycopg.connect(url) as warehouse:
            warehouse.execute(FLIGHTS_TABLE)
    except (psycopg.Error, database.DatabaseUnavailable) as error:
        note = (
            f"Note: the database {WAREHOUSE} could not be made ({str(error).strip()}), so load-flights and "
            "daily-delays will fail. Create it, or set TAILRACE_SQL_WAREHOUSE to the URL of another one."
        )
        return [note]
    return []


def _look_for_data() -> list[str]:
    try:
        flights.package_data()
    except flights.DataMissing as missing:
        return [f"Note: {missing}. Until then the demo's flight tasks fail."]
    return []
