"""The pages' figures: server time of each page and filter, over ten million instances in a million batches.

`python -m tests.bench pages --keep` makes the records once and keeps them under TAILRACE_VAR; BENCH_RECORDS
asks for fewer. Requests go through the whole of Django in this process, signed in as a member of one team and
as one of three. `cpu` and `db cpu` are what a request takes of the processor here and in PostgreSQL: what
others do on the machine disturbs them less than its time. A page's first hit finds the server's cache as the
pages before left it, and empty for the very first.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from django.db import connection
from django.test import Client, RequestFactory
from django.urls import NoReverseMatch, reverse
from django.utils import timezone

from tests.bench.harness import Figure, percentile

RECORDS = int(os.environ.get("BENCH_RECORDS", "10000000"))
RUNS = int(os.environ.get("BENCH_PAGE_RUNS", "20"))
LIMIT_MS = 50.0
# Name, share of all records, and how many of its batches have not ended.
TEAMS = (("bench-large", 0.7, 200), ("bench-middle", 0.25, 50), ("bench-small", 0.05, 20))
# People by the teams that they see.
PEOPLE = {"member": TEAMS[:1], "member-of-three": TEAMS}
HUGE_LOG_CHUNKS = 5000


# --- the records -----------------------------------------------------------------------------------


def build() -> None:
    """Make the records that are not there yet, and the people who look at them."""
    from django.contrib.auth import get_user_model

    from scheduling import seeding
    from scheduling.models import Membership, Team

    for team, share, unfinished in TEAMS:
        if Team.objects.filter(name=team).exists():
            continue
        instances = int(RECORDS * share)
        print(f"making {instances:,} instances of the team {team}", flush=True)
        for _ in seeding.seed(instances, batches=instances // 10, days=7, team=team, unfinished=unfinished):
            pass
        _huge_log()
        with connection.cursor() as cursor:
            cursor.execute("VACUUM ANALYZE")
    for name, teams in PEOPLE.items():
        user, _ = get_user_model().objects.get_or_create(username=name)
        for team, _share, _unfinished in teams:
            Membership.objects.get_or_create(
                user=user, team=Team.objects.get(name=team), defaults={"role": "operator"}
            )


def _huge_log() -> None:
    """Give one instance of the newest team as long a log as is kept of any."""
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO scheduling_logchunk (execution_id, sequence, text, dropped_bytes, written_at)"
            " SELECT (SELECT max(id) FROM scheduling_execution WHERE outcome = 'success'), 100 + n,"
            " repeat(format(E'line %%s of what a chatty job has to say\n', n), 6), 0, now()"
            " FROM generate_series(1, %s) n ON CONFLICT DO NOTHING",
            [HUGE_LOG_CHUNKS],
        )


# --- the addresses ---------------------------------------------------------------------------------


@dataclass
class World:
    """Facts about the records that addresses are made of, as one person may see them."""

    teams: list[int]

    def _one(self, statement: str, **facts: Any) -> Any:
        with connection.cursor() as cursor:
            cursor.execute(statement, {"teams": self.teams} | facts)
            row = cursor.fetchone()
        return row[0] if row else None

    def task(self, rank: float) -> str:
        """The name of a task by its number of batches: 0 is the one with most, 1 the one with fewest."""
        return str(
            self._one(
                "SELECT task.name FROM scheduling_task task JOIN LATERAL (SELECT count(*) AS n FROM"
                " scheduling_batch WHERE task_id = task.id) counted ON true WHERE team_id = ANY(%(teams)s)"
                " ORDER BY n DESC, task.id OFFSET round(%(rank)s * (SELECT count(*) - 1 FROM"
                " scheduling_task WHERE team_id = ANY(%(teams)s))) LIMIT 1",
                rank=rank,
            )
        )

    @cached_property
    def most(self) -> str:
        return self.task(0)

    @cached_property
    def fewest(self) -> str:
        return self.task(1)

    def group(self, order: str) -> str:
        return str(
            self._one(
                "SELECT name FROM scheduling_deploymentgroup WHERE team_id = ANY(%(teams)s) ORDER BY"
                " (SELECT count(*) FROM scheduling_batch WHERE group_id = scheduling_deploymentgroup.id)"
                f" {order}"
            )
        )

    def cursor(self, share: float) -> str:
        """The mark of the page that begins after this share of the team's batches."""
        from scheduling.models import Batch
        from scheduling.queries import Cursor

        rows = Batch.objects.filter(team__in=self.teams).order_by("-created_at", "-pk")
        return str(Cursor.of(rows[int(rows.count() * share)]))

    def batch(self, where: str = "true") -> int:
        return int(
            self._one(
                f"SELECT id FROM scheduling_batch WHERE team_id = ANY(%(teams)s) AND {where}"
                " ORDER BY total DESC, id DESC LIMIT 1"
            )
        )

    @cached_property
    def huge(self) -> int:
        return self.batch()

    def ids(self, count: int) -> str:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT id FROM scheduling_batch WHERE team_id = ANY(%s) ORDER BY md5(id::text) LIMIT %s",
                [self.teams, count],
            )
            return ",".join(str(pk) for (pk,) in cursor.fetchall())

    def instance(self, of: str) -> int:
        return int(
            self._one(
                f"SELECT instance.id FROM scheduling_instance instance WHERE batch_id = %(batch)s {of} LIMIT 1",
                batch=self.huge,
            )
        )

    def chatty(self) -> int:
        """The instance with the longest log of all that these teams have."""
        return int(
            self._one(
                "SELECT instance_id FROM scheduling_execution WHERE id = (SELECT execution_id FROM"
                " scheduling_logchunk chunk JOIN scheduling_execution e ON e.id = execution_id"
                " JOIN scheduling_instance i ON i.id = e.instance_id"
                " JOIN scheduling_batch b ON b.id = i.batch_id"
                " WHERE sequence > 100 AND b.team_id = ANY(%(teams)s) LIMIT 1)"
            )
            or self.instance("")
        )


def page(name: str, *arguments: Any, **query: Any) -> str:
    return reverse(name, args=arguments) + (f"?{urlencode(query, doseq=True)}" if query else "")


# What is measured: words -> address. A page that does not exist (yet) is passed over.
ADDRESSES: dict[str, Callable[[World], str]] = {
    "records, first page": lambda w: page("batch-list"),
    "records, workflow tab": lambda w: page("batch-list", tab="workflow"),
    "last 24 hours": lambda w: page("batch-list", window="1d"),
    "last 30 days": lambda w: page("batch-list", window="30d"),
    "state failed": lambda w: page("batch-list", state="failed"),
    "state running": lambda w: page("batch-list", state="running"),
    "state terminating, 30 days": lambda w: page("batch-list", state="terminating", window="30d"),
    "state waiting, workflow tab": lambda w: page("batch-list", state="waiting", tab="workflow"),
    "condition not met, basic tab (none)": lambda w: page("batch-list", state="condition_not_met"),
    "condition not met, workflow tab": lambda w: page("batch-list", state="condition_not_met", tab="workflow"),
    "trigger manual": lambda w: page("batch-list", trigger="manual"),
    "trigger manual, state failed": lambda w: page("batch-list", trigger="manual", state="failed"),
    "all states but success": lambda w: page(
        "batch-list", state=["waiting", "running", "failed", "terminating"]
    ),
    "group with most": lambda w: page("batch-list", group=w.group("DESC")),
    "group with fewest": lambda w: page("batch-list", group=w.group("ASC")),
    "group with most, terminating": lambda w: page("batch-list", group=w.group("DESC"), state="terminating"),
    "group with most, manual, failed": lambda w: page(
        "batch-list", group=w.group("DESC"), trigger="manual", state="failed"
    ),
    "task with most": lambda w: page("batch-list", task=w.most),
    "task with fewest": lambda w: page("batch-list", task=w.fewest),
    "task with most, terminating": lambda w: page("batch-list", task=w.most, state="terminating"),
    "task with most, manual": lambda w: page("batch-list", task=w.most, trigger="manual"),
    "task of another group": lambda w: page("batch-list", task=w.most, group=w.group("ASC")),
    "twenty tasks, failed": lambda w: page(
        "batch-list", task=",".join({w.task(n / 20) for n in range(20)}), state="failed"
    ),
    "by a person": lambda w: page("batch-list", by="mei"),
    "by nobody there is": lambda w: page("batch-list", by="nobody"),
    "by a person, failed": lambda w: page("batch-list", by="mei", state="failed"),
    "by the schedule": lambda w: page("batch-list", by="schedule"),
    "by the schedule or a person": lambda w: page("batch-list", by="schedule,mei"),
    "by the engine, workflow tab (none)": lambda w: page("batch-list", by="engine", tab="workflow"),
    "task by a person": lambda w: page("batch-list", task=w.most, by="mei"),
    "group by a person": lambda w: page("batch-list", group=w.group("ASC"), by="mei"),
    "an old day": lambda w: page(
        "batch-list",
        since=f"{timezone.now() - timedelta(days=6.5):%Y-%m-%dT%H:%M}",
        until=f"{timezone.now() - timedelta(days=5.5):%Y-%m-%dT%H:%M}",
    ),
    "an old day, failed, manual": lambda w: page(
        "batch-list",
        since=f"{timezone.now() - timedelta(days=6.5):%Y-%m-%dT%H:%M}",
        until=f"{timezone.now() - timedelta(days=5.5):%Y-%m-%dT%H:%M}",
        state="failed",
        trigger="manual",
    ),
    "one batch by ID": lambda w: page("batch-list", batch=w.huge),
    "200 batches by ID": lambda w: page("batch-list", batch=w.ids(200)),
    "an invalid filter": lambda w: page("batch-list", state="asleep"),
    "10 % deep": lambda w: page("batch-list", older=w.cursor(0.1)),
    "50 % deep": lambda w: page("batch-list", older=w.cursor(0.5)),
    "99 % deep": lambda w: page("batch-list", older=w.cursor(0.99)),
    "50 % deep, back": lambda w: page("batch-list", newer=w.cursor(0.5)),
    "50 % deep, failed": lambda w: page("batch-list", older=w.cursor(0.5), state="failed"),
    "50 % deep, terminating (none)": lambda w: page("batch-list", older=w.cursor(0.5), state="terminating"),
    "live changes of the first page": lambda w: page("batch-list-changes"),
    "live changes, terminating": lambda w: page("batch-list-changes", state="terminating"),
    "count of all": lambda w: page("batch-list-count"),
    "count of failed": lambda w: page("batch-list-count", state="failed"),
    "count of a rare combination": lambda w: page(
        "batch-list-count", state=["failed", "terminating"], trigger="manual", group=w.group("DESC")
    ),
    "count of a task's": lambda w: page("batch-list-count", task=w.most),
    "bulk stop of all that match": lambda w: page("batches-stop", all="1", state=["running", "waiting"]),
    "bulk rerun of all that match": lambda w: page("batches-rerun", all="1", state="failed"),
    "batch of 10,000": lambda w: page("batch-detail", w.huge),
    "batch of 10,000, deep": lambda w: page("batch-detail", w.huge, **{"from": 9900}),
    "batch of 10,000, failed": lambda w: page("batch-detail", w.huge, state="failed"),
    "batch of 10,000, terminating (none)": lambda w: page("batch-detail", w.huge, state="terminating"),
    "batch of 10,000, one shard": lambda w: page("batch-detail", w.huge, shard=5000),
    "batch of 10,000, live changes": lambda w: page("batch-changes", w.huge),
    "batch of one": lambda w: page("batch-detail", w.batch("total = 1")),
    "instance": lambda w: page("instance-detail", w.instance("AND state = 'success'")),
    "instance with a huge log": lambda w: page("instance-detail", w.chatty()),
    "instance, live changes": lambda w: page("instance-changes", w.chatty(), after=HUGE_LOG_CHUNKS),
    "overview": lambda w: page("home"),
    "overview, live changes": lambda w: page("overview-changes"),
    "overview, timeline": lambda w: page("overview-timeline"),
    "tasks": lambda w: page("task-list"),
    "tasks, live changes": lambda w: page("task-list-changes"),
    "task page": lambda w: page(
        "task-detail", w._one("SELECT id FROM scheduling_task WHERE name = %(name)s", name=w.most)
    ),
    "nodes": lambda w: page("node-list"),
    "journal": lambda w: page("journal"),
    "journal, a person": lambda w: page("journal", person="mei"),
    "journal, an action": lambda w: page("journal", action="stopped"),
    "journal, an object": lambda w: page("journal", object=f"batch {w.huge}"),
}


# --- measuring -------------------------------------------------------------------------------------


@dataclass
class Measured:
    """One address as one person saw it: milliseconds, and what the database had to do."""

    status: int
    first: float
    times: list[float]
    statements: int
    cpu: float
    database_cpu: float
    slow: dict[str, tuple[Any, float]] = field(default_factory=dict)

    @property
    def p50(self) -> float:
        return statistics.median(self.times)

    @property
    def p95(self) -> float:
        return percentile(self.times, 0.95)


class Statements:
    """Counts the statements of a request, and remembers the slow ones with their parameters."""

    def __init__(self) -> None:
        self.count = 0
        self.slow: dict[str, tuple[Any, float]] = {}

    def __call__(self, execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        began = time.perf_counter()
        try:
            return execute(sql, params, many, context)
        finally:
            took = (time.perf_counter() - began) * 1000
            self.count += 1
            if took > LIMIT_MS:
                self.slow[sql] = (params, took)


def measure(client: Client, address: str, runs: int = RUNS) -> Measured:
    """Ask for an address once, and then `runs` times more."""
    heard = Statements()
    with connection.execute_wrapper(heard):
        status, first = _ask(client, address)
        heard.count = 0
        heard.slow.clear()
        cpu, database_cpu = time.process_time(), _database_cpu()
        times = [_ask(client, address)[1] for _ in range(runs)]
        cpu, database_cpu = time.process_time() - cpu, _database_cpu() - database_cpu
    each = 1000 / runs
    return Measured(status, first, times, heard.count // runs, cpu * each, database_cpu * each, heard.slow)


def _database_cpu() -> float:
    """Seconds of the processor that the server's process of this connection has had."""
    stat = Path(f"/proc/{connection.connection.info.backend_pid}/stat").read_text().rpartition(")")[2].split()
    return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")


def _ask(client: Client, address: str) -> tuple[int, float]:
    began = time.perf_counter()
    response = client.get(address)
    return response.status_code, (time.perf_counter() - began) * 1000


def plan_of(sql: str, params: Any) -> str:
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS) {sql}", params)
        return "\n".join(f"        {line}" for (line,) in cursor.fetchall())


@contextmanager
def signed_in(name: str) -> Iterator[tuple[Client, World]]:
    from django.contrib.auth import get_user_model

    user = get_user_model().objects.get(username=name)
    client = Client(headers={"host": "localhost"}, raise_request_exception=False)
    client.force_login(user)
    yield client, World(list(user.memberships.values_list("team", flat=True)))


def pages() -> list[Figure]:
    """Every address as every person; then the same records in a plain admin list, as others do it."""
    build()
    figures = []
    wanted = os.environ.get("BENCH_PAGES", "")
    for person in PEOPLE:
        worst: tuple[float, str] = (0.0, "")
        missing = []
        with signed_in(person) as (client, world):
            print(f"\n{person}\n{'':44}first    p50    p95    cpu db cpu  statements (ms)", flush=True)
            for words, address in ADDRESSES.items():
                if wanted not in words:
                    continue
                try:
                    found = measure(client, address(world))
                except NoReverseMatch:
                    missing.append(words)
                    continue
                _tell(words, found)
                worst = max(worst, (found.p95, words))
        if missing:
            print(f"  no such page: {', '.join(missing)}")
        figures.append(
            Figure(
                f"pages over {RECORDS:,} instances as {person}, worst p95",
                f"{worst[0]:.0f} ms ({worst[1]})",
                f"want ≤ {LIMIT_MS:.0f} ms",
                worst[0] <= LIMIT_MS,
            )
        )
    peer()
    return figures


def _tell(words: str, found: Measured) -> None:
    mark = " " if found.p95 <= LIMIT_MS else "*"
    status = "" if found.status == 200 else f"  {found.status}"
    print(
        f"{mark} {words:40}{found.first:7.0f}{found.p50:7.1f}{found.p95:7.1f}"
        f"{found.cpu:7.1f}{found.database_cpu:7.1f}{found.statements:6}{status}",
        flush=True,
    )
    for sql, (params, took) in found.slow.items():
        print(f"      {took:.0f} ms: {sql[:2000]}\n{plan_of(sql, params)}", flush=True)


# --- the peer --------------------------------------------------------------------------------------


def peer() -> None:
    """A list with numbered pages and a count of all rows, as most consoles have it: Django's own admin."""
    from django.contrib import admin
    from django.contrib.auth import get_user_model

    from scheduling.models import Batch

    class Plain(admin.ModelAdmin):  # type: ignore[type-arg]
        list_display = ("id", "task", "group", "trigger", "state", "created_at", "started_at", "ended_at")
        list_filter = ("state", "trigger")
        list_select_related = ("task", "group")
        ordering = ("-created_at", "-id")
        list_per_page = 50

    user, _ = get_user_model().objects.get_or_create(username="root", is_superuser=True, is_staff=True)
    site = admin.AdminSite()
    plain = Plain(Batch, site)
    last = Batch.objects.count() // 50
    print("\nthe same batches in a list with OFFSET and COUNT(*) (the peer)")
    for words, query in {
        "first page": {},
        "state failed": {"state__exact": "failed"},
        "state terminating": {"state__exact": "terminating"},
        "50 % deep": {"p": last // 2},
        "99 % deep": {"p": int(last * 0.99)},
    }.items():
        times = []
        for _ in range(4):
            request = RequestFactory().get("/", query)
            request.user = user
            began = time.perf_counter()
            plain.changelist_view(request).render()  # type: ignore[attr-defined]
            times.append((time.perf_counter() - began) * 1000)
        print(f"  {words:40}{times[0]:7.0f}{statistics.median(times[1:]):7.1f}", flush=True)
