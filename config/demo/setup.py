"""Puts the demo workspace into an empty installation."""

from __future__ import annotations

import os
import re
import secrets
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import psycopg
from django.contrib.auth import get_user_model
from django.contrib.auth.hashers import make_password
from django.db import connection, transaction
from django.utils import timezone

from config import database
from config.demo import flights, history
from config.demo.weather import BROKEN_WIND

WAREHOUSE = "warehouse"
TEAM, OTHER_TEAM = "warehouse", "outside"
HEALTH_TASK = "console-health"
# The group and the workers of each node that `manage.py up` runs.
NODES = (
    ("warehouse/etl", 2),
    ("warehouse/etl", 2),
    ("weather/feeds", 2),
    ("analytics/reports", 1),
    ("finance/ledger", 1),
)
TEAMS = (TEAM, "weather", "analytics", "finance")
# The role of each account by team.
ACCOUNTS = {
    "owner": dict.fromkeys(TEAMS, "owner"),
    "operator": dict.fromkeys(TEAMS, "operator"),
    "developer": {TEAM: "developer", "analytics": "developer"},
    "viewer": {TEAM: "viewer"},
    "outsider": {OTHER_TEAM: "owner"},
}
DEFINITIONS = Path(__file__).with_name("definitions.yaml")
TABLES = Path(__file__).with_name("warehouse.sql")
BROKEN_AIRPORT = "EWR"
_HEALTH_URL = re.compile(r"http://127\.0\.0\.1:\d+/healthz")
_INSTALL_LOCK = 7_421_002


def warehouse_url(database_url: str) -> str:
    """The demo's second database on the server of `database_url`; the SQL connection `warehouse`."""
    return database.url_with_database(database_url, WAREHOUSE)


def install(*, port: int | None = None) -> str:
    """Install the demo into an installation without teams and users, and return what to tell the person.

    Needs TAILRACE_SQL_WAREHOUSE in the environment. The accounts get DEMO_PASSWORD, or one made here and told
    only now; the workflows get two weeks of history, see `config.demo.history`. Anywhere else nothing is
    touched, except that an untouched health check follows `port` (by default PORT, or 8000), and the answer is
    empty.
    """
    port = port or int(os.environ.get("PORT") or 8000)
    now = timezone.now()
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_INSTALL_LOCK])
        if not _is_empty():
            _follow_port(port)
            return ""
        _apply_definitions(port, now)
        history.begin(now)
        password = os.environ.get("DEMO_PASSWORD") or secrets.token_urlsafe(9)
        _make_accounts(password)
    notes = [*_make_warehouse(history.broken_hour(now)), *_look_for_data()]
    members = ", ".join(name for name, roles in ACCOUNTS.items() if TEAM in roles)
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


def _apply_definitions(port: int, now: datetime) -> None:
    # Not at the top: every worker imports this package for its jobs, and needs none of this.
    from scheduling import definitions

    wanted = definitions.read_files([str(DEFINITIONS)])
    wanted.tasks[TEAM, HEALTH_TASK].content["spec"] = _health_spec(port)
    wanted.sections["workflows"] = {
        (team, name): replace(workflow, starts_at=history.begins(name, now))
        for (team, name), workflow in wanted.sections["workflows"].items()
    }
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
    teams = {team.name: team for team in Team.objects.all()}
    for name, roles in ACCOUNTS.items():
        user = get_user_model().objects.create(username=name, password=hashed)
        for team, role in roles.items():
            # Developers and owners may thereby enter the administration.
            services.set_member(team=teams[team], user=user, role=role, by="demo")


def _make_warehouse(broken: datetime) -> list[str]:
    """Make the second database with its tables and one broken reading; what to say where it cannot."""
    url = os.environ["TAILRACE_SQL_WAREHOUSE"]
    try:
        database.create_database(url)
        with psycopg.connect(url) as warehouse:
            warehouse.execute(TABLES.read_bytes())
            fault = "INSERT INTO sensor_faults VALUES (%s, %s, %s) ON CONFLICT DO NOTHING"
            warehouse.execute(fault, [broken, BROKEN_AIRPORT, BROKEN_WIND])
    except (psycopg.Error, database.DatabaseUnavailable) as error:
        note = (
            f"Note: the database {WAREHOUSE} could not be made ({str(error).strip()}), so load-flights, "
            "daily-delays and the workflows will fail. Create it, or set TAILRACE_SQL_WAREHOUSE to the URL of "
            "another one."
        )
        return [note]
    return []


def _look_for_data() -> list[str]:
    try:
        flights.package_data()
    except flights.DataMissing as missing:
        return [f"Note: {missing}. Until then the demo's flight tasks fail."]
    return []
