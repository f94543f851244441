"""Whether the installation works: the database, the scheduling, the nodes of each group, the outbox.

`/healthz` answers from it within seconds, also when the network drops all packets to the database: the database
is asked in a thread of its own, one for all requests at a time.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, NamedTuple

from django.db import Error, connection, transaction
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, JsonResponse
from django.utils.cache import add_never_cache_headers
from django.utils.translation import gettext as _
from django.utils.translation import override

from config import clock
from scheduling.engine.lead import FROZEN_SECONDS, LEAD_KEY, LED
from scheduling.words import length

logger = logging.getLogger(__name__)
_watch_clock = clock.Watch()

# A leader looks at all that is due every ten seconds at least; a long round takes a few more.
LATE_ROUND_SECONDS = 60.0
WAIT_SECONDS = 2.0

_SCHEDULING = f"""
SELECT {LED} AS led,
    (SELECT extract(epoch FROM clock_timestamp() - max(last_round_at))::float
        FROM scheduling_schedulerprocess WHERE leads) AS round_age,
    (SELECT count(*) FROM scheduling_schedulerprocess
        WHERE NOT leads AND heartbeat_at > clock_timestamp() - make_interval(secs => %(silent)s)) AS standby
"""
_GROUPS = """
SELECT scheduling_deploymentgroup.id, count(*) FILTER (WHERE state = 'online'),
    count(*) FILTER (WHERE state = 'draining'), count(*) FILTER (WHERE state = 'offline')
FROM scheduling_deploymentgroup LEFT JOIN scheduling_node ON group_id = scheduling_deploymentgroup.id
GROUP BY scheduling_deploymentgroup.id ORDER BY scheduling_deploymentgroup.id
"""
_OUTBOX = """
SELECT extract(epoch FROM clock_timestamp() - min(created_at))::float
FROM scheduling_notification WHERE state = 'waiting'
"""


class Scheduling(NamedTuple):
    """Whether a scheduler leads, how many seconds ago it finished its last round, how many stand by."""

    led: bool
    round_age: float | None
    standby: int

    @property
    def works(self) -> bool:
        return self.led and self.round_age is not None and self.round_age <= LATE_ROUND_SECONDS

    def in_words(self) -> str:
        """Why nothing is scheduled and what to do, or the empty string."""
        if self.works:
            return ""
        if not self.led:
            return _("No scheduler leads, so nothing is scheduled. Start one: manage.py scheduler")
        if self.round_age is None:
            return _("The leading scheduler reports no rounds. Restart it: manage.py scheduler")
        text = _("The leading scheduler finished its last round %(ago)s ago. See its log, or restart it.")
        return text % {"ago": length(timedelta(minutes=self.round_age // 60))}


def scheduling() -> Scheduling:
    """Whether anything is scheduled, from the lead's lock and the schedulers' heartbeats."""
    with connection.cursor() as cursor:
        cursor.execute(_SCHEDULING, {"lead": LEAD_KEY, "silent": FROZEN_SECONDS})
        return Scheduling(*cursor.fetchone())


class Report(NamedTuple):
    """The answer of `/healthz`: its status and its body."""

    status: int
    body: dict[str, Any]


def read() -> Report:
    """Ask the database for everything; raises django.db.Error when it does not answer."""
    with transaction.atomic(), connection.cursor() as cursor:
        if why := _watch_clock((clock.own() - clock.now()).total_seconds()):
            logger.warning("%s", why)
        cursor.execute("SELECT set_config('statement_timeout', %s, true)", [f"{WAIT_SECONDS * 1000:.0f}ms"])
        found = scheduling()
        cursor.execute(_GROUPS)
        groups = [
            dict(zip(("group", "online", "draining", "offline"), row, strict=True)) for row in cursor.fetchall()
        ]
        cursor.execute(_OUTBOX)
        [waiting] = cursor.fetchone()
    with override("en"):
        problem = found.in_words()
    body = {
        "status": "ok" if found.works else "nothing is scheduled",
        "problem": problem,
        "database": "ok",
        "scheduler": {
            "leading": found.led,
            "last_round_seconds_ago": _rounded(found.round_age if found.led else None),
            "standing_by": found.standby,
        },
        "nodes": groups,
        "outbox": {"oldest_waits_seconds": _rounded(waiting)},
    }
    return Report(200 if found.works else 503, body)


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(max(seconds, 0.0), 1)


def _unavailable(problem: str) -> Report:
    body = {"status": "database unavailable", "problem": problem, "database": "unavailable"}
    return Report(503, body)


class _Run:
    """One look at the database, in a thread."""

    def __init__(self, look: Callable[[], Report]) -> None:
        self._look = look
        self.began = time.monotonic()
        self.report: Report | None = None
        self.done = threading.Event()
        threading.Thread(target=self._run, name="health", daemon=True).start()

    def _run(self) -> None:
        try:
            self.report = self._look()
        except Error as error:
            logger.warning("The health check failed: %s", " ".join(str(error).split()))
            self.report = _unavailable("The database refuses the health check. The web's log says why.")
        finally:
            connection.close()
            self.done.set()


class SharedCheck:
    """Calls of many threads share one look at the database, and wait for it for WAIT_SECONDS at most."""

    def __init__(self, look: Callable[[], Report] = read) -> None:
        self._look = look
        self._lock = threading.Lock()
        self._run: _Run | None = None

    def __call__(self) -> Report:
        with self._lock:
            if self._run is None or self._run.done.is_set():
                self._run = _Run(self._look)
            run = self._run
        # One that hangs already is not waited for again.
        run.done.wait(max(0.0, run.began + WAIT_SECONDS - time.monotonic()))
        return run.report or _unavailable(
            f"The database has not answered for {time.monotonic() - run.began:.0f} s. "
            "Check that it runs and that the network reaches it."
        )


class HealthMiddleware:
    """Answers `/livez` and `/healthz` before anything else does: sessions and pages need the database."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response
        self._answers: dict[str, Callable[[], Report]] = {
            "/livez": lambda: Report(200, {"status": "ok"}),
            "/healthz": SharedCheck(),
        }

    def __call__(self, request: HttpRequest) -> HttpResponse:
        answer = self._answers.get(request.path_info)
        if answer is None:
            return self._get_response(request)
        if request.method not in {"GET", "HEAD"}:
            return HttpResponseNotAllowed(["GET", "HEAD"])
        status, body = answer()
        response = JsonResponse(body, status=status)
        add_never_cache_headers(response)
        return response
