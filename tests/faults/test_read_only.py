"""PostgreSQL refuses all writes for longer than nodes may be silent; no running job is lost by that."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import psycopg
from django.db import connection

from config import database
from scheduling.models import Execution, Node
from scheduling.states import NodeState, Outcome
from tests.faults.cluster import ENVIRONMENT, cluster, nothing_lost_or_doubled
from tests.processes import database_url, eventually

# Of the cluster under test, in seconds.
NODE_TIMEOUT = float(ENVIRONMENT["TAILRACE_NODE_TIMEOUT"])
# The sentinel kills a worker so long after the deadline of its job.
LATE = 2 * float(ENVIRONMENT["TAILRACE_STOP_GRACE"]) + 3


def refuse_writes(refused: bool) -> None:
    """Let the server refuse the writes of all sessions, as it does while it is out of disk or a standby."""
    with psycopg.connect(database_url(), autocommit=True) as session:
        session.execute(f"ALTER SYSTEM SET default_transaction_read_only = {'on' if refused else 'off'}")
        session.execute("SELECT pg_reload_conf()")


def test_running_jobs_outlive_a_database_that_refuses_writes(
    own_server: database.EmbeddedServer, tmp_path: Path
) -> None:
    with cluster(tmp_path) as running:
        running.start_node("n1")
        running.start_node("n2")
        running.start_scheduler("s1")
        # Half of the jobs run through the whole outage. Half end in it, and report long after their deadline.
        long = running.trigger(4, seconds=3 * NODE_TIMEOUT + LATE)
        short = running.trigger(4, seconds=NODE_TIMEOUT, timeout=round(NODE_TIMEOUT) + 1)
        eventually(lambda: Execution.objects.live().count() == 8, within=20, log=running.log)
        refuse_writes(True)
        began = time.monotonic()
        eventually(lambda: time.monotonic() - began > 2 * NODE_TIMEOUT + LATE + 1, within=60)
        assert Execution.objects.live().count() == 8
        refuse_writes(False)
        recovered = time.monotonic()
        # A full time-out and more: nobody is thought silent after all.
        eventually(lambda: time.monotonic() - recovered > 1.5 * NODE_TIMEOUT, within=60)
        assert set(Node.objects.values_list("state", flat=True)) == {NodeState.ONLINE}
        for batch in (long, short):
            running.ended(batch)
            batch.refresh_from_db()
            assert (batch.state, batch.succeeded) == ("success", 4)
        assert Counter(Execution.objects.values_list("outcome", flat=True)) == {Outcome.SUCCESS: 8}
        assert len(running.effects()) == 8
        connection.close()


def test_a_node_that_dies_while_writes_are_refused_is_found_after_a_full_time_out(
    own_server: database.EmbeddedServer, tmp_path: Path
) -> None:
    with cluster(tmp_path) as running:
        running.start_node("n1", workers=1)
        running.start_node("n2", workers=1)
        running.start_scheduler("s1")
        batch = running.trigger(2, seconds=2 * NODE_TIMEOUT)
        eventually(lambda: Execution.objects.live().count() == 2, within=20, log=running.log)
        refuse_writes(True)
        for process in (running.processes["n1"], *running.processes["n1"].children(recursive=True)):
            process.kill()
        began = time.monotonic()
        eventually(lambda: time.monotonic() - began > 1.5 * NODE_TIMEOUT, within=60)
        refuse_writes(False)
        recovered = time.monotonic()
        eventually(lambda: Node.objects.get(name="n1").state == NodeState.OFFLINE, within=20, log=running.log)
        assert time.monotonic() - recovered > NODE_TIMEOUT
        running.ended(batch)
        nothing_lost_or_doubled(running, batch)
        connection.close()
