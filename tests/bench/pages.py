"""The pages' figures: server time of each page and filter, over ten million instances in a million batches.

`python -m tests.bench pages --keep` makes the records once and keeps them under TAILRACE_VAR; BENCH_RECORDS
asks for fewer. Requests go through the whole of Django in this process, signed in as a member of one team and
as one of three. `cpu` and `db cpu` are what a request takes of the processor here and in PostgreSQL: what
others do on the machine disturbs them less than its time. A page's first hit finds the server's cache as the
pages before left it, and empty for the very first. Of a page over the limit it is told how much of its time its
statements take, with the plans of the heaviest, and how much Python. BENCH_PAGES asks only for addresses with
that in their words.
"""

from __future__ import annotations

import importlib
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.db import connection
from django.test import Client, RequestFactory

from tests.bench.addresses import ADDRESSES, HUGE_LOG_CHUNKS, World
from tests.bench.harness import Figure, percentile

RECORDS = int(os.environ.get("BENCH_RECORDS", "10000000"))
RUNS = int(os.environ.get("BENCH_PAGE_RUNS", "20"))
LIMIT_MS = 50.0
# Name, share of all records, and how many of its batches have not ended.
TEAMS = (("bench-large", 0.7, 200), ("bench-middle", 0.25, 50), ("bench-small", 0.05, 20))
# People by the teams that they see.
PEOPLE = {"member": TEAMS[:1], "member-of-three": TEAMS}
# One cycle instance to so many instances of batches.
CYCLES = RECORDS // 20


# --- the records -----------------------------------------------------------------------------------


def build() -> None:
    """Make the records that are not there yet, and the people who look at them."""
    from django.contrib.auth import get_user_model

    from scheduling import seeding
    from scheduling.models import Membership, Team
    from tests.bench import cycle_records
    from workflows.models import Workflow

    for team, share, unfinished in TEAMS:
        if Team.objects.filter(name=team).exists():
            continue
        instances = int(RECORDS * share)
        print(f"making {instances:,} instances of the team {team}", flush=True)
        for _ in seeding.seed(instances, batches=instances // 10, days=7, team=team, unfinished=unfinished):
            pass
        _huge_log()
        _vacuum()
    for team, share, _unfinished in TEAMS:
        owner = Team.objects.get(name=team)
        if not Workflow.objects.filter(team=owner).exists():
            print(f"making {int(CYCLES * share):,} cycle instances of the team {team}", flush=True)
            cycle_records.seed(int(CYCLES * share), team=owner)
            _vacuum()
    for name, teams in PEOPLE.items():
        user, _ = get_user_model().objects.get_or_create(username=name)
        for team, _share, _unfinished in teams:
            Membership.objects.get_or_create(
                user=user, team=Team.objects.get(name=team), defaults={"role": "operator"}
            )


def _vacuum() -> None:
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")


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


# --- measuring -------------------------------------------------------------------------------------


@dataclass
class Statement:
    """A statement as a page asked for it: how often, how long it took in all, and with what the last time."""

    count: int = 0
    took: float = 0.0
    params: Any = None


@dataclass
class Measured:
    """One address as one person saw it: milliseconds, and what the database had to do."""

    status: int
    first: float
    times: list[float]
    cpu: float
    database_cpu: float
    asked: dict[str, Statement]

    @property
    def p50(self) -> float:
        return statistics.median(self.times)

    @property
    def p95(self) -> float:
        return percentile(self.times, 0.95)

    @property
    def mean(self) -> float:
        return statistics.mean(self.times)

    @property
    def statements(self) -> int:
        return sum(each.count for each in self.asked.values()) // len(self.times)

    @property
    def waited(self) -> float:
        """Of `mean`, how long its statements took."""
        return sum(each.took for each in self.asked.values()) / len(self.times)

    @property
    def heaviest(self) -> list[tuple[str, Statement]]:
        """The statement that took longest, and all that took a tenth of the time."""
        ordered = sorted(self.asked.items(), key=lambda item: item[1].took, reverse=True)
        return ordered[:1] + [each for each in ordered[1:] if each[1].took >= sum(self.times) / 10]


class Statements:
    """Counts the statements of requests, and how long each took."""

    def __init__(self) -> None:
        self.asked: dict[str, Statement] = defaultdict(Statement)

    def __call__(self, execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        began = time.perf_counter()
        try:
            return execute(sql, params, many, context)
        finally:
            one = self.asked[sql]
            one.count += 1
            one.took += (time.perf_counter() - began) * 1000
            one.params = params


def measure(client: Client, address: str, runs: int = RUNS) -> Measured:
    """Ask for an address once, and then `runs` times more."""
    heard = Statements()
    with connection.execute_wrapper(heard):
        status, first = _ask(client, address)
        heard.asked.clear()
        cpu, database_cpu = time.process_time(), _database_cpu()
        times = [_ask(client, address)[1] for _ in range(runs)]
        cpu, database_cpu = time.process_time() - cpu, _database_cpu() - database_cpu
    each = 1000 / runs
    return Measured(status, first, times, cpu * each, database_cpu * each, heard.asked)


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
    # As the web server loads it, with what that leaves out of the collection of garbage.
    importlib.import_module("config.wsgi")
    figures = []
    wanted = os.environ.get("BENCH_PAGES", "")
    for person in PEOPLE:
        worst: tuple[float, str] = (0.0, "")
        with signed_in(person) as (client, world):
            print(f"\n{person}\n{'':44}first    p50    p95    cpu db cpu  statements (ms)", flush=True)
            for words, address in ADDRESSES.items():
                if wanted not in words:
                    continue
                found = measure(client, address(world))
                _tell(words, found)
                worst = max(worst, (found.p95, words))
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
    if found.p95 > LIMIT_MS:
        _tell_why(found)


def _tell_why(found: Measured) -> None:
    """Where the time of a page goes that takes too long, and how PostgreSQL plans what takes most of it."""
    python, share = found.mean - found.waited, 100 * found.waited / found.mean
    print(
        f"      of {found.mean:.0f} ms on average: {found.waited:.0f} ms ({share:.0f} %) in {found.statements} "
        f"statements, {python:.0f} ms ({100 - share:.0f} %) in Python",
        flush=True,
    )
    for sql, each in found.heaviest:
        print(f"      {each.took / each.count:.1f} ms: {sql[:2000]}\n{plan_of(sql, each.params)}", flush=True)


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
